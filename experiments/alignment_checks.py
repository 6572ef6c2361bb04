"""The checks of `test_v4_integration.py`: the alignment on real keys and values.

Shapes: B batch, L layers, H key/value heads, T positions, D head dim.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kava.align import (
    HeadwiseMapProjector,
    KVDimensionProjector,
    MapProjectionAligner,
    TimeWarper,
)
from kava.commands.profile import parse
from kava.data.collate import Batch
from kava.errors import USER_ERRORS
from kava.losses import MercatorKVLoss, StructuralKVLoss
from kava.models.capture import capture
from kava.models.load import load_model, load_tokenizer
from kava.models.quiet import quiet_libraries
from kava.profile.step import build, first_batch
from kava.trace import KVTrace, iter_past, stack_past_kv
from kava.train.objective import Distiller
from kava.train.terms import Forward

GQA_MODEL = "kava/tiny-llama"
TEXT = "Cups abcd moves 2143 4231 order ? "


class Check(NamedTuple):
    """One line of the output."""

    name: str
    value: object
    ok: bool


@dataclass(frozen=True)
class Step:
    """One KV-only training step in one mode, and what it left behind."""

    distiller: Distiller
    batch: Batch
    forward: Forward
    student_before: dict[str, Tensor]
    teacher_before: dict[str, Tensor]
    gradient_norm: float


@dataclass(frozen=True)
class Setting:
    """The models that the checks run on."""

    flags: tuple[str, ...]
    name: str

    def step(self, mode: str) -> Step:
        """One optimiser step on the KV loss alone, from the same start in every mode."""
        config, _ = parse(
            [
                *("--mode", mode, "--batch_size", "2", "--device", "cpu"),
                *("--ce_weight", "0", "--lr", "1e-3", *self.flags),
            ]
        )
        distiller, tokenizer = build(config)
        batch = first_batch(config, tokenizer, torch.device("cpu"))
        student_before = copy_of(distiller.student)
        teacher_before = copy_of(teacher_of(distiller))
        optimizer = torch.optim.AdamW(distiller.student.parameters(), lr=config.lr)
        forward = distiller.train()(batch)
        forward.loss.backward()
        gradients = [p.grad for p in distiller.student.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        optimizer.step()
        return Step(distiller, batch, forward, student_before, teacher_before, norm)

    def trace(self, name: str | None = None) -> tuple[KVTrace, object]:
        """The trace of a model over a text, with queries, and the cache it was read from."""
        name = name or self.name
        ids = load_tokenizer(name)([TEXT, TEXT[::-1]], return_tensors="pt", padding=True)
        model = load_model(name, dtype="float32")
        with torch.no_grad():
            outputs, trace = capture(model, ids["input_ids"], ids["attention_mask"], queries=True)
        return trace, outputs.past_key_values


def teacher_of(distiller: Distiller) -> PreTrainedModel:
    """The frozen teacher of a step, which no store stands for."""
    assert isinstance(distiller.teacher, PreTrainedModel)
    return distiller.teacher


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: part.clone() for name, part in module.state_dict().items()}


def same(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(part, before[name]) for name, part in module.state_dict().items())


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def table_aligner(share_dim_proj: bool = True, init_uniform: bool = True) -> MapProjectionAligner:
    """24 layers × 32 heads × 64 → 12 × 16 × 64."""
    return MapProjectionAligner(
        num_teacher_layers=24,
        num_student_layers=12,
        num_teacher_heads=32,
        num_student_heads=16,
        teacher_head_dim=64,
        student_head_dim=64,
        share_dim_proj=share_dim_proj,
        init_uniform=init_uniform,
    )


def check_stack(setting: Setting) -> Iterator[Check]:
    trace, cache = setting.trace()
    stacked = stack_past_kv(cache)
    B, L, H, T, D = trace.keys.shape
    shape = list(stacked.shape)
    yield Check(
        "stack_past_kv of a model's cache [L,2,B,H,T,D]", shape, shape == [L, 2, B, H, T, D]
    )
    pairs = zip(stacked, iter_past(cache))
    exact = all(torch.equal(k, pair[0]) and torch.equal(v, pair[1]) for (k, v), pair in pairs)
    yield Check("  bit-exact", exact, exact)


def check_head_map(setting: Setting) -> Iterator[Check]:
    with torch.no_grad():
        shape = list(HeadwiseMapProjector(32, 16, 128, 64)(torch.ones(2, 12, 32, 512, 128)).shape)
    ok = shape == [2, 12, 16, 512, 64]
    yield Check("HeadwiseMapProjector [2,12,32,512,128] →", shape, ok)
    for teacher, student in ((32, 16), (12, 14), (2, 4), (3, 2)):
        rows = HeadwiseMapProjector(teacher, student, 8, 8).head_mixer.weight.detach().sum(1)
        error = float((rows - 1).abs().max())
        yield Check(f"  uniform {teacher} → {student} heads: rows sum to 1 ±", error, error < 1e-6)


def check_time_warp(setting: Setting) -> Iterator[Check]:
    ramp = torch.arange(100.0).view(1, 1, 1, 100, 1)
    for length in (30, 50, 80):
        warped = TimeWarper()(ramp, None, length).flatten()
        ends = warped[[0, -1]].tolist()
        ok = len(warped) == length and ends == [0, 99] and bool(warped.diff().gt(0).all())
        yield Check(f"TimeWarper 100 → {length} positions, ends kept", [len(warped), *ends], ok)


def check_parameters(setting: Setting) -> Iterator[Check]:
    shared, per_head = num_parameters(table_aligner()), num_parameters(table_aligner(False))
    yield Check("parameters of 24×32×64 → 12×16×64", f"{shared:,}", shared == 13_824)
    yield Check("  with a dim map per head", f"{per_head:,}", per_head == 198_144)
    with torch.device("meta"):  # counted from shapes, nothing is allocated
        flat = num_parameters(KVDimensionProjector(7168, 3072))
    yield Check("  flat, elastic, 7168 → 3072", f"{flat:,}", flat == 146_849_792)


def check_training(setting: Setting) -> Iterator[Check]:
    steps = {mode: setting.step(mode) for mode in ("structured", "flat")}
    for mode, step in steps.items():
        loss, distiller = float(step.forward.loss.detach()), step.distiller
        yield Check(f"{mode}: KV loss on real keys and values", loss, 0 < loss < float("inf"))
        norm = step.gradient_norm
        yield Check("  gradient that reaches the student, norm", norm, 0 < norm < float("inf"))
        moved = not same(distiller.student, step.student_before)
        yield Check("  the step changes the student", moved, moved)
        still = same(teacher_of(distiller), step.teacher_before)
        yield Check("  the teacher stays bit-identical", still, still)
        assert step.forward.target is not None
        assert step.forward.student is not None
        shapes = [list(t.keys.shape) for t in (step.forward.target.trace, step.forward.student)]
        yield Check("  the target has the student's shape", shapes[0], shapes[0] == shapes[1])
    structured, flat = steps["structured"], steps["flat"]
    assert structured.forward.target is not None
    assert flat.forward.target is not None
    equal = (
        torch.equal(structured.batch["input_ids"], flat.batch["input_ids"])
        and torch.equal(structured.forward.target.columns, flat.forward.target.columns)
        and structured.student_before.keys() == flat.student_before.keys()
        and all(
            torch.equal(p, flat.student_before[n]) for n, p in structured.student_before.items()
        )
    )
    yield Check("both modes: same batch, kept positions and start", equal, equal)


def check_losses(setting: Setting) -> Iterator[Check]:
    trace, _ = setting.trace()
    k, v, q, mask = trace.keys, trace.values, trace.queries, trace.mask
    structural = float(StructuralKVLoss()(k, v, q, k, v, q, mask)[0])
    yield Check("StructuralKVLoss of equal caches", structural, abs(structural) < 1e-5)
    scaled = float(MercatorKVLoss()(100 * k, k, mask)[0])
    yield Check("MercatorKVLoss of keys scaled by 100", scaled, abs(scaled) < 1e-5)
    opposite = float(MercatorKVLoss()(-k, k, mask)[0])
    yield Check("  of opposite keys", opposite, abs(opposite - 2) < 1e-5)


def check_grouped_queries(setting: Setting) -> Iterator[Check]:
    trace, _ = setting.trace(GQA_MODEL)
    config = load_model(GQA_MODEL).config
    aligner = MapProjectionAligner(
        num_teacher_layers=config.num_hidden_layers,
        num_teacher_heads=config.num_key_value_heads,
        num_teacher_query_heads=config.num_attention_heads,
        teacher_head_dim=config.hidden_size // config.num_attention_heads,
        num_student_layers=1,
        num_student_heads=1,
        num_student_query_heads=3,
        student_head_dim=8,
    )
    aligned = aligner(trace.keys, trace.values, trace.queries)
    assert aligned.queries is not None
    B, T = trace.batch_size, trace.length
    shapes = [list(aligned.keys.shape), list(aligned.queries.shape)]
    ok = shapes == [[B, 1, 1, T, 8], [B, 1, 3, T, 8]]
    yield Check("GQA: 4 query and 2 key heads → 3 and 1", shapes, ok)
    k, v, q = trace.keys, trace.values, trace.queries
    loss = float(StructuralKVLoss()(k, v, q, k, v, q, trace.mask)[0])
    yield Check("  StructuralKVLoss of equal caches", loss, abs(loss) < 1e-5)


def check_bfloat16(setting: Setting) -> Iterator[Check]:
    trace, _ = setting.trace()
    for mode in ("structured", "flat"):
        torch.manual_seed(0)
        aligner = MapProjectionAligner(
            num_teacher_layers=trace.num_layers,
            num_teacher_heads=trace.num_heads,
            teacher_head_dim=trace.head_dim,
            num_student_layers=max(trace.num_layers // 2, 1),
            num_student_heads=2,
            student_head_dim=16,
            mode=mode,
        )
        with torch.no_grad():
            full = aligner(trace.keys, trace.values).keys
            half = aligner(trace.keys.bfloat16(), trace.values.bfloat16()).keys
        error = float((half.float() - full).norm() / full.norm())
        ok = half.dtype == torch.bfloat16 and error < 0.02
        yield Check(f"bfloat16, {mode}: relative error", error, ok)


def check_save_and_load(setting: Setting) -> Iterator[Check]:
    torch.manual_seed(0)
    saved = table_aligner(init_uniform=False)
    loaded = table_aligner()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map_aligner.safetensors"
        save_file(saved.state_dict(), path)
        loaded.load_state_dict(load_file(path))
    x = torch.randn(1, 24, 32, 4, 64)
    equal = all(torch.equal(a, b) for a, b in zip(saved(x, x, x), loaded(x, x, x)))
    yield Check("a saved and loaded aligner gives the same", equal, equal)


CHECKS: tuple[Callable[[Setting], Iterator[Check]], ...] = (
    check_stack,
    check_head_map,
    check_time_warp,
    check_parameters,
    check_training,
    check_losses,
    check_grouped_queries,
    check_bfloat16,
    check_save_and_load,
)


def results(check: Callable[[Setting], Iterator[Check]], setting: Setting) -> Iterator[Check]:
    """What a check yields; what stops it is a failure too."""
    try:
        yield from check(setting)
    except USER_ERRORS as error:
        yield Check(check.__name__, " ".join(str(error).split()), False)


def check_all() -> int:
    """Print every check on the model that the environment names, and return the exit code."""
    quiet_libraries()
    model = os.environ.get("MODEL")
    setting = Setting(
        flags=("--model_name", model, "--teacher_name", model) if model else (),
        name=model or "kava/tiny-gpt2",
    )
    with no_notes_on_weights():
        num_checks, num_failed = run_checks(setting)
    print(f"{num_checks - num_failed} of {num_checks} checks hold")
    return 1 if num_failed else 0


@contextmanager
def no_notes_on_weights() -> Iterator[None]:
    """Random weights are all that the checks need: the note about them would repeat."""
    logger = logging.getLogger("kava.models.load")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def run_checks(setting: Setting) -> tuple[int, int]:
    """Print every check; return how many there are and how many failed."""
    num_checks = num_failed = 0
    for check in CHECKS:
        for name, value, ok in results(check, setting):
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"{name:<52} {shown!s:<24} {'ok' if ok else 'FAILED'}", flush=True)
            num_checks += 1
            num_failed += not ok
    return num_checks, num_failed
