"""The page on studies names every key of a plan, and which of them must be there."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

import pytest

from conftest import ROOT
from kava.study.plan import Arm, Budget, DataPlan, Plan, Primary
from measured import tables_of

LEVELS: dict[str, type] = {
    "": Plan, "data.": DataPlan, "budget.": Budget, "arms.NAME.": Arm, "primary.": Primary,
}  # fmt: skip
OWN_LEVELS = ("data", "budget", "arms", "primary")
OTHERWISE = {
    "description": "empty", "arms.NAME.changes": "none", "pilot": "none",
    "primary.learned": "none", "primary.steps_to": "none",
}  # fmt: skip
"""What a key that is left out is, where its default does not say it in a word."""
EITHER = ("budget.steps", "budget.epochs")


def left_out(key: str, one: Field[Any]) -> str:
    """What the page says of a key."""
    if key in EITHER:
        return "one of the two"
    if key in OTHERWISE:
        return OTHERWISE[key]
    if one.default is MISSING:
        return "required"
    if one.default is None:
        return "all"
    return str(one.default).lower() if isinstance(one.default, bool) else str(one.default)


@pytest.mark.parametrize("level", LEVELS)
def test_the_table_has_every_key_of_a_level_and_its_default(level: str) -> None:
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    (table,) = (one for one in tables_of(page) if one.head[0] == "key")
    given = ("name",) if level == "arms.NAME." else OWN_LEVELS if level == "" else ()
    expected = {
        f"{level}{one.name}": left_out(f"{level}{one.name}", one)
        for one in fields(LEVELS[level])
        if one.name not in given
    }
    rows = {row[0]: row[1] for row in table.rows if row[0].rpartition(".")[0] == level.rstrip(".")}
    assert rows == expected
