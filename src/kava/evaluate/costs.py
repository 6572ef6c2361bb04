"""What answers cost: several models on the same items, in turns, so that all meet the same machine.

The items are cut into rounds. In each, every model answers all of the round's items, and which
one begins moves on by one from round to round: a machine that slows down for a while slows all of
them. A batch that is not counted comes first, for what a first call sets up. All models use the
same loop over the same kind of cache, whether they write their reasoning or think in latents.
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
    """A model that takes part.

    Attributes:
        label: what it is called.
        student: the model, its tokenizer and its settings.
        template: how a question becomes its prompt.
        max_new_tokens: most tokens of an answer; None: what its kind takes by default.
    """

    label: str
    student: LoadedStudent
    template: Template
    max_new_tokens: int | None = None

    @property
    def writes(self) -> bool:
        """Whether it writes its reasoning."""
        return not isinstance(self.student.model, LatentStudent)

    @property
    def thinks(self) -> str:
        """How it reasons, in a few words."""
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
    """A cost over that of written reasoning: of all items, in its best round and in its worst."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What one model's answers cost at one batch size.

    Attributes:
        label: the model's.
        checkpoint: where it was loaded from.
        thinks: how it reasons.
        writes: whether it writes its reasoning.
        batch_size: questions at a time.
        figures: as `summarise` gives them.
        round_seconds: wall time of each round.
        passes_ratio: forward passes over those of written reasoning; None where no model
            writes its reasoning.
        time_ratio: likewise, wall time.
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
    """The items in rounds of whole batches, at most so many; the last may be shorter.

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
    """Refuse settings under which figures would not mean what they say.

    Raises:
        ValueError: a label or batch size that stands twice, a batch that the items do not fill,
            or fewer than one round.
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
    """Let every model answer the same items, and count.

    Args:
        contenders: the models; the first that writes its reasoning is what the others' costs are
            divided by.
        records: the items.
        batch_sizes: questions at a time; each is measured by itself.
        num_rounds: turns that the models take.
        advance: is told how many answers were given since the last call.

    Returns:
        A cost for each batch size and model, in this order.

    Raises:
        ValueError: see `check_costs`; a prompt that does not fit a model.

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
