"""Made-up runs: what a study could have given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from kava.demo.arms import MAIN, Demo
from kava.demo.results import Result
from kava.report.logs import ArmLogs, RunLogs

MakeResults = Callable[..., list[Result]]
MakeLogs = Callable[..., list[ArmLogs]]
PARTS = ("keys", "values")


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

    def make(results: Sequence[Result], demo: Demo = MAIN) -> list[ArmLogs]:
        logs = []
        for arm in demo.arms:
            settings = {**demo.common, **arm.changes}
            runs = tuple(made_up_run(one, settings) for one in results if one.arm == arm.name)
            if runs:
                logs.append(ArmLogs(arm=arm, settings=settings, runs=runs))
        return logs

    return make


def made_up_run(result: Result, settings: Mapping[str, Any]) -> RunLogs:
    """A finished run that gave this result."""
    metrics: list[dict[str, Any]] = []
    for step in (1, 2, 3):
        train = {"step": step, "loss": 2.0 / step, "ce": 1.0 / step}
        held_out = {"step": step, "eval_accuracy": result.accuracy * step / 3}
        held_out |= {"eval_reading_written": 1.0, "eval_reading_latents": result.accuracy}
        if settings["codi_weight"]:
            train["codi"] = 0.4 / step
        if settings["kv_weight"]:
            held_out |= {"eval_kv": 0.3 / step, "eval_kv_wrong_sample": 0.35}
        metrics += [train, held_out]
    right = round(result.accuracy * result.num_items)
    fits = [{"part": part, "calibrated": {"r_squared": result.r_squared}} for part in PARTS]
    return RunLogs(
        arm=result.arm,
        seed=result.seed,
        state="finished",
        result={
            "train_seconds": result.train_seconds,
            "aligner_parameters": result.aligner_parameters,
            "last": {"kv": result.kv, "kv_wrong_sample": result.kv_wrong_sample},
        },
        metrics=tuple(metrics),
        correct={str(item): item < right for item in range(result.num_items)},
        calibration=None if result.r_squared is None else {"layers": fits},
    )


@pytest.fixture(scope="session")
def good() -> dict[str, list[float]]:
    """What the main demo is to show."""
    return {
        "written": [1.0],
        "none": [0.041],
        "pause": [0.038],
        "ce": [0.052],
        "text_ce": [0.044],
        "codi": [0.05],
        "kv": [1.0, 0.998],
        "kv_jacobi": [0.97, 1.0],
        "codi_kv": [0.951],
    }
