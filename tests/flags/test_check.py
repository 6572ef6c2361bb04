"""Every number and word of every command is held to its flag, wherever it comes in."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flags.usages import USAGES, name_of, numbers_of
from kava.demo.settings import DemoConfig
from kava.flags import FlagError, Usage, check_fields, flag, needed
from kava.flags.check import as_argument, check_value
from kava.flags.fields import Flag, Setting, flags_of
from kava.study.plan import Budget, DataPlan, Primary
from kava.train.config import TrainConfig

NOT_FINITE = (math.nan, math.inf, -math.inf)


@dataclass(kw_only=True)
class Settings:
    """One flag of each kind."""

    path: str = needed("a file", positional=True, metavar="FILE")
    lr: float = flag(0.1, "a rate", above=0, most=10)
    size: int = flag(8, "a size", least=1, most=64)
    seeds: list[int] | None = flag(None, "seeds", least=0)
    switch: bool = flag(False, "a switch")
    kind: str = flag("mild", "a word", choices=("mild", "hot"))
    note: str | None = flag(None, "a text", empty=True)

    def __post_init__(self) -> None:
        check_fields(self)


def said(usage: Usage[Any], argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        usage.read(argv)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{usage.prog}: error: ")
    assert line.endswith(f"; see {usage.prog} --help")
    return line


NO_NUMBERS = ("nan", "inf", "-inf", "1e999", "-1e-3x", "many", "")


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_no_number_is_taken_that_is_none(
    usage: Usage[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for setting in numbers_of(usage):
        for word in NO_NUMBERS:
            assert setting.spelled in said(usage, [f"--{setting.name}", word], capsys)


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_every_number_has_limits_and_is_held_to_them(
    usage: Usage[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for setting in numbers_of(usage):
        about = setting.flag
        if about.choices is not None:
            assert "is unknown; choose" in said(usage, [f"--{setting.name}", "123456"], capsys)
            continue
        low = about.least if about.least is not None else about.above
        assert low is not None, f"{usage.prog} --{setting.name} has no lower limit"
        outside = [low - 1, *([] if about.most is None else [about.most + 1])]
        outside += [limit for limit in (about.above, about.below) if limit is not None]
        if setting.kind is int:
            outside.append(2**40 if about.most is None else about.most + 10**30)
        for number in outside:
            line = said(usage, [f"--{setting.name}", str(number)], capsys)
            assert f"{setting.spelled} {setting.kind(number)} must be " in line


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_a_misspelt_word_is_answered_by_the_nearest(
    usage: Usage[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for setting in usage.settings.values():
        if setting.kind is str and setting.flag.choices:
            choice = max(setting.flag.choices, key=len)
            line = said(usage, [f"--{setting.name}", f"{choice}q"], capsys)
            assert f"'{choice}q' is unknown (did you mean '{choice}'?); choose " in line


@pytest.mark.parametrize("value", [*NOT_FINITE, "1", True, None])
def test_a_configuration_made_in_python_is_held_to_the_same(value: Any) -> None:
    for setting in flags_of(TrainConfig).values():
        if setting.kind is float and not (value is None and setting.default is None):
            given = [value] if setting.many else value
            with pytest.raises(ValueError, match=f"--{setting.name} .*(finite|is not a number)"):
                TrainConfig(**{setting.name: given})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainConfig, {"seed": 1.5}, "--seed 1.5 is not a whole number"),
        (TrainConfig, {"bf16": "yes"}, "--bf16 'yes' is not true or false"),
        (TrainConfig, {"reasoning_triggers": "x"}, "--reasoning_triggers 'x' is not a list of"),
        (TrainConfig, {"output_dir": ""}, "--output_dir '' is empty"),
        (TrainConfig, {"lr": 10**400}, "--lr 1000.* must be a finite number"),
        (DemoConfig, {"steps": math.nan}, "--steps nan is not a whole number"),
        (Budget, {"batch_size": 8, "epochs": math.nan}, "budget: epochs nan must be a finite"),
        (Primary, {"minimum_effect": math.nan}, "primary: minimum_effect nan must be a finite"),
        (DataPlan, {"train": "x", "test": "y", "curve_items": True}, "data: curve_items True is"),
        (
            DataPlan,
            {"train": "mix:a=nan", "test": "y", "curve_items": 1},
            "the weight 'nan' of a must be a finite number",
        ),
    ],
)
def test_what_is_wrong_is_named(kind: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_numbers_of_numpy_and_paths_are_taken() -> None:
    config = TrainConfig(lr=np.float32(0.5), seed=np.int64(3), output_dir=Path("a/b"))  # type: ignore[arg-type]
    assert (config.lr, config.seed, config.output_dir) == (0.5, 3, "a/b")


def test_an_argument_of_a_call_is_named_as_such() -> None:
    setting = Setting("lam", float, False, 0.1, Flag(help="", least=0, most=1), "")
    with pytest.raises(FlagError, match=r"^lam=2\.0 must be from 0 to 1$"):
        check_value(setting, 2.0, as_argument)


def test_a_field_of_another_type_is_a_defect() -> None:
    @dataclass
    class Wrong:
        blob: bytes = flag(b"", "no flag can be that")

    with pytest.raises(TypeError, match="the field blob is"):
        flags_of(Wrong)


def test_every_field_of_a_training_run_is_a_flag() -> None:
    assert [one.name for one in fields(TrainConfig)] == list(flags_of(TrainConfig))


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"least": 0}, "at least 0"),
        ({"above": 0}, "above 0"),
        ({"most": 5}, "at most 5"),
        ({"below": 1}, "below 1"),
        ({"least": 1, "most": 65536}, "from 1 to 65,536"),
        ({"least": 0, "below": 1}, "at least 0 and below 1"),
        ({"above": 0, "below": 1}, "above 0 and below 1"),
        ({"above": 0, "most": 0.5}, "above 0 and at most 0.5"),
        ({"least": 1, "words": {"auto": -1}}, "at least 1, or auto"),
        ({}, ""),
    ],
)
def test_limits_in_words(about: dict[str, Any], words: str) -> None:
    assert Flag(help="", **about).range() == words
