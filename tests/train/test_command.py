"""What `kava train` prints: a loss that adds up, the room on the disk, what can be done next."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kava.cli import run as guarded
from kava.commands.evaluate import main as evaluate_main
from kava.commands.generate import main as generate_main
from kava.commands.train import train
from kava.train.build import build_run
from kava.train.disk import DiskNeed, check_disk, disk_need
from train.runs import small

TEACHER = {"teacher_name": "kava/shell-teacher"}
LOSSES: dict[str, dict[str, Any]] = {
    "self-distillation": {"kv_weight": 3.0, "codi_weight": 2.0, "ce_weight": 0.5},
    "another teacher": {"kv_weight": 0.25, "cka_weight": 1.5, **TEACHER},
    "latents that are read": {"latent_ce_weight": 0.7, "kv_weight": 0.0, "teacher_ce_weight": 0.0},
    "all terms": {
        "kv_weight": 2.0, "codi_weight": 10.0, "cka_weight": 0.5, "latent_ce_weight": 0.3,
        "teacher_ce_weight": 0.9,
    },
    "an explicit student": {"student": "explicit", "ce_weight": 0.0, **TEACHER},
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_the_printed_terms_add_up_to_the_printed_loss(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small(tmp_path, max_steps=2, **LOSSES[name]))
    printed = capsys.readouterr().out
    (formula,) = re.findall(r"^loss:    (.+)$", printed, flags=re.M)
    weights = {}
    for term in formula.split(" + "):
        weight, label = re.fullmatch(r"(?:([\d.e+-]+)·)?(\w+)", term).groups()  # type: ignore[union-attr]
        weights[label] = float(weight or 1)
    lines = re.findall(r"^Step \d+: (.+) \[Mode: identity\]$", printed, flags=re.M)
    assert len(lines) == 2
    for line in lines:
        shown = dict(part.split("=") for part in line.split(", "))
        assert [*shown][:4] == ["loss", "CE", "KV", "CODI"]
        assert {*shown} == {"loss", "CE", "KV", "CODI"} | {*weights}
        total = sum(weight * float(shown[label]) for label, weight in weights.items())
        assert float(shown["loss"]) == pytest.approx(total, rel=2e-3)


def test_the_last_lines_can_be_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(small("a folder/run", max_steps=1, eval_size=4, max_new_tokens=1, **TEACHER))
    printed = capsys.readouterr().out
    assert printed.count("guard: ") == 1
    commands = re.findall(r"^next: +(.+)$", printed, flags=re.M)
    evaluate, generate = map(shlex.split, commands)
    assert evaluate[:2] == ["kava", "evaluate"]
    assert guarded(evaluate_main, evaluate[2:]) == 0
    assert "checkpoint-1" in capsys.readouterr().out
    assert generate[:2] == ["kava", "generate"]
    assert guarded(generate_main, generate[2:]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_finished_run_says_its_verdict_and_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"max_steps": 1, "eval_size": 4, "max_new_tokens": 1, **TEACHER}
    train(small(tmp_path, **options))
    first = capsys.readouterr().out
    train(small(tmp_path, resume=True, **options))
    again = capsys.readouterr().out
    assert "Step 1" not in again
    assert "nothing is left to train" in again
    assert "nothing is left to train" not in first
    pattern = re.compile(r"^(?:guard|checkpoint|next): .+$", flags=re.M)
    ends = [pattern.findall(text) for text in (first, again)]
    assert ends[0] == ends[1]
    assert len(ends[0]) == 4


@pytest.mark.parametrize("changes", [{}, {"save_only_model": True}, {"save_total_limit": 0}])
def test_a_checkpoint_takes_the_room_that_was_said(changes: dict[str, Any], tmp_path: Path) -> None:
    """Tensors and the optimiser's; the rest, tokenizer and texts, is not counted."""
    built = build_run(small(tmp_path, max_steps=5, save_steps=1, codi_weight=1.0, **changes))
    need = disk_need(built.trainer)
    assert need.most == (5 if "save_total_limit" in changes else 3)
    built.trainer.train()
    names = ("model.safetensors", "map_aligner.safetensors", "optimizer.pt")
    files = [tmp_path / "checkpoint-5" / name for name in names]
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert need.checkpoint == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 3},
        {"max_steps": -1, "epochs": 2.0},
        {"max_steps": -1, "epochs": 1.5, "gradient_accumulation_steps": 3},
    ],
)
def test_the_steps_of_a_run_are_known_before_it(changes: dict[str, Any], tmp_path: Path) -> None:
    data = "kava/shell-game?num_train=35"
    built = build_run(small(tmp_path, batch_size=4, dataset_name=data, **changes))
    expected = built.trainer.total_steps
    built.trainer.train()
    assert built.trainer.state.global_step == expected


def test_a_disk_without_room_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def with_free(free: int) -> Callable[[object], SimpleNamespace]:
        return lambda path: SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", with_free(1000))
    with pytest.raises(OSError, match=r"a checkpoint takes 1\.\d MB, and .* has 0\.1 MB free"):
        train(small(tmp_path / "run", max_steps=1, **TEACHER))
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(shutil, "disk_usage", with_free(2_000_000))
    train(small(tmp_path / "run", max_steps=2, save_steps=1, **TEACHER))
    said = capsys.readouterr().err
    assert "kava: warning: 2 checkpoints at a time will take 2." in said
    assert "has 2.0 MB free: free some space, choose another --output_dir, or pass --save" in said


def test_what_is_taken_away_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_run(small(tmp_path / "run", max_steps=1, **TEACHER))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_bytes(b"0" * 12345)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7))
    assert disk_need(built.trainer, [tmp_path / "old"]).free == 12352


def test_enough_room_is_enough() -> None:
    assert check_disk(DiskNeed(100, 3, 300), "run") == []
    (warning,) = check_disk(DiskNeed(100, 3, 299), "run")
    assert warning.startswith("3 checkpoints at a time will take")
    assert str(DiskNeed(1_600_000_000, 3, 10**11)) == (
        "1.6 GB a checkpoint, at most 3 at a time: 4.8 GB of 100.0 GB free"
    )


def test_the_best_checkpoint_is_named_where_it_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kava.train import trainer as trainer_module

    accuracies = iter([0.5, 0.25])
    answers = lambda *args, **kwargs: SimpleNamespace(  # noqa: E731
        accuracy=next(accuracies), forward_passes=1.0, num_correct=2, num_items=4, by_num_steps={}
    )
    monkeypatch.setattr(trainer_module, "answer_records", answers)
    train(small(tmp_path, max_steps=2, save_steps=1, eval_steps=1, eval_size=4, **TEACHER))
    line = f"checkpoint: {tmp_path / 'checkpoint-2'} (best: {tmp_path / 'checkpoint-1'})"
    assert line in capsys.readouterr().out.splitlines()
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == "checkpoint-1"
