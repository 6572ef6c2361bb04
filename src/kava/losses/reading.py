"""Which link between the teacher's reasoning and the student's answer is broken.

    written reasoning ─► the target in place of the latents ─► the latents ─► the answer

A student that does not read reasoning at all cannot read a target, and a student that cannot read
its target gains nothing from latents that match it. The accuracies come from `kava.train.reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Link = Literal["unread", "target_unread", "not_carried", "carried"]

HALF = 0.5
"""A link holds if it gains at least this share of what it could."""


class ReadingVerdict(NamedTuple):
    """The first link that is broken, and a sentence that says so with its numbers."""

    state: Link
    sentence: str


def reading_verdict(
    accuracy: Mapping[str, float], earlier_written: float = 0.0
) -> ReadingVerdict | None:
    """Name the broken link.

    Gains count from the accuracy with another sample's latents: what the prompt alone gives away.
    Text and target are read if they gain half of what there is to gain (the reasoning is the gold
    one, behind which an answer is easy); latents carry a target that is read if they gain half of
    what it does.

    Args:
        accuracy: from 0 to 1, of `written`, `latents` and `wrong_sample`, and of `target` where
            there is one.
        earlier_written: the highest accuracy from written reasoning so far.

    Returns:
        None where the student has no latents, or no other sample was at hand.

    Example:
        >>> reading = {"written": 0.05, "target": 0.04, "latents": 0.04, "wrong_sample": 0.04}
        >>> reading_verdict(reading).state, reading_verdict(reading, 1.0).sentence[:40]
        ('unread', 'the student no longer reads reasoning: a')
        >>> reading_verdict({**reading, "written": 1.0, "target": 0.98}).state
        'not_carried'
    """
    if "wrong_sample" not in accuracy:
        return None
    gains = {name: value - accuracy["wrong_sample"] for name, value in accuracy.items()}
    enough = HALF * (1 - accuracy["wrong_sample"])
    source = "target" if "target" in accuracy else "written"
    is_read = gains[source] >= enough
    if gains["latents"] >= (HALF * gains[source] if is_read else enough) and gains["latents"] > 0:
        state, said = "carried", "the latents carry what the answer needs"
    elif is_read:
        what = "target" if source == "target" else "reasoning"
        state, said = "not_carried", f"the latents do not carry the {what}"
    elif gains["written"] < enough:
        again = "no longer reads" if earlier_written >= HALF else "does not read"
        state, said = "unread", f"the student {again} reasoning"
    else:
        state, said = "target_unread", "the target cannot be read"
    return ReadingVerdict(state, f"{said}: {reading_numbers(accuracy)}")  # type: ignore[arg-type]


PREFIX = "eval_reading_"


def reading_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """The accuracies among the metrics of an evaluation; empty of another row of the log.

    Example:
        >>> reading_of({"eval_ce": 1.2, "eval_reading_written": 1.0})
        {'written': 1.0}
    """
    return {
        name.removeprefix(PREFIX): value
        for name, value in metrics.items()
        if name.startswith(PREFIX)
    }


def reading_numbers(accuracy: Mapping[str, float]) -> str:
    """The accuracies in one line.

    Example:
        >>> reading_numbers({"written": 1.0, "latents": 0.5})
        'answers right from written reasoning 100.0 %, latents 50.0 %'
    """
    names = {
        "written": "written reasoning",
        "target": "the target",
        "latents": "latents",
        "wrong_sample": "another sample's latents",
    }
    parts = [f"{label} {accuracy[name]:.1%}" for name, label in names.items() if name in accuracy]
    return "answers right from " + ", ".join(parts).replace("%", " %")
