"""The plan of a study: what is compared, on what, how often, and what would count as a result.

It is hashed before the first run, so that neither the arms nor the minimum effect can follow from
what came out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kava import names
from kava.dataset_names import check_dataset_name
from kava.flags import check_fields, flag, listed, near, needed
from kava.flags.fields import Setting
from kava.flags.words import shown

Role = Literal["baseline", "treatment", "control", "reference"]
"""What an arm is for: others are held against the baseline; a reference enters no verdict."""

ROLES = ("baseline", "treatment", "control", "reference")
METRICS = ("accuracy",)
TESTS = ("crossed", "seeds", "items", "wilcoxon", "none")
"""Those of `kava.statistics.compare_arms`; `none` describes without a verdict."""


def _key_of(level: str) -> Callable[[Setting, object], str]:
    """How a message names a key of a level with its value."""

    def spelled(setting: Setting, value: object) -> str:
        return (
            f"{level}: {setting.name} {value if isinstance(value, int | float) else shown(value)}"
        )

    return spelled


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train the student.

    Args:
        name: its name in tables, folders and flags.
        what: what it is, in a few words.
        role: what it is for.
        changes: the settings (`TrainConfig` keys) in which it differs from the base.
        trained: whether it is trained at all; only a reference may be left as it is.
        seeds: how many of the plan's seeds it is run with, the first ones; None: with all.
    """

    name: str
    what: str
    role: Role
    changes: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True
    seeds: int | None = None

    @property
    def is_compared(self) -> bool:
        """Whether it is held against the baseline."""
        return self.role in ("treatment", "control")


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """What is trained and tested on.

    Args:
        train: the training data, as `kava.data.sources.load_records` names them.
        test: the test data. The first `curve_items` draw the curves and choose nothing; the
            test is on those behind them.
        curve_items: evaluation samples while training.
        train_split: the split of `train`.
        test_split: the split of `test`.
        test_items: items of the test; None: all that there are.
        subset_size: train on so many samples, drawn by the run's seed; None: on all.
    """

    train: str = needed("training data", check=check_dataset_name)
    test: str = needed("test data", check=check_dataset_name)
    curve_items: int = needed("evaluation samples", least=1)
    train_split: str = flag("train", "split of train")
    test_split: str = flag("test", "split of test")
    test_items: int | None = flag(None, "items of the test", least=1)
    subset_size: int | None = flag(None, "samples to train on", least=1)

    def __post_init__(self) -> None:
        check_fields(self, _key_of("data"))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long every arm is trained: optimiser steps or epochs, one of the two.

    Args:
        batch_size: samples per device and step.
        steps: optimiser steps.
        epochs: passes over the data.
    """

    batch_size: int = needed("samples per device and step", least=1, most=names.MOST_BATCH)
    steps: int | None = flag(None, "optimiser steps", least=1)
    epochs: float | None = flag(None, "passes over the data", above=0)

    def __post_init__(self) -> None:
        check_fields(self, _key_of("budget"))


@dataclass(frozen=True, kw_only=True)
class Primary:
    """The one comparison that decides, fixed before the first run.

    Args:
        metric: what is compared.
        minimum_effect: the smallest difference that would matter, as a share from 0 to 1.
        test: how arms are compared; `none` describes them without a verdict.
        alpha: the level of the test, after Holm's correction over arms and outcomes.
        learned: a run has learned whose accuracy is at least this; 0: accuracies are a matter of
            degree; None: as the runs show (`kava.statistics.levels_of`).
        steps_to: a second outcome: steps to this share of the final accuracy, the highest that a
            compared run ends with; None: accuracy alone.
    """

    metric: str = flag("accuracy", "what is compared", choices=METRICS)
    minimum_effect: float = flag(0.05, "smallest difference that matters", above=0, below=1)
    test: str = flag("crossed", "how arms are compared", choices=TESTS)
    alpha: float = flag(0.05, "level of the test", above=0, below=1)
    learned: float | None = flag(None, "accuracy of a run that learned", least=0, below=1)
    steps_to: float | None = flag(None, "share of the final accuracy", above=0, below=1)

    def __post_init__(self) -> None:
        check_fields(self, _key_of("primary"))


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What is known of the runs' spread before the study, to plan the number of seeds.

    Args:
        study: folder of a study that was run, or
        seed_std: standard deviation of the accuracy between runs of one arm; under the test `seeds`
            of the differences between two arms, seed by seed.
        accuracy: of the baseline, beside seed_std.
        power: how often the minimum effect is to be found.
    """

    study: str | None = flag(None, "folder of a finished study")
    seed_std: float | None = flag(None, "spread between runs of one arm", least=0, below=1)
    accuracy: float = flag(0.5, "of the baseline", least=0, most=1)
    power: float = flag(0.8, "how often the minimum effect is found", above=0, below=1)

    def __post_init__(self) -> None:
        check_fields(self, _key_of("pilot"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study as it was written down.

    Args:
        name: of the study and its folder.
        question: what it asks, in one sentence.
        base: `TrainConfig` keys that all arms share.
        data: what is trained and tested on.
        budget: how long.
        seeds: of the runs of every arm.
        arms: what is compared, in the order of the tables.
        primary: the comparison that decides.
        description: more about it, for the reader.
        pilot: what the number of seeds was planned from.

    Example:
        >>> plan = load_plan("flat_vs_structured")
        >>> plan.baseline.name, len(plan.arms) * len(plan.seeds)
        ('flat', 30)
    """

    name: str
    question: str
    base: Mapping[str, Any]
    data: DataPlan
    budget: Budget
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    primary: Primary
    description: str = ""
    pilot: Pilot | None = None

    @property
    def baseline(self) -> Arm:
        """The arm that the others are held against."""
        return next(arm for arm in self.arms if arm.role == "baseline")

    @property
    def compared(self) -> tuple[Arm, ...]:
        """Treatments and controls, in their order."""
        return tuple(arm for arm in self.arms if arm.is_compared)

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            ValueError: there is none; the message names those that there are.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = [arm.name for arm in self.arms]
        raise ValueError(f"{name!r} is no arm of {self.name}{near(name, known)}: {listed(known)}")

    def choose(self, wanted: Sequence[str] | None) -> tuple[Arm, ...]:
        """The arms of these names; None: all.

        Raises:
            ValueError: a name that no arm has.
        """
        if wanted is None:
            return self.arms
        try:
            return tuple(self.arm(name) for name in dict.fromkeys(wanted))
        except ValueError as error:
            raise ValueError(f"--arms: {error}") from error

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """The seeds of an arm's runs; a model that is not trained is the same for all seeds."""
        return self.seeds[: arm.seeds if arm.trained else 1]

    @property
    def fewest_seeds(self) -> int:
        """The seeds of the treatment that has the fewest, or of the baseline without one."""
        arms = [arm for arm in self.arms if arm.role in ("baseline", "treatment")]
        return min(len(self.seeds_of(arm)) for arm in arms)

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """Refuse a seed that the plan does not have.

        Raises:
            ValueError: such a seed.
        """
        for seed in seeds:
            if seed not in self.seeds:
                known = listed(map(str, self.seeds))
                raise ValueError(f"--seeds {seed} is none of the plan's ({known})")

    def canonical(self) -> dict[str, Any]:
        """The plan as JSON values, with its defaults written out; `read_plan` reads it back.

        Keys that came later are left out where they are not set, so that plans from before there
        were such keys keep their hash.
        """
        values = asdict(self)
        values["seeds"] = list(self.seeds)
        values["arms"] = {arm.pop("name"): arm for arm in values["arms"]}
        for arm in values["arms"].values():
            if arm["seeds"] is None:
                del arm["seeds"]
        later = [(values, "pilot"), (values["primary"], "learned"), (values["primary"], "steps_to")]
        for level, key in later:
            if level[key] is None:
                del level[key]
        return as_json(values)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hex digits."""
        return canonical_hash(self.canonical())


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: tuples are lists."""
    parsed: dict[str, Any] = json.loads(json.dumps(values))
    return parsed


def canonical_hash(values: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys.

    Example:
        >>> canonical_hash({"a": 1, "b": 2}) == canonical_hash({"b": 2, "a": 1})
        True
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
