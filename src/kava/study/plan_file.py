"""Read a plan from a YAML file, or one that comes with the package.

Unknown keys are errors, since a misspelt setting would otherwise silently keep its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from kava.flags import listed, near
from kava.study.checks import check_plan
from kava.study.plan import Arm, Budget, DataPlan, Pilot, Plan, Primary
from kava.study.settings import check_arms

PLANS_FOLDER = Path(__file__).parent / "plans"


def shipped_plans() -> dict[str, Path]:
    """The plans that come with the package, by name."""
    return {path.stem: path for path in sorted(PLANS_FOLDER.glob("*.yaml"))}


def find_plan(name_or_path: str | Path) -> Path:
    """Find the file of a plan.

    Raises:
        ValueError: neither a file nor the name of a shipped plan.
    """
    return find_shipped(name_or_path, shipped_plans(), "plan")


def find_shipped(name_or_path: str | Path, shipped: Mapping[str, Path], what: str) -> Path:
    """Find a file that is given by its path, or by its name among those of the package.

    Args:
        name_or_path: as a user gives it.
        shipped: name → file.
        what: a plan or a curriculum, for the message.

    Raises:
        ValueError: neither.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    raise ValueError(
        f"{name} is neither a file nor a shipped {what}{near(name, shipped)}: {listed(shipped)}"
    )


def load_plan(name_or_path: str | Path, *, check_settings: bool = True) -> Plan:
    """Read a plan.

    Args:
        name_or_path: a YAML file, or the name of a shipped plan.
        check_settings: also check every arm's settings with `TrainConfig`, which loads torch.

    Raises:
        ValueError: no such plan, or an invalid one; one line that names the key and the fix.

    Example:
        >>> load_plan("flat_vs_structured").primary.minimum_effect
        0.05
    """
    from kava.inputs.yaml_text import read_yaml

    path = find_plan(name_or_path)
    values = read_yaml(path)
    try:
        plan = read_plan(values)
        if check_settings:
            check_arms(plan)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return plan


def read_plan(values: Any) -> Plan:
    """Build a plan from parsed YAML or JSON.

    Raises:
        ValueError: an unknown, missing or malformed key, named with its level, or a plan that
            cannot answer its question; one line that says what to fix.
    """
    own = read_level(values, "the plan", Plan)
    arms = own["arms"]
    if not isinstance(arms, dict) or not arms:
        raise ValueError("arms must name at least two arms, each with what, role and changes")
    own["data"] = DataPlan(**read_level(with_mix(own["data"]), "data", DataPlan))
    own["budget"] = Budget(**read_level(own["budget"], "budget", Budget))
    own["primary"] = Primary(**read_level(own["primary"], "primary", Primary))
    if own.get("pilot") is not None:
        own["pilot"] = Pilot(**read_level(own["pilot"], "pilot", Pilot))
    own["arms"] = tuple(_read_arm(str(name), arm) for name, arm in arms.items())
    if not isinstance(own["seeds"], list):
        raise ValueError(f"seeds: {own['seeds']!r} must be a list, such as [0, 1, 2, 3, 4]")
    own["seeds"] = tuple(own["seeds"])
    plan = Plan(**own)
    check_plan(plan)
    return plan


def with_mix(data: Any) -> Any:
    """Data sets with weights, as one data set name for `load_records`."""
    if not isinstance(data, dict):
        return data
    spelled = dict(data)
    for key in ("train", "test"):
        if isinstance(parts := spelled.get(key), dict):
            spelled[key] = "mix:" + ",".join(f"{name}={weight}" for name, weight in parts.items())
    return spelled


def _read_arm(name: str, values: Any) -> Arm:
    own = read_level(values, f"arms.{name}", Arm, given=("name",))
    return Arm(name=name, **own)


def read_level(values: Any, where: str, kind: type, given: Sequence[str] = ()) -> dict[str, Any]:
    """The keys and values of one level, checked against the fields of `kind` and their types."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must hold keys and values, not {values!r:.40}")
    known = {f.name: f for f in fields(kind) if f.name not in given}
    for key in values:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{near(str(key), known)}")
    for name, one in known.items():
        optional = one.default is not MISSING or one.default_factory is not MISSING
        if name not in values and not optional:
            raise ValueError(f"{where}: the key {name!r} is missing")
    return {
        key: _typed(value, f"{where}: {key}", str(known[key].type)) for key, value in values.items()
    }


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "str | None": ((str, type(None)), "text"),
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number"),
    "bool": ((bool,), "true or false"),
    "Role": ((str,), "text"),
    "Mapping[str, Any]": ((dict,), "keys and values"),
}


def _typed(value: Any, where: str, annotation: str) -> Any:
    if annotation not in _KINDS:
        return value  # a nested level, read by its own function
    kinds, words = _KINDS[annotation]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{where} {value!r} is not {words}")
    return value
