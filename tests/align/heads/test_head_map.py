from __future__ import annotations

import pytest
import torch

from kava.align import HeadwiseMapProjector


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_shapes_of_the_paper_sized_case() -> None:
    x = torch.randn(2, 12, 32, 512, 128)
    assert HeadwiseMapProjector(32, 16, 128, 64)(x).shape == (2, 12, 16, 512, 64)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("share", [True, False])
def test_any_leading_axes(leading: tuple[int, ...], share: bool) -> None:
    projector = HeadwiseMapProjector(4, 3, 6, 5, share_dim_proj=share, init_uniform=False)
    x = torch.randn(*leading, 4, 7, 6)
    y = projector(x)
    assert y.shape == (*leading, 3, 7, 5)
    dim = projector.dim_weight.expand(3, 5, 6)
    expected = torch.einsum("hg,hpd,...gtd->...htp", projector.head_mixer.weight, dim, x)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(
    ("geometry", "shared", "per_head"),
    [
        ((32, 16, 64, 64), 32 * 16 + 64 * 64, 32 * 16 + 16 * 64 * 64),
        ((32, 16, 128, 64), 32 * 16 + 128 * 64, 32 * 16 + 16 * 128 * 64),
        ((2, 12, 128, 64), 2 * 12 + 128 * 64, 2 * 12 + 12 * 128 * 64),
    ],
)
def test_parameter_counts(geometry: tuple[int, ...], shared: int, per_head: int) -> None:
    assert num_parameters(HeadwiseMapProjector(*geometry)) == shared
    assert num_parameters(HeadwiseMapProjector(*geometry, share_dim_proj=False)) == per_head
    shape = HeadwiseMapProjector(*geometry).head_mixer.weight.shape
    assert shape == (geometry[1], geometry[0])


@pytest.mark.parametrize("heads", [(32, 16), (12, 14), (2, 4), (3, 2), (12, 8), (1, 5), (5, 1)])
def test_uniform_rows_sum_to_one_and_keep_the_order_of_heads(heads: tuple[int, int]) -> None:
    mixer = HeadwiseMapProjector(*heads, 4, 4).head_mixer.weight
    torch.testing.assert_close(mixer.sum(1), torch.ones(heads[1]))
    assert (mixer.sum(0) > 0).all()
    centre = mixer @ torch.arange(float(heads[0]))
    assert (centre.diff() >= 0).all()


def test_uniform_groups_differ_from_head_to_head() -> None:
    mixer = HeadwiseMapProjector(32, 16, 64, 64).head_mixer.weight
    assert torch.linalg.matrix_rank(mixer) == 16
    assert torch.equal(mixer[3].nonzero().flatten(), torch.tensor([6, 7]))


@pytest.mark.parametrize("share", [True, False])
def test_equal_geometry_starts_as_the_identity(share: bool) -> None:
    x = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(HeadwiseMapProjector(4, 4, 6, 6, share_dim_proj=share)(x), x)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("dims", [(6, 4), (4, 6)])
def test_other_dims_start_as_a_cut_or_padded_identity(share: bool, dims: tuple[int, int]) -> None:
    x = torch.randn(2, 4, 5, dims[0])
    y = HeadwiseMapProjector(4, 4, *dims, share_dim_proj=share)(x)
    kept = min(dims)
    assert torch.equal(y[..., :kept], x[..., :kept])
    assert (y[..., kept:] == 0).all()


def test_random_initialisation_is_seeded_and_keeps_the_norm() -> None:
    def make(seed: int) -> HeadwiseMapProjector:
        torch.manual_seed(seed)
        return HeadwiseMapProjector(4, 3, 8, 6, share_dim_proj=False, init_uniform=False)

    first, again, other = make(1), make(1), make(2)
    assert torch.equal(first.dim_weight, again.dim_weight)
    assert torch.equal(first.head_mixer.weight, again.head_mixer.weight)
    assert not torch.equal(first.dim_weight, other.dim_weight)
    for dim_map in first.dim_weight:
        torch.testing.assert_close(dim_map @ dim_map.T, torch.eye(6), atol=1e-5, rtol=0)
    assert not torch.equal(first.dim_weight[0], first.dim_weight[1])


@pytest.mark.parametrize("share", [True, False])
def test_gradients_reach_every_parameter_and_the_input(share: bool) -> None:
    projector = HeadwiseMapProjector(3, 5, 4, 6, share_dim_proj=share)
    x = torch.randn(2, 3, 7, 4, requires_grad=True)
    projector(x).square().sum().backward()
    for part in (x, *projector.parameters()):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_wrong_inputs_are_named() -> None:
    projector = HeadwiseMapProjector(4, 2, 8, 8)
    with pytest.raises(ValueError, match="5 heads of 8, but the projector was made for 4 heads"):
        projector(torch.randn(2, 5, 3, 8))
    with pytest.raises(ValueError, match=r"\[\.\.\., H, T, D\], got shape \[3, 8\]"):
        projector(torch.randn(3, 8))
    with pytest.raises(ValueError, match="num_student_heads=0 must be at least 1"):
        HeadwiseMapProjector(4, 0, 8, 8)
