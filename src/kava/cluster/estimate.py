"""Whether the runs of a plan can finish in jobs of a given length."""

from __future__ import annotations

from pathlib import Path

from kava.cluster.options import JobOptions
from kava.errors import KavaError
from kava.format import seconds
from kava.machine.durations import HOUR
from kava.study.folder import metric_lines, run_folder
from kava.study.plan import Arm, Plan
from kava.study.settings import NUM_CHECKPOINTS


def steps_of(plan: Plan, arm: Arm) -> int | None:
    """The steps of an arm's runs; 0 of one that is not trained, None if they follow from the data.

    Example:
        >>> steps_of(plan, plan.baseline)
        4000
    """
    if not arm.trained:
        return 0
    steps = arm.changes.get("max_steps", plan.budget.steps)
    return steps if isinstance(steps, int) and steps > 0 else None


def save_steps_of(plan: Plan, arm: Arm) -> int | None:
    """The steps between two checkpoints of an arm's runs; None if they follow from the data."""
    given = arm.changes.get("save_steps", plan.base.get("save_steps"))
    if given is not None:
        return int(given)
    return None if plan.budget.steps is None else max(plan.budget.steps // NUM_CHECKPOINTS, 1)


def measured_step(plan: Plan, folder: Path) -> float | None:
    """The longest mean time of a step among the runs of a folder, in seconds; None without any."""
    found = []
    for arm in plan.arms:
        for seed in plan.seeds_of(arm):
            rows = metric_lines(run_folder(folder, arm.name, seed))
            if rows and rows[-1]["step"]:
                found.append(rows[-1]["seconds"] / rows[-1]["step"])
    return max(found, default=None)


def check_limit(plan: Plan, arms: list[Arm], folder: Path, options: JobOptions) -> list[str]:
    """Refuse jobs that end before a run has saved anything, or that cannot be finished.

    Args:
        plan: the study.
        arms: those that are submitted.
        folder: of the study; its runs say how long a step takes.
        options: of the jobs.

    Returns:
        What to expect, a line each; none if nothing is known of the time of a step.

    Raises:
        KavaError: a step that does not fit into a job or into the grace; a run that does not fit
            into its only job.
    """
    step = options.step_seconds or measured_step(plan, folder)
    if step is None:
        return [] if options.engine == "local" else [UNKNOWN]
    room = options.seconds - options.grace
    shown = f"{step:.3g} s"
    if step > room:
        raise KavaError(
            f"no checkpoint before the limit: a step takes {shown}, and --time {options.time} less "
            f"--grace {options.grace} leaves {room:,} s; raise --time, or lower the batch"
        )
    if step > options.grace:
        raise KavaError(
            f"a step takes {shown}, more than the {options.grace} s of --grace in which a run has "
            f"to end its step and save it: raise --grace"
        )
    lines = []
    for arm in arms:
        steps = steps_of(plan, arm)
        if not steps:
            continue
        whole = steps * step
        if whole > room and not options.requeue:
            raise KavaError(
                f"a run of {arm.name} takes about {seconds(whole)} ({steps:,} steps of {shown}), "
                f"and its only job {seconds(room)}: raise --time, or leave out --requeue false"
            )
        jobs = -(-whole // room)
        lines.append(
            f"{arm.name}: about {seconds(whole)} of steps in a run, "
            + ("one job" if jobs <= 1 else f"{jobs:.0f} jobs, each from the last one's checkpoint")
        )
    lost = [every * step for arm in arms if (every := save_steps_of(plan, arm)) and arm.trained]
    if lost and max(lost) > HOUR:
        advised = max(int(HOUR / step), 1)
        lines.append(
            f"a node that dies costs up to {seconds(max(lost))} of a run; for an hour at most, set "
            f"save_steps: {advised} under base in the plan"
        )
    return lines


UNKNOWN = (
    "how long a step takes is not known, so that the limit cannot be checked: give --step_seconds "
    "(kava profile measures it)"
)
