from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from align.oracles import loop_contract, loop_layerwise
from kava.align import HeadwiseMapProjector, LayerwiseProjector, layer_map
from kava.align.fast import contraction
from kava.align.layers.sparse_map import Rows, sparse_rows

FORMS: dict[str, dict[str, Any]] = {
    "rank 1": {"rank": 1},
    "rank 3": {"rank": 3},
    "rank 3 per head": {"rank": 3, "per_head": True},
    "rank 20": {"rank": 20},
    "full": {"rank": None},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def make(L: int = 3, H: tuple[int, int] = (3, 2), D: tuple[int, int] = (4, 5), **form: Any):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    projector = LayerwiseProjector(L, *H, *D, init_uniform=False, **form)
    torch.nn.init.normal_(projector.bias)
    return projector


def cache(B: int = 2, L: int = 4, H: int = 3, T: int = 3, D: int = 4) -> Tensor:
    return torch.randn(B, L, H, T, D, generator=torch.Generator().manual_seed(1))


def loop(projector: LayerwiseProjector, x: Tensor, weights_ST: Tensor) -> Tensor:
    if projector.rank is not None:
        parts = projector.head_mix, projector.dim_map, projector.bias
        return loop_layerwise(x, weights_ST, *parts)
    # A full map reads all heads as one: one head, of all coordinates.
    flat = x.transpose(2, 3).flatten(3).unsqueeze(2)
    one = torch.ones(projector.num_layers, 1, 1, 1, dtype=x.dtype)
    bias = projector.bias.flatten(1)[:, None]
    y = loop_layerwise(flat, weights_ST, one, projector.weight[:, None], bias)
    return y.squeeze(2).unflatten(3, (projector.num_heads_out, -1)).transpose(2, 3)


size = st.integers(1, 4)


@settings(deadline=None, max_examples=60)
@given(
    B=size,
    L=st.tuples(size, size),
    H=st.tuples(size, size),
    D=st.tuples(size, size),
    T=size,
    form=st.sampled_from(list(FORMS.values())),
    strategy=st.sampled_from(["ratio", "uniform", "skip"]),
    samples_in_block=st.integers(0, 3),
)
def test_any_geometry_equals_the_loop_over_layers_heads_and_terms(
    B: int,
    L: tuple[int, int],
    H: tuple[int, int],
    D: tuple[int, int],
    T: int,
    form: dict[str, Any],
    strategy: str,
    samples_in_block: int,
) -> None:
    projector = make(L[1], H, D, **form).double()
    x = cache(B, L[0], H[0], T, D[0]).double()
    weights = layer_map(*L, strategy=strategy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contraction, "CPU_BLOCK_BYTES", samples_in_block * x[0, 0].numel() * 8)
        y = projector.project_layers(x, sparse_rows(weights))
    assert y.is_contiguous()
    torch.testing.assert_close(y, loop(projector, x, weights), atol=1e-6, rtol=1e-6)


@forms
@pytest.mark.parametrize("heads", [(3, 2), (1, 6)], ids=["fewer heads", "more heads"])
def test_dense_is_the_same_map_as_a_matrix(form: dict[str, Any], heads: tuple[int, int]) -> None:
    projector = make(H=heads, **form)
    x = cache(L=3, H=heads[0])
    y = projector(x)
    dense = projector.dense()
    assert dense.shape == (3, heads[1] * 5, heads[0] * 4)
    flat = torch.einsum("loi,blti->blto", dense, x.transpose(2, 3).flatten(3))
    expected = flat.unflatten(3, (heads[1], 5)).transpose(2, 3) + projector.bias[:, :, None]
    torch.testing.assert_close(y, expected)


@forms
@pytest.mark.parametrize("heads", [(3, 2), (1, 6)], ids=["fewer heads", "more heads"])
@pytest.mark.parametrize("samples_in_block", [1, 2, 8])
def test_gradients_of_every_parameter_and_the_input(
    form: dict[str, Any],
    heads: tuple[int, int],
    samples_in_block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    projector = make(H=heads, D=(2, 2), **form).double()
    x = cache(B=3, H=heads[0], D=2).double().requires_grad_()
    monkeypatch.setattr(contraction, "CPU_BLOCK_BYTES", samples_in_block * x[0, 0].numel() * 8)
    rows = sparse_rows(layer_map(4, 3))
    names, parameters = zip(*projector.named_parameters())

    def project(x: Tensor, *parts: Tensor) -> Tensor:
        given = dict(zip(names, parts))
        return torch.func.functional_call(_Rows(projector, rows), _prefixed(given), (x,))

    assert torch.autograd.gradcheck(project, (x, *parameters), atol=1e-6, fast_mode=True)


class _Rows(torch.nn.Module):
    def __init__(self, projector: LayerwiseProjector, rows: Rows) -> None:
        super().__init__()
        self.projector, self.rows = projector, rows

    def forward(self, x: Tensor) -> Tensor:
        return self.projector.project_layers(x, self.rows)


def _prefixed(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"projector.{name}": part for name, part in parts.items()}


@forms
@pytest.mark.parametrize("wanted", ["x", "bias", "maps"])
def test_a_gradient_does_not_depend_on_which_others_are_wanted(
    form: dict[str, Any], wanted: str
) -> None:
    rows = sparse_rows(layer_map(4, 3))

    def grads(*names: str) -> dict[str, Tensor | None]:
        projector, x = make(**form), cache()
        parts = {"x": x, **dict(projector.named_parameters())}
        for name, part in parts.items():
            chosen = name if name in ("x", "bias") else "maps"
            part.requires_grad_(chosen in names)
        projector.project_layers(x, rows).square().sum().backward()
        return {name: part.grad for name, part in parts.items()}

    alone, together = grads(wanted), grads("x", "bias", "maps")
    for name, grad in alone.items():
        if (name if name in ("x", "bias") else "maps") == wanted:
            torch.testing.assert_close(grad, together[name])
        else:
            assert grad is None


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("heads", [(6, 4), (2, 4)])
@pytest.mark.parametrize("dims", [(6, 4), (4, 6)])
def test_a_uniform_start_is_the_shared_maps_in_every_layer(
    per_head: bool, heads: tuple[int, int], dims: tuple[int, int]
) -> None:
    x = cache(L=3, H=heads[0], D=dims[0])
    shared = HeadwiseMapProjector(*heads, *dims, share_dim_proj=not per_head)
    for rank in (1, 4):
        projector = LayerwiseProjector(3, *heads, *dims, rank=rank, per_head=per_head)
        torch.testing.assert_close(projector(x), shared(x))


def test_a_full_map_starts_as_the_identity_or_with_the_variance_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 2, 8, 50, 16)
    assert torch.equal(LayerwiseProjector(2, 8, 8, 16, 16, rank=None)(x), x)
    for geometry in ((8, 4, 16, 16), (8, 8, 16, 32)):
        assert 0.95 < LayerwiseProjector(2, *geometry, rank=None)(x).std() < 1.05
    again = LayerwiseProjector(2, 8, 8, 16, 16, rank=None, init_uniform=False)
    assert 0.95 < again(x).std() < 1.05
    assert not torch.allclose(again(x), x, atol=0.5)


@forms
@pytest.mark.parametrize("init_uniform", [True, False])
def test_two_steps_move_every_parameter_of_every_layer_and_term(
    form: dict[str, Any], init_uniform: bool
) -> None:
    torch.manual_seed(0)
    projector = LayerwiseProjector(2, 3, 2, 4, 5, init_uniform=init_uniform, **form)
    optimizer = torch.optim.SGD(projector.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in projector.parameters()]
    for _ in range(2):  # further terms start with dim maps of zero, silent until they have moved
        optimizer.zero_grad()
        projector(torch.randn(9, 2, 3, 4, 4)).sub(1).square().mean().backward()
        optimizer.step()
    depth = 1 if projector.rank is None else 2
    for old, new in zip(before, projector.parameters()):
        moved = (old != new).flatten(min(depth, old.ndim - 1))
        assert moved.any(-1).all()


@pytest.mark.parametrize("form", [{"rank": 2}, {"rank": 2, "per_head": True}])
def test_random_maps_are_seeded_and_differ_by_layer_and_term(form: dict[str, Any]) -> None:
    first, again = make(**form), make(**form)
    assert torch.equal(first.dim_map, again.dim_map)
    assert torch.equal(first.head_mix, again.head_mix)
    for part in (first.head_mix, first.dim_map):
        flat = part.flatten(0, 1).flatten(1)
        assert len(flat.unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"rank": 1}, 3 * (8 * 4 + 16 * 24 + 4 * 24)),
        ({"rank": 5}, 3 * (5 * (8 * 4 + 16 * 24) + 4 * 24)),
        ({"rank": 5, "per_head": True}, 3 * (5 * (8 * 4 + 4 * 16 * 24) + 4 * 24)),
        ({"rank": None}, 3 * (8 * 16 * 4 * 24 + 4 * 24)),
    ],
)
def test_parameter_counts(form: dict[str, Any], expected: int) -> None:
    projector = LayerwiseProjector(3, 8, 4, 16, 24, **form)
    assert sum(parameter.numel() for parameter in projector.parameters()) == expected


