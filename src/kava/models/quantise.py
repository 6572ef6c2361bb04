"""Weights of 8 or 4 bits, by bitsandbytes: what a frozen teacher can be loaded in.

8bit is LLM.int8() (Dettmers et al., arXiv 2208.07339): int8 weights, one scale for each row, and
activations that are quantised on the way. 4bit is NF4 with doubly quantised scales (Dettmers et
al., arXiv 2305.14314): one number of 4 bits for each weight, and activations as they are. Linear
layers are quantised, GPT-2's `Conv1D` among them; embeddings, norms, biases and the output head
keep their dtype. Keys and values are tensors of floating point in any case.
"""

from __future__ import annotations

import logging
import platform
from collections import Counter
from functools import wraps
from importlib.util import find_spec
from typing import Any, NoReturn

import torch
from torch import nn

from kava.errors import KavaError
from kava.models.encoders import is_encoder

_OUTPUTS, _INPUTS = 32, 64
MEND = "load it in half precision (--dtype bfloat16), or leave the quantisation out"


def quantised_options(
    quantization: str,
    name: str,
    config: Any,
    dtype: torch.dtype | str,
    device: torch.device | str | None,
) -> dict[str, Any]:
    """Options of `from_pretrained` that quantise the weights while they are read.

    Args:
        quantization: "8bit" or "4bit".
        name: of the model, for messages.
        config: the model's configuration.
        dtype: of what is not quantised, and of the matrix products of 4 bits.
        device: where the weights are put; None: the CPU.

    Raises:
        KavaError: bitsandbytes is not installed.
        ValueError: a model whose files are quantised already.
    """
    from transformers import BitsAndBytesConfig

    if hasattr(config, "quantization_config"):
        raise ValueError(
            f"--teacher_quantization {quantization}: the files of {name!r} hold quantised weights "
            f"already; leave it out"
        )
    _bitsandbytes()
    device = torch.device("cpu" if device is None else device)
    skip = None
    if quantization == "4bit" and device.type == "cpu":
        skip = _left_by_the_cpu(config)
    compute = dtype if isinstance(dtype, torch.dtype) else torch.float32
    form = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "8bit"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=skip,  # of 4 bits too
        )
    )
    return {"quantization_config": form, "device_map": {"": device}}


def _left_by_the_cpu(config: Any) -> list[str] | None:
    """Layers that the CPU's kernel of 4 bits cannot read, with those that are always left.

    It takes outputs in blocks of 32, and inputs in blocks of one scale each.
    """
    from transformers import AutoModelForCausalLM, AutoModelForTextEncoding
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert

    kind = AutoModelForTextEncoding if is_encoder(config) else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    odd = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            shape = tuple(layer.weight.shape)
            outputs, inputs = shape if isinstance(layer, nn.Linear) else shape[::-1]
            if outputs % _OUTPUTS or inputs % _INPUTS:
                odd.append(name)
    return [*get_keys_to_not_convert(model), *odd] if odd else None


def check_quantization(quantization: str, device: torch.device | str) -> None:
    """Refuse a quantisation that a device cannot do, by one small layer that is run there.

    Args:
        quantization: "8bit" or "4bit".
        device: where the model will be.

    Raises:
        KavaError: bitsandbytes is not installed.
        ValueError: the device cannot do it, with the reason.

    Example:
        >>> check_quantization("4bit", "cpu")
    """
    bitsandbytes = _bitsandbytes()
    layers = bitsandbytes.nn
    kind: Any = layers.Linear8bitLt if quantization == "8bit" else layers.Linear4bit
    options = {"has_fp16_weights": False} if quantization == "8bit" else {"quant_type": "nf4"}
    try:
        with torch.no_grad():
            layer = kind(64, 64, bias=False, **options).to(device)
            right = bool(layer(torch.ones(2, 64, device=device)).isfinite().all())
        if not right:
            raise RuntimeError("its result is not finite")
    except Exception as error:  # whatever a library of kernels raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"--teacher_quantization {quantization}: bitsandbytes {bitsandbytes.__version__} "
            f"cannot do it on {device} ({platform.machine()}): {reason}; {MEND}"
        ) from error


def refuse_quantization(quantization: str, name: str) -> NoReturn:
    """Refuse to quantise a model that does not come from files.

    Raises:
        ValueError: in any case.
    """
    raise ValueError(
        f"--teacher_quantization {quantization} quantises weights while they are read from files, "
        f"and {name!r} has none: save the model in a folder and name that, or leave it out"
    )


def settle_quantised(model: nn.Module, name: str, quantization: str) -> None:
    """Refuse a model of which no layer was quantised, and keep autocast out of the others.

    Under autocast an 8-bit layer rounds its bias to the dtype of its inputs, for good.

    Args:
        model: as it was loaded; its passes are made in its own dtype from now on.
        name: of the model, for messages.
        quantization: "8bit" or "4bit".

    Raises:
        ValueError: it has no layer that bitsandbytes can quantise.
    """
    if not any(_is_quantised(layer) for layer in model.modules()):
        raise ValueError(
            f"--teacher_quantization {quantization}: {name!r} ({type(model).__name__}) has no "
            f"linear layer that bitsandbytes can quantise; {MEND}"
        )
    forward = model.forward

    @wraps(forward)
    def in_own_dtype(*args: Any, **options: Any) -> Any:
        with torch.autocast(model.device.type, enabled=False):  # type: ignore[arg-type]
            return forward(*args, **options)

    model.forward = in_own_dtype


def quantised_line(model: nn.Module) -> str | None:
    """Which layers of a model are quantised and which are not; None without quantisation.

    Example:
        >>> quantised_line(load_model("gpt2", quantization="8bit"))
        '48 layers in 8 bits (84,934,656 weights); not quantised: wte, wpe, ln_1, ln_2, …'
    """
    quantised = [layer for layer in model.modules() if _is_quantised(layer)]
    if not quantised:
        return None
    bits = 4 if "4bit" in type(quantised[0]).__name__ else 8
    num_weights = sum(_number(layer, "in") * _number(layer, "out") for layer in quantised)
    left = Counter(
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if not _is_quantised(layer) and any(True for _ in layer.parameters(recurse=False))
    )
    names = ", ".join(name if count == 1 else f"{count} {name}" for name, count in left.items())
    biases = any(getattr(layer, "bias", None) is not None for layer in quantised)
    return (
        f"{len(quantised)} layers in {bits} bits ({num_weights:,} weights); not quantised: "
        f"{names}{', biases' if biases else ''}"
    )


def _number(layer: Any, side: str) -> int:
    return int(vars(layer)[f"{side}_features"])


def _is_quantised(layer: nn.Module) -> bool:
    return type(layer).__name__ in ("Linear8bitLt", "Linear4bit")


def _bitsandbytes() -> Any:
    if find_spec("bitsandbytes") is None:
        raise KavaError(
            "weights and optimisers of 8 and 4 bits need the package bitsandbytes: "
            "pip install -c constraints.txt '.[quant]'"
        )
    # 8-bit layers say once for each layer that they cast their inputs
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


def check_bitsandbytes() -> None:
    """Refuse to go on without bitsandbytes.

    Raises:
        KavaError: it is not installed.
    """
    _bitsandbytes()
