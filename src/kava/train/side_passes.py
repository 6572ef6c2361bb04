"""The passes of several teachers over one batch, each over its own samples.

A teacher that is not asked for a sample does not read it: its samples are a part of the batch, and
what it leaves behind is put back in place. Teachers that are one model and read one text share a
pass.

Shapes: B batch, N teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kava.data.collate import Batch
from kava.models.offload import Resting
from kava.store.teacher import StoredPass, StoredTeacher
from kava.trace import KVTrace
from kava.train.config import TrainConfig
from kava.train.router_terms import summed_ce
from kava.train.side_batch import part_of, place, text_of, to_text
from kava.train.target import TargetBuilder
from kava.train.teacher_pass import Pass, read_frozen
from kava.train.teaching import Teacher
from kava.train.wrong_sample import of_sample_before


@dataclass(frozen=True)
class Read:
    """What one teacher left behind over its samples.

    Attributes:
        target: at the student's slots.
        answer_B: log-probability of the answer, summed over its tokens.
        text_B: cross-entropy of reasoning and answer, summed over the teacher's tokens.
    """

    target: KVTrace
    answer_B: Tensor | None = None
    text_B: Tensor | None = None


class SidePasses:
    """Reads batches with several teachers.

    Args:
        config: the run's configuration.
        teachers: the frozen models, or stored ones; one may stand there twice.
        builders: what makes the target of each.
        reads: the fields of `kava.fuse.Offers` that the fusion reads.
        queries: record queries, too.
        resting: which teachers are elsewhere between their passes.
    """

    def __init__(
        self,
        config: TrainConfig,
        teachers: Sequence[Teacher],
        builders: Sequence[TargetBuilder],
        reads: frozenset[str],
        queries: bool,
        resting: Resting,
    ):
        self.config = config
        self.teachers = tuple(teachers)
        self.builders = tuple(builders)
        self.reads = reads
        self.queries = queries
        self.resting = resting

    def read(self, batch: Batch, present_BN: Tensor, chosen_B: Tensor | None) -> list[Read | None]:
        """Each teacher's reading of its samples; None of one that reads none.

        Args:
            batch: as the collator makes it.
            present_BN: which teacher reads which sample.
            chosen_B: the one teacher of each sample; None: all that are there.
        """
        whole, wrong = batch, self.config.wrong_sample
        passes: dict[tuple[int, int], Pass] = {}
        read: list[Read | None] = []
        for n in range(len(self.teachers)):
            mine_B = present_BN[:, n]
            if chosen_B is not None:
                mine_B = mine_B & (chosen_B == n)
            if not bool(mine_B.any()):
                read.append(None)
                continue
            own = text_of(whole, n)
            rows = None if wrong or bool(mine_B.all()) else mine_B.nonzero()[:, 0]
            part = own if rows is None else part_of(own, rows)
            read.append(self._read_one(n, part, rows, len(mine_B), passes))
        return read

    def _read_one(
        self,
        n: int,
        batch: Batch,
        rows: Tensor | None,
        batch_size: int,
        passes: dict[tuple[int, int], Pass],
    ) -> Read:
        key = (id(self.teachers[n]), batch["first_reader"][n])
        if rows is not None or key not in passes:
            found = self._pass(n, batch)
            if rows is None:
                passes[key] = found
        else:
            found = passes[key]
        before = None
        # a text that it does not read is in the student's tokens; its row is masked
        if self.config.wrong_sample and "before" in batch and batch["before"]["present"][0, n]:
            before = self._pass(n, batch["before"])
        trace_before = None if before is None else before.trace
        target = self.builders[n](found.trace, batch, trace_before)
        trace = target.trace
        if self.config.student == "explicit":
            trace = to_text(trace, target.columns, batch["input_ids"].shape[1])
        answer_B, text_B = likelihoods(found, self.reads)
        if self.config.wrong_sample:
            others = (None, None) if before is None else likelihoods(before, self.reads)
            answer_B, text_B = (
                None if own is None else of_sample_before(own, other)
                for own, other in zip((answer_B, text_B), others)
            )
        if rows is not None:
            trace = place(trace, rows, batch_size)
            answer_B, text_B = (
                None if part is None else part.new_zeros(batch_size).index_copy(0, rows, part)
                for part in (answer_B, text_B)
            )
        return Read(trace, answer_B, text_B)

    def _pass(self, n: int, batch: Batch) -> Pass:
        """One pass of a teacher; its output head only where a fusion reads likelihoods."""
        teacher = self.teachers[n]
        if isinstance(teacher, StoredTeacher):
            return teacher.read(batch, n)
        with self.resting.awake(teacher):
            return read_frozen(
                teacher,
                batch,
                chunk=self.config.capture_chunk,
                queries=self.queries,
                hidden_states=False,
                likelihood=bool(self.reads & {"answer_BN", "text_BN"}),
            )


def likelihoods(found: Pass, reads: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
    """Log-probability of the answer, and cross-entropy of the text, where a fusion reads them."""
    if isinstance(found, StoredPass):
        return found.answer_B, found.text_B
    answer = -summed_ce(found.logits, found.answer_labels) if "answer_BN" in reads else None
    text = summed_ce(found.logits, found.labels) if "text_BN" in reads else None
    return answer, text


def signal_of(read: Sequence[Read | None], name: str) -> Tensor | None:
    """[B, N]: a number of `Read` for each teacher, 0 of one that has not read; None: of none."""
    parts = [None if one is None else getattr(one, name) for one in read]
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    return torch.stack([torch.zeros_like(known) if p is None else p for p in parts], -1)
