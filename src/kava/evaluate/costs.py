"""Measure the cost of answers: several models take turns on the same items and machine.

The items are divided into rounds. In each round every model answers all of its items, and the order
of the models rotates from round to round, so that a temporary slowdown affects all of them. An
uncounted warm-up batch comes first. All models use the same loop over the same kind of cache, for
written and latent reasoning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kava.data.records import Record, Template
from kava.evaluate.results import summarise
from kava.flags import check_once
from kava.student.answering import Answers, answer_records
from kava.student.checkpoint import LoadedStudent
from kava.student.latent import LatentStudent
from kava.student.prompts import check_questions


@dataclass(frozen=True)
class Contender:
    """A model whose cost is measured.

    Attributes:
        label: its name in the table.
        student: the model, its tokenizer and its settings.
        template: turns a question into a prompt.
        max_new_tokens: maximum tokens of an answer; None: the default for its kind.
    """

    label: str
    student: LoadedStudent
    template: Template
    max_new_tokens: int | None = None

    @property
    def writes(self) -> bool:
        """Whether the model writes its reasoning."""
        return not isinstance(self.student.model, LatentStudent)

    @property
    def thinks(self) -> str:
        """A short description of how it reasons."""
        if not isinstance(self.student.model, LatentStudent):
            return "written"
        config = self.student.model.config
        if config.num_latents == 0:
            return "not at all"
        if not config.makes_latents:
            return f"{config.num_latents} pause tokens"
        if config.decoding == "sequential":
            return f"{config.num_latents} latents"
        return f"{config.num_latents} latents, {config.num_iterations} Jacobi"


@dataclass(frozen=True)
class Ratio:
    """A cost relative to written reasoning: over all items, in the best and in the worst round."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """The cost of one model's answers at one batch size.

    Attributes:
        label: the model's name.
        checkpoint: the path it was loaded from.
        thinks: a short description of how it reasons.
        writes: whether it writes its reasoning.
        batch_size: questions at a time.
        figures: the result of `summarise`.
        round_seconds: wall time of each round.
        passes_ratio: forward passes relative to written reasoning; None if no model writes its
            reasoning.
        time_ratio: the same for wall time.
    """

    label: str
    checkpoint: str
    thinks: str
    writes: bool
    batch_size: int
    figures: dict[str, Any]
    round_seconds: tuple[float, ...]
    passes_ratio: float | None = None
    time_ratio: Ratio | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figures flat, for JSON."""
        values = asdict(self)
        return {**{k: v for k, v in values.items() if k != "figures"}, **self.figures}


def rounds_of(records: Sequence[Record], batch_size: int, num_rounds: int) -> list[list[Record]]:
    """Divide items into at most `num_rounds` rounds of whole batches; the last may be shorter.

    Example:
        >>> [len(part) for part in rounds_of(list(range(100)), 32, 5)]
        [32, 32, 32, 4]
    """
    num_batches = -(-len(records) // batch_size)
    size = -(-num_batches // num_rounds) * batch_size
    return [list(records[start : start + size]) for start in range(0, len(records), size)]


def check_costs(
    labels: Sequence[str], num_items: int, batch_sizes: Sequence[int], num_rounds: int
) -> None:
    """Refuse settings that would make the figures misleading.

    Raises:
        ValueError: a repeated label or batch size, a batch larger than the number of items, or
            fewer than one round.
    """
    check_once("the label", labels, "name each model by --labels")
    check_once("--batch_size", batch_sizes, "name each once")
    for size in batch_sizes:
        if not 1 <= size <= num_items:
            raise ValueError(
                f"--batch_size {size} must be from 1 to the {num_items} items there are"
            )
    if num_rounds < 1:
        raise ValueError(f"--rounds {num_rounds} must be at least 1")


def measure_costs(
    contenders: Sequence[Contender],
    records: Sequence[Record],
    *,
    batch_sizes: Sequence[int] = (1,),
    num_rounds: int = 5,
    advance: Callable[[int], object] = lambda count: None,
) -> list[Cost]:
    """Let every model answer the same items, and measure passes, tokens and time.

    Args:
        contenders: the models; costs are divided by those of the first that writes its reasoning.
        records: the items.
        batch_sizes: questions per batch; each size is measured separately.
        num_rounds: number of turns per model.
        advance: called with the number of new answers.

    Returns:
        A cost per batch size and model, in this order.

    Raises:
        ValueError: as `check_costs`; or a prompt that does not fit a model.

    Example:
        >>> measure_costs([Contender("written", student, student.template)], records)
    """
    check_costs([one.label for one in contenders], len(records), batch_sizes, num_rounds)
    for one in contenders:
        check_questions(
            one.student.model, one.student.tokenizer, records, one.template, one.max_new_tokens
        )
    costs = []
    for batch_size in batch_sizes:
        costs += _at_batch_size(contenders, records, batch_size, num_rounds, advance)
    return costs


def _at_batch_size(
    contenders: Sequence[Contender],
    records: Sequence[Record],
    batch_size: int,
    num_rounds: int,
    advance: Callable[[int], object],
) -> list[Cost]:
    parts: list[list[Answers]] = [[] for _ in contenders]
    for contender in contenders:
        _answer(contender, records[:batch_size], batch_size)  # not counted
    for number, some in enumerate(rounds_of(records, batch_size, num_rounds)):
        for turn in range(len(contenders)):
            index = (number + turn) % len(contenders)
            parts[index].append(_answer(contenders[index], some, batch_size))
            advance(len(some))
    written = next((index for index, one in enumerate(contenders) if one.writes), None)
    reference = None if written is None else parts[written]
    return [
        _cost(contender, batch_size, answered, reference)
        for contender, answered in zip(contenders, parts)
    ]


def _answer(contender: Contender, records: Sequence[Record], batch_size: int) -> Answers:
    return answer_records(
        contender.student.model,
        contender.student.tokenizer,
        records,
        contender.template,
        batch_size=batch_size,
        max_new_tokens=contender.max_new_tokens,
    )


def _joined(parts: Sequence[Answers]) -> Answers:
    return Answers(
        tuple(item for part in parts for item in part.items), sum(part.seconds for part in parts)
    )


def _cost(
    contender: Contender,
    batch_size: int,
    parts: Sequence[Answers],
    reference: Sequence[Answers] | None,
) -> Cost:
    joined = _joined(parts)
    passes_ratio = time_ratio = None
    if reference is not None:
        written = _joined(reference)
        passes_ratio = joined.forward_passes / written.forward_passes
        ratios = [ours.seconds / theirs.seconds for ours, theirs in zip(parts, reference)]
        time_ratio = Ratio(joined.seconds / written.seconds, min(ratios), max(ratios))
    return Cost(
        label=contender.label,
        checkpoint=contender.student.path,
        thinks=contender.thinks,
        writes=contender.writes,
        batch_size=batch_size,
        figures=summarise(joined),
        round_seconds=tuple(part.seconds for part in parts),
        passes_ratio=passes_ratio,
        time_ratio=time_ratio,
    )
