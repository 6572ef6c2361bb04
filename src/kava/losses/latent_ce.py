"""Cross-entropy of the latent tokens' readings on the written chain of thought.

A latent is made from a hidden state of the model. The model's own output head turns that state
into a distribution over tokens: what would be written in place of the latent. This loss supervises
it with the reasoning tokens themselves. It needs no teacher and no other forward pass.

The tokens of a latent: the R reasoning tokens of a sample are divided into M spans of about equal
length, one for each latent, in order,

    r-th token  →  latent ⌊r · min(M, R) / R⌋,    r = 0 … R − 1

so that R = M pairs them one to one; where R < M, the first R latents have a token each and the
others are left unsupervised. All tokens of a span have the same weight.

Sources: SIM-CoT (arXiv 2509.20317), where an auxiliary decoder writes a latent's whole step, and
LOTUS (arXiv 2606.31779), where the model's own head reads one token of a step at each of several
latents. Deviations: the head is the model's own (as in LOTUS, not SIM-CoT) and reads one
distribution for each latent, so that a span's tokens are predicted without their order; spans
divide the reasoning by length, not at the ends of its steps, since M may be above or below the
number of steps; the state that is read is the one that the latent is made of, as in SIM-CoT,
which is where written reasoning would be predicted (LOTUS reads the state at the latent itself).

Shapes: B batch, T text columns, M latents, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.losses.positions import NumItems, divide_by_count


def latent_of_tokens(reasoning: Tensor, num_latents: int) -> Tensor:
    """Which latent each reasoning token belongs to.

    Args:
        reasoning: [B, T] bool, True at the reasoning tokens.
        num_latents: M, at least 1.

    Returns:
        [B, T] integers from 0 to M − 1; meaningless where `reasoning` is False.

    Example:
        >>> latent_of_tokens(torch.ones(1, 5, dtype=torch.bool), 2)
        tensor([[0, 0, 0, 1, 1]])
        >>> latent_of_tokens(torch.ones(1, 2, dtype=torch.bool), 3)
        tensor([[0, 1]])
    """
    rank_BT = (reasoning.long().cumsum(1) - 1).clamp(min=0)
    count_B1 = reasoning.sum(1, keepdim=True)
    used_B1 = count_B1.clamp(max=num_latents)
    return rank_BT * used_B1 // count_B1.clamp(min=1)


def latent_ce_loss(
    readings: Tensor, input_ids: Tensor, reasoning: Tensor, num_items: NumItems = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the latents' readings on the reasoning tokens.

        1/num_items · Σ_b Σ_m mean_{t in span m of b} −log p_bm(token t)

    over the latents that have tokens. Its minimum is the entropy of the tokens of a span, reached
    when a latent's reading is their distribution: 0 for spans of one token.

    Args:
        readings: [B, M, V] logits, of any float dtype; the arithmetic is float32.
        input_ids: [B, T], the tokens of the text.
        reasoning: [B, T] bool, True at its reasoning.
        num_items: the number to divide by, by default the supervised latents of this batch. For
            an accumulated batch it is their number over all of it.

    Returns:
        The loss, and `latent_read`: the share of the supervised latents whose likeliest token is
        one of their span, normalised like the loss (detached).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> readings = torch.full((1, 2, 5), -1e9)
        >>> readings[0, 0, 3] = readings[0, 1, 4] = 0.0
        >>> loss, metrics = latent_ce_loss(
        ...     readings, torch.tensor([[3, 4]]), torch.ones(1, 2, dtype=torch.bool)
        ... )
        >>> loss.item(), metrics["latent_read"].item()
        (0.0, 1.0)
    """
    if readings.ndim != 3 or input_ids.shape != reasoning.shape or input_ids.ndim != 2:
        raise ValueError(
            f"readings must be [B, M, V], input_ids and reasoning [B, T], got "
            f"{tuple(readings.shape)}, {tuple(input_ids.shape)} and {tuple(reasoning.shape)}"
        )
    B, M, _ = readings.shape
    if len(input_ids) != B or M < 1:
        raise ValueError(
            f"readings of {B} samples and {M} latents cannot be compared with the reasoning of "
            f"{len(input_ids)} samples; give one latent or more, and a text for each sample"
        )
    reasoning = reasoning.bool()
    latent_BT = latent_of_tokens(reasoning, M)
    size_BM = readings.new_zeros(B, M, dtype=torch.float32)
    size_BM.scatter_add_(1, latent_BT, reasoning.float())

    sample_N, column_N = reasoning.nonzero(as_tuple=True)
    latent_N, token_N = latent_BT[sample_N, column_N], input_ids[sample_N, column_N]
    logits_BMV = readings.float()
    lse_BM = logits_BMV.logsumexp(-1)
    surprise_N = lse_BM[sample_N, latent_N] - logits_BMV[sample_N, latent_N, token_N]
    total = (surprise_N / size_BM[sample_N, latent_N]).sum()

    supervised_BM = size_BM > 0
    count = supervised_BM.sum() if num_items is None else num_items
    hit_N = readings.detach().argmax(-1)[sample_N, latent_N] == token_N
    read_BM = torch.zeros_like(supervised_BM)
    read_BM[sample_N[hit_N], latent_N[hit_N]] = True
    share = divide_by_count(read_BM.sum().float(), count)
    return divide_by_count(total, count), {"latent_read": share}
