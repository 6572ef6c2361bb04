"""Read the rotary embedding of a Hugging Face model, and verify it on the model.

Shapes: P probes, L layers, H key/value heads, D head dim, R rotary dims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kava.rope.rotary import Layout, Rotary, rotate, unrotate
from kava.rope.scaling import ByLength, scaling_of
from kava.trace import iter_past

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBES = (0, 1, 5, 17)


def rotary_of(model: PreTrainedModel) -> Rotary | None:
    """Read a model's rotary embedding, and verify it on the model itself.

    Configurations are incomplete: which dims form pairs, and which layers do not rotate, is only in
    modeling code. So the keys of one token at a few positions are computed (a single token attends
    only to itself, so only the rotation differs), and the description must reproduce them in every
    layer.

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
    forget_longer_texts(model)
    short = length_of_short_texts(config)
    probes = tuple(p if short is None else min(p, short - 1) for p in _PROBES)
    keys_PLH1D = _keys_of_one_token(model, probes)
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
            num_positions=short,
            longer=None if short is None else _longer(config, inv_freq_LR),
        )
        if _describes(rotary, keys_PLH1D, probes):
            _check_longer(model, rotary)
            return rotary
    raise ValueError(_unsupported(model, "its keys turn otherwise than its frequencies say"))


def forget_longer_texts(model: PreTrainedModel) -> None:
    """Make the next forward choose its frequencies only by its own length.

    With dynamic scaling, transformers keeps the frequencies of the longest text read so far until a
    text within the original length comes. The keys of a text would then depend on earlier texts,
    and a resumed run would differ from an uninterrupted one.

    Example:
        >>> forget_longer_texts(model)
    """
    ropes = _ropes(model.config.get_text_config()).values()
    if not any("dynamic" in rope["rope_type"] for rope in ropes):
        return
    for module in model.modules():
        for name, first in list(module.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                prefix = name.removesuffix("original_inv_freq")
                setattr(module, f"{prefix}inv_freq", first.clone())
                if f"{prefix}max_seq_len_cached" in vars(module):
                    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _describes(rotary: Rotary, keys_PLH1D: Tensor, probes: tuple[int, ...]) -> bool:
    """Whether a rotation maps the keys at the first probe to those at the others."""
    positions_P1 = torch.tensor(probes, device=keys_PLH1D.device)[:, None]
    plain = unrotate(keys_PLH1D[:1], positions_P1[:1], rotary)
    again = rotate(plain.expand_as(keys_PLH1D), positions_P1, rotary)
    return all(_equal(*layer) for layer in zip(again.unbind(1), keys_PLH1D.unbind(1)))


def _check_longer(model: PreTrainedModel, rotary: Rotary) -> None:
    """Verify frequencies that depend on the text's length on a longer text, too."""
    if rotary.num_positions is None:
        return
    length = 2 * rotary.num_positions + 1
    probes = (0, length // 2, length - 1)
    keys_PLH1D = _keys_of_one_token(model, probes)
    forget_longer_texts(model)
    if not _describes(rotary.at_length(length), keys_PLH1D, probes):
        raise ValueError(_unsupported(model, "long texts turn its keys otherwise than it says"))


def _unsupported(model: PreTrainedModel, reason: str) -> str:
    return (
        f"the rotary embedding of {type(model).__name__} is not supported: {reason}; compare "
        f"keys of equal positions only, or use another model"
    )


def _equal(found: Tensor, expected: Tensor) -> bool:
    """Whether two layers' keys agree, relative to each dim's size, since some dims are far
    larger."""
    size_D = expected.float().abs().flatten(0, -2).amax(0).clamp(min=1e-12)
    return bool(((found - expected).float().abs() / size_D).mean() < 1e-2)


def _ropes(config: Any) -> dict[str | None, Mapping[str, Any]]:
    """Type of layer → its rotary parameters; the key None means all layers."""
    ropes = vars(config).get("rope_parameters") or {}
    if "rope_type" in ropes:
        return {None: ropes}
    return {kind: rope for kind, rope in ropes.items() if rope}


def _by_length(config: Any) -> dict[str | None, tuple[ByLength, float]]:
    """Type of layer → scaling and base, if frequencies depend on the length of the text."""
    found: dict[str | None, tuple[ByLength, float]] = {}
    for kind, rope in _ropes(config).items():
        if rope["rope_type"] in ("dynamic", "longrope"):
            scaling = scaling_of(rope, config.max_position_embeddings)
            assert isinstance(scaling, ByLength)
            found[kind] = scaling, rope["rope_theta"]
    return found


def length_of_short_texts(config: Any) -> int | None:
    """The longest text that is rotated as every shorter one; None where all texts are.

    Args:
        config: of a causal model.

    Example:
        >>> length_of_short_texts(LlamaConfig()) is None
        True
    """
    scalings = _by_length(config.get_text_config()).values()
    return min((scaling.num_positions for scaling, _ in scalings), default=None)


def _longer(config: Any, inv_freq_LR: Tensor) -> Callable[[int], Tensor]:
    """A function from the length of a long text to its frequencies, [R/2] or [L, R/2]."""
    by_length = _by_length(config)
    kinds = [None] * len(inv_freq_LR) if None in by_length else config.layer_types
    short_LR = inv_freq_LR.cpu()

    def longer(length: int) -> Tensor:
        rows = []
        for row, kind in zip(short_LR, kinds):
            if kind in by_length and row.any():
                scaling, theta = by_length[kind]
                row = scaling.inv_freq(2 * len(row), theta, length)
            rows.append(row)
        return rows[0] if all(map(rows[0].equal, rows)) else torch.stack(rows)

    return longer


def _keys_of_one_token(model: PreTrainedModel, probes: tuple[int, ...]) -> Tensor:
    """The keys [P, L, H, 1, D] of a single token at each of several positions."""
    from transformers import DynamicCache

    positions_P1 = torch.tensor(probes, device=model.device)[:, None]
    token = 1 if model.config.get_text_config().pad_token_id == 0 else 0
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
