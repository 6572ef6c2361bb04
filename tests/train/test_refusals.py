"""What a run refuses before it begins, and how it says where it stopped."""

from pathlib import Path

import pytest
import torch

from kava.commands.train import main, train
from kava.errors import KavaError
from kava.profile.step import first_batch
from kava.trace import Segment
from kava.train.arguments import training_arguments
from kava.train.config import TrainConfig
from kava.train.flags import parse_config
from kava.train.items import count_items
from kava.train.models import build_distiller, build_tokenizer
from one_line import refusal


def config(tmp_path: Path, **settings: object) -> TrainConfig:
    values = {
        "model_name": "kava/tiny-gpt2",
        "dataset_name": "kava/shell-game?num_train=5",
        "output_dir": str(tmp_path / "run"),
        "batch_size": 2,
        "epochs": 1,
        **settings,
    }
    return TrainConfig(**values, no_progress=True, device="cpu")  # type: ignore[arg-type]


def test_a_wrong_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(main, ["--lerning_rate", "1"], capsys) == (
        "kava train: error: unknown flag --lerning_rate (did you mean --learning_rate, here "
        "--lr?); see kava train --help"
    )


def test_head_scope_is_refused_where_heads_are_mixed() -> None:
    with pytest.raises(ValueError, match="--kv_scope model"):
        TrainConfig(alignment_mode="flat", kv_scope="head")


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--max_steps 0 trains nothing; pass 1 or more"):
        config(tmp_path, max_steps=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subset_size": 1}, r"there is one sample to train on: give two or more \(--subset_size"),
        ({"eval_size": 1}, r"there is one sample to evaluate on: give two or more \(--eval_size\)"),
    ],
)
def test_a_wrong_sample_control_needs_another_sample(
    changes: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(config(tmp_path, wrong_sample=True, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "is_folder", "message"),
    [
        ("tensorboard", False, "run/tensorboard is a file, where the run writes a folder; move it"),
        ("metrics.jsonl", True, "run/metrics.jsonl is a folder, where the run writes a file; move"),
    ],
)
def test_what_is_in_the_way_of_a_runs_files_is_named_before_it(
    name: str, is_folder: bool, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir()
    path.mkdir() if is_folder else path.touch()
    with pytest.raises(ValueError, match=message):
        train(config(tmp_path, dataset_name="no.jsonl"))


def test_text_for_a_model_of_the_game_alone_asks_for_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = '{"question": "How many?", "reasoning": "one\\ntwo", "answer": "2"}\n'
    Path("data.jsonl").write_text(row)
    line = refusal(main, ["--dataset_name", "data.jsonl", "--device", "cpu"], capsys)
    assert line.startswith("kava: error: --model_name kava/shell-teacher reads the words of kava/")
    assert "not data.jsonl: pass --model_name with a model that reads your text" in line


def test_bfloat16_trains_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    arguments = training_arguments(parse_config(["--bf16"]), False, False)
    assert arguments.use_cpu
    assert arguments.bf16


def test_an_error_in_the_step_names_step_and_samples(tmp_path: Path) -> None:
    with pytest.raises(KavaError, match=r"NaN or infinity.*at step 2, in the batch of samples 's"):
        train(config(tmp_path, lr=1e30, max_grad_norm=1e30))


def test_an_explicit_student_is_matched_over_the_whole_text(tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        student="explicit",
        teacher_name="kava/tiny-llama",
        kv_method="full",
        alignment_mode="structured",
    )
    distiller, tokenizer = build_distiller(settings), build_tokenizer(settings)
    batch = first_batch(settings, tokenizer, torch.device("cpu"))
    target = distiller(batch).target
    assert target is not None
    num_reasoning = int(batch["segment_ids"].eq(Segment.REASONING).sum())
    assert int(target.trace.valid_BT().sum()) == num_reasoning
    assert count_items(batch, settings)[2] == num_reasoning
    assert train(settings).name == "checkpoint-3"
