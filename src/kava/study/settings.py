"""Build the configuration of each run of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.study.plan import Arm, Plan

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

NUM_EVALUATIONS = 12
NUM_LOGS = 60
NUM_CHECKPOINTS = 4


def train_config(
    plan: Plan,
    arm: Arm,
    seed: int,
    output_dir: str | Path,
    defaults: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The configuration of one run.

    Unless the base sets them, the intervals of logging, evaluating and saving follow from the
    number of steps; they do not affect what is learned.

    Args:
        plan: the study.
        arm: one of its arms.
        seed: seed of the initialisation, the order of the data and dropout.
        output_dir: the run's folder.
        defaults: settings that hold if neither base nor arm names them.

    Raises:
        ValueError: a key that `TrainConfig` does not have, or a value that it refuses; the message
            names the arm and the key.

    Example:
        >>> train_config(plan, plan.baseline, 0, "outputs/x").alignment_mode
        'flat'
    """
    from kava.train.config import TrainConfig

    base = typed_settings(plan.base, "base")
    changes = typed_settings(arm.changes, f"arms.{arm.name}")
    data, budget = plan.data, plan.budget
    settings: dict[str, Any] = {
        **(defaults or {}),
        **_cadence(plan),
        "save_total_limit": 2,  # the best and the newest checkpoint
        "dataset_name": data.train,
        "split": data.train_split,
        "eval_dataset_name": data.test,
        "eval_split": data.test_split,
        "eval_size": data.curve_items,
        "subset_size": data.subset_size,
        "batch_size": budget.batch_size,
        **({"epochs": float(budget.epochs)} if budget.epochs is not None else {}),
        **({"max_steps": budget.steps} if budget.steps is not None else {}),
        **base,
        "seed": seed,
        "output_dir": str(output_dir),
        "no_progress": True,
        **changes,
    }
    try:
        return TrainConfig(**settings)
    except ValueError as error:
        raise ValueError(f"arms.{arm.name}: {error}") from error


def _cadence(plan: Plan) -> dict[str, int]:
    steps = plan.budget.steps
    if steps is None:
        return {}
    return {
        "eval_steps": max(steps // NUM_EVALUATIONS, 1),
        "logging_steps": max(steps // NUM_LOGS, 1),
        "save_steps": max(steps // NUM_CHECKPOINTS, 1),
    }


def check_arms(plan: Plan) -> None:
    """Check the settings of every arm by `TrainConfig`, and that no two arms are the same.

    Raises:
        ValueError: the first arm whose settings are refused, or are those of an earlier arm.
    """
    earlier: list[tuple[Arm, TrainConfig]] = []
    for arm in plan.arms:
        config = train_config(plan, arm, plan.seeds[0], "outputs/study")
        for other, theirs in earlier:
            if config == theirs and arm.trained == other.trained:
                raise ValueError(
                    f"arms.{arm.name} and arms.{other.name} have the same settings, so that there "
                    f"is nothing to compare: change one, or leave it out"
                )
        earlier.append((arm, config))


def typed_settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check settings against the keys and types of `TrainConfig`.

    Args:
        values: the settings as read from YAML.
        where: what they belong to, for messages.

    Raises:
        ValueError: an unknown key, with the most similar known one, or a value of another type.
    """
    from kava.train.flags import USAGE

    # only under their own names, since a plan sets some of them under other keys
    return replace(USAGE, known={}).read_mapping(values, where)
