from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen2Config,
    T5Config,
)

from align.oracles import loop_contract
from kava.align import (
    CacheGeometry,
    MapProjectionAligner,
    layer_map,
    save_layer_map,
)

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
modes = pytest.mark.parametrize("mode", ["structured", "flat"])


def make(**options: Any) -> MapProjectionAligner:
    torch.manual_seed(0)
    return MapProjectionAligner(**(GEOMETRY | options))


def cache(B: int = 2, T: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, 4, 3, T, 6), torch.randn(B, 4, 3, T, 6), torch.randn(B, 4, 6, T, 6)


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_exact_sizes_of_24_32_64_to_12_16_64() -> None:
    geometry = {
        "num_teacher_layers": 24,
        "num_student_layers": 12,
        "num_teacher_heads": 32,
        "num_student_heads": 16,
        "teacher_head_dim": 64,
        "student_head_dim": 64,
    }
    assert num_parameters(MapProjectionAligner(**geometry)) == 13_824
    assert num_parameters(MapProjectionAligner(**geometry, share_dim_proj=False)) == 198_144


@modes
@pytest.mark.parametrize("target_length", [None, 3, 7, 11])
def test_shapes_in_both_modes(mode: str, target_length: int | None) -> None:
    aligner = make(mode=mode)
    keys, values, queries = cache()
    T_s = target_length or 7
    aligned = aligner(keys, values, queries, target_length=target_length)
    assert aligned.keys.shape == aligned.values.shape == (2, 3, 2, T_s, 4)
    assert aligned.queries is not None
    assert aligned.queries.shape == (2, 3, 4, T_s, 4)
    assert aligned.keys.is_contiguous()
    without = aligner(keys, values, target_length=target_length)
    assert without.queries is None
    assert torch.equal(without.keys, aligned.keys)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("strategy", ["ratio", "uniform", "skip"])
def test_structured_is_layers_then_heads_then_dims(share: bool, strategy: str) -> None:
    aligner = make(share_dim_proj=share, init_uniform=False, layer_map=strategy).double()
    keys, values, queries = (part.double() for part in cache(T=2))
    aligned = aligner(keys, values, queries)
    for name, x, y in zip(("key", "value", "query"), (keys, values, queries), aligned):
        projector = getattr(aligner, f"{name}_projector")
        expected = loop_contract(
            x, layer_map(4, 3, strategy=strategy), projector.head_mixer.weight, projector.dim_weight
        )
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)


@modes
@pytest.mark.parametrize("target_length", [3, 4, 12])
def test_time_is_warped_between_layers_and_projection(mode: str, target_length: int) -> None:
    options: dict[str, Any] = {"ratio_map": {1: 2.0}, "alpha_map": {1: 0.5}}
    aligner = make(mode=mode, init_uniform=False, **options)
    keys, values, _ = cache()
    segment_ids = torch.tensor([[0, 0, 1, 1, 1, 2, -1], [-1, 0, 0, 1, 1, 2, 2]])
    aligned = aligner(keys, values, segment_ids=segment_ids, target_length=target_length)
    mixed = torch.einsum("sl,blhtd->bshtd", layer_map(4, 3), keys)
    warped = aligner.time_warper(mixed, segment_ids, target_length)
    if mode == "structured":
        expected = aligner.key_projector(warped)
    else:
        expected = aligner.key_value_projector.key_stack.map_heads(warped, 2)
    torch.testing.assert_close(aligned.keys, expected)


def test_a_ratio_map_alone_warps_at_the_teachers_length() -> None:
    keys, values, _ = cache()
    segment_ids = torch.tensor([[0, 0, 1, 1, 1, 2, 2]]).expand(2, -1)
    plain, dense = make(), make(ratio_map={1: 3.0})
    assert plain.time_warp(keys, segment_ids) is None
    aligned = dense(keys, values, segment_ids=segment_ids)
    assert aligned.keys.shape[3] == 7
    explicit = dense(keys, values, segment_ids=segment_ids, target_length=7)
    assert torch.equal(aligned.keys, explicit.keys)
    assert not torch.allclose(aligned.keys, plain(keys, values).keys)


