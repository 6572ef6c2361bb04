"""What holds for every registered KV loss: counting, padding, gradients, dtype, bad input."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from kava.losses import (
    KV_LOSSES,
    CKALoss,
    KVLoss,
    MercatorKVLoss,
    StructuralKVLoss,
    build_kv_loss,
    kv_loss_options,
)
from kava.trace import KVTrace

from .conftest import MakePair, parts

# Every name once plain, and once more with what makes a loss depend on more than one position.
CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in KV_LOSSES] + [
    ("smooth_l1", {"layer_std": True, "layer_weights": [1.0, 3.0]}),
    ("mse", {"layer_std": True}),
    ("l1", {"layer_std": True}),
    ("smooth_l1_alpha", {"alpha_k": 2.0, "alpha_v": 0.5}),
    ("mercator", {"alpha": 0.5, "beta": 0.1}),
    ("structural", {"alpha_k": 0.0, "alpha_v": 0.0, "alpha_attn": 1.0}),
]
every_loss = pytest.mark.parametrize(("name", "options"), CASES)


def gradients(loss: torch.Tensor, trace: KVTrace) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, parts(trace), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, parts(trace))]


def test_the_names_are_those_that_the_command_line_takes() -> None:
    assert set(KV_LOSSES) == {
        "smooth_l1",
        "mse",
        "l1",
        "smooth_l1_alpha",
        "mercator",
        "structural",
    }


@every_loss
def test_micro_batches_with_the_global_count_add_up(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair()
    whole, whole_metrics = loss_fn(student, target)
    num_items = target.valid_BT().sum()
    parts_of_batch = [
        loss_fn(student.samples(index), target.samples(index), num_items)
        for index in (slice(0, 1), slice(1, 3))
    ]
    added = torch.stack([loss for loss, _ in parts_of_batch]).sum()
    torch.testing.assert_close(added, whole, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients(added, student), gradients(whole, student)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    for key, value in whole_metrics.items():
        total = sum(metrics[key] for _, metrics in parts_of_batch)
        torch.testing.assert_close(total, value, rtol=1e-5, atol=1e-6)


@every_loss
def test_twice_the_count_is_half_the_loss_also_as_a_number(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair()
    loss, _ = loss_fn(student, target)
    half, _ = loss_fn(student, target, 2.0 * 8)
    torch.testing.assert_close(half, loss / 2)


@every_loss
@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
def test_padding_changes_neither_loss_nor_gradient(
    name: str, options: dict[str, Any], garbage: float, make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair(lengths=(3, 3), num_slots=3)
    bare, _ = loss_fn(student, replace(target, mask=None))
    pad = (0, 0, 2, 1)
    padded_student, padded_target = (
        KVTrace(*(torch.nn.functional.pad(x, pad, value=garbage) for x in parts(trace)))
        for trace in (student, target)
    )
    mask = torch.tensor([[False, False, True, True, True, False]] * 2)
    padded, metrics = loss_fn(padded_student, replace(padded_target, mask=mask))
    torch.testing.assert_close(padded, bare)
    assert all(torch.isfinite(value) for value in metrics.values())
    for ours, theirs in zip(gradients(padded, student), gradients(bare, student)):
        torch.testing.assert_close(ours, theirs)


@every_loss
def test_a_sample_without_valid_slots_adds_nothing(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair(lengths=(3, 0))
    loss, _ = loss_fn(student, target)
    alone, _ = loss_fn(student.samples(slice(0, 1)), target.samples(slice(0, 1)))
    torch.testing.assert_close(loss, alone)
    for gradient in gradients(loss, student):
        assert torch.isfinite(gradient).all()
        assert not gradient[1].any()
    nothing, _ = loss_fn(student.samples([1]), target.samples([1]))
    assert nothing.item() == 0


@every_loss
def test_the_student_gets_gradients_and_the_target_never_does(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    student, target = make_pair()
    loss, metrics = build_kv_loss(name, **options)(student, target)
    loss.backward()
    attention_only = options.get("alpha_k") == 0.0
    for part in [student.keys] if attention_only else [student.keys, student.values]:
        assert part.grad is not None
        assert part.grad.abs().sum() > 0
    assert all(part.grad is None for part in parts(target))
    assert not any(value.requires_grad for value in metrics.values())
    assert {"kv_k", "kv_v", "kv_cos_k", "kv_cos_v"} <= set(metrics)
    assert all(value.ndim == 0 for value in metrics.values())


@every_loss
def test_a_student_equal_to_its_target_has_no_loss(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    _, target = make_pair()
    loss, metrics = build_kv_loss(name, **options)(replace(target, mask=None), target)
    assert abs(loss.item()) < 1e-6
    torch.testing.assert_close(metrics["kv_cos_k"], torch.tensor(1.0))
    torch.testing.assert_close(metrics["kv_cos_v"], torch.tensor(1.0))


@every_loss
def test_a_mask_of_the_student_narrows_that_of_the_target(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair(lengths=(4, 4))
    narrow = torch.tensor([[True, True, False, False], [True, True, True, False]])
    ours, _ = loss_fn(replace(student, mask=narrow), target)
    theirs, _ = loss_fn(student, replace(target, mask=narrow))
    torch.testing.assert_close(ours, theirs)
    alone, _ = loss_fn(replace(student, mask=narrow), replace(target, mask=None))
    torch.testing.assert_close(alone, theirs)


@every_loss
def test_bfloat16_input_is_compared_in_float32(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair()
    student_16, target_16 = student.to(dtype=torch.bfloat16), target.to(dtype=torch.bfloat16)
    exact, _ = loss_fn(student_16.to(dtype=torch.float32), target_16.to(dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, metrics = loss_fn(student_16, target_16)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)
    loss.backward()
    assert student.keys.grad is not None
    assert torch.isfinite(student.keys.grad).all()
    assert all(torch.isfinite(value) for value in metrics.values())


@every_loss
def test_equal_weights_of_layers_and_positions_change_nothing(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **{k: v for k, v in options.items() if k != "layer_weights"})
    student, target = make_pair()
    plain, metrics = loss_fn(student, target)
    weighted, same = loss_fn(
        student, target, position_weights=torch.full((3, 4), 0.25), layer_weights=[7.0, 7.0]
    )
    torch.testing.assert_close(weighted, plain)
    assert all(torch.allclose(same[key], value) for key, value in metrics.items())


@every_loss
def test_a_layer_of_weight_0_counts_for_nothing(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **{k: v for k, v in options.items() if k != "layer_weights"})
    student, target = make_pair()
    one, _ = loss_fn(student, target, layer_weights=torch.tensor([0.0, 2.0]))
    alone, _ = loss_fn(student.layers([1]), target.layers([1]))
    torch.testing.assert_close(one, alone)
    mixed, _ = loss_fn(student, target, layer_weights=[1.0, 3.0])
    other, _ = loss_fn(student.layers([0]), target.layers([0]))
    torch.testing.assert_close(mixed, (other + 3 * alone) / 4)


@every_loss
def test_position_weights_share_out_each_samples_loss(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    """The losses of single positions, taken out by weights of one, add up to the whole."""
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair(lengths=(4, 4))
    whole, _ = loss_fn(student, target)
    single = [
        loss_fn(student, target, position_weights=one.expand(2, 4))[0] for one in torch.eye(4)
    ]
    torch.testing.assert_close(torch.stack(single).mean(), whole)
    weights = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    loss, metrics = loss_fn(student, target, position_weights=weights)
    assert loss != whole
    _, plain = loss_fn(student, target)
    assert torch.equal(metrics["kv_cos_k"], plain["kv_cos_k"])


@every_loss
def test_position_weights_leave_the_gradients_of_micro_batches_alone(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair()
    weights = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    whole, _ = loss_fn(student, target, position_weights=weights)
    added = sum(
        loss_fn(student.samples([b]), target.samples([b]), 8, weights[[b]])[0] for b in range(3)
    )
    torch.testing.assert_close(added, whole)


@every_loss
def test_weights_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, target = make_pair()
    with pytest.raises(ValueError, match="layer_weights has 3 weights for 2 layers"):
        loss_fn(student, target, layer_weights=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"layer_weights \(0.0, 0.0\) must be finite, 0 or more"):
        loss_fn(student, target, layer_weights=torch.zeros(2))
    with pytest.raises(ValueError, match=r"position_weights must be \[3, 4\], got \(3, 5\)"):
        loss_fn(student, target, position_weights=torch.ones(3, 5))


@pytest.mark.parametrize("name", [n for n in KV_LOSSES if "key_weight" in kv_loss_options(n)])
def test_keys_and_values_alone_are_the_two_halves(name: str, make_pair: MakePair) -> None:
    student, target = make_pair()
    both, terms = build_kv_loss(name)(student, target)
    keys, _ = build_kv_loss(name, value_weight=0.0)(student, target)
    values, _ = build_kv_loss(name, key_weight=0.0)(student, target)
    torch.testing.assert_close(keys, terms["kv_k"] / 2)
    torch.testing.assert_close(keys + values, both)
    assert not gradients(keys, student)[1].any()


@every_loss
def test_shapes_that_differ_are_refused(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    loss_fn = build_kv_loss(name, **options)
    student, _ = make_pair()
    _, target = make_pair(num_heads=4)
    with pytest.raises(ValueError, match=r"\(3, 2, 2, 4, 5\).*\(3, 2, 4, 4, 5\).*align"):
        loss_fn(student, target)


@every_loss
def test_rotated_keys_are_never_compared_with_unrotated_ones(
    name: str, options: dict[str, Any], make_pair: MakePair
) -> None:
    student, target = make_pair()
    with pytest.raises(ValueError, match="rotated=True and target keys rotated=False"):
        build_kv_loss(name, **options)(student, replace(target, rotated=False))


def test_a_negative_count_is_refused(make_pair: MakePair) -> None:
    with pytest.raises(ValueError, match="num_items=-1 is negative"):
        build_kv_loss("mse")(*make_pair(), -1)


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"kv_loss='huber' is unknown; choose from smooth_l1, mse"):
        build_kv_loss("huber")


@pytest.mark.parametrize("name", KV_LOSSES)
def test_an_unknown_option_lists_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match="has no option 'gamma'; choose from") as error:
        build_kv_loss(name, gamma=1.0)
    assert all(option in str(error.value) for option in kv_loss_options(name))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smooth_l1", {"beta": 0.0}, "beta=0.0 must be finite and above 0"),
        ("mse", {"key_weight": -1.0}, "key_weight and value_weight .* 0 or more"),
        ("l1", {"layer_weights": [0.0, 0.0]}, "layer_weights .* not all 0"),
        ("mercator", {"alpha": 0.0}, "alpha and beta .* not all 0"),
        ("mercator", {"key_weight": 0.0, "value_weight": 0.0}, "key_weight and value_weight"),
        ("structural", {"alpha_k": -1.0}, "alpha_k, alpha_v and alpha_attn .* 0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_kv_loss(name, **options)


NUMBERS = [
    (kind, field.name)
    for kind in (KVLoss, CKALoss, MercatorKVLoss, StructuralKVLoss)
    for field in fields(kind)
    if field.type == "float"
]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("kind", "name"), [*NUMBERS, (KVLoss, "layer_weights")])
def test_a_number_that_is_not_finite_is_refused(kind: Any, name: str, number: float) -> None:
    value = (1.0, number) if name == "layer_weights" else number
    with pytest.raises(ValueError, match=rf"^[^\n]*{name}[^\n]*{number}[^\n]*must be finite"):
        kind(**{name: value})


def test_every_number_of_a_loss_is_known() -> None:
    assert {name for _, name in NUMBERS} == {
        "beta", "key_weight", "value_weight", "alpha", "alpha_k", "alpha_v", "alpha_attn",
    }  # fmt: skip
