"""CODI loss: match the hidden state at the token before the answer, in every layer.

Where the KV loss supervises the whole chain of latents, CODI (arXiv 2502.21074) supervises its
end: what the model knows when it is about to write the answer.

Shapes: B batch, L transformer layers, L+1 hidden states (the embedding is number 0), T positions,
W hidden size; suffix s student, t teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from kava.losses.positions import MIN_STD, NumItems, divide_by_count


def hidden_at(hidden_states: Sequence[Tensor], columns: Tensor) -> Tensor:
    """The hidden states at one column of every sample.

    Args:
        hidden_states: L+1 tensors [B, T, W], as a Hugging Face model returns them.
        columns: [B] integers from 0 to T − 1.

    Returns:
        [B, L+1, W], with gradients.

    Example:
        >>> states = [torch.arange(6.0).reshape(1, 3, 2)] * 5
        >>> hidden_at(states, torch.tensor([2]))[0, 0]
        tensor([4., 5.])
    """
    samples = torch.arange(len(columns), device=columns.device)
    return torch.stack([state_BTW[samples, columns] for state_BTW in hidden_states], dim=1)


def codi_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    num_items: NumItems = None,
    *,
    layer_weights: Tensor | None = None,
) -> Tensor:
    """Smooth-L1 between student and teacher, both divided by the teacher's spread.

        1/num_items · Σ_b mean_{l=1..L} mean_w smooth_l1((s − sg t) / σ_bl)

    where σ_bl is the standard deviation of the teacher's hidden state of that sample and layer
    over its W entries.

    Deviations from CODI (arXiv 2502.21074) and its public code. The paper writes an L1 distance
    summed over entries; its code averages a smooth-L1, as here. The code divides the loss of a
    layer by the standard deviation over the whole batch; here both sides are divided before the
    smooth-L1, and per sample, so that it turns from quadratic to linear at one standard
    deviation in every layer and the gradient does not depend on how a batch is split. The code
    counts the embedding (hidden state 0) as a layer; here it is left out: it holds the token and
    not what the model has computed, and without it the layers are those of `layer_weights`.

    Args:
        student_hidden: [B, L+1, W] at the token before the answer; it carries the gradient.
        teacher_hidden: [B, L_t+1, W] at the same token; always detached here.
        num_items: the number to divide by, by default B. For an accumulated batch it is the
            number of its **samples**, not of its latent slots.
        layer_weights: [L, L_t], rows that sum to 1: the teacher layers that each student layer is
            compared with. Needed where L and L_t differ; None compares layer by layer.

    Returns:
        The loss, a scalar in float32.

    Raises:
        ValueError: shapes that do not fit, or unequal layer counts without `layer_weights`.

    Example:
        >>> hidden = torch.randn(2, 5, 8)
        >>> codi_loss(hidden, hidden).item()
        0.0
    """
    if student_hidden.ndim != 3 or teacher_hidden.ndim != 3 or student_hidden.shape[1] < 2:
        raise ValueError(
            f"hidden states must be [B, L+1, W], got student {tuple(student_hidden.shape)} and "
            f"teacher {tuple(teacher_hidden.shape)}"
        )
    student_BLW = student_hidden[:, 1:].float()
    teacher_BLW = teacher_hidden[:, 1:].detach().float()
    teacher_BLW = _map_layers(teacher_BLW, student_BLW.shape[1], layer_weights)
    if student_BLW.shape != teacher_BLW.shape:
        raise ValueError(
            f"student hidden states {tuple(student_hidden.shape)} and teacher hidden states "
            f"{tuple(teacher_hidden.shape)} differ in batch or width; use "
            f"CODILoss(student_dim, teacher_dim) for unequal widths"
        )
    std_BL1 = teacher_BLW.std(dim=-1, correction=0, keepdim=True)
    std_BL1 = torch.where(std_BL1 > MIN_STD, std_BL1, 1.0)
    error_BLW = smooth_l1_loss(student_BLW / std_BL1, teacher_BLW / std_BL1, reduction="none")
    count = len(student_BLW) if num_items is None else num_items
    return divide_by_count(error_BLW.mean(dim=(1, 2)).sum(), count)


def _map_layers(
    teacher_BLW: Tensor, num_student_layers: int, layer_weights: Tensor | None
) -> Tensor:
    num_teacher_layers = teacher_BLW.shape[1]
    if layer_weights is None:
        if num_teacher_layers != num_student_layers:
            raise ValueError(
                f"the student has {num_student_layers} layers and the teacher "
                f"{num_teacher_layers}; give layer_weights "
                f"[{num_student_layers}, {num_teacher_layers}]"
            )
        return teacher_BLW
    if layer_weights.shape != (num_student_layers, num_teacher_layers):
        raise ValueError(
            f"layer_weights must be [{num_student_layers}, {num_teacher_layers}], "
            f"got {tuple(layer_weights.shape)}"
        )
    weights = layer_weights.to(device=teacher_BLW.device, dtype=teacher_BLW.dtype)
    with torch.autocast(weights.device.type, enabled=False):
        return weights @ teacher_BLW


class CODILoss(nn.Module):
    """`codi_loss` between models of different hidden sizes.

    The student is projected into the teacher's space, and not the other way round: the target
    then stays as it is and cannot collapse towards the student. The projection has no bias,
    which could match the teacher's mean without any help from the student. Where the sizes are
    equal there is no projection and no parameter.

    Args:
        student_dim: W_s.
        teacher_dim: W_t.

    Example:
        >>> loss_fn = CODILoss(student_dim=8, teacher_dim=12)
        >>> loss_fn(torch.randn(2, 5, 8), torch.randn(2, 5, 12)).shape
        torch.Size([])
    """

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.projection: nn.Module = (
            nn.Identity()
            if student_dim == teacher_dim
            else nn.Linear(student_dim, teacher_dim, bias=False)
        )

    def forward(
        self,
        student_hidden: Tensor,
        teacher_hidden: Tensor,
        num_items: NumItems = None,
        layer_weights: Tensor | None = None,
    ) -> Tensor:
        """See `codi_loss`; `student_hidden` is [B, L+1, W_s], `teacher_hidden` [B, L_t+1, W_t]."""
        return codi_loss(
            self.projection(student_hidden), teacher_hidden, num_items, layer_weights=layer_weights
        )
