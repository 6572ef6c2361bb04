"""Flags of `kava train`: LoRA adapters."""

from __future__ import annotations

from dataclasses import dataclass

from kava.flags import flag

ADAPTER_OFF = "adapter_off"


@dataclass(kw_only=True)
class LoraSettings:
    """Which weights of the student are trained, and which of its own weights teach."""

    lora_r: int = flag(
        0,
        "rank of LoRA adapters in the student's language model, which are trained in its place; "
        "projection and thought vectors are trained whole; 0: no adapters, all weights",
        least=0,
        most=4096,
        group="adapters",
    )
    lora_alpha: float = flag(
        None, "α: what the adapters add is scaled by α / r", least=0, unset="2 r"
    )
    lora_dropout: float = flag(0.0, "dropout of what the adapters read", least=0, below=1)
    lora_targets: list[str] | None = flag(
        None,
        "last names of the layers that get adapters, such as q_proj v_proj",
        metavar="LAYER",
        unset="all linear layers but the output head",
    )
    adapter_off: bool = flag(
        False,
        "without --teacher_name: the student's model without its adapters is the frozen teacher "
        "(also said by --teacher_name adapter_off)",
    )
