"""Runs that save memory: quantised and resting teachers, and the optimiser's states."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import all_rows, distiller_and_batch, interrupted, metrics, run, small, weights

from kava.commands.train import main
from kava.models.capture import capture
from kava.models.offload import Resting
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.states import LEAST_QUANTISED, state_bytes
from one_line import refusal

pytest.importorskip("bitsandbytes")

TAUGHT: dict[str, Any] = {
    "model_name": "kava/shell-teacher",
    "teacher_name": "kava/shell-gpt2-teacher",
    "kv_method": "full",
    "alignment_mode": "structured",
    "calibration_samples": 32,
}


def taught(output_dir: Path | str = "unused", **changes: Any) -> TrainConfig:
    return small(output_dir, **{**TAUGHT, **changes})


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_teacher_gives_nearly_the_same_target(bits: str) -> None:
    frozen = {"aligner_fit": "frozen", "map_proj_init_uniform": True}
    plain, batch = distiller_and_batch(taught(**frozen))
    quantised, _ = distiller_and_batch(taught(teacher_quantization=bits, **frozen))
    theirs, ours = (one(batch).target.trace for one in (plain, quantised))
    for part in ("keys", "values"):
        expected, found = getattr(theirs, part), getattr(ours, part)
        off = float((found - expected).norm() / expected.norm())
        assert 0 < off < (0.02 if bits == "8bit" else 0.15)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_run_leaves_a_quantised_teacher_as_it_was_and_fits_its_map_through_it(
    bits: str, bf16: bool, tmp_path: Path
) -> None:
    built = build_run(taught(tmp_path, teacher_quantization=bits, bf16=bf16, max_steps=1))
    report = built.calibration
    assert report is not None
    plain = build_run(taught(tmp_path, max_steps=1)).calibration
    assert plain is not None
    assert str(report) != str(plain)
    teacher = built.trainer.model.teacher
    assert teacher is not None
    ids = torch.arange(1, 13).view(2, 6)
    before = capture(teacher, ids)[1]
    left = {name: part.clone() for name, part in teacher.named_parameters()}
    student = weights(built.trainer.model.student)
    built.trainer.train()
    after = capture(teacher, ids)[1]
    assert torch.equal(before.keys, after.keys)
    assert torch.equal(before.values, after.values)
    assert all(torch.equal(left[name], part) for name, part in teacher.named_parameters())
    changed = weights(built.trainer.model.student)
    assert any(not torch.equal(student[name], changed[name]) for name in student)


def test_each_of_several_teachers_has_its_bits(tmp_path: Path) -> None:
    several = taught(
        tmp_path,
        teacher_name=None,
        teachers=["a=kava/shell-gpt2-teacher", "b=kava/shell-gpt2-teacher"],
        teacher_quantization=["none", "8bit"],
        max_steps=1,
    )
    first, second = run(several).trainer.model.readers
    assert first.get_memory_footprint() > second.get_memory_footprint()


@pytest.mark.parametrize("several", [False, True])
def test_a_resting_teacher_changes_nothing_but_where_its_weights_are(
    several: bool, tmp_path: Path
) -> None:
    names: dict[str, Any] = {}
    if several:
        two = ["a=kava/shell-gpt2-teacher", "b=kava/shell-teacher"]
        names = {"teacher_name": None, "teachers": two}
    fixed = {"aligner_fit": "frozen", "map_proj_init_uniform": True, **names}
    config = taught(tmp_path, max_steps=1, **fixed)
    trainer = build_run(config).trainer
    distiller = trainer.model
    batch = trainer.data_collator(trainer.train_dataset[:8])
    expected = distiller(batch).loss
    woken: list[int] = []

    def bring(part: torch.Tensor) -> torch.Tensor:
        woken.append(part.numel())
        return part.clone()

    for teacher in distiller.readers:
        distiller.resting.add(teacher, bring)
    assert torch.equal(distiller(batch).loss, expected)
    assert sum(woken) >= sum(p.numel() for t in distiller.readers for p in t.parameters())


@pytest.mark.parametrize("space", [{}, {"shared_space_weight": 1.0}])
def test_resting_teachers_are_woken_one_at_a_time_to_fit_their_maps(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: list[int] = []
    place = Resting.place

    def resting(self: Resting, models: Any, device: torch.device, *, rest: bool) -> None:
        place(self, models, device, rest=rest)
        for model in set(models):
            self.add(model, lambda part: part)
            model.register_forward_pre_hook(lambda *_: most.append(len(self._awake)))

    monkeypatch.setattr(Resting, "place", resting)
    two = ["a=kava/shell-gpt2-teacher", "b=kava/shell-teacher"]
    options = {"alignment_mode": "structured", "calibration_samples": 64, **space}
    trainer = build_run(taught(tmp_path, teacher_name=None, teachers=two, **options)).trainer
    assert trainer is not None
    assert most
    assert set(most) == {1}


def test_the_run_lets_the_teacher_rest_where_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        Resting, "place", lambda self, models, device, *, rest: placed.append((len(models), rest))
    )
    for rest in (False, True):
        distiller, _ = distiller_and_batch(taught(teacher_offload=rest))
        distiller.move_teacher(torch.device("cpu"))
    assert placed == [(1, False), (1, True)]


@pytest.mark.parametrize("optim", ["adamw_8bit", "adamw_torch", "adafactor"])
def test_a_run_goes_on_exactly_with_every_optimiser(optim: str, tmp_path: Path) -> None:
    options = {"optim": optim, "save_steps": 2, "lr_projector": 2e-3}
    run(small(tmp_path / "whole", **options))
    interrupted(small(tmp_path / "cut", **options), step=3)
    run(small(tmp_path / "cut", **options, resume=True))
    assert all_rows(tmp_path / "cut") == all_rows(tmp_path / "whole")


def test_the_states_that_a_run_holds_are_those_that_are_counted(tmp_path: Path) -> None:
    """Embeddings of 4,096 numbers or more keep states of 32 bits."""
    options = {"model_name": "kava/tiny-llama", "keep_last_step": True, "max_length": 256}
    trainer = run(small(tmp_path, **options, optim="adamw_8bit", max_steps=1)).trainer
    assert trainer.model.student.base.get_input_embeddings().weight.numel() >= LEAST_QUANTISED
    held = sum(
        part.numel() * part.element_size()
        for state in trainer.optimizer.state.values()
        for name, part in state.items()
        if isinstance(part, torch.Tensor) and part.numel() > 1 and "qmap" not in name
    )
    assert state_bytes("adamw_8bit", trainer.model) == pytest.approx(held, rel=0.01)


def test_states_of_8_bits_learn_as_those_of_32(tmp_path: Path) -> None:
    for optim in ("adamw_8bit", "adamw_torch"):
        run(small(tmp_path / optim, optim=optim, max_steps=8))
    small_states, plain = (metrics(tmp_path / one) for one in ("adamw_8bit", "adamw_torch"))
    assert small_states[0]["loss"] == plain[0]["loss"]
    assert small_states[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.05)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--teacher_quantization 4bit", "--teacher_quantization 4bit is about a frozen teacher"),
        ("--teacher_quantization 3bit", "; choose none, 8bit, 4bit"),
        ("--teacher_offload", "--teacher_offload is about a frozen teacher"),
        (
            "--teacher_name kava/shell-gpt2-teacher --teacher_offload --device cpu",
            "--device cpu is the CPU here: leave it out",
        ),
        (
            "--teacher_name kava/shell-gpt2-teacher --teacher_offload --teacher_quantization 8bit",
            "leave one of the two out",
        ),
        (
            "--teacher_name kava/shell-gpt2-teacher --teacher_quantization 8bit 4bit",
            "gives 2, and --teacher_name names one teacher",
        ),
        ("--optim paged_adamw_8bit --device cpu", "pass --optim adamw_8bit"),
        ("--optim adam9", "'adam9' is unknown"),
    ],
)
def test_what_saves_nothing_here_is_refused(
    flags: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model_name", "kava/shell-teacher", "--output_dir", str(tmp_path / "run")]
    assert part in refusal(main, [*argv, *flags.split()], capsys)
    assert not (tmp_path / "run").exists()


def test_the_start_of_a_run_names_what_is_quantised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    argv = "--model_name kava/shell-teacher --teacher_name kava/shell-gpt2-teacher --max_steps 1"
    argv += f" --teacher_quantization 8bit --batch_size 4 --max_length 64 --output_dir {folder}"
    argv += " --dataset_name kava/shell-game?num_train=64 --calibration_samples 32 --no_progress"
    assert main([*argv.split(), "--device", "cpu"]) == 0
    assert "in 8 bits" in capsys.readouterr().out
    shutil.rmtree(folder)