@modes
@pytest.mark.parametrize("target_length", [3, 5, 9])
def test_padding_reaches_nothing_that_the_warp_returns(mode: str, target_length: int) -> None:
    aligner = make(mode=mode)
    keys, values, queries = cache()
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]]).bool()
    dirty = [x.masked_fill(~mask[:, None, None, :, None], float("nan")) for x in cache()]
    clean = aligner(keys, values, queries, target_length=target_length, mask=mask)
    for expected, actual in zip(clean, aligner(*dirty, target_length=target_length, mask=mask)):
        assert actual.isfinite().all()
        assert torch.equal(actual, expected)


@modes
def test_a_sample_gives_the_same_alone_and_in_a_batch_as_large_as_the_layers(mode: str) -> None:
    aligner = make(mode=mode, init_uniform=False)
    keys, values, queries = cache(B=4)
    mask = torch.ones(4, 7).bool()
    mask[1, 5:], mask[2, :3] = False, False
    together = aligner(keys, values, queries, target_length=5, mask=mask)
    for b in range(4):
        one = slice(b, b + 1)
        alone = aligner(keys[one], values[one], queries[one], target_length=5, mask=mask[one])
        for expected, actual in zip(alone, together):
            torch.testing.assert_close(actual[one], expected)


@modes
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("target_length", [None, 3, 9])
def test_gradients_reach_every_parameter_and_the_input(
    mode: str, share: bool, target_length: int | None
) -> None:
    aligner = make(mode=mode, share_dim_proj=share)
    parts = [part.requires_grad_() for part in cache()]
    aligned = aligner(*parts, target_length=target_length)
    sum(part.square().sum() for part in aligned).backward()
    for part in (*parts, *aligner.parameters()):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


@modes
def test_a_saved_aligner_gives_the_same_result(mode: str, tmp_path: Path) -> None:
    weights = torch.full((3, 4), 0.25)
    saved = make(mode=mode, layer_map=weights, init_uniform=False)
    for parameter in saved.parameters():
        torch.nn.init.normal_(parameter)
    fresh = make(mode=mode)
    parts = cache()
    before = fresh(*parts)
    fresh.load_state_dict(saved.state_dict())
    for expected, actual, old in zip(saved(*parts), fresh(*parts), before):
        assert torch.equal(actual, expected)
        assert not torch.allclose(actual, old)


def test_a_map_loaded_inside_a_larger_module_is_used() -> None:
    saved, fresh = make(layer_map="uniform"), make()
    parts = cache()
    fresh(*parts)
    torch.nn.ModuleDict({"map_aligner": fresh}).load_state_dict(
        torch.nn.ModuleDict({"map_aligner": saved}).state_dict()
    )
    assert torch.equal(fresh(*parts).keys, saved(*parts).keys)


def test_a_layer_map_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    save_layer_map(layer_map(4, 3, strategy="uniform"), path)
    parts = cache()
    for choice in (path, str(path), layer_map(4, 3, strategy="uniform")):
        aligned = make(layer_map=choice)(*parts)
        assert torch.equal(aligned.keys, make(layer_map="uniform")(*parts).keys)
    with pytest.raises(ValueError, match="these models have 5 and 3"):
        make(layer_map=path, num_teacher_layers=5)


@modes
@pytest.mark.parametrize("cast", [True, False], ids=["bf16 weights", "float32 weights"])
def test_bfloat16(mode: str, cast: bool) -> None:
    aligner = make(mode=mode)
    parts = cache()
    exact = aligner(*parts, target_length=5)
    aligner = aligner.bfloat16() if cast else aligner
    half = aligner(*(part.bfloat16() for part in parts), target_length=5)
    for expected, actual in zip(exact, half):
        assert actual.dtype == torch.bfloat16
        torch.testing.assert_close(actual.float(), expected, atol=0.1, rtol=0.1)
    sum(part.float().sum() for part in half).backward()
    for parameter in aligner.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == parameter.dtype


