"""The page on training says what the code does: flags, defaults, commands, output, files."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from datasets import Dataset

from conftest import ROOT
from kava.cli import run
from kava.commands.evaluate import main as evaluate_main
from kava.commands.train import main
from kava.data.sources import load_records
from kava.data_settings import RowSettings
from kava.train.config import TrainConfig
from kava.train.flags import parse_config

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.M | re.S)
COMMANDS = [
    shlex.split(line)
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.replace("\\\n", " ").splitlines()
]
PLAIN = [text for kind, text in BLOCKS if not kind]


def rendered(default: object) -> str:
    if default is None:
        return "–"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"`{default}`" if isinstance(default, str) else str(default)


def test_the_tables_hold_every_flag_with_its_default() -> None:
    rows = re.findall(r"^\| `--(\w+)` \| (.*?) \| .+ \|$", PAGE, flags=re.M)
    expected = {field.name: rendered(field.default) for field in fields(TrainConfig)}
    assert len(rows) == len(expected) + 1
    assert dict(rows) == {**expected, "config": "–"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:4]))
def test_every_command_is_one_that_the_shell_takes(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    program, name, *argv = command
    assert program == "kava"
    if name == "train":
        parse_config(argv)
    else:
        assert name == "evaluate"
        assert run(evaluate_main, [*argv, "--checkpoint", "outputs/no such run"]) == 1
        assert "outputs/no such run" in capsys.readouterr().err


def test_the_first_command_prints_and_writes_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(main, [*COMMANDS[0][2:], "--no_progress"]) == 0
    printed = capsys.readouterr().out
    shown, listing = PLAIN
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    assert re.match(pattern, printed)
    folder = Path("outputs/smoke/checkpoint-5")
    named = set(re.findall(r"[\w-]+\.(?:json|safetensors|jinja|pt|pth)\b", listing))
    assert named == {path.name for path in folder.iterdir()}
    written = {path.name for path in Path("outputs/smoke").iterdir()}
    assert written == {"checkpoint-5", "metrics.jsonl", "tensorboard"}


def test_the_run_from_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = (text for kind, text in BLOCKS if kind == "python" and "Trainer" in text)
    names: dict[str, object] = {}
    exec(program.replace("epochs=1", "max_steps=1, device='cpu', no_progress=True"), names)
    assert type(names["trainer"].student).__name__ == "LatentStudent"  # type: ignore[attr-defined]
    assert (tmp_path / "outputs/python/checkpoint-1/kava.json").is_file()


def test_the_papers_data_are_read_as_the_page_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(name: str, *, split: str) -> Dataset:
        assert name == "zen-E/GSM8k-Aug-NL"
        cot = "She sold 48/2 = 24 in May. In all 48+24 = 72."
        return Dataset.from_list([{"question": "How many?", "cot": cot, "answer": "72"}])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    (program,) = (text for kind, text in BLOCKS if kind == "python" and "zen-E" in text)
    exec(program, {})
    (sentences,) = load_records("gsm8k_aug_nl.jsonl", rows=RowSettings(reasoning_field="cot"))
    assert sentences.steps == ("She sold 48/2 = 24 in May.", "In all 48+24 = 72.")
    assert sentences.answer == "72"
