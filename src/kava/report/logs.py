"""The logs of a study's runs, read completely or refused.

Shapes: S seeds, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from kava.report.read import check_hash, read_json, read_lines, sha256_of
from kava.study.folder import (
    ALIGNMENT_FILE,
    CALIBRATION_FILE,
    ITEMS_FILE,
    LOCK_FILE,
    METRICS_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    read_lock,
    run_folder,
)
from kava.study.packed import unpacked
from kava.study.plan import Arm, Plan, Role
from kava.study.plan_file import read_plan

if TYPE_CHECKING:
    import numpy as np

    from kava.statistics import Levels

State = Literal["finished", "running", "missing", "failed"]
Curve = tuple[list[int], list[float]]
"""Steps and the values at these steps."""


@dataclass(frozen=True, kw_only=True)
class RunLogs:
    """The logs of one arm with one seed.

    Attributes:
        arm: the arm's name.
        seed: its seed.
        state: `finished` with a result; `running` if the folder has no result yet; `failed` if the
            result says so; `missing` without a folder.
        result: content of result.json; empty if there is none. The fields below are also empty if
            the run is not finished.
        result_hash: sha256 of result.json.
        metrics: the rows of metrics.jsonl.
        correct: whether the answer was right, by item id.
        num_steps: the written steps that the problem takes, by item id; empty if its task counts
            none.
        alignment: content of alignment.json, if the run matched a cache.
        calibration: content of calibration.json, if maps were fitted.
    """

    arm: str
    seed: int
    state: State
    result: Mapping[str, Any]
    result_hash: str = ""
    metrics: tuple[Mapping[str, Any], ...] = ()
    correct: Mapping[str, bool]
    num_steps: Mapping[str, int] = field(default_factory=dict)
    alignment: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The run's folder below runs/."""
        return f"{self.arm}/seed-{self.seed}"

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1, counted from the items."""
        return sum(self.correct.values()) / len(self.correct)

    def curve(self, name: str) -> Curve:
        """One quantity over the steps of the run; empty if it was not logged."""
        points = [(line["step"], line[name]) for line in self.metrics if line.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]


@dataclass(frozen=True, kw_only=True)
class ArmLogs:
    """An arm and its runs.

    Attributes:
        arm: the arm in the plan.
        settings: the plan's base settings with the arm's changes.
        runs: one per seed, in the plan's order.
    """

    arm: Arm
    settings: Mapping[str, Any]
    runs: tuple[RunLogs, ...]

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name

    @property
    def what(self) -> str:
        """A short description of the arm."""
        return self.arm.what

    @property
    def role(self) -> Role:
        """The role of the arm."""
        return self.arm.role

    @property
    def finished(self) -> tuple[RunLogs, ...]:
        """The finished runs."""
        return tuple(run for run in self.runs if run.state == "finished")

    @property
    def unfinished(self) -> tuple[RunLogs, ...]:
        """The planned runs that are not finished."""
        return tuple(run for run in self.runs if run.state != "finished")

    def first(self, num_runs: int) -> ArmLogs:
        """The arm with its first finished runs alone, those of the plan's first seeds."""
        return replace(self, runs=self.finished[:num_runs])

    @property
    def correct_SN(self) -> np.ndarray:
        """[S, N] correct answers of the finished runs; all arms use the same order of items."""
        import numpy as np

        return np.array([list(run.correct.values()) for run in self.finished], dtype=bool)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Accuracies of the finished runs."""
        return tuple(run.accuracy for run in self.finished)

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over the finished runs; None without any."""
        return self.mean(lambda run: run.accuracy)

    def has(self, name: str) -> bool:
        """Whether a finished run logged this quantity."""
        return any(run.curve(name)[0] for run in self.finished)

    def mean(self, value_of: Callable[[RunLogs], float | None]) -> float | None:
        """Mean of a number over the finished runs; None if one of them lacks it."""
        values = [value_of(run) for run in self.finished]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def mean_of(self, *keys: str) -> float | None:
        """Mean of a number in the runs' result.json, such as `("budget", "tokens")`."""
        return self.mean(lambda run: _at(run.result, keys))


@dataclass(frozen=True, kw_only=True)
class StudyLogs:
    """The logs of a study.

    Attributes:
        folder: the study's folder.
        plan: the plan as locked before the first run.
        lock: the content of plan.lock.json.
        arms: the baseline first, then treatments, controls and references.
        ids: ids of the items that every run answered, in the order of `ArmLogs.correct_SN`.
    """

    folder: Path
    plan: Plan
    lock: Mapping[str, Any]
    arms: tuple[ArmLogs, ...]
    ids: tuple[str, ...]

    @property
    def baseline(self) -> ArmLogs:
        """The arm that the others are compared with."""
        return self.arms[0]

    def of_role(self, *roles: Role) -> tuple[ArmLogs, ...]:
        """The arms with these roles."""
        return tuple(arm for arm in self.arms if arm.role in roles)

    @property
    def runs(self) -> Iterator[RunLogs]:
        """All runs of the plan."""
        return (run for arm in self.arms for run in arm.runs)

    @property
    def unfinished(self) -> tuple[RunLogs, ...]:
        """The planned runs of all arms that are not finished."""
        return tuple(run for arm in self.arms for run in arm.unfinished)

    @property
    def levels(self) -> Levels:
        """Whether runs either learn or do not, from all finished runs that are compared."""
        from kava.statistics import GRADED, levels_of

        arms = self.of_role("baseline", "treatment", "control")
        runs = [accuracy for arm in arms for accuracy in arm.accuracies]
        return levels_of(runs, self.plan.primary.learned) if runs else GRADED

    @property
    def is_complete(self) -> bool:
        """Whether every run that enters a verdict is finished."""
        return not any(arm.unfinished for arm in self.of_role("baseline", "treatment", "control"))


