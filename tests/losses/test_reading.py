"""Which link between a teacher's reasoning and a student's answer is named as the broken one."""

from __future__ import annotations

import pytest

from kava.losses.reading import reading_verdict

CASES = [
    # written, target, latents, wrong sample; state
    (1.00, 1.00, 1.00, 0.04, "carried"),
    (1.00, 0.98, 0.05, 0.04, "not_carried"),
    (1.00, 0.06, 0.05, 0.04, "target_unread"),
    (0.05, 0.05, 0.04, 0.04, "unread"),
    # read nothing, and yet right from latents, which say more than the text to it
    (0.05, 0.05, 0.90, 0.04, "carried"),
    # a graded task: half of what the target gains is enough
    (0.97, 0.80, 0.55, 0.20, "carried"),
    (0.97, 0.80, 0.45, 0.20, "not_carried"),
    # right for the prompt's sake, whatever the latents hold
    (1.00, 1.00, 0.60, 0.60, "not_carried"),
    # no target
    (1.00, None, 0.05, 0.04, "not_carried"),
    (0.05, None, 0.05, 0.04, "unread"),
    (1.00, None, 0.90, 0.04, "carried"),
    # nothing to gain
    (1.00, 1.00, 1.00, 1.00, "not_carried"),
]


@pytest.mark.parametrize(("written", "target", "latents", "wrong", "state"), CASES)
def test_the_first_broken_link_is_named(
    written: float, target: float | None, latents: float, wrong: float, state: str
) -> None:
    accuracy = {"written": written, "latents": latents, "wrong_sample": wrong}
    if target is not None:
        accuracy["target"] = target
    verdict = reading_verdict(accuracy)
    assert verdict is not None
    assert verdict.state == state
    assert f"latents {latents:.1%}".replace("%", " %") in verdict.sentence


def test_reading_that_was_lost_is_told_from_reading_not_yet_learned() -> None:
    accuracy = {"written": 0.05, "latents": 0.04, "wrong_sample": 0.04}
    early, late = reading_verdict(accuracy), reading_verdict(accuracy, earlier_written=1.0)
    assert early is not None
    assert late is not None
    assert early.sentence.startswith("the student does not read reasoning")
    assert late.sentence.startswith("the student no longer reads reasoning")


def test_no_verdict_without_latents_of_another_sample() -> None:
    assert reading_verdict({"written": 1.0, "latents": 1.0}) is None
