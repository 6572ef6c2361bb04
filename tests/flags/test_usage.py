"""The command line: what is read, what is refused in one line, what `--help` and a shell show."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, replace
from typing import Any

import pytest

from flags.test_check import Settings, said
from flags.usages import USAGES, name_of
from kava.commands.study import USAGE as STUDY
from kava.flags import Usage, again, flags_of
from kava.flags.complete import offers
from kava.flags.help import HEADINGS, default, heading
from kava.flags.known import OFF, Instead, Same

USAGE = Usage(
    prog="kava x",
    kind=Settings,
    summary="Do x.",
    example="kava x a.json",
    known={
        "learning_rate": Same("lr"),
        "temper": Same("kind", {"warm": "hot"}),
        "files": Same("path", several="takes one file"),
        "fp16": Instead("is not there: use --lr", OFF),
        "part": Instead("is not there", ("main",), ("kind", ("hot",))),
        "draws": Same("seeds", commas=True),
        "num_seeds": Instead("counts the seeds", counts="seeds"),
    },
)


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        ("file --lr 1e-3", {"path": "file", "lr": 1e-3}),
        ("--lr=1e-3 file", {"path": "file", "lr": 1e-3}),
        ("--path file --lr 1 --lr 2", {"path": "file", "lr": 2.0}),
        ("file --seeds 1 2 --seeds 3", {"path": "file", "seeds": [1, 2, 3]}),
        ("--switch file", {"path": "file", "switch": True}),
        ("--switch False file", {"path": "file", "switch": False}),
        ("--switch=no file", {"path": "file", "switch": False}),
        ("--switch -- file", {"path": "file", "switch": True}),
        ("file --kind hot --note=", {"path": "file", "kind": "hot", "note": ""}),
        ("file --note -5+3", {"path": "file", "note": "-5+3"}),
        ("file --learning-rate 2", {"path": "file", "lr": 2.0}),
        ("file --temper warm", {"path": "file", "kind": "hot"}),
        ("--files file", {"path": "file"}),
        ("file --fp16 false", {"path": "file"}),
        ("file --part main --kind hot", {"path": "file", "kind": "hot"}),
        ("file --seeds 1,2 3", {"path": "file", "seeds": [1, 2, 3]}),
        ("file --draws 1,2 3", {"path": "file", "seeds": [1, 2, 3]}),
        ("file --num_seeds 2 --seeds 1,2", {"path": "file", "seeds": [1, 2]}),
        ("file --draws=4", {"path": "file", "seeds": [4]}),
    ],
)
def test_what_is_given_is_read(argv: str, values: dict[str, Any]) -> None:
    assert USAGE.read(argv.split()) == values
    assert USAGE.parse(argv.split()) == Settings(**values)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("f --kindd hot", "unknown flag --kindd (did you mean --kind?)"),
        ("f --learning_rat 1", "unknown flag --learning_rat (did you mean --learning_rate, here"),
        ("f --xyz", "unknown flag --xyz; see"),
        ("f -x", "unknown flag -x"),
        ("f --lr", "--lr needs a value"),
        ("f --lr --size 3", "--lr needs a value"),
        ("f --seeds", "--seeds needs a value"),
        ("f --lr -1e-3", "--lr -0.001 must be above 0 and at most 10"),
        ("f --switch=maybe", "--switch 'maybe' is not true or false"),
        ("f g", "'g' stands behind no flag"),
        ("f lr", "'lr' stands behind no flag (did you mean --lr?)"),
        ("f --lr 1 --learning_rate 1", "--lr and --learning_rate mean the same: leave one out"),
        ("f --fp16", "--fp16 is not there: use --lr"),
        ("f --fp16 true", "--fp16 is not there: use --lr"),
        ("f --part main", "--part is not there"),
        ("f --part main --kind mild", "--part is not there"),
        ("--files a,b", "--files takes one file"),
        ("--files a b", "--files takes one file"),
        ("f --seeds 1,,2", "--seeds '' is not a whole number"),
        ("f --num_seeds 3 --seeds 1 2", "--num_seeds counts the seeds"),
        ("f --num_seeds 2", "--num_seeds counts the seeds"),
    ],
)
def test_what_is_wrong_is_one_line(
    argv: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"kava x: error: {message}" in said(USAGE, argv.split(), capsys)


def test_what_is_missing_is_named_with_a_call_that_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        USAGE.parse([])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "kava x: error: FILE is missing, as in: kava x a.json; see kava x --help\n"
    )


@pytest.mark.parametrize(
    ("mapping", "values"),
    [
        ({"lr": "5e-5", "path": "f"}, {"lr": 5e-5, "path": "f"}),
        ({"learning_rate": 1, "note": None}, {"lr": 1.0, "note": None}),
        ({"temper": "warm", "fp16": False}, {"kind": "hot"}),
        ({"seeds": [1, 2]}, {"seeds": [1, 2]}),
        ({"part": "main", "kind": "hot"}, {"kind": "hot"}),
        ({"part": "main", "temper": "warm"}, {"kind": "hot"}),
        ({"num_seeds": 2, "seeds": [1, 2]}, {"seeds": [1, 2]}),
    ],
)
def test_a_file_takes_the_same_names(mapping: dict[str, Any], values: dict[str, Any]) -> None:
    assert USAGE.read_mapping(mapping, "x.yaml") == values


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"kindd": "hot"}, r"x.yaml: unknown key 'kindd' \(did you mean 'kind'\?\)"),
        ({"lr": 1, "learning_rate": 1}, "x.yaml: lr and learning_rate mean the same"),
        ({"fp16": True}, "x.yaml: fp16 is not there: use --lr"),
        ({"files": "a,b"}, "x.yaml: files takes one file"),
        ({"num_seeds": 3, "seeds": [1, 2]}, "x.yaml: num_seeds counts the seeds"),
        ({"size": 2.5}, "x.yaml: size: 2.5 is not a whole number"),
        ({"size": True}, "x.yaml: size: True is not a whole number"),
        ({"size": None}, "x.yaml: size: None is not a whole number"),
        ({"seeds": 3}, "x.yaml: seeds: 3 is not a list of whole numbers"),
        ({"seeds": ["a"]}, r"x.yaml: seeds: \['a'\] is not a list of whole numbers"),
        ({"optim": {"lr": 3}}, "x.yaml: optim holds keys of its own"),
    ],
)
def test_a_bad_file_is_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        USAGE.read_mapping(mapping, "x.yaml")


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_all_of_the_help_shows_every_flag_with_its_default(
    usage: Usage[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        usage.parse(["--help", "all"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown == usage.help(everything=True) + "\n"
    assert usage.example in shown
    text = " ".join(shown.split())
    for setting in usage.settings.values():
        optional = setting.flag.positional and not setting.required
        spelled = f" [{setting.spelled}] " if optional else f" {setting.spelled} "
        assert spelled in text
        expected = "required" if setting.required else f"default: {default(setting)}"
        assert expected in text[text.index(spelled) :]
    assert max(len(line) for line in shown.splitlines() if usage.example not in line) <= 100


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_help_shows_what_is_common_and_how_many_more_there_are(
    usage: Usage[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        usage.parse(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    common = set(usage.settings if usage.common is None else usage.common)
    assert common <= set(usage.settings)
    needed = {name for name, one in usage.settings.items() if one.required}
    # what may be left out without a flag stands in brackets
    named = set(re.findall(r"^  (?:--|\[)?([^\s\]]+)", shown, re.M)) - {"-h,"}
    assert named == {
        one.spelled.removeprefix("--")
        for name, one in usage.settings.items()
        if name in common | needed
    }
    rest = f"\n\n{usage.prog} --help all shows all {len(usage.settings)} flags.\n"
    assert shown.endswith(rest) == (common | needed != set(usage.settings))
    assert "shows all" not in usage.help(everything=True)


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_flags_stand_once_under_each_heading(usage: Usage[Any]) -> None:
    flags = usage.help(everything=True).partition("\n  -h, --help")[0]
    headings = re.findall(r"^([a-z]+):$", flags, re.M)
    assert headings == sorted({heading(one) for one in usage.settings.values()}, key=HEADINGS.index)


def test_train_shows_a_screen_of_its_flags() -> None:
    common = USAGES["kava train"].common
    assert common is not None
    assert 15 <= len(common) <= 20


def test_a_flag_that_is_taken_again_keeps_its_limits() -> None:
    @dataclass(kw_only=True)
    class Other:
        lr: float | None = again(Settings, "lr", None, unset="theirs")
        path: str = again(Settings, "path", MISSING, help="another")

    mine, theirs = flags_of(Other), flags_of(Settings)
    assert mine["lr"].default is None
    assert mine["lr"].flag == replace(theirs["lr"].flag, unset="theirs")
    assert mine["path"].required
    assert mine["path"].flag == replace(theirs["path"].flag, help="another")
    with pytest.raises(KeyError):
        again(Settings, "nowhere", None)


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_the_example_of_a_command_is_one_that_it_takes(usage: Usage[Any]) -> None:
    import shlex

    words = shlex.split(usage.example)
    program = "python experiments/" if usage.prog.endswith(".py") else ""
    assert usage.example.startswith(f"{program}{usage.prog}")
    argv = words[len(f"{program}{usage.prog}".split()) :]
    assert usage.read(argv) if usage.beside is not None else usage.parse(argv)


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [
        (["run"], "--d", ["--dry_run"]),
        ([], "", ["run", "status", "report", "pack", "list"]),
        ([], "st", ["status"]),
        (["nowhere"], "--", []),
        (["run", "--help"], "", []),
        (["run", "--jobs"], "", []),
    ],
)
def test_a_shell_is_offered_parts_and_flags(words: list[str], begun: str, found: list[str]) -> None:
    assert [offer.value for offer in offers(STUDY, words, begun)] == found


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [
        ([], "--s", ["--size", "--seeds", "--switch"]),
        (["--kind"], "", ["mild", "hot"]),
        (["--kind"], "h", ["hot"]),
        (["--switch"], "--k", ["--kind"]),
        (["--lr"], "", []),
        ([], "", []),
    ],
)
def test_a_shell_is_offered_flags_and_words(words: list[str], begun: str, found: list[str]) -> None:
    assert [offer.value for offer in offers(USAGE, words, begun)] == found
