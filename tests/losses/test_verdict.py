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
    state, sentence, details = verdict(report(8.0, 3.0, 1.2), ce=0.25)
    assert state == "transfers"
    assert sentence == (
        "transfers: every latent matches its own sample's cache better than another's"
    )
    assert details == (
        "KV loss 0.1 (another sample's cache 0.4067), cosine 0.900 (0.500), effective rank 9.0 "
        "(target 12.0), held-out CE 0.25",
    )


@pytest.mark.parametrize("controls", [(8.0, 3.0), (1.0, 3.0), (1.0, 1.0)])
def test_a_student_of_text_has_positions_in_place_of_latents(controls: tuple[float, ...]) -> None:
    latents, positions = (
        verdict(report(*controls), unit=unit).sentence for unit in ("latent", "position")
    )
    assert "latent" in latents
    assert latents.replace("latent", "position") == positions


def test_every_line_is_short() -> None:
    """The first fits a window of a hundred columns, with `guard: ` before it."""
    verdicts = [
        verdict(report(*controls, **changes), ce=1.234, start=start)
        for controls in ((8.0,) * 24, (8.0, 1.0) * 4, (1.0,) * 24)
        for changes in ({}, {"erank_target": 1.2}, {"kv": float("nan")})
        for start in (None, InitialMetrics(0.9, 1.2), InitialMetrics(0.3, 1.0))
    ]
    assert {found.state for found in verdicts} == {"transfers", "partly", "nothing", "collapsed"}
    assert max(len(found.sentence) for found in verdicts) <= 100 - len("guard: ")
    assert max(len(line) for found in verdicts for line in found.details) <= 140


def test_a_run_in_which_every_cache_is_matched_alike_transfers_nothing() -> None:
    state, sentence, details = verdict(report(1.0, 1.05))
    assert state == "nothing"
    assert sentence == (
        "nothing transfers: every latent matches another sample's cache as well as its own"
    )
    assert details[0].startswith("so it is at the start of every run")


def test_a_latent_that_no_sample_uses_is_no_exception() -> None:
    found = report(1.0, 1.0, 5.0)
    unused = found.slots[2]._replace(kv=0.0, kv_wrong_sample=0.0, num_pairs=0)
    found = replace(found, slots=(*found.slots[:2], unused))
    assert verdict(found).state == "nothing"
    assert verdict(found).sentence.startswith("nothing transfers: every latent")


def test_untaught_slots_are_named() -> None:
    state, sentence, _ = verdict(report(5.0, 1.0, 1.0, 4.0, 0.9))
    assert state == "partly"
    assert sentence == (
        "transfers in part: latents 2 to 3, 5 of 5 match another sample's cache as well as their "
        "own"
    )
    one = "latent 2 of 2 matches another sample's cache as well as its own"
    assert one in verdict(report(5.0, 1.0)).sentence


@pytest.mark.parametrize("controls", [(1.0, 1.0), (6.0, 1.0)])
def test_untaught_slots_of_a_target_that_gave_up_its_differences_have_collapsed(
    controls: tuple[float, ...],
) -> None:
    found = report(*controls)
    assert verdict(found, start=InitialMetrics(0.3, 1.0)).state != "collapsed"
    assert verdict(found, start=InitialMetrics(0.37, 1.0)).state != "collapsed"
    state, sentence, details = verdict(found, ce=1.0, start=InitialMetrics(0.6, 1.2))
    assert state == "collapsed"
    where = "every latent" if controls == (1.0, 1.0) else "latent 2 of 2"
    assert sentence == f"collapsed: {where} matches another sample's cache as well as its own"
    assert "has lost 50% of what tells samples apart; freeze the aligner" in details[0]
    assert "held-out CE 1 (at the start 1.2)" in details[1]


def test_a_target_that_gave_something_up_but_is_known_in_every_slot_still_transfers() -> None:
    state, _, details = verdict(report(6.0, 2.0), start=InitialMetrics(0.6, 1.0))
    assert state == "transfers"
    assert details[0] == "since the start the target has lost 50% of what tells samples apart"


def test_without_a_start_a_target_cannot_be_said_to_have_moved() -> None:
    assert verdict(report(6.0, 1.0, kv_between=0.0)).state == "partly"


def test_a_target_of_one_direction_has_collapsed_whatever_the_control_says() -> None:
    state, sentence, _ = verdict(report(6.0, erank_target=1.2))
    assert state == "collapsed"
    assert "effective rank of 1.20" in sentence


@pytest.mark.parametrize("name", ["kv", "kv_wrong_sample", "kv_between"])
def test_a_loss_that_is_not_finite_is_said_so(name: str) -> None:
    state, sentence, _ = verdict(replace(report(6.0), **{name: float("nan")}))
    assert state == "collapsed"
    assert "the KV loss is not finite" in sentence


def test_a_student_that_pays_with_its_language_has_collapsed() -> None:
    start = InitialMetrics(0.3, 1.0)
    assert verdict(report(6.0), ce=1.09, start=start).state == "transfers"
    state, sentence, _ = verdict(report(6.0), ce=1.5, start=start)
    assert state == "collapsed"
    assert "held-out cross-entropy has risen from 1 to 1.5" in sentence
    assert verdict(report(6.0), ce=float("nan"), start=start).state == "collapsed"


@pytest.mark.parametrize(
    ("control", "state"), [(0.9, "nothing"), (1.1, "nothing"), (1.11, "transfers")]
)
def test_the_verdict_turns_at_its_tolerance(control: float, state: str) -> None:
    assert verdict(report(control)).state == state
    assert verdict(report(control), tolerance=0.5).state == "transfers"