@forms
def test_a_saved_projector_gives_the_same(form: dict[str, Any], tmp_path: Path) -> None:
    saved, loaded = make(**form), LayerwiseProjector(3, 3, 2, 4, 5, **form)
    torch.save(saved.state_dict(), tmp_path / "maps.pt")
    loaded.load_state_dict(torch.load(tmp_path / "maps.pt", weights_only=True))
    x = cache(L=3)
    assert torch.equal(saved(x), loaded(x))


@forms
@pytest.mark.parametrize("cast", [True, False], ids=["bf16 weights", "float32 weights"])
def test_bfloat16(form: dict[str, Any], cast: bool) -> None:
    projector = make(**form)
    x = cache(B=8, L=3, T=40)
    exact = projector(x)
    (exact_grad,) = torch.autograd.grad(exact.sum(), projector.bias)
    projector = projector.bfloat16() if cast else projector
    half = projector(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.25, rtol=0.1)
    half.float().sum().backward()
    for parameter in projector.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == parameter.dtype
    torch.testing.assert_close(projector.bias.grad.float(), exact_grad)


@forms
def test_autocast_changes_neither_dtype_nor_precision(form: dict[str, Any]) -> None:
    projector, x = make(**form), cache(L=3)
    expected = projector(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = projector(x)
        y.sum().backward()
    assert torch.equal(y, expected)


def test_layers_have_maps_of_their_own() -> None:
    projector = make(rank=1)
    x = cache()
    y = projector.project_layers(x, (((1, 1.0),),) * 3)
    for layer in range(3):
        parts = projector.head_mix[layer, 0], projector.dim_map[layer, 0]
        expected = loop_contract(x[:, 1:2], torch.ones(1, 1), *parts)
        expected = expected[:, 0] + projector.bias[layer, :, None]
        torch.testing.assert_close(y[:, layer], expected)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="rank=0 must be at least 1"):
        LayerwiseProjector(3, 3, 2, 4, 5, rank=0)
    with pytest.raises(ValueError, match="num_layers=0 must be at least 1"):
        LayerwiseProjector(0, 3, 2, 4, 5)
    with pytest.raises(ValueError, match=r"rank=None is a full map.*leave per_head out"):
        LayerwiseProjector(3, 3, 2, 4, 5, rank=None, per_head=True)
    with pytest.raises(ValueError, match=r"has 2 heads of 4 for 3 layers.*3 heads of 4 in 3"):
        make()(cache(H=2, L=3))
    with pytest.raises(ValueError, match="has 3 heads of 4 for 2 layers"):
        make().project_layers(cache(), sparse_rows(layer_map(4, 2)))
    with pytest.raises(ValueError, match=r"with 3 layers, got shape \[3, 2, 4\]"):
        make()(torch.randn(3, 2, 4))
    with pytest.raises(ValueError, match=r"with 3 layers, got shape \[2, 4, 3, 3, 4\]"):
        make()(cache())
