"""Training samples that are read and encoded while the run uses them (`--streaming`).

The first samples of the first pass are held as well: maps and layers are fitted on them. The others
are encoded one by one, checked as they come, and dropped behind their batch. Passes follow each
other without an end, so that a resumed run finds its place by counting samples from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING

from torch.utils.data import IterableDataset

from kava.data.encoded import DoesNotFit, Encoded
from kava.data.gold import check_golds
from kava.data.leakage import question_key
from kava.data.records import Record
from kava.data.stream import RecordStream
from kava.errors import KavaError
from kava.models.limits import THOUGHT_TOKENS
from kava.models.readable import fitting
from kava.models.tokenizers import reads_alike
from kava.train.config import TrainConfig
from kava.train.data import Data, encode_samples, needed_reasoning
from kava.train.limits import Readers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kava.data.records import Template

LEAST_HEAD = 64
"""Samples that are read before the run, at least."""


def stream_of(config: TrainConfig) -> RecordStream:
    """The stream of a configuration.

    Raises:
        ValueError: data that cannot be streamed.
    """
    stream = RecordStream(
        config.dataset_name, config.split, config, config.shuffle_buffer, config.seed
    )
    stream.check()
    return stream


def head_of(config: TrainConfig, stream: RecordStream) -> list[Record]:
    """The first records of the first pass, as many as the fits before training read.

    Raises:
        ValueError: an empty source, or a malformed row.
    """
    fits = config.matches_cache and (config.calibrates or config.measures_layers)
    size = max(config.calibration_samples if fits else 0, config.batch_size, LEAST_HEAD)
    records = list(islice(stream.records(0), size))
    if not records:
        raise ValueError(f"{config.dataset_name} is empty: it holds no row")
    return records


def with_stream(
    config: TrainConfig,
    data: Data,
    stream: RecordStream,
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None],
    limits: Readers,
) -> Data:
    """The data of a run with the stream that it trains on.

    Args:
        config: the run's configuration.
        data: the beginning of the stream, encoded, and the held-out samples.
        stream: the records.
        tokenizers: the student's, and that of another teacher.
        limits: what the models can read.
    """
    strict = replace(config, overflow="error")
    ours, theirs = tokenizers
    own = any(sample.teacher is not None for sample in data.train)
    thought = config.target_len + THOUGHT_TOKENS if config.student == "latent" else None

    def encode(record: Record) -> Encoded:
        samples, _ = encode_samples(
            strict,
            [record],
            tokenizers=(ours, theirs if own else None),
            template=data.template,
            readers=(),
            target_len=needed_reasoning(config),
        )
        if theirs is not None and not own:
            text = data.template.render(record).text
            if not reads_alike(ours, theirs, [text]):
                raise ValueError(
                    f"the tokenizers of {config.model_name} and {config.teacher_name} give "
                    f"{record.named} other ids, and gave the first {len(data.train)} samples the "
                    f"same: leave --streaming out"
                )
        (sample,) = fitting(samples, limits.student, limits.teacher, "error", thought=thought)
        return sample

    skips = config.overflow == "skip"
    samples = StreamedSamples(stream, encode, data.template, data.eval_records, skips=skips)
    return replace(data, stream=samples, hash=stream.fingerprint())


class StreamedSamples(IterableDataset):
    """Encoded samples without an end.

    Args:
        stream: the records.
        encode: encodes one record; raises `DoesNotFit` for one that cannot be used.
        template: that turns records into text.
        held_out: questions that must not be trained on.
        skips: whether samples that do not fit are left out (`--overflow skip`).
    """

    def __init__(
        self,
        stream: RecordStream,
        encode: Callable[[Record], Encoded],
        template: Template,
        held_out: list[Record],
        *,
        skips: bool,
    ):
        self.stream = stream
        self.encode = encode
        self.template = template
        self.held_out = {question_key(record.question): record.id for record in held_out}
        self.skips = skips

    def __iter__(self) -> Iterator[Encoded]:
        """The samples of pass after pass, from the first.

        Raises:
            DoesNotFit: a sample that does not fit, where none is left out.
            KavaError: a whole pass without a sample that fits.
            ValueError: a malformed row, or a question that is held out.
        """
        for number in count():
            found = False
            for record in self.stream.records(number):
                sample = self._sample(record)
                if sample is not None:
                    found = True
                    yield sample
            if not found:
                raise KavaError(
                    f"no sample of {self.stream.name} fits: raise --max_length, or lower "
                    f"--target_len"
                )

    def _sample(self, record: Record) -> Encoded | None:
        check_golds([record], self.template)
        also = self.held_out.get(question_key(record.question))
        if also is not None:
            raise ValueError(
                f"{record.named} asks the question of {also!r}, which is held out: take it out of "
                f"one of the two (kava leaks names all of them)"
            )
        try:
            return self.encode(record)
        except DoesNotFit:
            if self.skips:
                return None
            raise
