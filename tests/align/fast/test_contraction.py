from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from align.oracles import loop_contract
from kava.align import layer_map
from kava.align.fast import contraction
from kava.align.fast.contraction import apply_terms, mix_layers
from kava.align.fast.kernels import (
    LayerKernel,
    MatrixKernel,
    TermsKernel,
    cheapest_kernel,
    heads_go_first,
)
from kava.align.fast.weights import MapWeights
from kava.align.layers.sparse_map import sparse_rows


def inputs(
    B: int = 2,
    L: tuple[int, int] = (4, 3),
    H: tuple[int, int] = (3, 2),
    D: tuple[int, int] = (4, 5),
    T: int = 3,
    per_head: bool = False,
    strategy: str = "ratio",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dim = draw(H[1], D[1], D[0]) if per_head else draw(D[1], D[0])
    return draw(B, L[0], H[0], T, D[0]), layer_map(*L, strategy=strategy), draw(H[1], H[0]), dim


size = st.integers(1, 5)


@settings(deadline=None, max_examples=40)
@given(
    B=size,
    L=st.tuples(size, size),
    H=st.tuples(size, size),
    D=st.tuples(size, size),
    T=size,
    per_head=st.booleans(),
    strategy=st.sampled_from(["ratio", "uniform", "skip"]),
    samples_in_block=st.integers(0, 3),
)
def test_terms_equal_the_loop_for_any_geometry_and_block_size(
    samples_in_block: int, **geometry: object
) -> None:
    x, weights, head, dim = inputs(**geometry)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contraction, "CPU_BLOCK_BYTES", samples_in_block * x[0, 0].numel() * 8)
        actual = apply_terms(x, head, dim, sparse_rows(weights))
    torch.testing.assert_close(actual, loop_contract(x, weights, head, dim), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("heads", [(3, 2), (1, 6)], ids=["heads first", "dims first"])
@pytest.mark.parametrize("samples_in_block", [1, 2, 8])
def test_gradients_of_every_input(
    per_head: bool, heads: tuple[int, int], samples_in_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weights, head, dim = inputs(B=3, H=heads, D=(2, 2), per_head=per_head)
    monkeypatch.setattr(contraction, "CPU_BLOCK_BYTES", samples_in_block * x[0, 0].numel() * 8)
    rows = sparse_rows(weights)
    parts = [part.requires_grad_() for part in (x, head, dim)]
    assert torch.autograd.gradcheck(lambda *part: apply_terms(*part, rows), parts)


def test_the_head_count_decides_the_order() -> None:
    wide, narrow = torch.ones(1, 12, 2), torch.ones(1, 2, 12)
    dim = torch.ones(1, 64, 128)
    assert not heads_go_first(wide, dim)
    assert heads_go_first(narrow, dim)
    assert heads_go_first(wide, dim.unsqueeze(1).expand(-1, 12, -1, -1))


@pytest.mark.parametrize("needs", [None, {"x"}, {"head", "dim"}, {"head", "dim", "x"}])
def test_many_terms_are_taken_as_one_matrix(needs: set[str] | None) -> None:
    def form(rank: int, num_positions: int) -> type[LayerKernel]:
        weights = MapWeights(torch.ones(1, rank, 4, 8), torch.ones(1, rank, 64, 64), None)
        return cheapest_kernel(weights, num_positions, needs)

    # a term takes 4·8·64 + 4·64·64 multiplications of each position, the matrix 4·64·8·64
    assert form(1, 1000) is form(2, 1000) is TermsKernel
    assert form(6, 1000) is form(20, 1000) is MatrixKernel
    assert form(20, 3) is TermsKernel  # too few positions to pay for adding the terms up
    full = MapWeights(None, None, torch.ones(1, 256, 512))
    assert cheapest_kernel(full, 3, needs) is MatrixKernel


@pytest.mark.parametrize("wanted", ["x", "head", "dim"])
@pytest.mark.parametrize("heads", [(3, 2), (1, 6)], ids=["heads first", "dims first"])
def test_a_gradient_does_not_depend_on_which_others_are_wanted(
    wanted: str, heads: tuple[int, int]
) -> None:
    x, weights, head, dim = inputs(H=heads)
    rows = sparse_rows(weights)

    def grads(*names: str) -> dict[str, Tensor | None]:
        parts = {"x": x.clone(), "head": head.clone(), "dim": dim.clone()}
        for name in names:
            parts[name].requires_grad_()
        apply_terms(parts["x"], parts["head"], parts["dim"], rows).square().sum().backward()
        return {name: part.grad for name, part in parts.items()}

    alone, together = grads(wanted), grads("x", "head", "dim")
    torch.testing.assert_close(alone[wanted], together[wanted])
    assert [name for name, grad in alone.items() if grad is not None] == [wanted]


def test_a_permuted_view_gives_what_its_copy_gives() -> None:
    x, weights, head, dim = inputs()
    rows = sparse_rows(weights)
    for order in ([1, 0, 2, 3, 4], [3, 1, 2, 0, 4], [0, 1, 2, 4, 3]):
        view = x.permute(order).contiguous().permute([order.index(axis) for axis in range(5)])
        assert not view.is_contiguous()
        torch.testing.assert_close(
            apply_terms(view, head, dim, rows), apply_terms(x, head, dim, rows)
        )
        torch.testing.assert_close(mix_layers(view, rows), mix_layers(x, rows))


@pytest.mark.parametrize("strategy", ["ratio", "uniform", "skip"])
@pytest.mark.parametrize("depths", [(4, 3), (3, 4), (3, 1), (1, 3)])
def test_mixing_layers_is_the_weighted_sum(strategy: str, depths: tuple[int, int]) -> None:
    x, weights, _, _ = inputs(L=depths, strategy=strategy)
    rows = sparse_rows(weights)
    expected = torch.einsum("sl,blhtd->bshtd", weights.double(), x)
    torch.testing.assert_close(mix_layers(x, rows), expected)
    assert torch.autograd.gradcheck(lambda x: mix_layers(x, rows), [x.requires_grad_()])


def test_only_layers_with_weight_are_read() -> None:
    x, _, head, dim = inputs(L=(4, 2))
    x[:, 1:3] = float("nan")
    rows = sparse_rows(layer_map(4, 2, strategy="skip"))
    assert apply_terms(x, head, dim, rows).isfinite().all()
    assert mix_layers(x, rows).isfinite().all()


def test_identity_layers_are_not_copied() -> None:
    x = inputs()[0]
    assert mix_layers(x, sparse_rows(torch.eye(4))) is x


def test_weights_follow_the_dtype_of_the_input() -> None:
    x, weights, head, dim = (part.float() for part in inputs(B=4, T=50))
    head.requires_grad_()
    rows = sparse_rows(weights)
    exact = apply_terms(x, head, dim, rows)
    half = apply_terms(x.bfloat16(), head, dim, rows)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.2, rtol=0.05)
    (of_half,) = torch.autograd.grad(half.float().sum(), head)
    (of_exact,) = torch.autograd.grad(exact.sum(), head)
    assert of_half.dtype == torch.float32
    torch.testing.assert_close(
        of_half, of_exact, atol=0.05 * float(of_exact.abs().max()), rtol=0.05
    )


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("samples_in_block", [0, 1, 2, 9])
def test_blocks_cover_everything_once_within_their_limit(
    batch: int, samples_in_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.zeros(batch, 4, 3, 7, 2)
    monkeypatch.setattr(contraction, "CPU_BLOCK_BYTES", samples_in_block * x[0, 0].nbytes)
    visits = torch.zeros(batch, 3)
    for layer, samples in contraction._blocks(x, 3):
        visits[samples, layer] += 1
        assert samples.stop - samples.start <= max(1, samples_in_block)
    assert (visits == 1).all()
