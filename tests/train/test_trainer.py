"""The trainer: the same run is the same run, however it is split, stopped and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import all_rows, metrics, run, small, weights
from safetensors.torch import load_file
from transformers import TrainerCallback

from kava.errors import KavaError
from kava.student import LatentStudent
from kava.student.checkpoint import latest_checkpoint, load_student
from kava.train import checkpoint as checkpoint_module
from kava.train.build import build_run

TEACHER = {"teacher_name": "kava/shell-teacher"}
HERE = Path(__file__).parent


class KeepGradients(TrainerCallback):
    """Keep the gradients of the first optimiser step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *args: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        if not self.gradients:
            self.gradients = {
                name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
            }


def first_gradients(tmp_path: Path, **changes: Any) -> dict[str, torch.Tensor]:
    config = small(tmp_path, max_steps=1, max_grad_norm=0.0, codi_weight=1.0, **TEACHER, **changes)
    built = build_run(config)
    keep = KeepGradients()
    built.trainer.add_callback(keep)
    built.trainer.train()
    return keep.gradients


def test_accumulation_does_not_change_the_gradient(tmp_path: Path) -> None:
    whole = first_gradients(tmp_path / "whole", batch_size=8)
    parts = first_gradients(tmp_path / "parts", batch_size=2, gradient_accumulation_steps=4)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_world_size_does_not_change_the_run(tmp_path: Path) -> None:
    """Two processes of 4 samples log what one process of 8 does, interrupted between two logs."""
    settings = {"max_steps": 6, "logging_steps": 3, "save_steps": 4, "eval_steps": 4, **TEACHER}
    settings |= {"eval_dataset_name": "kava/shell-game", "eval_size": 4, "max_new_tokens": 1}
    one, two = tmp_path / "one", tmp_path / "two"
    run(small(one, batch_size=8, **settings))

    def start(*flags: str, **changes: Any) -> None:
        asked = json.dumps({"output_dir": str(two), "batch_size": 4, **settings, **changes})
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
            "--master_port", str(20000 + os.getpid() % 20000), str(HERE / "process.py"), asked,
        ]  # fmt: skip
        done = subprocess.run(
            [*command, *flags], capture_output=True, text=True, timeout=300, cwd=HERE
        )
        assert done.returncode == 0, done.stderr[-2000:]

    start("--interrupt=5")
    assert (two / "checkpoint-4" / "rng_state_1.pth").is_file()
    with pytest.raises(
        ValueError, match=r"2 processes \(8 samples a step\), this run has .*: each step would see"
    ):
        build_run(small(two, batch_size=4, resume=True, **settings))
    start(resume=True)
    ours, theirs = all_rows(two), all_rows(one)
    assert len(ours) == len(theirs) == 5
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=2e-3, abs=1e-5), name
    records = [
        json.loads((end / "checkpoint-6" / "recording.json").read_text()) for end in (two, one)
    ]
    for name in ("tokens", "samples", "optimizer_steps"):
        assert records[0][name] == records[1][name] > 0
    last = [row for row in ours if "tokens" in row][-1]
    assert last["tokens"] == records[0]["tokens"]


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path: Path) -> None:
    runs = [run(small(tmp_path / n, seed=s, **TEACHER)) for n, s in (("a", 0), ("b", 0), ("c", 1))]
    a, b, c = (weights(r.trainer.model) for r in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    options = {**TEACHER, "alignment_mode": "structured", "aligner_fit": "joint"}
    options |= {"projection_dropout": 0.1, "codi_weight": 1.0}
    whole = run(small(tmp_path / "whole", max_steps=6, save_steps=3, **options))
    stopped = tmp_path / "stopped"
    run(small(stopped, max_steps=6, save_steps=3, **options))
    # as if it had been killed after step 3 with two more steps in the log
    for name in ("model.safetensors", "kava.json"):
        (stopped / "checkpoint-6" / name).unlink()
    again = run(small(stopped, max_steps=6, save_steps=3, resume=True, **options))
    assert again.checkpoint == stopped / "checkpoint-3"
    ours, theirs = weights(again.trainer.model), weights(whole.trainer.model)
    for name, part in theirs.items():
        assert torch.equal(ours[name], part), name
    assert [m["loss"] for m in metrics(stopped)] == [m["loss"] for m in metrics(tmp_path / "whole")]
    assert [m["step"] for m in metrics(stopped)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["step", "save"])
def test_a_killed_run_resumes_as_if_nothing_had_happened(when: str, tmp_path: Path) -> None:
    """kill −9 in the middle of a step, and in the middle of writing a checkpoint."""
    options = {"max_steps": 6, "save_steps": 2, **TEACHER}
    run(small(tmp_path / "whole", **options))
    killed = tmp_path / "killed"
    settings = json.dumps({"output_dir": str(killed), **options})
    command = [sys.executable, str(HERE / "process.py"), settings, f"--kill_in={when}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=HERE)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    newest = latest_checkpoint(killed)
    assert newest is not None
    assert newest.name == "checkpoint-2"
    if when == "save":
        assert (killed / ".saving" / "checkpoint-4" / "model.safetensors").is_file()
    run(small(killed, resume=True, **options))
    assert [m["loss"] for m in metrics(killed)] == [m["loss"] for m in metrics(tmp_path / "whole")]
    ours = load_file(killed / "checkpoint-6" / "model.safetensors")
    theirs = load_file(tmp_path / "whole" / "checkpoint-6" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (killed / ".saving").exists()


def test_a_checkpoint_holds_everything(tmp_path: Path) -> None:
    config = small(tmp_path, alignment_mode="structured", **TEACHER)
    built = run(config)
    folder = tmp_path / "checkpoint-4"
    names = {path.name for path in folder.iterdir()}
    assert {
        "model.safetensors", "config.json", "kava.json", "map_aligner.safetensors",
        "tokenizer.json", "optimizer.pt", "scheduler.pt", "trainer_state.json",
    } <= names  # fmt: skip
    aligner = load_file(folder / "map_aligner.safetensors")
    assert "map_aligner.key_projector.head_mix" in aligner
    settings = json.loads((folder / "kava.json").read_text())
    assert settings["config"]["alignment_mode"] == "structured"
    assert settings["data_hash"] == built.data.hash
    assert {"kava", "torch", "transformers", "python"} <= set(settings["versions"])
    student = LatentStudent.from_pretrained(folder)
    for name, part in student.state_dict().items():
        assert torch.equal(part, built.trainer.model.student.state_dict()[name])
    assert Path(load_student(tmp_path).path) == folder


def test_a_full_disk_leaves_earlier_checkpoints_and_no_half_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint_module.save_student
    calls = []

    def fail_second(directory: Path, *args: Any) -> None:
        write(directory, *args)
        calls.append(directory)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(checkpoint_module, "save_student", fail_second)
    with pytest.raises(OSError, match="checkpoint of step 4 could not be written") as error:
        run(small(tmp_path, save_steps=2, **TEACHER))
    assert "No space left on device" in str(error.value)
    assert "\n" not in str(error.value)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["checkpoint-2", "tensorboard"]
    assert load_student(tmp_path).settings["step"] == 2


@pytest.mark.slow
def test_a_file_that_cannot_grow_is_one_clear_line(tmp_path: Path) -> None:
    """A real write error: the process may not write files above 100 kB."""
    settings = json.dumps({"output_dir": str(tmp_path / "run"), **TEACHER})
    command = [sys.executable, str(HERE / "process.py"), settings, "--max_file=100000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=HERE)
    assert done.returncode == 1
    assert "checkpoint of step 4 could not be written" in done.stderr.strip().splitlines()[-1]
    assert latest_checkpoint(tmp_path / "run") is None
    assert not (tmp_path / "run" / ".saving").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path: Path) -> None:
    built = build_run(small(tmp_path, **TEACHER))

    class Poison(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                with torch.no_grad():
                    built.trainer.model.base.lm_head.weight.fill_(torch.nan)

    built.trainer.add_callback(Poison())
    with pytest.raises(KavaError, match="the loss is nan at step 3") as error:
        built.trainer.train()
    named = re.findall(r"'(shell-game-train-\d+)'", str(error.value))
    assert len(named) == 8
    assert set(named) <= {sample.id for sample in built.data.train}


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    built = build_run(small(tmp_path, **TEACHER))
    last = built.trainer.args.max_steps

    class Diverge(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == last:
                with torch.no_grad():
                    built.trainer.model.base.lm_head.weight.fill_(torch.inf)

    built.trainer.add_callback(Diverge())
    with pytest.raises(KavaError, match=f"step {last} left weights that are not finite"):
        built.trainer.train()
    assert not (tmp_path / "run" / f"checkpoint-{last}").exists()


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    built = build_run(small(tmp_path, **TEACHER))
    before = weights(built.trainer.model)
    built.trainer.model.base.lm_head.weight.register_hook(lambda g: torch.full_like(g, torch.inf))
    with pytest.raises(KavaError, match=r"gradient norm is (inf|nan) at step 1"):
        built.trainer.train()
    for name, part in weights(built.trainer.model).items():
        assert torch.equal(part, before[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_weight": 2.0}, r"with --kv_weight 1.0, this run has 2.0"),
        ({"alignment_mode": "structured"}, "--alignment_mode 'identity'"),
        ({"dataset_name": "kava/shell-game?num_train=65"}, "dataset_name"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run(small(tmp_path, max_steps=1, **TEACHER))
    with pytest.raises(ValueError, match=message):
        build_run(small(tmp_path, resume=True, **{"max_steps": 1, **TEACHER, **changes}))


def test_data_that_changed_under_a_run_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    row = {"question": "Cups abcd moves 1234 order ?", "reasoning": "abcd", "answer": "abcd"}
    options = {"dataset_name": str(file), "keep_last_step": True, "target_len": 1, "max_steps": 1}
    options |= {"model_name": "kava/tiny-llama", "max_length": 128, "kv_layer_std": True}
    lines = [json.dumps({**row, "question": f"{i}: {row['question']}"}) for i in range(8)]
    file.write_text("\n".join(lines))
    run(small(tmp_path / "run", **options))
    file.write_text("\n".join(lines).replace('"answer": "abcd"', '"answer": "abdc"', 1))
    with pytest.raises(ValueError, match="was trained on other data"):
        build_run(small(tmp_path / "run", resume=True, **options))


def test_a_folder_with_checkpoints_is_not_overwritten_unasked(tmp_path: Path) -> None:
    run(small(tmp_path, max_steps=1, **TEACHER))
    with pytest.raises(ValueError, match="holds checkpoint-1 already: pass --resume"):
        build_run(small(tmp_path, max_steps=1, **TEACHER))
    with pytest.raises(ValueError, match="holds no complete checkpoint"):
        build_run(small(tmp_path / "empty", resume=True, **TEACHER))


def test_evaluation_reports_the_control_and_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(
        tmp_path, eval_dataset_name="kava/shell-game", eval_size=16, eval_steps=2, **TEACHER
    )
    run(config)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    evaluations = [line for line in lines if "eval_ce" in line]
    assert [line["step"] for line in evaluations] == [2, 4]
    for line in evaluations:
        assert {
            "eval_accuracy", "eval_kv", "eval_kv_wrong_sample", "eval_cos", "eval_erank_student",
            "eval_erank_target", "eval_forward_passes",
        } <= line.keys()  # fmt: skip
        assert line["eval_forward_passes"] >= 4
    printed = capsys.readouterr().out
    assert "another sample's cache" in printed
    assert "answers right from written reasoning" in printed
    assert re.search(r"^Evaluation .*, guard=\w+", printed, re.MULTILINE)
    assert re.search(
        r"^Step 4: loss=[\d.e+-]+, CE=[\d.e+-]+, KV=[\d.e+-]+, CODI=0, textCE=0 \[Mode: identity",
        printed,
        re.MULTILINE,
    )


def test_the_best_checkpoint_is_kept_and_named(tmp_path: Path) -> None:
    """By held-out accuracy, not by age: it is kept beside the newest two."""
    options = {"eval_dataset_name": "kava/shell-game", "eval_size": 8, "eval_steps": 1}
    built = build_run(small(tmp_path, max_steps=5, save_steps=1, **options, **TEACHER))
    accuracies = iter([0.1, 0.9, 0.3, 0.2, 0.4])
    log = built.trainer.log

    def accurate(logs: dict[str, float], *args: Any) -> None:
        if "eval_accuracy" in logs:
            logs["eval_accuracy"] = next(accuracies)
        log(logs, *args)

    built.trainer.log = accurate  # type: ignore[method-assign]
    built.trainer.train()
    names = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-4", "checkpoint-5"}
    assert load_student(tmp_path, best=True).settings["step"] == 2
    assert load_student(tmp_path).settings["step"] == 5
    state = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == "checkpoint-2"


def test_the_logged_loss_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    run(small(tmp_path, kv_weight=3.0, codi_weight=2.0, ce_weight=0.5, **TEACHER))
    for line in metrics(tmp_path):
        expected = 0.5 * line["ce"] + 3.0 * line["kv"] + 2.0 * line["codi"] + line["text_ce"]
        assert line["loss"] == pytest.approx(expected, rel=1e-4)


def test_bfloat16_trains(tmp_path: Path) -> None:
    run(small(tmp_path, bf16=True, **TEACHER))
    assert all(line["loss"] < 100 for line in metrics(tmp_path))


def test_an_explicit_student_learns_from_another_teacher(tmp_path: Path) -> None:
    run(small(tmp_path, student="explicit", max_steps=20, kv_weight=1.0, **TEACHER))
    lines = metrics(tmp_path)
    assert lines[-1]["kv"] < lines[0]["kv"]
    assert load_student(tmp_path).settings["student"] == "explicit"


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_model_on_real_data_trains_resumes_evaluates_and_generates(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kava.commands.evaluate import main as evaluate_main
    from kava.commands.generate import main as generate_main

    model, data = shared / "models" / "stories260K", shared / "data" / "gsm8k"
    options: dict[str, Any] = {
        "model_name": str(model),
        "teacher_name": str(model),
        "dataset_name": str(data / "train.jsonl"),
        "subset_size": 40,
        "overflow": "skip",
        "max_length": 512,
        "target_len": 8,
        "batch_size": 4,
        "codi_weight": 1.0,
        "save_steps": 3,
        "max_steps": 6,
        "eval_dataset_name": str(data / "test.jsonl"),
        "eval_size": 8,
        "eval_steps": 3,
        "max_new_tokens": 8,
    }
    first = run(small(tmp_path / "gsm8k", **options))
    assert first.data.report.num_encoded > 20
    for name in ("model.safetensors", "kava.json"):
        (tmp_path / "gsm8k" / "checkpoint-6" / name).unlink()
    losses = [line["loss"] for line in metrics(tmp_path / "gsm8k")]
    run(small(tmp_path / "gsm8k", resume=True, **options))
    assert [line["loss"] for line in metrics(tmp_path / "gsm8k")] == losses
    assert all(torch.isfinite(torch.tensor(losses)))
    checkpoint = ["--checkpoint", str(tmp_path / "gsm8k")]
    items = tmp_path / "items.jsonl"
    test = ["--dataset_name", str(data / "test.jsonl"), "--subset_size", "8"]
    assert evaluate_main([*checkpoint, *test, "--output", str(items)]) == 0
    assert len(items.read_text().splitlines()) == 8
    capsys.readouterr()
    assert generate_main([*checkpoint, "--prompt", "How many eggs are left?"]) == 0
    assert capsys.readouterr().out.strip()
