"""How much memory a training step will take, and for what, before anything is loaded.

Weights, gradients and states of the optimiser are counted from the models' configurations;
activations, traces and the transients of a pass come from two shallow runs of tensors that have
shapes alone (`kava.profile.shapes`), extended to the depth of the model. The step is taken apart
into stretches, and the estimate is the largest of them.

What is not counted: evaluation, which generates with `--eval_batch_size`, the fit of a map before
the first step, and what an allocator holds back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForTextEncoding, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from kava.machine.host import resident_bytes
from kava.models.devices import choose_device, dtype_of
from kava.models.encoders import is_encoder
from kava.models.load import load_model_config
from kava.profile.live import MemoryMark
from kava.profile.peak import measure_peak
from kava.profile.shapes import (
    LOSS,
    Widths,
    build_student,
    student_marks,
    teacher_marks,
    with_layers,
)
from kava.profile.widths import largest_batch
from kava.train.config import TrainConfig
from kava.train.models import build_aligner
from kava.train.precision import autocast_dtype
from kava.train.states import state_bytes
from kava.train.target import attention_flag
from kava.train.teacher_names import TeacherName, teachers_of

_DEPTHS = (1, 2)
"""Layers of the shallow runs."""
GIGA = 1e9


@dataclass(frozen=True)
class MemoryTable:
    """The memory of a training step.

    Attributes:
        parts: bytes of each part at the moment of the peak.
        moment: when the peak is.
        device: where the step runs.
        widths: the columns of the batch.
        num_trained: trained parameters.
        measured: measured peak in bytes; None if it was not measured.
    """

    parts: dict[str, int]
    moment: str
    device: str
    widths: Widths
    num_trained: int
    measured: int | None = None

    @property
    def peak(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        B, P, R, A, _ = self.widths
        rows = [f"{name:<34}{size / GIGA:>9.3f}" for name, size in self.parts.items()]
        lines = [
            f"a step of {B} samples of {P} + {R} + {A} tokens (prompt, reasoning, answer; the "
            f"longest), {self.num_trained:,} trained parameters, on {self.device}",
            f"\n{f'part, {self.moment}':<34}{'GB':>9}",
            *rows,
            f"{'peak':<34}{self.peak / GIGA:>9.3f}",
        ]
        if self.measured is not None:
            off = self.peak / self.measured - 1
            lines.append(f"{'measured':<34}{self.measured / GIGA:>9.3f}   (estimate {off:+.1%})")
        return "\n".join(lines)


def estimate_memory(
    config: TrainConfig, widths: Widths, device: torch.device, process: int = 0
) -> MemoryTable:
    """The memory of the training step of a configuration.

    Args:
        config: the run's configuration.
        widths: the columns of its largest batch.
        device: where it trains.
        process: bytes of the process without models, which are on the device too if that is the
            CPU.

    Raises:
        ValueError, OSError: models whose configurations cannot be read.
    """
    base = load_model_config(config.model_name)
    with torch.device("meta"):
        student = build_student(config, base)
    weights = _bytes(student)
    trained = [part for part in student.parameters() if part.requires_grad]
    gradients = sum(part.numel() * part.element_size() for part in trained)
    states = state_bytes(config.optim, student)
    fixed = {
        "Python and libraries": process if device.type == "cpu" else 0,
        "student: weights": weights,
        "optimiser: states": states,
    }
    resting: dict[str, int] = {}
    left, teacher_most = 0, 0
    models: dict[tuple[str, ...], PreTrainedConfig] = {}
    for number, one in enumerate(_teachers(config)):
        its = load_model_config(one.model, encoders=True)
        columns = widths.teacher[number] if number < len(widths.teacher) else widths.text
        key = (one.model, one.dtype, one.quantization)
        if key not in models:
            name = f"teacher{'' if not config.several else f' {one.label}'}: weights"
            (resting if config.teacher_offload else fixed)[name] = teacher_bytes(one, its)
        models[key] = its
        marks, kept = _of_teacher(one, its, widths.batch, columns, config)
        teacher_most = max(teacher_most, left + max(mark.most for mark in marks))
        left += kept
        fixed["maps"] = fixed.get("maps", 0) + _map_bytes(config, its, base)
    moments: list[tuple[str, dict[str, int]]] = []
    # gradients of earlier batches of an accumulated step stand beside those of this one
    kept_gradients = gradients if config.gradient_accumulation_steps > 1 else 0
    if models:
        passes = {"teacher: activations and traces": teacher_most, "gradients": kept_gradients}
        moments.append(("in the teacher's pass", {**fixed, **resting, **passes}))
    marks = _at_depth(
        lambda depth: student_marks(config, with_layers(base, depth), widths),
        base.num_hidden_layers,
    )
    before = 0
    backward = False
    for mark in marks:
        # within a stretch the memory is that of one of its ends, and a transient
        grown = max(mark.named.get("gradients", 0), kept_gradients)
        held = max(before, mark.live)
        parts = {
            "gradients": grown,
            "student: activations": max(held + mark.most - mark.named.get("gradients", 0), 0),
            "teacher: activations and traces": 0 if backward else left,
        }
        moments.append(
            (f"in the student's {'backward' if backward else 'forward'}", {**fixed, **parts})
        )
        before = mark.live
        backward = backward or LOSS in mark.named
    moments.append(("in the optimiser's step", {**fixed, "gradients": gradients}))
    moment, parts = max(moments, key=lambda one: sum(one[1].values()))
    return MemoryTable(
        parts={name: size for name, size in parts.items() if size},
        moment=moment,
        device=str(device),
        widths=widths,
        num_trained=sum(part.numel() for part in trained),
    )


def _teachers(config: TrainConfig) -> Sequence[TeacherName]:
    """The frozen teachers that take memory of their own."""
    apart = config.teacher_name is not None and config.needs_teacher and not config.adapter_off
    return teachers_of(config) if apart else ()


def _at_depth(run: Any, num_layers: int) -> list[MemoryMark]:
    """The marks of a model of many layers, `most` as what a stretch takes above its ends.

    Args:
        run: gives the marks of a model of a number of layers.
        num_layers: of the whole model.
    """
    if num_layers <= _DEPTHS[1]:
        low = high = run(num_layers)
        steps = 0
    else:
        low, high = (run(depth) for depth in _DEPTHS)
        steps = num_layers - _DEPTHS[1]
    marks, before = [], 0
    for one, other in zip(low, high):
        named = {
            name: size + steps * (size - one.named.get(name, 0))
            for name, size in other.named.items()
        }
        above = other.most - max(before, other.live)
        marks.append(MemoryMark(other.live + steps * (other.live - one.live), above, named))
        before = other.live
    return marks


def _of_teacher(
    one: TeacherName,
    its: PreTrainedConfig,
    batch: int,
    columns: int,
    config: TrainConfig,
) -> tuple[list[MemoryMark], int]:
    """The marks of a teacher's pass, `most` with what is alive, and the bytes that it leaves."""
    dtype = dtype_of(one.dtype)
    assert isinstance(dtype, torch.dtype)
    half = None if one.quantization != "none" else autocast_dtype(config)
    queries = attention_flag(config) is not None
    kept: dict[int, int] = {}

    def run(depth: int) -> list[MemoryMark]:
        marks, kept[depth] = teacher_marks(
            with_layers(its, depth),
            dtype,
            batch,
            columns,
            half=half,
            queries=queries,
            chunk=config.capture_chunk,
        )
        return marks

    marks = _at_depth(run, its.num_hidden_layers)
    found, before = [], 0
    for mark in marks:
        found.append(mark._replace(most=max(before, mark.live) + mark.most))
        before = mark.live
    deepest = max(kept)
    per_layer = kept[deepest] - kept.get(deepest - 1, kept[deepest])
    return found, kept[deepest] + (its.num_hidden_layers - deepest) * per_layer


