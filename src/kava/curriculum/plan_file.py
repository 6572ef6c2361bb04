"""Read a curriculum from a YAML file, or one that comes with the package.

Unknown keys are errors, since a misspelt setting would otherwise silently keep its default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kava.curriculum.checks import check_curriculum
from kava.curriculum.plan import PHASES, Curriculum, Phase
from kava.curriculum.studies import stage_plan
from kava.flags import listed, near
from kava.study.checks import check_plan
from kava.study.plan import Budget, DataPlan
from kava.study.plan_file import find_shipped, read_level, with_mix
from kava.study.settings import check_arms

PLANS_FOLDER = Path(__file__).parent / "plans"


def shipped_curricula() -> dict[str, Path]:
    """The curricula that come with the package, by name."""
    return {path.stem: path for path in sorted(PLANS_FOLDER.glob("*.yaml"))}


def find_curriculum(name_or_path: str | Path) -> Path:
    """Find the file of a curriculum.

    Raises:
        ValueError: neither a file nor the name of a shipped one.
    """
    return find_shipped(name_or_path, shipped_curricula(), "curriculum")


def load_curriculum(name_or_path: str | Path, *, check_settings: bool = True) -> Curriculum:
    """Read a curriculum.

    Args:
        name_or_path: a YAML file, or the name of a shipped one.
        check_settings: also check every run's settings with `TrainConfig`, which loads torch.

    Raises:
        ValueError: no such plan, or an invalid one; one line that names the key and the fix.

    Example:
        >>> load_curriculum("shell").phases[0].name
        'dual_prompt'
    """
    from kava.inputs.yaml_text import read_yaml

    path = find_curriculum(name_or_path)
    values = read_yaml(path)
    try:
        curriculum = read_curriculum(values)
        if check_settings:
            check_stages(curriculum)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return curriculum


def read_curriculum(values: Any) -> Curriculum:
    """Build a curriculum from parsed YAML or JSON.

    Raises:
        ValueError: an unknown, missing or malformed key, named with its level, or a phase that is
            not what its name says; one line that says what to fix.
    """
    own = read_level(values, "the plan", Curriculum)
    phases = own["phases"]
    if not isinstance(phases, dict) or not phases:
        raise ValueError(f"phases must name one or more of {listed(PHASES)}, each with what it is")
    own["data"] = DataPlan(**read_level(with_mix(own["data"]), "data", DataPlan))
    own["budget"] = Budget(**read_level(own["budget"], "budget", Budget))
    own["phases"] = tuple(_read_phase(str(name), phase) for name, phase in phases.items())
    curriculum = Curriculum(**own)
    check_curriculum(curriculum)
    return curriculum


def _read_phase(name: str, values: Any) -> Phase:
    if name not in PHASES:
        raise ValueError(f"phases: {name!r} is no phase{near(name, PHASES)}; {listed(PHASES)}")
    own = read_level(values, f"phases.{name}", Phase, given=("name",))
    for stage, changes in own.get("stages", {}).items():
        if not isinstance(changes, dict):
            raise ValueError(f"phases.{name}: stages.{stage} must hold settings of kava train")
    return Phase(name=name, **{**own, "data": with_mix(own.get("data", {}))})


def check_stages(curriculum: Curriculum) -> None:
    """Check the settings of every run by `TrainConfig`.

    Raises:
        ValueError: the first run whose settings are refused; the message names it.
    """
    for stage in curriculum.stages():
        plan = stage_plan(curriculum, stage)
        try:
            check_plan(plan)
            check_arms(plan)
        except ValueError as error:
            raise ValueError(f"phases.{stage.phase.name}: {error}") from error
