"""Places that cannot be written to are refused, by every command, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kava.commands.calibrate import main as calibrate
from kava.commands.compare_evictions import main as compare_evictions
from kava.commands.costs import main as costs
from kava.commands.demo import main as demo
from kava.commands.evaluate import main as evaluate
from kava.commands.layer_map import main as layer_map
from kava.commands.study import main as study
from kava.commands.train import main as train
from kava.files.outputs import check_output, check_output_folder
from one_line import refusal

DATA = ["--dataset_name", "no.jsonl"]  # what would be complained of if it were read first
FOLDERS = {
    "train": (train, ["--model_name", "no/such/model", *DATA], "--output_dir"),
    "calibrate": (calibrate, ["--model_name", "a", "--teacher_name", "b", *DATA], "--output_dir"),
    "demo": (demo, ["--model_name", "no/such/model"], "--output_dir"),
    "study run": (study, ["run", "baselines"], "--output_dir"),
    "study report": (study, ["report", "no-study"], "--output"),
    "costs": (costs, ["no/such/model"], "--output"),
    "evaluate tasks": (evaluate, ["no/such/model", "--tasks", "gsm8k"], "--output"),
}
FILES = {
    "evaluate": (evaluate, ["no/such/model"], "--output"),
    "layer-map": (layer_map, ["--student_model", "a", "--teacher_model", "b", *DATA], "--output"),
    "compare_evictions": (compare_evictions, DATA, "--output"),
    "train scores": (
        train,
        ["--model_name", "no/such/model", "--kv_method", "knockout", *DATA],
        "--kv_scores_path",
    ),
}


@pytest.fixture(autouse=True)
def _a_file_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")


@pytest.mark.parametrize("command", FOLDERS)
@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("", " '' is empty; name something or leave it out"),
        ("file", " file is a file; name a folder"),
        ("/", " / is the root of the disk; name a folder in it"),
        ("file/deep/out", " file/deep/out: "),
        ("shut/out", "shut cannot be written to; name another place"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(
    command: str,
    place: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _shut(monkeypatch)
    main, flags, flag = FOLDERS[command]
    line = refusal(main, [*flags, flag, place], capsys)
    assert f"{flag} " in line
    assert complaint in line
    assert sorted(path.name for path in Path().iterdir()) == ["file", "shut"]


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("", " '' is empty; name something or leave it out"),
        ("shut", " shut is a folder; name a file in it"),
        ("file/map.json", "file is a file, in which no folder can be; name another"),
        ("shut/map.json", "shut cannot be written to; name another place"),
    ],
)
def test_a_file_that_cannot_be_is_refused(
    command: str,
    place: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _shut(monkeypatch)
    main, flags, flag = FILES[command]
    if command == "layer-map" and place == "shut":
        return  # its file must end in .json
    assert complaint in refusal(main, [*flags, flag, place], capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["file", "shut"]


def _shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be written to, whoever runs the tests."""
    Path("shut").mkdir()
    access = os.access

    def shut(path: os.PathLike[str], mode: int) -> bool:
        return Path(path).name != "shut" and access(path, mode)

    monkeypatch.setattr(os, "access", shut)


def test_a_check_of_where_to_write_makes_no_folder() -> None:
    check_output("one/items.jsonl")
    check_output_folder("two/deep")
    assert [path.name for path in Path().iterdir()] == ["file"]