def profile_memory(config: TrainConfig, *, measure: bool = False) -> MemoryTable:
    """Estimate the memory of a configuration's step on the longest samples of its data.

    Args:
        config: the run's configuration.
        measure: also load the models and measure a step, in a process of its own.

    Raises:
        ValueError, OSError: data or models that cannot be read.
        KavaError: the measured step failed.

    Example:
        >>> print(profile_memory(TrainConfig(model_name="gpt2", lora_r=16)))
    """
    if config.auto_batch:
        raise ValueError(
            "--memory counts the bytes of one batch, and --batch_size auto finds its size by "
            "steps of the run: give a number"
        )
    device = torch.device(choose_device(config.device))
    widths = largest_batch(config)
    found = estimate_memory(config, widths, device, resident_bytes())
    if not measure:
        return found
    return replace(found, measured=measure_peak(config).bytes)


def teacher_bytes(one: TeacherName, its: PreTrainedConfig) -> int:
    """The bytes of a teacher's weights, quantised or in its dtype."""
    kind = AutoModelForTextEncoding if is_encoder(its) else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(its, dtype=dtype_of(one.dtype))
    size = _bytes(model)
    if one.quantization == "none":
        return size
    head = model.get_output_embeddings()
    for layer in model.modules():
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head:
            weight = layer.weight
            size -= weight.numel() * weight.element_size()
            if one.quantization == "8bit":
                size += weight.numel() + 4 * max(weight.shape)  # a scale for each row
            else:
                size += weight.numel() // 2 + weight.numel() // 64  # a scale of 8 bits for 64
    return size


def _map_bytes(config: TrainConfig, teacher: PreTrainedConfig, student: PreTrainedConfig) -> int:
    sides: list[Any] = [SimpleNamespace(config=side) for side in (teacher, student)]
    # without maps there is nothing to hold, and the check of the layer map reads its values
    with torch.device("cpu" if config.alignment_mode == "identity" else "meta"):
        return 4 * build_aligner(config, *sides).num_parameters


def _bytes(model: nn.Module) -> int:
    return sum(
        part.numel() * part.element_size() for part in (*model.parameters(), *model.buffers())
    )
