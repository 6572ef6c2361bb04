"""Checks of a plan before anything runs."""

from __future__ import annotations

import re

from kava.flags import flags_of, listed
from kava.flags.words import shown
from kava.study.plan import ROLES, Arm, Plan
from kava.train.settings.data import DataSettings

MIN_SEEDS = 2
MOST_SEEDS = 1_000
MOST_CHARACTERS = 100
_FOLDER_NAME = re.compile(rf"\w[\w .+-]{{0,{MOST_CHARACTERS - 1}}}")

DATA_KEYS = frozenset({*flags_of(DataSettings), "seed"})
"""The settings that decide which samples a run sees."""

BUDGET_KEYS = frozenset(
    {"batch_size", "gradient_accumulation_steps", "effective_batch_size", "max_steps", "epochs"}
)
"""The settings that decide how many of them it sees."""

RUN_KEYS = frozenset({"output_dir", "resume", "overwrite", "no_progress"})
"""The settings that the study sets for every run."""

_HOMES = {
    "dataset_name": "data.train",
    "split": "data.train_split",
    "eval_dataset_name": "data.test",
    "eval_split": "data.test_split",
    "eval_size": "data.curve_items",
    "subset_size": "data.subset_size",
    "seed": "seeds",
    "max_steps": "budget.steps",
    "epochs": "budget.epochs",
    "batch_size": "budget.batch_size",
}
"""Key of the plan for each of these `TrainConfig` settings."""


def check_plan(plan: Plan) -> None:
    """Check that a plan allows a valid comparison.

    Raises:
        ValueError: the first problem.
    """
    if not _FOLDER_NAME.fullmatch(plan.name) or plan.name.endswith((" ", ".")):
        raise ValueError(
            f"name {shown(plan.name)} must be usable as the name of a folder: letters, digits, "
            f"spaces, - _ and dots, {MOST_CHARACTERS} characters at most, beginning with a letter "
            f"or digit"
        )
    _check_budget(plan)
    _check_seeds(plan)
    _check_outcomes(plan)
    for key in plan.base:
        if key in _HOMES:
            raise ValueError(f"base: {key} is set by {_HOMES[key]}; name it there")
        if key in RUN_KEYS:
            raise ValueError(f"base: {key} is set by the study; leave it out")
    folders: dict[str, str] = {}
    for arm in plan.arms:
        _check_arm(arm, plan)
        other = folders.setdefault(arm.name.casefold(), arm.name)
        if other != arm.name:
            raise ValueError(
                f"arms.{arm.name} and arms.{other} would share a folder where case does not "
                f"count; rename one"
            )
    baselines = [arm.name for arm in plan.arms if arm.role == "baseline"]
    if len(baselines) != 1:
        found = listed(baselines) if baselines else "there is none"
        raise ValueError(f"arms: exactly one must have the role baseline ({found})")
    if plan.primary.test != "none" and not any(
        arm.role == "control" and arm.changes.get("wrong_sample") is True for arm in plan.arms
    ):
        raise ValueError(
            "arms: a control with `wrong_sample: true` among its changes is missing; without it "
            "a gain cannot be told from what any target would give"
        )


def _check_outcomes(plan: Plan) -> None:
    if plan.primary.test == "none" and plan.primary.steps_to is not None:
        raise ValueError(
            "primary: steps_to is an outcome that is tested, and `test: none` tests nothing; leave "
            "one of the two out"
        )
    if plan.pilot is not None and (plan.pilot.study is None) == (plan.pilot.seed_std is None):
        raise ValueError(
            "pilot: give study, the folder of a finished one, or seed_std; one of both"
        )


def _check_budget(plan: Plan) -> None:
    if (plan.budget.steps is None) == (plan.budget.epochs is None):
        raise ValueError("budget: give steps or epochs, one of the two")


def _check_seeds(plan: Plan) -> None:
    seeds = plan.seeds
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"seeds: {len(seeds):,} is more than the {MOST_SEEDS:,} of a plan")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"seeds: {seed!r} must be a whole number from 0 to 2**32 - 1")
        if seeds.count(seed) > 1:
            raise ValueError(f"seeds: {seed} stands there {seeds.count(seed)} times")
    if not seeds:
        raise ValueError("seeds: name at least one")
    if len(seeds) < MIN_SEEDS and plan.primary.test != "none":
        raise ValueError(
            f"seeds: the test {plan.primary.test!r} needs at least {MIN_SEEDS} seeds, the plan has "
            f"{len(seeds)}; name more, or describe without a verdict by `test: none` under primary"
        )


def _check_arm(arm: Arm, plan: Plan) -> None:
    where = f"arms.{arm.name}"
    if not arm.name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"{where}: a name has letters, digits, - and _ only")
    if arm.role not in ROLES:
        raise ValueError(f"{where}: role {arm.role!r} is unknown; choose {listed(ROLES)}")
    if not arm.trained and arm.role != "reference":
        raise ValueError(f"{where}: only a reference may be `trained: false`, not a {arm.role}")
    if arm.seeds is not None:
        if not 1 <= arm.seeds <= len(plan.seeds):
            raise ValueError(
                f"{where}: seeds {arm.seeds} must be from 1 to the plan's {len(plan.seeds)}"
            )
        compared = arm.role != "reference" and plan.primary.test != "none"
        if compared and arm.seeds < MIN_SEEDS:
            raise ValueError(
                f"{where}: the test {plan.primary.test!r} needs at least {MIN_SEEDS} seeds, the "
                f"arm has {arm.seeds}; run it with more, or describe without a verdict by "
                f"`test: none` under primary"
            )
    own_budget = arm.role == "reference"
    for key in arm.changes:
        if key in RUN_KEYS:
            raise ValueError(f"{where}: {key} is set by the study; leave it out")
        if key in DATA_KEYS:
            raise ValueError(f"{where}: an arm may not change the data; {key} is the same for all")
        if key in BUDGET_KEYS and not own_budget:
            raise ValueError(
                f"{where}: an arm may not change the data that it sees, and so not {key}; only a "
                f"reference may have a budget of its own"
            )
