"""The plan of a curriculum: its phases, what each changes, and the runs that they are.

    1 dual_prompt    one teacher under two prompts
    2 samples        several chains of thought of each question
    3 checkpoints    teachers of other checkpoints and families, each with a map of its own
    4 routing        fixed weights, then weights that look at the sample: one stage each
    5 shared_space   caches compared in a space that encoders of both sides map to

A plan may leave phases out, but not turn their order around. Every stage is one run of
`kava train`, with the settings of the plan's base and those that its phase changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kava.flags import check_fields, flag, listed, near
from kava.flags.fields import Setting
from kava.flags.words import shown
from kava.names import MOST_SEED
from kava.study.plan import Budget, DataPlan, as_json, canonical_hash

PHASES = ("dual_prompt", "samples", "checkpoints", "routing", "shared_space")
"""The phases, in their order; their numbers count from 1."""


def phase_named(word: str) -> str:
    """The phase that a number or a name means.

    Raises:
        ValueError: neither.

    Example:
        >>> phase_named("3"), phase_named("routing")
        ('checkpoints', 'routing')
    """
    if word in PHASES:
        return word
    if word.isascii() and word.isdigit() and 1 <= int(word) <= len(PHASES):
        return PHASES[int(word) - 1]
    numbered = (f"{number} {name}" for number, name in enumerate(PHASES, start=1))
    raise ValueError(f"{shown(word)} is no phase{near(word, PHASES)}; choose {listed(numbered)}")


def check_phase(word: str) -> None:
    """Refuse what is no phase; for flags."""
    phase_named(word)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase.

    Args:
        name: one of `PHASES`.
        what: what it is, in a few words.
        changes: the settings (`TrainConfig` keys) in which it differs from the base.
        stages: of a phase of several runs, what each changes further, by its name.
        data: the keys of `DataPlan` in which its data differ.
        steps: optimiser steps of each of its runs; None: those of the budget.
    """

    name: str
    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return PHASES.index(self.name) + 1


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a phase.

    Args:
        phase: that it belongs to.
        name: its own, if the phase has several; else None.
        settings: of `kava train`, base and changes together.
        data: what is trained and tested on.
        budget: how long.
    """

    phase: Phase
    name: str | None
    settings: Mapping[str, Any]
    data: DataPlan
    budget: Budget

    @property
    def label(self) -> str:
        """As tables call it.

        Example:
            >>> stage.label
            '4 routing: fixed'
        """
        own = "" if self.name is None else f": {self.name}"
        return f"{self.phase.number} {self.phase.name}{own}"

    @property
    def arm(self) -> str:
        """Its name as an arm of a study."""
        return self.phase.name if self.name is None else f"{self.phase.name}-{self.name}"

    @property
    def slug(self) -> str:
        """Its name as a folder."""
        return f"{self.phase.number}-{self.arm}"


def _key_of(setting: Setting, value: object) -> str:
    return f"{setting.name} {value if isinstance(value, int | float) else shown(value)}"


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A curriculum as it was written down.

    Args:
        name: of the curriculum and its folder.
        question: what it asks, in one sentence.
        base: `TrainConfig` keys that all phases share.
        data: what is trained and tested on, where a phase does not say otherwise.
        budget: how long each run is, where a phase does not say otherwise.
        phases: in their order.
        seed: of every run.
        description: more about it, for the reader.

    Example:
        >>> curriculum = load_curriculum("shell")
        >>> [stage.label for stage in curriculum.stages()][-1]
        '5 shared_space'
    """

    name: str
    question: str
    base: Mapping[str, Any]
    data: DataPlan
    budget: Budget
    phases: tuple[Phase, ...]
    seed: int = flag(0, "of every run", least=0, most=MOST_SEED)
    description: str = ""

    def __post_init__(self) -> None:
        check_fields(self, _key_of)

    def phase(self, name: str) -> Phase:
        """The phase of that name.

        Raises:
            ValueError: the plan leaves it out.
        """
        for phase in self.phases:
            if phase.name == name:
                return phase
        has = listed(phase.name for phase in self.phases)
        raise ValueError(f"{self.name} has no phase {name}: it has {has}")

    def stages(self, until: str | None = None) -> list[Stage]:
        """The runs in their order, up to the last of a phase; None: all.

        Raises:
            ValueError: the plan leaves that phase out.
        """
        last = None if until is None else self.phase(until).number
        return [
            stage
            for phase in self.phases
            if last is None or phase.number <= last
            for stage in self.stages_of(phase)
        ]

    def stages_of(self, phase: Phase) -> list[Stage]:
        """The runs of a phase."""
        data = replace(self.data, **phase.data)
        steps = phase.steps
        budget = self.budget if steps is None else replace(self.budget, steps=steps, epochs=None)
        several: list[tuple[str | None, Any]] = [*phase.stages.items()] or [(None, {})]
        return [
            Stage(
                phase=phase,
                name=name,
                settings=self.settings({**phase.changes, **own}),
                data=data,
                budget=budget,
            )
            for name, own in several
        ]

    def settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The base with changes; several teachers take the place of the base's one."""
        settings = {**self.base, **changes}
        if changes.get("teachers") and "teacher_name" not in changes:
            settings["teacher_name"] = None
        return settings

    def canonical(self) -> dict[str, Any]:
        """The plan as JSON values, with its defaults written out."""
        values = asdict(self)
        values["phases"] = {phase.pop("name"): phase for phase in values["phases"]}
        return as_json(values)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hex digits."""
        return canonical_hash(self.canonical())
