"""What no model or run has room for is refused before data are read, with the limit named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kava.commands.calibrate import main as calibrate
from kava.commands.profile import main as profile
from kava.commands.train import main as train
from kava.models.limits import check_answers_fit
from kava.train.config import TrainConfig
from kava.train.limits import num_update_steps
from one_line import refusal

DATA = ["--dataset_name", "no.jsonl"]  # what would be complained of if it were read first
TINY = ["--model_name", "kava/tiny-llama"]
PAIR = [*TINY, "--teacher_name", "kava/tiny-gemma"]  # from 1 head of 32 to 2 of 16


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([*PAIR, "--map_rank", "8"], "--map_rank 8 is too many: from 1 key/value heads of 32 to 2"),
        ([*PAIR, "--map_rank", "1000000"], "1 term makes every map; choose 1, or auto"),
        (
            [*PAIR, "--map_rank", "3", "--map_proj_share_dim"],
            "2 terms make every map; choose 1 to 2, or auto",
        ),
        (
            [*PAIR, "--map_rank", "3", "--align_direction", "student_to_teacher"],
            "from 2 key/value heads of 16 to 1 of 32, 2 terms make every map",
        ),
        (
            [*TINY, "--eval_size", "8", "--max_new_tokens", "100000"],
            "--max_new_tokens 100,000 does not fit the 2,048 positions of kava/tiny-llama behind "
            "any prompt (1 token, 8 latent ones): 2,039 is the most",
        ),
        ([*TINY, "--target_len", "4000"], "leaves no room in the 2,048 positions"),
        ([*TINY, "--target_len", "5000"], "--target_len 5000 must be from 0 to 4,096"),
        ([*TINY, "--max_steps", "9", "--warmup_steps", "10"], "whole run of 9 steps"),
        ([*TINY, "--batch_size", "100000000000"], "must be from 1 to 65,536"),
    ],
)
def test_a_run_is_refused_before_its_data_are_read(
    flags: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    argv = [*DATA, *flags, "--device", "cpu"]
    if "--teacher_name" in flags:
        argv += ["--alignment_mode", "structured"]
    assert complaint in refusal(train, argv, capsys)
    assert list(tmp_path.iterdir()) == []


def test_calibration_and_profile_are_refused_alike(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rank = ["--map_rank", "8", "--device", "cpu"]
    for main, argv in (
        (calibrate, [*PAIR, *DATA, *rank, "--output_dir", "out"]),
        (profile, [*PAIR, *rank, "--alignment_mode", "structured"]),
    ):
        assert "--map_rank 8 is too many" in refusal(main, argv, capsys)


def test_the_longest_prompt_decides_how_long_an_answer_may_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = [
        *("--model_name", "kava/tiny-gpt2", "--dataset_name", "kava/shell-game?num_train=16"),
        *("--eval_size", "4", "--max_new_tokens", "2038", "--device", "cpu"),
        *("--output_dir", str(tmp_path / "out")),
    ]
    line = refusal(train, argv, capsys)
    assert "behind shell-game-train-" in line
    assert "8 latent ones): 1," in line
    assert not (tmp_path / "out").exists()


def test_answers_that_are_cut_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model_name", "kava/tiny-gpt2", "--dataset_name", "kava/shell-game?num_train=16"]
    flags += ["--eval_size", "4", "--max_steps", "1", "--device", "cpu", "--overflow", "skip"]
    for most, said in (("1", True), ("40", False)):
        out = ["--max_new_tokens", most, "--output_dir", str(tmp_path / most)]
        assert train([*flags, *out]) == 0
        printed = "".join(capsys.readouterr())
        assert (
            "--max_new_tokens 1 ends 4 of 4 held-out answers before they are" in printed
        ) is said
    assert "before they are whole" not in printed


def test_a_warm_up_is_compared_with_the_steps_that_the_data_give(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [
        *("--model_name", "kava/tiny-gpt2", "--dataset_name", "kava/shell-game?num_train=16"),
        *("--batch_size", "8", "--epochs", "2", "--warmup_steps", "5", "--device", "cpu"),
        *("--output_dir", str(tmp_path / "out")),
    ]
    line = refusal(train, argv, capsys)
    assert "--warmup_steps 5 is longer than the whole run of 4 steps" in line
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a launcher says
    line = refusal(train, [*argv, "--warmup_steps", "3"], capsys)
    assert "--warmup_steps 3 is longer than the whole run of 2 steps" in line


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"batch_size": 4, "epochs": 2.0}, 6),
        ({"batch_size": 4, "epochs": 0.5}, 2),
        ({"batch_size": 4, "gradient_accumulation_steps": 2, "epochs": 3.0}, 6),
        ({"batch_size": 64, "gradient_accumulation_steps": 2, "epochs": 3.0}, 3),
    ],
)
def test_steps_are_counted_as_the_trainer_counts_them(
    settings: dict[str, float], steps: int
) -> None:
    assert num_update_steps(TrainConfig(**settings), 10) == steps  # type: ignore[arg-type]


def test_a_model_without_such_a_limit_has_none() -> None:
    check_answers_fit("bloom", None, 6, 10**6, [("a", 10)])
