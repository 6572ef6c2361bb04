"""The profile: its stages add up, it measures the training step, and what is wrong stops it."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from kava.align import MapProjectionAligner
from kava.commands.profile import main, parse
from kava.errors import KavaError
from kava.models.load import load_model, load_tokenizer
from kava.profile import larger_teacher, profile_step
from kava.profile.measure import PeakMemory, StageClock
from kava.profile.report import Profile
from kava.profile.staged import STAGES, StagedDistiller
from kava.profile.step import build, first_batch
from kava.trace import KVTrace
from kava.train.config import TrainConfig
from one_line import refusal

CPU = torch.device("cpu")
QUICK = ["--steps", "1", "--batch_size", "2", "--device", "cpu"]


def profile(*flags: str) -> Profile:
    config, own = parse([*QUICK, *flags])
    return profile_step(config, own.steps)


def nan_model(folder: Path) -> Path:
    """A tiny model with one weight that is not a number."""
    model = load_model("kava/tiny-gpt2")
    with torch.no_grad():
        model.transformer.h[0].attn.c_attn.weight[0, 100] = torch.nan
    model.save_pretrained(folder)
    load_tokenizer("kava/tiny-gpt2").save_pretrained(folder)
    return folder


def test_time_inside_an_inner_stage_is_not_the_outer_ones() -> None:
    clock = StageClock(CPU)
    start = time.perf_counter()
    with clock.stage("outer"):
        time.sleep(0.02)
        with clock.stage("inner"):
            time.sleep(0.05)
        time.sleep(0.01)
    total = time.perf_counter() - start
    assert clock.seconds["inner"] >= 0.05
    assert 0.03 <= clock.seconds["outer"] <= total - 0.05
    assert 0.08 <= sum(clock.seconds.values()) <= total


def test_a_watched_module_is_timed_and_a_failing_one_leaves_its_stage() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KavaError("no")

    clock = StageClock(CPU)
    module, failing = nn.Linear(2, 2), Failing()
    clock.watch(module, "linear")
    clock.watch(failing, "failing")
    module(torch.zeros(1, 2))
    with pytest.raises(KavaError):
        failing(torch.zeros(1))
    assert set(clock.seconds) == {"linear", "failing"}
    with clock.stage("after"):
        pass
    assert "after" in clock.seconds
    assert clock._open == []


def test_peak_memory_sees_what_was_freed_again() -> None:
    memory = PeakMemory(CPU)
    # Of its own, from the system: torch may hand out what an earlier test freed, resident already.
    with mmap.mmap(-1, 64 << 20) as block:
        torch.frombuffer(block, dtype=torch.uint8).fill_(1)
    peak = memory.above_start()
    if peak is None:
        pytest.skip("this system does not tell resident memory")
    assert 50e6 < peak < 200e6


def test_an_accelerator_is_waited_for_at_every_change_of_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waited.append(True))
    clock = StageClock(torch.device("cuda"))
    with clock.stage("outer"), clock.stage("inner"):
        pass
    assert len(waited) == 4


def test_peak_memory_on_cuda_is_the_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 350)
    assert PeakMemory(torch.device("cuda")).above_start() == 250
    assert calls == ["reset"]
    assert PeakMemory(torch.device("mps")).above_start() is None


@pytest.mark.parametrize(("mode", "parameters"), [("structured", 2400), ("flat", 49_408)])
def test_without_arguments_a_larger_teacher_is_aligned(mode: str, parameters: int) -> None:
    found = profile("--mode", mode)
    assert found.mode == mode
    assert found.aligner_parameters == parameters
    assert (found.teacher.num_layers, found.teacher.num_heads, found.teacher.head_dim) == (4, 6, 32)
    assert (found.student.num_layers, found.student.num_heads, found.student.head_dim) == (2, 4, 16)
    length = found.shapes["teacher's cache"][3]
    assert list(found.shapes.values()) == [
        [2, 4, 6, length, 32],
        [2, 4, 6, 6, 32],
        [2, 2, 4, 6, 16],
        [2, 2, 4, 6, 16],
    ]
    assert found.layer_map == [[(0, 1.0)], [(3, 1.0)]]
    assert tuple(found.seconds) == STAGES
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.step_seconds == pytest.approx(sum(found.seconds.values()))


@pytest.mark.parametrize("flag", ["--model_name", "--model-name"])
def test_one_model_name_makes_it_its_own_teacher(flag: str) -> None:
    found = profile("--mode", "identity", flag, "kava/tiny-llama")
    assert found.teacher.name == "kava/tiny-llama, itself"
    assert found.aligner_parameters == 0
    assert found.shapes["target"] == found.shapes["kept positions"] == [2, 2, 2, 6, 16]


@pytest.mark.parametrize("flag", ["--teachers", "--teacher_models"])
def test_several_teachers_are_not_profiled(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(main, [flag, "kava/tiny-gpt2", "kava/tiny-llama"], capsys)
    assert "--teachers names 2, and the stages of one teacher's step are timed" in line


def test_the_training_flags_mean_the_same() -> None:
    flags = ["--decoding", "jacobi", "--target_len", "5", "--codi_weight", "1"]
    found = profile(
        "--model_name=kava/tiny-llama", "--teacher_name=kava/tiny-gemma", "--kv_loss", "structural",
        "--kv_method", "h2o", *flags,
    )  # fmt: skip
    assert found.shapes["kept positions"] == [2, 2, 1, 5, 32]
    assert found.shapes["target"] == [2, 2, 2, 5, 16]


def test_a_configuration_file_is_profiled_as_it_would_train(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model_name: kava/tiny-qwen2\ntarget_len: 4\nlr: 5e-5\n")
    config, _ = parse(["--config", str(path)])
    assert config == TrainConfig(model_name="kava/tiny-qwen2", target_len=4)
    config, _ = parse(["--config", str(path), "--mode", "flat", "--target_len", "3"])
    assert (config.alignment_mode, config.target_len) == ("flat", 3)


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_the_clock_changes_neither_loss_nor_gradient(student: str) -> None:
    config, _ = parse([*QUICK, "--student", student])
    losses, gradients = [], []
    for staged in (False, True):
        distiller, tokenizer = build(config)
        if staged:
            distiller = StagedDistiller(distiller, StageClock(CPU))
        forward = distiller(first_batch(config, tokenizer, CPU))
        forward.loss.backward()
        losses.append(forward.loss)
        gradients.append([p.grad for p in distiller.student.parameters() if p.grad is not None])
    assert torch.equal(*losses)
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_the_larger_teacher_is_the_same_whatever_was_drawn_before() -> None:
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        states.append(larger_teacher().state_dict())
    first, second = states
    assert all(torch.equal(part, second[name]) for name, part in first.items())


def test_the_table_and_the_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--mode", "structured"]) == 0
    table = capsys.readouterr().out
    assert "alignment:        structured, 2,400 parameters" in table
    assert "student's cache:  [2, 2, 4, 6, 16]" in table
    assert "0 ← 0, 1 ← 3" in table
    shares = [float(line.split()[-1][:-1]) for line in table.splitlines() if line.endswith("%")]
    assert len(shares) == len(STAGES)
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert main([*QUICK, "--mode", "structured", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["aligner_parameters"] == 2400
    assert found["student"]["num_heads"] == 4
    assert set(found["seconds"]) == set(STAGES)


def failure(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line of an error, of a command that must fail."""
    return refusal(main, [*QUICK, *flags], capsys)


