"""Tables of the runs' costs, their training health and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kava.format import NOTHING, fixed, mebibytes, number, percent, seconds, whole
from kava.report.logs import ArmLogs, RunLogs, StudyLogs
from kava.report.read import sha256_of
from kava.report.tables import Cell, Row, Table, arm_cell, make_table
from kava.study.folder import LOCK_FILE

TOKENS_WITHIN = 0.01
"""Relative tolerance: arms whose tokens differ by less had the same budget."""


def budget_table(study: StudyLogs) -> Table:
    """The budget and the cost of every arm."""
    rows: list[Row] = [
        [
            arm_cell(arm, ""),
            whole(arm.mean_of("budget", "optimizer_steps")),
            whole(arm.mean_of("budget", "samples")),
            whole(arm.mean_of("budget", "tokens")),
            seconds(arm.mean_of("train_seconds")),
            mebibytes(arm.mean_of("peak_memory_bytes")),
            whole(arm.mean_of("parameters")),
            whole(arm.mean_of("aligner_parameters")),
            fixed(arm.mean_of("cost", "forward_passes"), 1),
            fixed(arm.mean(_milliseconds), 1),
        ]
        for arm in study.arms
        if arm.finished
    ]
    note = (
        "Means over runs. Tokens: those of the student that are not padding. Maps: parameters of "
        "the map between the two caches, which the student does not keep. Passes and ms: for one "
        "answer."
    )
    head = ("arm", "steps", "samples", "tokens", "training", "memory", "parameters", "maps")
    return make_table("budget", "Budget and cost", (*head, "passes", "ms"), rows, note)


def _milliseconds(run: RunLogs) -> float | None:
    per_answer = (run.result.get("cost") or {}).get("seconds_per_answer")
    return None if per_answer is None else 1000 * per_answer


def budget_sentence(study: StudyLogs) -> str:
    """A sentence on whether the compared arms had the same budget."""
    arms = [arm for arm in study.of_role("baseline", "treatment", "control") if arm.finished]
    if len(arms) < 2:
        return ""
    unequal = [
        word
        for key, word in (
            ("optimizer_steps", "optimiser steps"),
            ("samples", "samples"),
            ("tokens", "tokens"),
            ("data_hash", "training data"),
            ("test_hash", "test items"),
            ("data_order_hash", "order of the data"),
        )
        if not _equal(arms, key)
    ]
    if unequal:
        return f"The compared arms differ in {', '.join(unequal)}; see the table."
    return (
        f"All compared arms saw the same training data in the same order for the same seed, for "
        f"the same steps, and the same tokens to within {TOKENS_WITHIN:.0%}, and were asked the "
        f"same items."
    )


def _equal(arms: list[ArmLogs], key: str) -> bool:
    """Whether all arms agree for every seed; tokens within `TOKENS_WITHIN`."""
    by_seed: dict[int, set[Any]] = {}
    for arm in arms:
        for run in arm.finished:
            by_seed.setdefault(run.seed, set()).add(run.result["budget"].get(key))
    if key == "tokens":
        return all(max(some) - min(some) <= TOKENS_WITHIN * max(some) for some in by_seed.values())
    return all(len(values) == 1 for values in by_seed.values())


def health_table(study: StudyLogs) -> Table:
    """Health of the runs: gradients, loss roughness, CKA, attention entropy and R²."""
    rows: list[Row] = [
        [
            arm_cell(arm, ""),
            number(arm.mean_of("health", "grad_norm_mean")),
            number(arm.mean_of("health", "grad_norm_max")),
            number(arm.mean_of("health", "nonfinite_steps")),
            number(arm.mean_of("health", "loss_smoothness")),
            fixed(arm.mean_of("last", "cka_keys")),
            fixed(arm.mean_of("last", "cka_values")),
            fixed(arm.mean_of("last", "attention_entropy")),
            fixed(arm.mean(lambda run: r_squared_of(run, "keys"))),
            fixed(arm.mean(lambda run: r_squared_of(run, "values"))),
        ]
        for arm in study.arms
        if arm.finished and arm.arm.trained
    ]
    note = (
        "Means over runs. Non-finite: steps with a gradient that is no number. Roughness: how far "
        "the training loss jumps between logged steps. Entropy: of the student's attention, in "
        "nats. R²: of held-out keys and values, the share that the calibrated map explains."
    )
    head = ("arm", "gradient", "largest", "non-finite", "roughness", "CKA keys", "CKA values")
    more = ("entropy", "R² keys", "R² values")
    return make_table("health", "Health of the runs", (*head, *more), rows, note)


def r_squared_of(run: RunLogs, *parts: str) -> float | None:
    """R² of a run's calibrated maps on held-out keys or values, averaged over layers."""
    layers = (run.calibration or {}).get("layers", ())
    known = [layer["calibrated"]["r_squared"] for layer in layers if layer["part"] in parts]
    return sum(known) / len(known) if known else None


def runs_table(study: StudyLogs) -> Table:
    """Every run of the plan."""
    rows: list[Row] = [
        [
            arm_cell(arm, ""),
            str(run.seed),
            run.state,
            percent(run.accuracy) if run.correct else NOTHING,
            f"{sum(run.correct.values()):,} of {len(run.correct):,}" if run.correct else NOTHING,
            seconds(run.result.get("train_seconds")),
        ]
        for arm in study.arms
        for run in arm.runs
        if run in arm.unfinished or run.state == "finished"
    ]
    head = ("arm", "seed", "state", "right", "items", "training")
    return make_table("runs", "Every run", head, rows)


def sources_table(study: StudyLogs) -> Table:
    """The sources of the numbers: plan, data, versions, command."""
    lock = study.lock
    values: dict[str, str] = {
        "command": lock.get("command") or NOTHING,
        "plan written": lock.get("written") or NOTHING,
        "plan hash": lock["plan_hash"],
    }
    for name, key in (("data hash", "data_hash"), ("test hash", "test_hash")):
        hashes = {run.result["budget"].get(key) for arm in study.arms for run in arm.finished}
        values[name] = ", ".join(sorted(filter(None, hashes))) or NOTHING
    devices = {run.result.get("device") for arm in study.arms for run in arm.finished}
    values["device"] = ", ".join(sorted(filter(None, devices))) or NOTHING
    values["versions"] = versions_of(study)
    rows: list[Row] = [[name, Cell(value, mark="code")] for name, value in values.items()]
    return make_table("sources", "Where the numbers come from", ("what", "value"), rows)


def versions_of(study: StudyLogs) -> str:
    """Library versions of the lock and the runs; several versions if runs differ."""
    found: dict[str, set[str]] = {}
    all_versions: list[Mapping[str, Any]] = [study.lock.get("versions") or {}]
    all_versions += [run.result.get("versions") or {} for arm in study.arms for run in arm.finished]
    for versions in all_versions:
        for name, version in versions.items():
            found.setdefault(name, set()).add(str(version))
    return ", ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in found) or NOTHING


def files_table(study: StudyLogs) -> Table:
    """The sha256 of every file that the page was made from."""
    lock = study.folder / LOCK_FILE
    rows: list[Row] = [[LOCK_FILE, Cell(sha256_of(lock), mark="code")]]
    for arm in study.arms:
        for run in arm.finished:
            path = f"runs/{run.name}"
            hashes = {**run.result["files"], "result.json": run.result_hash}
            rows += [
                [f"{path}/{name}", Cell(digest, mark="code")] for name, digest in hashes.items()
            ]
    return make_table("files", "Files", ("file", "sha256"), rows)
