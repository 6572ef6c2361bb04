"""What latents read as: spans that cover the reasoning once, and the loss of a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kava.losses import latent_ce_loss, latent_of_tokens

M, V, T = 3, 11, 12
COUNTS = [3, 7, 1, 0, 8]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Readings, tokens, and reasoning of several lengths that starts in different columns."""
    torch.manual_seed(0)
    reasoning = torch.zeros(len(COUNTS), T, dtype=torch.bool)
    for row, count in enumerate(COUNTS):
        reasoning[row, 2 + row % 2 : 2 + row % 2 + count] = True
    return torch.randn(len(COUNTS), M, V), torch.randint(V, (len(COUNTS), T)), reasoning


def slow(readings: Tensor, ids: Tensor, reasoning: Tensor) -> tuple[float, float, int]:
    """The sum over latents, the latents that are read, and the latents with tokens."""
    total, read, count = 0.0, 0, 0
    for b in range(len(ids)):
        tokens = [int(ids[b, t]) for t in range(T) if reasoning[b, t]]
        R = len(tokens)
        for m in range(M):
            span = [tok for r, tok in enumerate(tokens) if r * min(M, R) // R == m]
            if not span:
                continue
            p = readings[b, m].double().softmax(0)
            total += sum(-math.log(p[token]) for token in span) / len(span)
            read += int(readings[b, m].argmax()) in span
            count += 1
    return total, read, count


def test_the_loss_is_that_of_a_slow_loop(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    total, read, count = slow(*batch)
    loss, metrics = latent_ce_loss(*batch)
    assert count == 3 + 3 + 1 + 0 + 3
    assert loss.item() == pytest.approx(total / count, rel=1e-5)
    assert metrics["latent_read"].item() == pytest.approx(read / count)
    loss, metrics = latent_ce_loss(*batch, 40)
    assert loss.item() == pytest.approx(total / 40, rel=1e-5)
    assert metrics["latent_read"].item() == pytest.approx(read / 40)


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("latents", [1, 3, 8])
def test_spans_are_in_order_and_of_like_length(count: int, latents: int) -> None:
    reasoning = torch.zeros(1, 24, dtype=torch.bool)
    reasoning[0, 3 : 3 + count] = True
    spans = latent_of_tokens(reasoning, latents)[reasoning].tolist()
    assert spans == sorted(spans)
    assert sorted(set(spans)) == list(range(min(count, latents)))
    sizes = [spans.count(m) for m in set(spans)]
    assert max(sizes) - min(sizes) <= 1


def test_a_latent_of_several_tokens_is_to_read_as_all_of_them_alike() -> None:
    ids, reasoning = torch.tensor([[3, 5]]), torch.ones(1, 2, dtype=torch.bool)
    readings = torch.full((1, 1, V), -1e9)
    readings[0, 0, [3, 5]] = 0.0
    assert latent_ce_loss(readings, ids, reasoning)[0].item() == pytest.approx(math.log(2))
    readings[0, 0, 3] = 1.0
    assert latent_ce_loss(readings, ids, reasoning)[0].item() > math.log(2)


def test_parts_of_a_batch_add_up(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    readings, ids, reasoning = batch
    readings.requires_grad_()
    count = slow(*(x.detach() for x in batch))[2]
    whole, metrics = latent_ce_loss(*batch, count)
    (gradient,) = torch.autograd.grad(whole, readings)
    parts = [slice(0, 1), slice(1, 4), slice(4, 5)]
    sums = [latent_ce_loss(readings[p], ids[p], reasoning[p], count) for p in parts]
    total = sum((loss for loss, _ in sums), torch.zeros(()))
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(total, readings)[0], gradient)
    shares = sum((m["latent_read"] for _, m in sums), torch.zeros(()))
    torch.testing.assert_close(shares, metrics["latent_read"])


def test_padding_and_other_tokens_change_nothing(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    readings, ids, reasoning = batch
    noise = torch.where(reasoning, ids, (ids + 1) % V)
    torch.testing.assert_close(
        latent_ce_loss(readings, noise, reasoning)[0], latent_ce_loss(*batch)[0]
    )
    wide = torch.cat([torch.zeros_like(ids[:, :4]), ids], dim=1)
    at = torch.cat([torch.zeros_like(reasoning[:, :4]), reasoning], dim=1)
    torch.testing.assert_close(latent_ce_loss(readings, wide, at)[0], latent_ce_loss(*batch)[0])


def test_latents_without_tokens_get_no_gradient(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    readings = batch[0].requires_grad_()
    latent_ce_loss(readings, *batch[1:])[0].backward()
    assert readings.grad is not None
    moved = readings.grad.abs().sum(-1) > 0
    assert moved.sum(1).tolist() == [min(count, M) for count in COUNTS]
    assert moved[2].tolist() == [True, False, False]


def test_a_batch_without_reasoning_costs_nothing() -> None:
    readings = torch.randn(2, M, V, requires_grad=True)
    ids = torch.zeros(2, T, dtype=torch.long)
    loss, metrics = latent_ce_loss(readings, ids, torch.zeros(2, T, dtype=torch.bool))
    loss.backward()
    assert (loss.item(), metrics["latent_read"].item()) == (0.0, 0.0)


def test_half_precision_is_read_in_full(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    readings, ids, reasoning = batch
    half = readings.bfloat16()
    loss, _ = latent_ce_loss(half, ids, reasoning)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, latent_ce_loss(half.float(), ids, reasoning)[0])


def test_shapes_that_do_not_fit_are_refused(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    readings, ids, reasoning = batch
    with pytest.raises(ValueError, match=r"must be \[B, M, V\]"):
        latent_ce_loss(readings[0], ids, reasoning)
    with pytest.raises(ValueError, match="of 2 samples and 3 latents"):
        latent_ce_loss(readings[:2], ids, reasoning)