def test_autocast_leaves_the_dtype_of_the_cache() -> None:
    for mode in ("structured", "flat"):
        aligner = make(mode=mode)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            aligned = aligner(*cache())
        assert aligned.keys.dtype == torch.float32


def test_uniform_start_between_equal_geometries_is_the_identity() -> None:
    parts = torch.randn(2, 3, 2, 5, 4), torch.randn(2, 3, 2, 5, 4)
    for mode in ("structured", "identity"):
        aligned = MapProjectionAligner(**EQUAL, mode=mode)(*parts)
        assert torch.equal(aligned.keys, parts[0])
        assert torch.equal(aligned.values, parts[1])


def test_identity_has_no_parameters_and_may_warp_time() -> None:
    aligner = MapProjectionAligner(**EQUAL, mode="identity")
    assert num_parameters(aligner) == 0
    keys = torch.randn(2, 3, 2, 9, 4)
    aligned = aligner(keys, keys, target_length=5)
    assert torch.equal(aligned.keys, keys[:, :, :, ::2])


def test_identity_between_different_geometries_names_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"num_layers 4 → 3, num_heads 3 → 2, .*head_dim 6 → 4"):
        make(mode="identity")
    with pytest.raises(ValueError, match="layer_map is not the identity"):
        MapProjectionAligner(**EQUAL, mode="identity", layer_map=torch.full((3, 3), 1 / 3))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(n_layer=3, n_head=4, n_embd=32), (3, 4, 4, 8)),
        (Qwen2Config(num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=2,
                     hidden_size=96), (5, 2, 6, 16)),
        (LlamaConfig(num_hidden_layers=2, num_attention_heads=4, hidden_size=32, head_dim=16),
         (2, 4, 4, 16)),
        (GemmaConfig(num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=1,
                     hidden_size=64, head_dim=32), (2, 1, 8, 32)),
        (GPTNeoXConfig(num_hidden_layers=2, num_attention_heads=4, hidden_size=32), (2, 4, 4, 8)),
        (T5Config(num_layers=2, num_heads=4, d_model=32, d_kv=16), (2, 4, 4, 16)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_geometry_is_read_off_a_config(config: Any, expected: tuple[int, ...]) -> None:
    assert CacheGeometry.from_config(config) == expected


def test_from_configs_counts_query_heads_under_grouped_queries() -> None:
    teacher = Qwen2Config(
        num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3, hidden_size=36
    )
    student = GPT2Config(n_layer=3, n_head=4, n_embd=16)
    aligner = MapProjectionAligner.from_configs(teacher, student, share_dim_proj=False)
    assert aligner.key_projector.head_mixer.weight.shape == (4, 3)
    assert aligner.query_projector.head_mixer.weight.shape == (4, 6)
    assert aligner.key_projector.dim_weight.shape == (4, 4, 6)
    assert aligner(*cache()).keys.shape == (2, 3, 4, 7, 4)
    with pytest.raises(ValueError, match="object describes no decoder"):
        MapProjectionAligner.from_configs(object(), student)  # type: ignore[arg-type]


def test_wrong_inputs_are_named() -> None:
    aligner = make()
    keys, values, queries = cache()
    with pytest.raises(ValueError, match="mode='linear' is unknown"):
        make(mode="linear")
    with pytest.raises(ValueError, match=r"keys have shape \[4, 2, 3, 7, 6\].*\[B, 4, 3, T, 6\]"):
        aligner(keys.transpose(0, 1), values)
    with pytest.raises(ValueError, match=r"queries have shape .*\[B, 4, 6, T, 6\]"):
        aligner(keys, values, values)
    with pytest.raises(ValueError, match=r"values .* does not fit the batch and positions"):
        aligner(keys, values[:, :, :, :5], queries)
    with pytest.raises(ValueError, match=r"mask must be \[2, 7\], got \[7, 2\]"):
        aligner(keys, values, mask=torch.ones(7, 2))
    with pytest.raises(ValueError, match=r"segment_ids must be \[2, 7\]"):
        aligner(keys, values, segment_ids=torch.ones(2, 6))