def test_a_weight_that_is_not_a_number_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(capsys, "--model_name", str(nan_model(tmp_path)))
    assert "are not finite: 1 of " in line
    assert "'transformer.h.0.attn.c_attn.weight'" in line


def test_a_shape_that_does_not_fit_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = MapProjectionAligner.forward

    def wrong(self: MapProjectionAligner, *args: object, **kwargs: object) -> object:
        aligned = forward(self, *args, **kwargs)  # type: ignore[arg-type]
        return aligned._replace(keys=aligned.keys[..., :8], values=aligned.values[..., :8])

    monkeypatch.setattr(MapProjectionAligner, "forward", wrong)
    line = failure(capsys)
    assert "[2, 2, 4, 6, 8]" in line or "(2, 2, 4, 6, 8)" in line


def test_a_student_that_gets_no_gradient_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_gradient(self: torch.Tensor) -> None:
        self.grad = None

    monkeypatch.setattr(torch.Tensor, "backward", no_gradient)
    assert "no gradient reaches the student" in failure(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--kv_weight", "0"], "--kv_weight 0"),
        (["--batch_size", "65"], "--batch_size 65 is more than the 64 samples"),
        (["--mode", "identity"], "num_layers 4 → 2"),
        (["--model_name", "no/such/folder"], "'no/such/folder' does not exist"),
    ],
)
def test_a_wrong_value_is_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failure(capsys, *flags)


@pytest.mark.parametrize("size", ["1", "2"])
def test_a_sample_alone_in_its_batch_is_given_the_one_before_it(size: str) -> None:
    """As in training: `--wrong_sample` needs another sample in the data, and not in the batch."""
    assert profile("--wrong_sample", "--batch_size", size).step_seconds > 0
    config, _ = parse([*QUICK, "--wrong_sample", "--batch_size", size])
    batch = first_batch(config, load_tokenizer("kava/tiny-gpt2"), CPU)
    assert ("before" in batch) == (size == "1")
    with pytest.raises(ValueError, match=r"one sample to profile with: give two or more"):
        profile("--wrong_sample", "--batch_size", "1", "--subset_size", "1")


@pytest.mark.parametrize("flags", [["--modes", "flat"], ["--mode", "round"], ["--step", "2"]])
def test_an_unknown_flag_or_mode_is_refused(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert flags[0] in refusal(main, flags, capsys)


def test_the_traces_of_the_step_are_of_real_text() -> None:
    config, _ = parse(QUICK)
    distiller, tokenizer = build(config)
    staged = StagedDistiller(distiller, StageClock(CPU))
    batch = first_batch(config, tokenizer, CPU)
    staged(batch)
    trace = staged.build_target.teacher_trace
    assert isinstance(trace, KVTrace)
    assert trace.length == batch["input_ids"].shape[1]
    assert "Cups" in tokenizer.decode(batch["input_ids"][0])
