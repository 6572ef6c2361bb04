"""Several processes share the batches of training, and the questions of an evaluation.

Together they see the batches of one process, the last one too: accelerate fills the last batch of
an epoch up with samples from its beginning, which one process does not see there. Here the samples
that are left are divided among the processes, and a process without any reads a copy of one that
counts nothing, since every process must take every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import replace
from typing import Any, overload

from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import DataLoader, Sampler

from kava.data.encoded import Encoded
from kava.data.records import Record
from kava.ranks import Ranks
from kava.student.answering import Answers


class Samples(list[Encoded]):
    """The samples of a data set; an index behind the end is a copy that counts nothing.

    Example:
        >>> samples = Samples(encoded)
        >>> samples[len(samples) + 2].counts, samples[2].counts
        (False, True)
    """

    @overload  # type: ignore[override]
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice) or index < len(self):
            return super().__getitem__(index)
        return replace(super().__getitem__(index - len(self)), counts=False)


class ShareOfBatches:
    """The share of one process in the batches of all.

    Args:
        sampler: the order of the samples, the same in every process.
        batch_size: samples of one process.
        num_processes: number of processes.
        process_index: which of them this is.

    Example:
        >>> [list(ShareOfBatches(range(5), 2, 2, rank)) for rank in (0, 1)]
        [[[0, 1], [4]], [[2, 3], [9]]]
    """

    def __init__(
        self,
        sampler: Sampler[int] | Sequence[int],
        batch_size: int,
        num_processes: int,
        process_index: int,
    ):
        self.sampler, self.batch_size = sampler, batch_size
        self.num_processes, self.process_index = num_processes, process_index
        self.drop_last = False

    def __len__(self) -> int:
        assert isinstance(self.sampler, Sized)
        return -(-len(self.sampler) // (self.batch_size * self.num_processes))

    def __iter__(self) -> Iterator[list[int]]:
        whole: list[int] = []
        for index in self.sampler:
            whole.append(index)
            if len(whole) == self.batch_size * self.num_processes:
                yield self._share(whole)
                whole = []
        if whole:
            yield self._share(whole)

    def _share(self, whole: list[int]) -> list[int]:
        start, end = (
            -(-len(whole) * rank // self.num_processes)
            for rank in (self.process_index, self.process_index + 1)
        )
        assert isinstance(self.sampler, Sized)
        return whole[start:end] or [len(self.sampler) + whole[0]]


def share_batches(loader: DataLoader[Any], num_processes: int, process_index: int) -> None:
    """Let a loader that accelerate prepared for several processes divide the last batch, too.

    Args:
        loader: the loader of the training data, `Samples`.
        num_processes: number of processes; with one nothing is changed.
        process_index: which of them this is.
    """
    shard = loader.batch_sampler
    if num_processes == 1 or not isinstance(shard, BatchSamplerShard):
        return
    inner = shard.batch_sampler
    shard.batch_sampler = ShareOfBatches(
        inner.sampler, inner.batch_size, num_processes, process_index
    )
    # nothing is left for accelerate to divide or to fill up
    shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False


def share_questions(
    ranks: Ranks, records: Sequence[Record], answer: Callable[[list[Record]], Answers]
) -> Answers:
    """The answers to all records, of which each process gives its share.

    Args:
        ranks: the processes.
        records: the questions, the same in every process.
        answer: answers some of them.

    Returns:
        The answers in the order of the records, in every process; `seconds` are those of the
        slowest.
    """
    if ranks.count == 1:
        return answer(list(records))
    own = ranks.share(records)
    shares = ranks.together(lambda: answer(own) if own else Answers((), 0.0))
    count = len(shares)
    items = tuple(shares[place % count].items[place // count] for place in range(len(records)))
    return Answers(items, max(share.seconds for share in shares))
