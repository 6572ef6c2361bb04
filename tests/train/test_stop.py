"""A signal ends a run after a step that is saved, and the run goes on as if there had been none."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kava import stopping
from kava.cli import run
from kava.commands.train import main
from kava.train import build, held_out, models, trainer
from kava.train.checkpoint import CheckpointWriter
from kava.train.stop import command_to_go_on
from kava.train.trainer import RunTrainer

FLAGS = (
    "--model_name kava/shell-llama --teacher_name kava/shell-teacher --target_len 3 "
    "--dataset_name kava/shell-game?num_train=64 --max_length 64 --batch_size 8 --max_steps 6 "
    "--logging_steps 4 --save_steps 4 --eval_steps 3 --eval_size 8 --max_new_tokens 2 "
    "--projection_dropout 0.1 --lr 1e-3 --no_progress --device cpu"
)
LAST = 6


def argv(folder: Path) -> list[str]:
    return [*FLAGS.split(), "--output_dir", str(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(main, argv(folder)) == 0
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of its metrics, without what the clock and the process decide."""
    clock = {"seconds", "peak_memory_bytes", "train_runtime", "train_samples_per_second"}
    clock |= {"train_steps_per_second", "total_flos"}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def interrupt(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, time: int, signum: int
) -> None:
    """Send a signal when a function is called for the so-many-th time, in the middle of it."""
    function: Callable[..., Any] = getattr(place, name)
    calls = []

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        result = function(*args, **kwargs)
        if len(calls) == time:
            os.kill(os.getpid(), signum)
        return result

    monkeypatch.setattr(place, name, called)


STEP = (RunTrainer, "training_step")
CASES = {
    "in a step": (*STEP, 2, 2),
    "in the last step": (*STEP, LAST, LAST),
    "in a step with an evaluation": (*STEP, 3, 3),
    "in the losses of an evaluation": (held_out, "attention_entropy", 1, 3),
    "in the answers of an evaluation": (trainer, "answer_records", 1, 3),
    "in the last evaluation": (trainer, "answer_records", 2, LAST),
    "in a save": (CheckpointWriter, "write_model", 1, 5),
    "in the last save": (CheckpointWriter, "write_model", 2, LAST),
    "while the data are read": (build, "load_data", 1, None),
    "while the models are loaded": (models, "load_model", 1, None),
}


@pytest.mark.parametrize(
    ("case", "signum"),
    [
        ("in a step", signal.SIGINT),
        ("in a step", signal.SIGUSR1),
        *(pytest.param(case, signal.SIGTERM, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
    signum: int,
) -> None:
    place, name, time, saved = CASES[case]
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, place, name, time, signum)
        assert run(main, argv(folder)) == 128 + signum
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("kava: interrupted: " if signum == signal.SIGINT else "kava: stopped by")
    if saved is None:
        assert "no step was done; go on with: " in line
        assert not folder.exists()
    else:
        assert f"step {saved} is saved: {folder / f'checkpoint-{saved}'}; go on with: " in line
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    program, command, *flags = shlex.split(line.partition("go on with: ")[2])
    assert (program, command) == ("kava", "train")
    assert ("--resume" in flags) == (saved is not None)

    assert run(main, flags) == 0
    assert rows(folder) == rows(whole)
    for weights in ("model.safetensors", "map_aligner.safetensors"):
        ours = load_file(folder / f"checkpoint-{LAST}" / weights)
        theirs = load_file(whole / f"checkpoint-{LAST}" / weights)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_second_signal_in_a_save_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the process as a kill does: here by an exception that nothing waits for."""

    class Ended(BaseException):
        pass

    def end(signum: int) -> None:
        raise Ended

    monkeypatch.setattr(stopping, "_end_at_once", end)
    monkeypatch.setattr(stopping, "REPEAT_SECONDS", 0)
    with monkeypatch.context() as patch:
        interrupt(patch, CheckpointWriter, "write_model", 2, signal.SIGTERM)
        interrupt(patch, CheckpointWriter, "write_model", 2, signal.SIGTERM)
        with pytest.raises(Ended):
            run(main, argv(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    assert not (tmp_path / "run" / "checkpoint-6").exists()
    assert run(main, [*argv(tmp_path / "run"), "--resume"]) == 0


@pytest.mark.parametrize(
    ("flags", "again"),
    [
        ("--lr 1 --overwrite", "--lr 1 --resume"),
        ("--overwrite true --lr 1", "--lr 1 --resume"),
        ("--overwrite=true --lr 1", "--lr 1 --resume"),
        ("--resume --lr 1", "--lr 1 --resume"),
        ("--resume_from a/checkpoint-3 --lr 1", "--lr 1 --resume"),
        ("--config a.yaml", "--config a.yaml --resume"),
    ],
)
def test_the_command_that_goes_on(flags: str, again: str) -> None:
    assert command_to_go_on(flags.split()) == f"kava train {again}"
    assert command_to_go_on(flags.split(), "python x.py") == f"python x.py {again}"
