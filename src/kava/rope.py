"""Rotary position embeddings: take keys and queries out of their rotation, and put them back.

A cache holds keys as attention uses them: rotated by the position each one stands at. Keys of
different positions, or of models with different frequencies, can only be compared in a common
rotation (Su et al., arXiv 2104.09864, eq. 15: each pair of dimensions is turned by position ×
frequency). `Rotary` describes a model's rotation as plain numbers; the functions here are pure
tensor functions of it.

Shapes: B batch, L layers, H heads (key/value or query), T positions, D head dim, R the rotary
dims (R ≤ D; the others pass through).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from kava.trace import KVTrace, iter_past

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layout = Literal["half", "interleaved"]
_PROBES = (0, 1, 5, 17)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotary:
    """How a model rotates keys and queries.

    Args:
        inv_freq: [R/2], or [L, R/2] where layers differ (sliding and full attention with their
            own base); radians per position. A layer that does not rotate has zeros.
        rotary_dim: R, the leading dims of each head that are rotated.
        attention_scaling: what the rotated dims are multiplied by besides (yarn); one number,
            or one per layer.
        layout: which dims pair up: "half" pairs i with i + R/2 (Llama, GPT-NeoX),
            "interleaved" pairs 2i with 2i + 1 (GPT-J, GLM, Cohere).
        num_positions: frequencies hold for positions below this number only (dynamic scaling
            changes them with the length of the text); None: for all.

    Raises:
        ValueError: `inv_freq` does not fit `rotary_dim`.

    Example:
        >>> Rotary(inv_freq=1 / 10000 ** (torch.arange(0, 64, 2) / 64), rotary_dim=64)
    """

    inv_freq: Tensor
    rotary_dim: int
    attention_scaling: float | tuple[float, ...] = 1.0
    layout: Layout = "half"
    num_positions: int | None = None

    def __post_init__(self) -> None:
        if self.inv_freq.ndim not in (1, 2) or self.inv_freq.shape[-1] * 2 != self.rotary_dim:
            raise ValueError(
                f"inv_freq must be [{self.rotary_dim // 2}] or [L, {self.rotary_dim // 2}] for "
                f"rotary_dim={self.rotary_dim}, got {tuple(self.inv_freq.shape)}"
            )

    def angles(self, positions: Tensor, num_layers: int) -> Tensor:
        """The angle of every pair of dims, ready to broadcast over [B, L, H, T, R/2].

        Args:
            positions: [B, T] or [B, L, H, T].
            num_layers: L.

        Returns:
            Radians in float32, [B, 1, 1, T, R/2] where neither positions nor frequencies
            differ by layer.

        Raises:
            ValueError: per-layer frequencies of another number of layers, or positions beyond
                `num_positions`.
        """
        if self.num_positions is not None and int(positions.max()) >= self.num_positions:
            raise ValueError(
                f"position {int(positions.max())} is beyond the {self.num_positions} for which "
                f"this model's frequencies are fixed: its rotary scaling depends on the length "
                f"of the text; use shorter texts"
            )
        if self.inv_freq.ndim == 2 and len(self.inv_freq) != num_layers:
            raise ValueError(
                f"the rotation describes {len(self.inv_freq)} layers, the keys have {num_layers}"
            )
        inv_freq = self.inv_freq.to(device=positions.device, dtype=torch.float32)
        if inv_freq.ndim == 2:
            inv_freq = inv_freq[:, None, None]
        wide = positions if positions.ndim == 4 else positions[:, None, None]
        return wide[..., None].float() * inv_freq

    def scaling(self, device: torch.device) -> Tensor | float:
        """`attention_scaling`, ready to broadcast over [B, L, H, T, R/2]."""
        if isinstance(self.attention_scaling, tuple):
            return torch.tensor(self.attention_scaling, device=device)[:, None, None, None]
        return self.attention_scaling


def rotate(x_BLHTD: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    """Rotate keys or queries to `positions`, as the model would.

    Args:
        x_BLHTD: [B, L, H, T, D], un-rotated.
        positions: [B, T], or [B, L, h, T] where H is a multiple of h (queries follow the
            key/value head of their group).
        rotary: the model's rotation.

    Returns:
        [B, L, H, T, D], in the input's dtype.

    Raises:
        ValueError: positions that do not fit, or that are beyond the rotation's range.

    Example:
        >>> moved = rotate(unrotate(keys, positions, rotary), new_positions, rotary)
    """
    angles = _angles(x_BLHTD, positions, rotary)
    scaling = rotary.scaling(x_BLHTD.device)
    return _turn(x_BLHTD, angles.cos() * scaling, angles.sin() * scaling, rotary)


def unrotate(x_BLHTD: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    """The inverse of `rotate`: keys or queries as they were before the rotation.

    Equal to what the model's own projection (and key norm, where it has one) gave, up to
    rounding: a rotation is undone by the opposite angle, the scaling by a division.

    Args:
        x_BLHTD: [B, L, H, T, D], rotated.
        positions: [B, T] or [B, L, h, T], as for `rotate`.
        rotary: the model's rotation.

    Returns:
        [B, L, H, T, D], in the input's dtype.

    Raises:
        ValueError: positions that do not fit, or that are beyond the rotation's range.

    Example:
        >>> plain = unrotate(trace.keys, trace.positions, rotary_of(model))
    """
    angles = _angles(x_BLHTD, positions, rotary)
    scaling = rotary.scaling(x_BLHTD.device)
    return _turn(x_BLHTD, angles.cos() / scaling, -angles.sin() / scaling, rotary)


def _angles(x: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    B, L, H, T, D = x.shape
    fits = positions.shape == (B, T) or (
        positions.ndim == 4
        and (positions.shape[0], positions.shape[1], positions.shape[3]) == (B, L, T)
        and H % positions.shape[2] == 0
    )
    if not fits:
        raise ValueError(
            f"positions must be [{B}, {T}] or [{B}, {L}, {H}, {T}], got {tuple(positions.shape)}"
        )
    if rotary.rotary_dim > D:
        raise ValueError(f"the rotation turns {rotary.rotary_dim} dims, the heads have {D}")
    angles = rotary.angles(positions, L)
    if positions.ndim == 4 and positions.shape[2] not in (1, H):
        angles = angles.repeat_interleave(H // positions.shape[2], dim=2)
    return angles


def _turn(x: Tensor, cos: Tensor, sin: Tensor, rotary: Rotary) -> Tensor:
    # In the model's own dtype, as transformers computes it: angles alone need float32.
    return _Turn.apply(x, cos.to(x.dtype), sin.to(x.dtype), rotary.layout)


class _Turn(torch.autograd.Function):
    """Turn pairs of dims, written into one new tensor: temporaries of its size cost more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        R = 2 * cos.shape[-1]
        pair = [slice(0, R // 2), slice(R // 2, R)]
        if layout == "interleaved":
            pair = [slice(0, R, 2), slice(1, R, 2)]
        out = torch.empty_like(x)
        (a, b), (turned_a, turned_b) = ([part[..., cut] for cut in pair] for part in (x, out))
        torch.mul(a, cos, out=turned_a)
        turned_a.addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=turned_b)
        turned_b.addcmul_(a, sin)
        out[..., R:] = x[..., R:]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _Turn.apply(grads[0], cos, -sin, ctx.layout), None, None, None


def unrotate_trace(trace: KVTrace, rotary: Rotary | None) -> KVTrace:
    """A trace whose keys and queries carry no rotation (`rotated` becomes False).

    Args:
        trace: a rotated trace with positions.
        rotary: the model's rotation; None for learned positions, where keys stay as they are.

    Raises:
        ValueError: the trace is un-rotated already, or has no positions.

    Example:
        >>> plain = unrotate_trace(trace, rotary_of(model))
    """
    if not trace.rotated:
        raise ValueError("the trace is un-rotated already")
    if rotary is None:
        return replace(trace, rotated=False)
    positions = _positions(trace)
    return replace(
        trace,
        keys=unrotate(trace.keys, positions, rotary),
        queries=None if trace.queries is None else unrotate(trace.queries, positions, rotary),
        rotated=False,
    )


def rotate_trace(trace: KVTrace, rotary: Rotary | None, positions: Tensor | None = None) -> KVTrace:
    """A trace whose keys and queries are rotated to its positions, or to others.

    A teacher's keys are compared with a student's at the student's positions, in the student's
    rotation; never at the places the teacher's text had.

    Args:
        trace: an un-rotated trace.
        rotary: the rotation of the model to compare with; None for learned positions, where
            keys stay as they are.
        positions: [B, T] or [B, L, H, T], recorded in the result; default: the trace's own.

    Raises:
        ValueError: the trace is rotated already, or has no positions and none are given.

    Example:
        >>> target = rotate_trace(unrotate_trace(teacher_trace, teacher_rotary), student_rotary,
        ...                       positions=latent_positions)
    """
    if trace.rotated:
        raise ValueError("the trace is rotated already: call unrotate_trace first")
    if positions is not None:
        trace = replace(trace, positions=positions)
    if rotary is None:
        return replace(trace, rotated=True)
    where = _positions(trace)
    return replace(
        trace,
        keys=rotate(trace.keys, where, rotary),
        queries=None if trace.queries is None else rotate(trace.queries, where, rotary),
        rotated=True,
    )


def _positions(trace: KVTrace) -> Tensor:
    if trace.positions is None:
        raise ValueError("the trace has no positions: give positions=… when it is captured")
    return trace.positions


def rotary_of(model: PreTrainedModel) -> Rotary | None:
    """Read a model's rotation, and prove it on the model itself.

    Configurations do not say everything: which dims pair up, and which layers do not rotate at
    all, stand in modeling code only. So the keys of one token at a few positions are computed
    (a token alone attends to itself, hence only the rotation sets them apart), and the
    description must reproduce them in every layer.

    Args:
        model: a causal Hugging Face model with weights; it is run once, on four single tokens.

    Returns:
        The rotation, or None for a model without one (learned positions, ALiBi).

    Raises:
        ValueError: a rotation that cannot be described by `Rotary`.

    Example:
        >>> rotary_of(load_model("kava/tiny-gpt2")) is None
        True
    """
    modules = [m for name, m in model.named_modules() if name.rpartition(".")[2] == "rotary_emb"]
    config = model.config.get_text_config()
    if not modules:
        if {"rotary_dim", "rope_parameters"} & config.to_dict().keys():
            raise ValueError(_unsupported(model, "it keeps no `rotary_emb` module to read"))
        return None
    positions_P1 = torch.tensor(_PROBES, device=model.device)[:, None]
    keys_PLH1D = _keys_of_one_token(model, positions_P1, 1 if config.pad_token_id == 0 else 0)
    # Read after the probe: a long text before it may have left other frequencies behind.
    inv_freq_LR, scaling_L = _frequencies(model, modules[0], config, keys_PLH1D.shape[1])
    for index, keys_PH1D in enumerate(keys_PLH1D.unbind(1)):
        if _equal(keys_PH1D, keys_PH1D[:1]):
            inv_freq_LR[index], scaling_L[index] = 0.0, 1.0
    if not inv_freq_LR.any():
        raise ValueError(_unsupported(model, "its cached keys do not turn with their position"))
    shared = bool((inv_freq_LR == inv_freq_LR[0]).all() and (scaling_L == scaling_L[0]).all())
    layouts: tuple[Layout, ...] = ("half", "interleaved")
    for layout in layouts:
        rotary = Rotary(
            inv_freq=inv_freq_LR[0] if shared else inv_freq_LR,
            rotary_dim=2 * inv_freq_LR.shape[1],
            attention_scaling=float(scaling_L[0]) if shared else tuple(scaling_L.tolist()),
            layout=layout,
            num_positions=_num_positions(config),
        )
        plain = unrotate(keys_PLH1D[:1], positions_P1[:1], rotary)
        again = rotate(plain.expand_as(keys_PLH1D), positions_P1, rotary)
        if all(_equal(*layer) for layer in zip(again.unbind(1), keys_PLH1D.unbind(1))):
            return rotary
    raise ValueError(_unsupported(model, "its keys turn otherwise than its frequencies say"))


def _unsupported(model: PreTrainedModel, reason: str) -> str:
    return (
        f"the rotary embedding of {type(model).__name__} is not supported: {reason}; compare "
        f"keys of equal positions only, or use another model"
    )


def _equal(found: Tensor, expected: Tensor) -> bool:
    """Whether two layers' keys agree, every dim by its own size: some dims dwarf the others."""
    size_D = expected.float().abs().flatten(0, -2).amax(0).clamp(min=1e-12)
    return bool(((found - expected).float().abs() / size_D).mean() < 1e-2)


def _num_positions(config: Any) -> int | None:
    """Up to which position frequencies are fixed, where they depend on the text's length."""
    kinds = config.rope_parameters
    for rope in [kinds] if "rope_type" in kinds else filter(None, kinds.values()):
        if rope["rope_type"] in ("dynamic", "longrope"):
            return rope.get("original_max_position_embeddings", config.max_position_embeddings)
    return None


def _keys_of_one_token(model: PreTrainedModel, positions_P1: Tensor, token: int) -> Tensor:
    from transformers import DynamicCache

    cache = DynamicCache()
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            model(
                input_ids=torch.full_like(positions_P1, token),
                position_ids=positions_P1,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    finally:
        for module in training:
            module.training = True
    return torch.stack([keys for keys, _ in iter_past(cache)], dim=1)


def _frequencies(
    model: PreTrainedModel, module: torch.nn.Module, config: Any, num_layers: int
) -> tuple[Tensor, Tensor]:
    """The inverse frequencies [L, R/2] and the scaling [L] of every layer."""
    buffers = dict(module.named_buffers())
    if "inv_freq" in buffers:
        inv_freq = buffers["inv_freq"].float()
        scaling = torch.tensor(float(vars(module)["attention_scaling"]))
        return inv_freq.repeat(num_layers, 1), scaling.repeat(num_layers)
    # Models whose layer types have their own base name the buffers by layer type.
    kinds = config.layer_types[:num_layers]
    rows = [buffers.get(f"{kind}_inv_freq") for kind in kinds]
    sizes = {len(row) for row in rows if row is not None}
    if len(sizes) != 1:
        raise ValueError(_unsupported(model, f"its layers rotate {sorted(sizes)} pairs of dims"))
    none = torch.zeros(sizes.pop(), device=model.device)
    scalings = [
        1.0 if row is None else float(vars(module)[f"{kind}_attention_scaling"])
        for kind, row in zip(kinds, rows)
    ]
    return (
        torch.stack([none if row is None else row.float() for row in rows]),
        torch.tensor(scalings),
    )