def load_study(folder: str | Path) -> StudyLogs:
    """Read all logs of a study's runs, and check that they were not changed.

    Every file named in a run's result.json must have the recorded sha256, and the plan its hash;
    all runs must belong to the plan and must have answered the same items.

    Args:
        folder: the study's folder, with plan.lock.json and runs/ or runs.tar.xz.

    Raises:
        ValueError: a missing, truncated or edited log, or runs that do not belong together; the
            message names the file.

    Example:
        >>> study = load_study("outputs/study/flat_vs_structured")
        >>> study.baseline.correct_SN.shape, [run.name for run in study.unfinished]
        ((5, 1000), [])
    """
    folder = Path(folder)
    lock = read_lock(folder)
    plan = read_plan(lock["plan"])
    with unpacked(folder) as there:
        _check_names(there, plan)
        arms = [
            ArmLogs(
                arm=arm,
                settings={**plan.base, **arm.changes},
                runs=tuple(
                    _read_run(run_folder(there, arm.name, seed), arm.name, seed, lock)
                    for seed in plan.seeds_of(arm)
                ),
            )
            for arm in sorted(plan.arms, key=lambda arm: get_args(Role).index(arm.role))
        ]
        ids = _check_ids(there, [run for arm in arms for run in arm.finished])
    return StudyLogs(folder=folder, plan=plan, lock=lock, arms=tuple(arms), ids=ids)


def _check_names(folder: Path, plan: Plan) -> None:
    """Refuse runs that are not in the plan, such as those of a seed added later."""
    known = {f"{arm.name}/seed-{seed}" for arm in plan.arms for seed in plan.seeds_of(arm)}
    for path in sorted((folder / RUNS_FOLDER).glob("*/seed-*")):
        name = f"{path.parent.name}/{path.name}"
        if name not in known:
            raise ValueError(
                f"{path} is no run of the plan ({folder / LOCK_FILE}); move it out of the study"
            )


def _read_run(folder: Path, arm: str, seed: int, lock: Mapping[str, Any]) -> RunLogs:
    state: State = "running" if folder.is_dir() else "missing"
    if not (folder / RESULT_FILE).is_file():
        return RunLogs(arm=arm, seed=seed, state=state, result={}, correct={})
    result = read_json(folder / RESULT_FILE)
    for name, expected in (("arm", arm), ("seed", seed), ("plan_hash", lock["plan_hash"])):
        if result.get(name) != expected:
            raise ValueError(
                f"{folder / RESULT_FILE} is of another run: its {name} is {result.get(name)!r}, "
                f"not {expected!r}"
            )
    if not result.get("finished"):
        return RunLogs(arm=arm, seed=seed, state="failed", result=result, correct={})
    files = result["files"]
    for name, expected in files.items():
        check_hash(folder / name, expected)
    if ITEMS_FILE not in files:
        raise ValueError(f"{folder / RESULT_FILE} names no {ITEMS_FILE}; run its run again")
    correct, num_steps = _read_items(folder / ITEMS_FILE)
    run = RunLogs(
        arm=arm,
        seed=seed,
        state="finished",
        result=result,
        result_hash=sha256_of(folder / RESULT_FILE),
        metrics=read_lines(folder / METRICS_FILE) if METRICS_FILE in files else (),
        correct=correct,
        num_steps=num_steps,
        alignment=read_json(folder / ALIGNMENT_FILE) if ALIGNMENT_FILE in files else None,
        calibration=read_json(folder / CALIBRATION_FILE) if CALIBRATION_FILE in files else None,
    )
    if abs(run.accuracy - result["accuracy"]) > 1e-9:
        raise ValueError(
            f"{folder / RESULT_FILE} was edited: it says accuracy {result['accuracy']:.4f}, its "
            f"items say {run.accuracy:.4f}"
        )
    return run


def _read_items(path: Path) -> tuple[dict[str, bool], dict[str, int]]:
    """Read answers and written steps by id, sorted, so that all runs have the same order."""
    from kava.statistics import read_items

    items = read_items(path)
    correct = dict(sorted(zip(items.ids, items.correct.tolist())))
    return correct, dict(sorted(zip(items.ids, items.num_steps)))


def _check_ids(folder: Path, runs: list[RunLogs]) -> tuple[str, ...]:
    if not runs:
        return ()
    first, *others = runs
    for run in others:
        if run.correct.keys() != first.correct.keys():
            odd = sorted(run.correct.keys() ^ first.correct.keys())[0]
            raise ValueError(
                f"{folder / RUNS_FOLDER / run.name / ITEMS_FILE} answers other items than "
                f"{first.name}: {odd!r} is in one of them only; they cannot be paired"
            )
    return tuple(first.correct)


def _at(result: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    value: Any = result
    for key in keys:
        value = (value or {}).get(key)
    return None if value is None else float(value)
