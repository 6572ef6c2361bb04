"""The fast contraction gives the values and gradients of the plain reference."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from kava.align import layer_map
from kava.align.fast import contraction, plain
from kava.align.layers.sparse_map import Rows, sparse_rows

GEOMETRIES = {
    "deeper teacher": {"L": (5, 3), "H": (4, 2), "D": (6, 4)},
    "shallower teacher": {"L": (2, 5), "H": (3, 6), "D": (3, 5)},
    "equal": {"L": (3, 3), "H": (2, 2), "D": (4, 4)},
    "one of each": {"L": (4, 1), "H": (5, 1), "D": (2, 3)},
    "many heads": {"L": (3, 2), "H": (1, 12), "D": (2, 8)},
}
FORMS = ["shared", "shared per head", "rank 1", "rank 3 per head", "rank 9", "matrix"]
B, T = 3, 7


def weights_of(form: str, num_layers: int, H: tuple[int, int], D: tuple[int, int]) -> list[Tensor]:
    """The map's weights, float64."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    if form == "matrix":
        return [normal(num_layers, H[1] * D[1], H[0] * D[0])]
    heads = (H[1],) if form.endswith("per head") else ()
    if form.startswith("shared"):
        return [normal(H[1], H[0]), normal(*heads, D[1], D[0])]
    rank = int(form.split()[1])
    return [normal(num_layers, rank, H[1], H[0]), normal(num_layers, rank, *heads, D[1], D[0])]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("strategy", ["ratio", "uniform", "skip"])
def test_a_map_has_the_values_and_gradients_of_the_plain_one(
    geometry: dict[str, tuple[int, int]],
    form: str,
    with_bias: bool,
    strategy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    L, H, D = geometry["L"], geometry["H"], geometry["D"]
    rows = sparse_rows(layer_map(*L, strategy=strategy))
    weights = weights_of(form, L[1], H, D)
    torch.manual_seed(1)
    x = torch.randn(B, L[0], H[0], T, D[0], dtype=torch.float64)
    bias = torch.randn(L[1], H[1], D[1], dtype=torch.float64) if with_bias else None
    seed = torch.randn(B, L[1], H[1], T, D[1], dtype=torch.float64)
    # two samples in a block, so that the last block is smaller
    monkeypatch.setattr(contraction, "CPU_BLOCK_BYTES", 2 * x[0, 0].nbytes)

    def run(source: object) -> list[Tensor]:
        inputs = [part.clone().requires_grad_() for part in (x, *weights)]
        if bias is not None:
            inputs.append(bias.clone().requires_grad_())
        shift = inputs[-1] if with_bias else None
        if form == "matrix":
            y = source.apply_matrix(inputs[0], inputs[1], H[1], rows, shift)  # type: ignore[attr-defined]
        else:
            y = source.apply_terms(*inputs[:3], rows, shift)  # type: ignore[attr-defined]
        return [y, *torch.autograd.grad(y, inputs, seed)]

    for fast, reference in zip(run(contraction), run(plain), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strategy", ["ratio", "uniform", "skip"])
@pytest.mark.parametrize("depths", [(5, 3), (2, 5), (3, 3), (4, 1)])
def test_mixing_layers_has_the_values_and_gradients_of_the_plain_one(
    strategy: str, depths: tuple[int, int]
) -> None:
    rows = sparse_rows(layer_map(*depths, strategy=strategy))
    x = torch.randn(B, depths[0], 2, T, 3, dtype=torch.float64)
    seed = torch.randn(B, depths[1], 2, T, 3, dtype=torch.float64)

    def run(source: object) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        y = source.mix_layers(leaf, rows)  # type: ignore[attr-defined]
        return [y, *torch.autograd.grad(y, leaf, seed)]

    for fast, reference in zip(run(contraction), run(plain), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-12, atol=1e-12)


def test_neither_reads_a_layer_without_weight() -> None:
    x = torch.full((1, 3, 2, 4, 2), float("nan"))
    x[:, 0] = 1.0
    rows: Rows = (((0, 1.0),), ((0, 1.0),))
    for source in (contraction, plain):
        assert source.mix_layers(x, rows).isfinite().all()
        assert source.apply_terms(x, torch.eye(2), torch.eye(2), rows).isfinite().all()


@pytest.mark.parametrize("name", ["mix_layers", "apply_terms", "apply_matrix"])
def test_both_have_the_same_signature(name: str) -> None:
    from kava.align import linear_maps

    signatures = {
        str(inspect.signature(getattr(module, name)))
        for module in (linear_maps, contraction, plain)
    }
    assert len(signatures) == 1
