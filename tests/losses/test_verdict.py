"""The guard's verdict: every state from made-up evidence, and its words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kava.losses import CollapseReport, InitialMetrics, SlotLoss, verdict


def report(*controls: float, **changes: float) -> CollapseReport:
    """Evidence whose slots have a loss of 0.1 and these multiples of it as their controls."""
    slots = tuple(SlotLoss(m, m, 0.1, 0.1 * control) for m, control in enumerate(controls))
    numbers = {
        "kv": 0.1,
        "kv_wrong_sample": 0.1 * sum(controls) / len(controls),
        "kv_between": 0.3,
        "cos": 0.9,
        "cos_wrong_sample": 0.5,
        "erank_student": 9.0,
        "erank_target": 12.0,
    }
    return CollapseReport(**{**numbers, **changes}, slots=slots)


def test_a_cache_that_is_its_own_samples_in_every_slot_transfers() -> None:
    state, sentence = verdict(report(8.0, 3.0, 1.2), ce=0.25)
    assert state == "transfers"
    assert sentence == (
        "transfers: the student's cache is its own sample's in every slot (KV loss 0.1 with its "
        "own sample's cache, 0.4067 with another's; cosine 0.900, 0.500; effective rank 9.0, of "
        "the target 12.0; held-out CE 0.25)"
    )


def test_a_run_in_which_every_cache_is_matched_alike_transfers_nothing() -> None:
    state, sentence = verdict(report(1.0, 1.05))
    assert state == "nothing"
    assert sentence.startswith("nothing transfers: the wrong sample's cache is matched as well")


def test_untaught_slots_are_named() -> None:
    state, sentence = verdict(report(5.0, 1.0, 1.0, 4.0, 0.9))
    assert state == "partly"
    assert "transfers in part: in slots 2 to 3, 5 of 5 the wrong" in sentence
    assert "in slot 2 of 2 the wrong" in verdict(report(5.0, 1.0)).sentence


@pytest.mark.parametrize("controls", [(1.0, 1.0), (6.0, 1.0)])
def test_untaught_slots_of_a_target_that_gave_up_its_differences_have_collapsed(
    controls: tuple[float, ...],
) -> None:
    found = report(*controls)
    assert verdict(found, start=InitialMetrics(0.3, 1.0)).state != "collapsed"
    assert verdict(found, start=InitialMetrics(0.37, 1.0)).state != "collapsed"
    state, sentence = verdict(found, ce=1.0, start=InitialMetrics(0.6, 1.2))
    assert state == "collapsed"
    where = "every slot" if controls == (1.0, 1.0) else "slot 2 of 2"
    assert sentence.startswith(f"collapsed: in {where} the wrong sample's cache is matched")
    assert "has given up 50% of what tells samples apart; freeze the aligner" in sentence
    assert "held-out CE 1, 1.2 at the start" in sentence


def test_a_target_that_gave_something_up_but_is_known_in_every_slot_still_transfers() -> None:
    state, sentence = verdict(report(6.0, 2.0), start=InitialMetrics(0.6, 1.0))
    assert state == "transfers"
    assert "though the target has given up 50% of what tells samples apart" in sentence


def test_without_a_start_a_target_cannot_be_said_to_have_moved() -> None:
    assert verdict(report(6.0, 1.0, kv_between=0.0)).state == "partly"


def test_a_target_of_one_direction_has_collapsed_whatever_the_control_says() -> None:
    state, sentence = verdict(report(6.0, erank_target=1.2))
    assert state == "collapsed"
    assert "effective rank of 1.20" in sentence


@pytest.mark.parametrize("name", ["kv", "kv_wrong_sample", "kv_between"])
def test_a_loss_that_is_not_finite_is_said_so(name: str) -> None:
    state, sentence = verdict(replace(report(6.0), **{name: float("nan")}))
    assert state == "collapsed"
    assert "the KV loss is not finite" in sentence


def test_a_student_that_pays_with_its_language_has_collapsed() -> None:
    start = InitialMetrics(0.3, 1.0)
    assert verdict(report(6.0), ce=1.09, start=start).state == "transfers"
    state, sentence = verdict(report(6.0), ce=1.5, start=start)
    assert state == "collapsed"
    assert "held-out cross-entropy has risen from 1 to 1.5" in sentence
    assert verdict(report(6.0), ce=float("nan"), start=start).state == "collapsed"


@pytest.mark.parametrize(
    ("control", "state"), [(0.9, "nothing"), (1.1, "nothing"), (1.11, "transfers")]
)
def test_the_verdict_turns_at_its_tolerance(control: float, state: str) -> None:
    assert verdict(report(control)).state == state
    assert verdict(report(control), tolerance=0.5).state == "transfers"
