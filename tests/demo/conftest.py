"""Made-up runs: what a study could have given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from kava.demo.arms import MAIN, Study
from kava.demo.logs import RunLog
from kava.demo.results import Result

MakeResults = Callable[..., list[Result]]
MakeLogs = Callable[..., list[RunLog]]


@pytest.fixture(scope="session")
def make_results() -> MakeResults:
    """Arm → the accuracies of its seeds, as results whose times and passes all differ.

    Further fields of an arm's results come from `measured`, by arm.
    """

    def make(
        accuracies: Mapping[str, Sequence[float]],
        num_items: int = 1000,
        measured: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[Result]:
        results: list[Result] = []
        for arm, seeds in accuracies.items():
            for seed, accuracy in enumerate(seeds):
                index = len(results)
                results.append(
                    Result(
                        arm=arm,
                        seed=seed,
                        accuracy=accuracy,
                        num_items=num_items,
                        forward_passes=3.0 + index,
                        seconds_per_answer=0.0031 + 0.0013 * index,
                        train_seconds=41.0 + index,
                        **(measured or {}).get(arm, {}),
                    )
                )
        return results

    return make


@pytest.fixture(scope="session")
def make_logs() -> MakeLogs:
    """Logs of three evaluations, with the terms that each arm has."""

    def make(results: Sequence[Result], study: Study = MAIN) -> list[RunLog]:
        arms = {arm.name: arm for arm in study.arms}
        logs = []
        for result in results:
            changes = {**study.common, **arms[result.arm].changes}
            lines = []
            for step in (1, 2, 3):
                train = {"step": step, "loss": 2.0 / step, "ce": 1.0 / step}
                held_out = {"step": step, "eval_accuracy": result.accuracy * step / 3}
                if changes["codi_weight"]:
                    train["codi"] = 0.4 / step
                if changes["kv_weight"]:
                    held_out["eval_kv"] = 0.3 / step
                    held_out["eval_kv_wrong_sample"] = 0.35
                lines += [train, held_out]
            logs.append(RunLog(arms[result.arm], result, tuple(lines)))
        return logs

    return make


@pytest.fixture(scope="session")
def good() -> dict[str, list[float]]:
    """What the main demo is to show."""
    return {
        "written": [1.0],
        "none": [0.041],
        "pause": [0.038],
        "ce": [0.052],
        "codi": [0.033, 0.05],
        "kv": [1.0, 0.998],
        "kv_jacobi": [0.97, 1.0],
        "codi_kv": [1.0, 0.951],
    }
