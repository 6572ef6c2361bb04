"""The bytes of an optimiser's states, in memory and in a checkpoint."""

from __future__ import annotations

from torch import nn

LEAST_QUANTISED = 4096
"""Numbers of a parameter under which bitsandbytes holds its states in 32 bits."""


def state_bytes(optim: str, module: nn.Module) -> int:
    """The bytes of an optimiser's states.

    Args:
        optim: as `--optim` names it.
        module: what is trained; its frozen parameters have no states.

    Example:
        >>> state_bytes("adamw_torch", torch.nn.Linear(64, 64, bias=False))
        32768
    """
    trained = {id(part): part for part in module.parameters() if part.requires_grad}
    # transformers asks bitsandbytes for states of 32 bits of embeddings
    whole = {
        id(part)
        for layer in module.modules()
        if isinstance(layer, nn.Embedding)
        for part in layer.parameters()
    }
    return sum(_state_bytes(optim, part, key in whole) for key, part in trained.items())


def _state_bytes(optim: str, part: nn.Parameter, whole: bool) -> int:
    if optim == "adafactor" and part.dim() > 1:  # sums of rows and of columns
        return 4 * (part.numel() // part.shape[-1] + part.numel() // part.shape[-2])
    if optim == "adafactor":
        return 4 * part.numel()
    if "8bit" in optim and not whole and part.numel() >= LEAST_QUANTISED:
        return 2 * part.numel() + 2 * 4 * (part.numel() // 256)  # a scale for 256 numbers
    return 2 * 4 * part.numel()
