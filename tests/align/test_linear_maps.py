"""KAVA_PLAIN chooses the implementation of the aligner's maps, in one place."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kava
from kava.align import MapProjectionAligner
from kava.align.fast import contraction, plain

ALIGNERS: dict[str, dict[str, Any]] = {
    "structured": {},
    "a dim map per head": {"share_dim_proj": False},
    "per layer": {"per_layer": True, "rank": 3},
    "full per layer": {"mode": "flat", "per_layer": True},
    "flat": {"mode": "flat"},
    "student to teacher": {"per_layer": True, "direction": "student_to_teacher"},
}
FUNCTIONS = ("mix_layers", "apply_terms", "apply_matrix")


def aligned(**options: Any) -> list[Tensor]:
    """Outputs and gradients, float64, of a ragged batch that is warped to 5 slots."""
    torch.manual_seed(0)
    aligner = MapProjectionAligner(
        num_teacher_layers=4,
        num_student_layers=3,
        num_teacher_heads=4,
        num_student_heads=2,
        teacher_head_dim=6,
        student_head_dim=4,
        init_uniform=False,
        **options,
    ).double()
    keys, values = (torch.randn(2, 4, 4, 9, 6).double().requires_grad_() for _ in range(2))
    student = torch.randn(2, 3, 2, 5, 4).double()
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    segment_ids = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 2, 2]]).repeat(2, 1).masked_fill(~mask, -1)
    target = aligner(keys, values, None, segment_ids, 5, mask)
    outputs = [target.keys, target.values]
    if aligner.direction == "student_to_teacher":
        mapped = aligner.map_student(student, student)
        outputs += [mapped.keys, mapped.values]
    loss = sum((part.square().sum() for part in outputs), torch.zeros(()))
    inputs = [keys, values, *(part for part in aligner.parameters())]
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [*outputs, *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("options", ALIGNERS.values(), ids=ALIGNERS.keys())
def test_an_aligner_gives_the_same_under_both(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAVA_PLAIN", raising=False)
    with monkeypatch.context() as patch:
        forbid(patch, plain)
        fast = aligned(**options)
    monkeypatch.setenv("KAVA_PLAIN", "1")
    forbid(monkeypatch, contraction)
    for ours, reference in zip(fast, aligned(**options), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def forbid(patch: pytest.MonkeyPatch, module: object) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError(f"{module} was called")

    for name in FUNCTIONS:
        patch.setattr(module, name, refuse)


@pytest.mark.parametrize("value", ["0", ""])
def test_the_fast_one_is_the_default(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAVA_PLAIN", value)
    forbid(monkeypatch, plain)
    aligned()


def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAVA_PLAIN", "yes")
    with pytest.raises(ValueError, match="KAVA_PLAIN='yes' is unknown; set it to 1"):
        aligned()


def test_only_the_switch_imports_the_fast_room() -> None:
    source = Path(kava.__file__).parent
    importers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if path.parent.name != "fast"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kava.align.fast")
    }
    assert importers == {"align/linear_maps.py"}
