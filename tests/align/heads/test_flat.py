from __future__ import annotations

import pytest
import torch

from kava.align import FLAT_VARIANTS, FlatStack, KVDimensionProjector, StudentToTeacherProjector
from kava.align.heads.flat import flatten_heads, unflatten_heads

variants = pytest.mark.parametrize("variant", FLAT_VARIANTS)


def test_the_elastic_bottleneck_of_7168_to_3072_has_its_exact_size() -> None:
    with torch.device("meta"):
        projector = KVDimensionProjector(7168, 3072)
    assert sum(parameter.numel() for parameter in projector.parameters()) == 146_849_792


@variants
@pytest.mark.parametrize("make", [KVDimensionProjector, StudentToTeacherProjector])
def test_keys_and_values_are_mapped_by_their_own_stack(
    variant: str, make: type[KVDimensionProjector]
) -> None:
    projector = make(12, 8, variant=variant)
    x = torch.randn(2, 3, 5, 12)
    keys, values = projector(x, x)
    assert keys.shape == values.shape == (2, 3, 5, 8)
    assert not torch.equal(keys, values)
    projector(x, x).keys.square().sum().backward()
    assert all(p.grad is None for p in projector.value_stack.parameters())
    assert all(p.grad is not None for p in projector.key_stack.parameters())


@variants
def test_one_step_moves_every_parameter(variant: str) -> None:
    torch.manual_seed(0)
    stack = FlatStack(6, 4, variant)
    optimizer = torch.optim.SGD(stack.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in stack.parameters()]
    for _ in range(2):  # the residual's bottleneck is silent until its last layer has moved
        optimizer.zero_grad()
        stack(torch.randn(9, 6)).sub(1).square().mean().backward()
        optimizer.step()
    for old, new in zip(before, stack.parameters()):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("variant", ["linear", "residual"])
def test_equal_dims_start_as_the_identity(variant: str) -> None:
    x = torch.randn(3, 6)
    torch.testing.assert_close(FlatStack(6, 6, variant)(x), x)


@pytest.mark.parametrize("variant", ["linear", "residual"])
def test_other_dims_start_with_the_variance_kept(variant: str) -> None:
    torch.manual_seed(0)
    y = FlatStack(512, 256, variant)(torch.randn(200, 512))
    assert 0.9 < y.std() < 1.1


def test_heads_are_flattened_as_a_model_lays_them_out() -> None:
    x = torch.randn(2, 3, 4, 5, 6)
    flat = flatten_heads(x)
    assert flat.shape == (2, 3, 5, 24)
    assert torch.equal(flat[1, 2, 3], torch.cat([x[1, 2, head, 3] for head in range(4)]))
    assert torch.equal(unflatten_heads(flat, 4), x)


@variants
def test_a_students_cache_in_the_teachers_space(variant: str) -> None:
    student = torch.randn(2, 3, 4, 5, 8)
    projector = StudentToTeacherProjector(4 * 8, 6 * 16, variant=variant)
    keys, values = projector.map_heads(student, student, num_heads=6)
    assert keys.shape == values.shape == (2, 3, 6, 5, 16)
    position = torch.cat([student[1, 2, head, 4] for head in range(4)])
    expected = projector.key_stack(position).view(6, 16)
    torch.testing.assert_close(keys[1, 2, :, 4], expected)


@variants
def test_the_result_has_the_dtype_of_the_input(variant: str) -> None:
    assert FlatStack(6, 4, variant)(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="'mlp' is unknown; choose from elastic, linear, residual"):
        KVDimensionProjector(4, 2, variant="mlp")
    with pytest.raises(ValueError, match=r"input has 5 coordinates, .* made for 4"):
        FlatStack(4, 2)(torch.randn(3, 5))
    with pytest.raises(ValueError, match="output dim is 0"):
        FlatStack(4, 0)
