"""The power of a plan from a pilot, and the keys that say so."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kava.statistics import power_before, seeds_needed
from kava.statistics.power import power_of_t
from kava.statistics.shares import share_power
from kava.study.plan import Pilot, Plan
from kava.study.plan_file import load_plan, read_plan
from kava.study.power import power_lines, power_of, spread_of
from report.made_up import made_up_plan, write_study


def plan_with(pilot: dict[str, Any] | None = None, seeds: int = 5, **primary: Any) -> Plan:
    values = made_up_plan(["flat", "per_head", "wrong"], seeds=range(seeds), **primary)
    values["data"]["test_items"] = 1000
    if pilot:
        values["pilot"] = pilot
    return read_plan(values)


def test_new_keys_that_are_left_out_do_not_change_a_plans_hash() -> None:
    bare = plan_with()
    assert "pilot" not in bare.canonical()
    assert not {"learned", "steps_to"} & bare.canonical()["primary"].keys()
    for change in ({"pilot": {"seed_std": 0.03}}, {"learned": 0.5}, {"steps_to": 0.9}):
        other = plan_with(**change)  # type: ignore[arg-type]
        assert other.hash != bare.hash
        assert read_plan(other.canonical()) == other
    assert load_plan("flat_vs_structured", check_settings=False).hash.startswith("4ccdce54f1b4")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"pilot": {"power": 0.9}}, "pilot: give study"),
        ({"pilot": {"study": "x", "seed_std": 0.1}}, "one of both"),
        ({"pilot": {"seed_std": 0.1, "power": 1.0}}, "pilot: power 1.0 must be"),
        ({"pilot": {"sed_std": 0.1}}, "unknown key 'sed_std'.*seed_std"),
        ({"learned": 1.0}, "primary: learned 1.0"),
        ({"steps_to": 0.0}, "primary: steps_to 0.0"),
        ({"steps_to": 0.9, "test": "none"}, "steps_to is an outcome that is tested"),
    ],
)
def test_keys_that_cannot_be_are_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        plan_with(**values)


@pytest.mark.parametrize(("seeds", "words"), [(5, "too few"), (40, "enough")])
def test_the_dry_run_says_how_many_seeds_it_takes_and_whether_it_has_them(
    seeds: int, words: str
) -> None:
    plan = plan_with({"seed_std": 0.02, "accuracy": 0.6}, seeds, minimum_effect=0.03)
    said = "\n".join(power_lines(plan))
    needed = seeds_needed(effect=0.03, num_items=1000, seed_std=0.02, accuracy=0.6, alpha=0.025)
    assert f"power 0.8 takes {needed} seeds an arm; the plan has {seeds}, {words}" in said
    found = power_before(
        effect=0.03, num_seeds=seeds, num_items=1000, seed_std=0.02, accuracy=0.6, alpha=0.025
    )
    assert f"{100 * found:.1f} %, as runs spread in the plan's pilot" in said


def test_a_second_outcome_takes_a_stricter_level() -> None:
    assert "over 4 comparisons" in power_lines(plan_with(steps_to=0.9))[0]


def test_a_pilot_that_was_run_gives_its_spread(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path, {"flat": 0.5, "per_head": 0.6, "wrong": 0.45}, seeds=range(12), spread=0.05
    )
    spread = spread_of(Pilot(study=str(folder)))
    assert spread.seed_std == pytest.approx(0.05, abs=0.02)
    assert spread.accuracy == pytest.approx(0.5, abs=0.05)
    said = "\n".join(power_lines(plan_with({"study": str(folder)}, minimum_effect=0.03)))
    assert re.search(r"power 0.8 takes \d+ seeds an arm; the plan has 5, too few", said)


def test_a_test_that_pairs_seeds_takes_the_spread_of_differences(tmp_path: Path) -> None:
    """Seeds 20 points apart, and the same in both arms but for the draw of answers."""
    folder = write_study(
        tmp_path, {"flat": 0.5, "per_head": 0.6, "wrong": 0.45}, seeds=range(12), spread=0.05
    )
    results = {
        (arm, seed): json.loads((folder / f"runs/{arm}/seed-{seed}/result.json").read_text())
        for arm in ("flat", "per_head", "wrong")
        for seed in range(12)
    }
    variances = [
        statistics.variance(
            results[arm, seed]["accuracy"] - results["flat", seed]["accuracy"] for seed in range(12)
        )
        for arm in ("per_head", "wrong")
    ]
    spread = spread_of(Pilot(study=str(folder)), paired=True)
    assert spread.seed_std == pytest.approx(statistics.mean(variances) ** 0.5)
    plan = plan_with({"seed_std": 0.02}, 10, minimum_effect=0.03, test="seeds")
    said = "\n".join(power_lines(plan))
    found = power_of_t(0.03, 0.02 / 10**0.5, 9, alpha=0.025)
    assert f"{100 * found:.1f} %, as differences of a seed's two runs spread in" in said


def test_a_pilot_whose_runs_learn_or_do_not_takes_the_exact_test(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path, {"flat": 1.0, "per_head": 1.0, "wrong": 0.04}, seeds=range(5), spread=0.0
    )
    spread = spread_of(Pilot(study=str(folder)))
    assert (spread.share, round(spread.gap, 2)) == (6 / 7, 0.96)  # five of five are not all
    plan = plan_with({"study": str(folder)}, minimum_effect=0.03)
    assert "more than 1,000 seeds an arm" in "\n".join(power_lines(plan))
    effect = 0.5
    found = power_of(spread, effect, 10, 1000, 0.05)
    assert found == pytest.approx(share_power(6 / 7 - effect / spread.gap, 6 / 7, 10))
    assert power_of(spread, effect, 31, 1000, 0.05) == pytest.approx(
        power_of(spread, effect, 30, 1000, 0.05), abs=0.03
    )


def test_a_pilot_that_is_no_study_or_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no study"):
        power_lines(plan_with({"study": str(tmp_path)}))
    folder = write_study(tmp_path / "a", {"flat": 0.5, "per_head": 0.6, "wrong": 0.4}, seeds=[0, 1])
    (folder / "runs/flat/seed-1/result.json").unlink()
    with pytest.raises(ValueError, match="fewer than two finished runs of its baseline"):
        power_lines(plan_with({"study": str(folder)}))


def test_a_plan_without_a_pilot_assumes_spreads() -> None:
    plan = plan_with()
    assert len(power_lines(plan)) == 4
    assert "test_items" in power_lines(replace(plan, data=replace(plan.data, test_items=None)))[0]
