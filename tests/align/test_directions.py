"""Maps per layer, of several terms, and in both directions, as the aligner applies them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, Qwen2Config

from align.oracles import loop_contract, loop_layerwise
from kava.align import (
    ALIGN_DIRECTIONS,
    FlatStack,
    HeadwiseMapProjector,
    LayerwiseProjector,
    MapProjectionAligner,
    StudentToTeacherProjector,
    align_trace,
    layer_map,
)
from kava.align.heads.flat import flatten_heads
from kava.trace import KVTrace, Scope

GEOMETRY = {
    "num_teacher_layers": 4,
    "num_student_layers": 3,
    "num_teacher_heads": 3,
    "num_student_heads": 2,
    "teacher_head_dim": 6,
    "student_head_dim": 4,
    "num_teacher_query_heads": 6,
    "num_student_query_heads": 4,
}
EQUAL = {
    "num_teacher_layers": 3,
    "num_student_layers": 3,
    "num_teacher_heads": 2,
    "num_student_heads": 2,
    "teacher_head_dim": 4,
    "student_head_dim": 4,
}
FORMS: dict[str, dict[str, Any]] = {
    "shared": {},
    "shared, per head": {"share_dim_proj": False},
    "per layer": {"per_layer": True},
    "rank 3": {"per_layer": True, "rank": 3},
    "rank 3, per head": {"per_layer": True, "rank": 3, "share_dim_proj": False},
    "flat": {"mode": "flat"},
    "full": {"mode": "flat", "per_layer": True},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
directions = pytest.mark.parametrize("direction", ALIGN_DIRECTIONS)


def make(**options: Any) -> MapProjectionAligner:
    torch.manual_seed(0)
    aligner = MapProjectionAligner(**(GEOMETRY | {"init_uniform": False} | options))
    for projector in aligner.projectors().values():
        if isinstance(projector, LayerwiseProjector):
            torch.nn.init.normal_(projector.bias)
    return aligner


def caches(L: int, H: int, Hq: int, D: int, T: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, L, H, T, D), torch.randn(2, L, H, T, D), torch.randn(2, L, Hq, T, D)


def teacher(T: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    return caches(4, 3, 6, 6, T)


def student(T: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    return caches(3, 2, 4, 4, T)


def loop(projector: Any, x: Tensor, weights_ST: Tensor, num_heads: int) -> Tensor:
    """Layers, then heads and terms one by one; flat maps as matrices over all heads."""
    if isinstance(projector, HeadwiseMapProjector):
        return loop_contract(x, weights_ST, projector.head_mixer.weight, projector.dim_weight)
    if isinstance(projector, LayerwiseProjector) and projector.rank is not None:
        parts = projector.head_mix, projector.dim_map, projector.bias
        return loop_layerwise(x, weights_ST, *parts)
    mixed = flatten_heads(torch.einsum("sl,blhtd->bshtd", weights_ST, x))
    if isinstance(projector, FlatStack):
        y = projector(mixed)
    else:
        layers = zip(mixed.unbind(1), projector.weight, projector.bias.flatten(1))
        y = torch.stack([one @ weight.T + bias for one, weight, bias in layers], dim=1)
    return y.unflatten(3, (num_heads, -1)).transpose(2, 3)


@forms
def test_the_teachers_cache_is_mapped_as_the_slow_loop_says(form: dict[str, Any]) -> None:
    aligner = make(**form).double()
    parts = [part.double() for part in teacher(T=2)]
    aligned = aligner(*parts)
    for x, y, projector in zip(parts, aligned, aligner.projectors().values()):
        expected = loop(projector, x, layer_map(4, 3).double(), 4 if x is parts[2] else 2)
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)


@forms
def test_the_students_cache_is_mapped_as_the_slow_loop_says(form: dict[str, Any]) -> None:
    aligner = make(direction="student_to_teacher", **form).double()
    parts = [part.double() for part in student(T=2)]
    mapped = aligner.map_student(*parts)
    for x, y, projector in zip(parts, mapped, aligner.projectors().values()):
        heads = 6 if x is parts[2] else 3
        expected = loop(projector, x, torch.eye(3).double(), heads)
        assert y.shape == (2, 3, heads, 2, 6)
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)
    without = aligner.map_student(*parts[:2])
    assert without.queries is None
    assert torch.equal(without.keys, mapped.keys)


@forms
@pytest.mark.parametrize("target_length", [None, 3, 6])
def test_toward_the_teacher_only_layers_and_time_are_mixed(
    form: dict[str, Any], target_length: int | None
) -> None:
    aligner = make(direction="student_to_teacher", **form)
    parts = teacher()
    for x, y in zip(parts, aligner(*parts, target_length=target_length)):
        expected = torch.einsum("sl,blhtd->bshtd", layer_map(4, 3), x)
        if target_length is not None:
            expected = aligner.time_warper(expected, None, target_length)
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("form", list(FORMS.values())[2:], ids=list(FORMS)[2:])
@pytest.mark.parametrize("target_length", [3, 6])
def test_a_warp_before_or_after_the_map_is_the_same(
    form: dict[str, Any], target_length: int
) -> None:
    aligner = make(**form)
    keys, values, _ = teacher()
    segment_ids = torch.tensor([[0, 0, 1, 1, 1, 2, -1], [-1, 0, 0, 1, 1, 2, 2]])
    warped = aligner.time_warper(keys, segment_ids, target_length)
    expected = aligner(warped, warped).keys
    aligned = aligner(keys, values, segment_ids=segment_ids, target_length=target_length)
    torch.testing.assert_close(aligned.keys, expected)


@directions
@pytest.mark.parametrize("mode", ["structured", "flat"])
def test_maps_per_layer_between_equal_geometries_start_as_the_identity(
    mode: str, direction: str
) -> None:
    x = torch.randn(2, 3, 2, 5, 4)
    aligner = MapProjectionAligner(**EQUAL, mode=mode, per_layer=True, direction=direction)
    torch.testing.assert_close(aligner(x, x).keys, x, atol=1e-5, rtol=0)
    if direction == "student_to_teacher":
        torch.testing.assert_close(aligner.map_student(x, x).values, x, atol=1e-5, rtol=0)


@directions
@forms
def test_each_part_has_a_projector_of_its_own(form: dict[str, Any], direction: str) -> None:
    aligner = make(direction=direction, **form)
    projectors = aligner.projectors()
    assert list(projectors) == ["keys", "values", "queries"]
    assert len({id(projector) for projector in projectors.values()}) == 3
    kind = FlatStack if form == {"mode": "flat"} else HeadwiseMapProjector
    kind = LayerwiseProjector if form.get("per_layer") else kind
    assert {type(projector) for projector in projectors.values()} == {kind}
    assert {id(p) for one in projectors.values() for p in one.parameters()} == {
        id(p) for p in aligner.parameters()
    }
    assert MapProjectionAligner(**EQUAL, mode="identity").projectors() == {}


def test_flat_maps_toward_the_teacher_are_its_projector() -> None:
    aligner = make(mode="flat", direction="student_to_teacher")
    assert isinstance(aligner.key_value_projector, StudentToTeacherProjector)


@directions
@forms
def test_gradients_reach_every_parameter_and_what_is_mapped(
    form: dict[str, Any], direction: str
) -> None:
    aligner = make(direction=direction, **form)
    toward_teacher = direction == "student_to_teacher"
    parts = [part.requires_grad_() for part in (student() if toward_teacher else teacher())]
    mapped = aligner.map_student(*parts) if toward_teacher else aligner(*parts, target_length=3)
    sum(part.square().sum() for part in mapped).backward()
    for part in (*parts, *aligner.parameters()):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_the_teachers_target_has_no_parameters_toward_the_teacher() -> None:
    aligner = make(direction="student_to_teacher", per_layer=True)
    assert not aligner(*teacher(), target_length=3).keys.requires_grad


@directions
@forms
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays(form: dict[str, Any], direction: str, autocast: bool) -> None:
    aligner = make(direction=direction, **form)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for part in aligner(*(part.bfloat16() for part in teacher())):
            assert part.dtype == torch.bfloat16
        if direction == "student_to_teacher":
            exact = aligner.map_student(*student())
            half = aligner.map_student(*(part.bfloat16() for part in student()))
            for expected, actual in zip(exact, half):
                assert expected.dtype == torch.float32
                assert actual.dtype == torch.bfloat16
                torch.testing.assert_close(actual.float(), expected, atol=0.3, rtol=0.1)


@directions
@forms
def test_a_saved_aligner_gives_the_same_result(
    form: dict[str, Any], direction: str, tmp_path: Path
) -> None:
    saved, loaded = (make(direction=direction, **form) for _ in range(2))
    for parameter in saved.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(saved.state_dict(), tmp_path / "aligner.pt")
    loaded.load_state_dict(torch.load(tmp_path / "aligner.pt", weights_only=True))
    for expected, actual in zip(saved(*teacher()), loaded(*teacher())):
        assert torch.equal(expected, actual)
    if direction == "student_to_teacher":
        for expected, actual in zip(saved.map_student(*student()), loaded.map_student(*student())):
            assert torch.equal(expected, actual)


def test_from_configs_takes_grouped_queries_in_both_directions() -> None:
    larger = Qwen2Config(
        num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3, hidden_size=36
    )
    smaller = GPT2Config(n_layer=3, n_head=4, n_embd=16)
    for direction, heads in (("teacher_to_student", (6, 4)), ("student_to_teacher", (4, 6))):
        aligner = MapProjectionAligner.from_configs(
            larger, smaller, per_layer=True, rank=2, direction=direction
        )
        queries = aligner.projectors()["queries"]
        assert isinstance(queries, LayerwiseProjector)
        assert (queries.num_heads_in, queries.num_heads_out) == heads
        assert queries.head_mix.shape == (3, 2, heads[1], heads[0])
    assert aligner.map_student(*caches(3, 4, 4, 4)).keys.shape == (2, 3, 3, 7, 6)


def make_trace(scope: Scope | None, positions_per_head: bool = False) -> KVTrace:
    keys, values, queries = teacher()
    positions = torch.arange(7).expand(2, 4, 3, 7) + 100 * torch.arange(4).view(1, 4, 1, 1)
    positions = positions + 10 * torch.arange(3).view(1, 1, 3, 1)
    return KVTrace(
        keys,
        values,
        queries,
        positions=positions if positions_per_head else torch.arange(7).expand(2, 7),
        scope=scope,
        rotated=False,
    )


@pytest.mark.parametrize("mode", ["structured", "flat"])
def test_a_traces_heads_stay_toward_the_teacher_with_positions_of_their_own(mode: str) -> None:
    aligner = make(mode=mode, direction="student_to_teacher", layer_map="skip")
    trace = make_trace("head", positions_per_head=True)
    aligned = align_trace(aligner, trace)
    source = layer_map(4, 3, strategy="skip").argmax(1)
    assert torch.equal(aligned.keys, trace.keys[:, source])
    assert torch.equal(aligned.queries, trace.queries[:, source])
    assert torch.equal(aligned.positions, trace.positions[:, source])
    assert aligned.scope == "head"


@pytest.mark.parametrize("scope", ["head", "layer"])
def test_layers_of_different_positions_are_not_mixed_toward_the_teacher(scope: Scope) -> None:
    aligner = make(direction="student_to_teacher", layer_map="uniform")
    with pytest.raises(ValueError, match=f"scope='{scope}' .* the layer map would mix layers"):
        align_trace(aligner, make_trace(scope, positions_per_head=True))
    skip = make(direction="student_to_teacher", layer_map="skip")
    with pytest.raises(ValueError, match="no common time to warp"):
        align_trace(skip, make_trace(scope, positions_per_head=True), 5)


def test_a_whole_trace_toward_the_teacher() -> None:
    aligner = make(direction="student_to_teacher", per_layer=True)
    trace = replace(make_trace("model"), mask=torch.ones(2, 7).bool())
    aligned = align_trace(aligner, trace, 3)
    assert aligned.keys.shape == (2, 3, 3, 3, 6)
    assert aligned.queries.shape == (2, 3, 6, 3, 6)
    assert torch.equal(aligned.positions, torch.tensor([[0, 3, 6]]).expand(2, 3))
    mapped = aligner.map_student(*student(T=3))
    assert mapped.keys.shape == aligned.keys.shape
    assert mapped.queries.shape == aligned.queries.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_layer": True, "rank": 0}, "rank=0 must be at least 1"),
        ({"rank": 2}, "rank=2 counts the terms of a structured map per layer.*per_layer=False"),
        ({"mode": "flat", "per_layer": True, "rank": 2}, "rank=2 .* but mode='flat'"),
        ({**EQUAL, "mode": "identity", "rank": 1}, "rank=1 .* but mode='identity'"),
        ({**EQUAL, "mode": "identity", "per_layer": True}, "per_layer=True needs maps"),
        ({"direction": "both"}, "direction='both' is unknown; choose from teacher_to_student, "),
        (
            {"mode": "flat", "per_layer": True, "flat_variant": "elastic"},
            "flat_variant='elastic' .* leave one of them out",
        ),
    ],
)
def test_options_that_do_not_belong_together_are_named(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_wrong_inputs_are_named() -> None:
    keys, values, queries = student()
    with pytest.raises(ValueError, match=r"maps the teacher's cache .* leaves the student's"):
        make().map_student(keys, values)
    aligner = make(direction="student_to_teacher")
    with pytest.raises(ValueError, match=r"aligner's student needs \[B, 3, 2, T, 4\]"):
        aligner.map_student(*teacher())
    with pytest.raises(ValueError, match=r"queries .*aligner's student needs \[B, 3, 4, T, 4\]"):
        aligner.map_student(keys, values, queries[:, :, :2])
    with pytest.raises(ValueError, match=r"aligner's teacher needs \[B, 4, 3, T, 6\]"):
        aligner(keys, values)
