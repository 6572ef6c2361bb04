"""Load models and tokenizers by name: built in, from a folder, or from the Hugging Face hub.

Names that begin with `kava/` are built in and need no download. The tiny ones are random
weights of each supported family, for trying out commands and for tests; `kava/shell-teacher` is
trained. Anything else goes to transformers, from safetensors alone and without running code
that comes with a checkpoint. A load that fails raises; weights are never made up for one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from kava.devices import DTYPES
from kava.tokenizers import byte_tokenizer

logger = logging.getLogger(__name__)

_ASSETS = Path(__file__).parent / "assets"
SHELL_TEACHER = _ASSETS / "shell_teacher"
SHELL_GPT2_TEACHER = _ASSETS / "shell_gpt2_teacher"
_MAX_POSITIONS = 2048


def _tiny(config_class: Callable[..., PreTrainedConfig], **family: Any) -> PreTrainedConfig:
    tokenizer = byte_tokenizer()
    return config_class(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_MAX_POSITIONS,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **family,
    )


def _tiny_gpt2() -> PreTrainedConfig:
    return _tiny(GPT2Config, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def _tiny_llama() -> PreTrainedConfig:
    return _tiny(LlamaConfig, num_key_value_heads=2, intermediate_size=172)


def _tiny_qwen2() -> PreTrainedConfig:
    return _tiny(Qwen2Config, num_key_value_heads=2, intermediate_size=172)


def _tiny_mistral() -> PreTrainedConfig:
    return _tiny(MistralConfig, num_key_value_heads=2, intermediate_size=172, sliding_window=128)


def _tiny_gemma() -> PreTrainedConfig:
    return _tiny(GemmaConfig, num_key_value_heads=1, head_dim=32, intermediate_size=172)


def _tiny_gpt_neox() -> PreTrainedConfig:
    return _tiny(
        GPTNeoXConfig,
        intermediate_size=256,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    )


def _shell_llama() -> PreTrainedConfig:
    tokenizer = _shell_tokenizer()
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=172,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _shell_gpt2() -> PreTrainedConfig:
    tokenizer = _piece_tokenizer()
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=96,
        n_layer=4,
        n_head=3,
        n_positions=256,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _piece_tokenizer() -> PreTrainedTokenizerBase:
    from kava.data.shell_pieces import shell_piece_tokenizer

    return shell_piece_tokenizer()


def _shell_tokenizer() -> PreTrainedTokenizerBase:
    from kava.data.shell_game import shell_game_tokenizer

    return shell_game_tokenizer()


RANDOM_MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "kava/tiny-gpt2": (_tiny_gpt2, byte_tokenizer),
    "kava/tiny-llama": (_tiny_llama, byte_tokenizer),
    "kava/tiny-qwen2": (_tiny_qwen2, byte_tokenizer),
    "kava/tiny-mistral": (_tiny_mistral, byte_tokenizer),
    "kava/tiny-gemma": (_tiny_gemma, byte_tokenizer),
    "kava/tiny-gpt-neox": (_tiny_gpt_neox, byte_tokenizer),
    "kava/shell-llama": (_shell_llama, _shell_tokenizer),
    "kava/shell-gpt2": (_shell_gpt2, _piece_tokenizer),
}
"""Built-in name → (config, tokenizer) of a model with seeded random weights."""

TRAINED_MODELS: dict[str, Path] = {
    "kava/shell-teacher": SHELL_TEACHER,
    "kava/shell-gpt2-teacher": SHELL_GPT2_TEACHER,
}
"""Built-in name → folder, inside the package, of a trained model and its tokenizer."""

BUILTIN_NAMES: tuple[str, ...] = (*RANDOM_MODELS, *TRAINED_MODELS)


def load_model(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a causal language model, in evaluation mode.

    One door for every command, so that a wrong name, a damaged file or an unreachable hub gives
    one clear line and never a model with made-up weights.

    Args:
        name_or_path: a built-in name (`BUILTIN_NAMES`), a local folder, or a hub id.
        dtype: a torch dtype or its name; "auto" takes the checkpoint's (float32 for the
            built-in random models).
        device: where to put the model; None leaves it on the CPU.
        trust_remote_code: run modeling code that comes with the checkpoint.

    Raises:
        ValueError: an unknown `kava/` name, a checkpoint that is damaged, lacks weights, or is
            not a causal decoder.
        OSError: a folder or hub model that cannot be read.

    Example:
        >>> model = load_model("kava/tiny-llama")
    """
    name = str(name_or_path)
    dtype = dtype_of(dtype)
    if name in RANDOM_MODELS:
        model: Any = _random_model(name)
        if isinstance(dtype, torch.dtype):
            model.to(dtype=dtype)
    else:
        model = _pretrained(_resolve(name), dtype, trust_remote_code)
    return model.eval() if device is None else model.eval().to(device)


def load_model_config(name_or_path: str | Path) -> PreTrainedConfig:
    """The configuration of a causal language model, without its weights.

    Args:
        name_or_path: as `load_model` takes it.

    Raises:
        ValueError: an unknown `kava/` name, or no causal decoder.
        OSError: a folder or hub model that cannot be read.

    Example:
        >>> load_model_config("kava/tiny-llama").num_hidden_layers
        2
    """
    name = str(name_or_path)
    if name in RANDOM_MODELS:
        config: PreTrainedConfig = RANDOM_MODELS[name][0]()
        return config
    return _config(_resolve(name), trust_remote_code=False)


def load_tokenizer(
    name_or_path: str | Path, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to a model's name; it always has a padding token.

    Where a tokenizer has none, the end-of-sequence token pads, as is usual for GPT-2 and Llama.
    Padding is masked by position and never by token id, so that real end tokens stay supervised.

    Args:
        name_or_path: a built-in name (`BUILTIN_NAMES`), a local folder, or a hub id.
        trust_remote_code: run tokenizer code that comes with the checkpoint.

    Raises:
        ValueError: an unknown `kava/` name, or a tokenizer with neither padding nor end token.
        OSError: a folder or hub tokenizer that cannot be read.

    Example:
        >>> load_tokenizer("kava/tiny-llama")("2 + 2")["input_ids"]
    """
    name = str(name_or_path)
    if name in RANDOM_MODELS:
        tokenizer: PreTrainedTokenizerBase = RANDOM_MODELS[name][1]()
    else:
        source = _resolve(name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            raise OSError(_unreadable("tokenizer", source, error)) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                f"the tokenizer of {name!r} has neither a padding nor an end-of-sequence token: "
                f"set one in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s has no padding token: %s pads", name, tokenizer.eos_token)
    return tokenizer


def dtype_of(name: torch.dtype | str) -> torch.dtype | str:
    """The dtype of a name; "auto", which stands for that of a checkpoint, stays as it is.

    Raises:
        ValueError: another name.

    Example:
        >>> dtype_of("bfloat16")
        torch.bfloat16
    """
    if isinstance(name, torch.dtype) or name == "auto":
        return name
    dtype = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype={name!r} is unknown; choose auto, {', '.join(DTYPES)}")
    return dtype


def _random_model(name: str) -> PreTrainedModel:
    logger.warning("%s has random weights: its answers mean nothing until it is trained", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(RANDOM_MODELS[name][0]())


def _resolve(name: str) -> str:
    """A name as transformers takes it: a folder that exists, or a hub id."""
    if name in TRAINED_MODELS:
        folder = TRAINED_MODELS[name]
        if not (folder / "model.safetensors").is_file():
            raise OSError(
                f"the weights of {name!r} are not in this installation (looked in {folder}): "
                f"reinstall the package, or train them again"
            )
        return str(folder)
    if name.startswith("kava/"):
        raise ValueError(f"unknown built-in model {name!r}; choose from {', '.join(BUILTIN_NAMES)}")
    path = Path(name).expanduser()
    if name and path.is_dir():
        return str(path)
    if path.is_file():
        raise OSError(f"{name!r} is a file; pass the folder that holds config.json and the weights")
    looks_local = name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1
    if looks_local or not name:
        raise OSError(
            f"the folder {name!r} does not exist; pass a folder that holds config.json and "
            f"model.safetensors, a hub id, or one of {', '.join(BUILTIN_NAMES)}"
        )
    return name


def _config(source: str, trust_remote_code: bool) -> Any:
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise OSError(_unreadable("model", source, error)) from error
    _refuse_other_kinds(source, config, trust_remote_code)
    return config


def _pretrained(source: str, dtype: Any, trust_remote_code: bool) -> PreTrainedModel:
    config = _config(source, trust_remote_code)
    auto: Any = AutoModelForCausalLM
    # The lines below say what transformers would report as a table of several lines.
    report = logging.getLogger("transformers.modeling_utils")
    level = report.level
    report.setLevel(logging.ERROR)
    try:
        model, loaded = auto.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except SafetensorError as error:
        raise ValueError(
            f"{_damaged_file(source)} is damaged or truncated ({error}); download or save it again"
        ) from error
    except OSError as error:
        raise OSError(_unreadable("model", source, error)) from error
    finally:
        report.setLevel(level)
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise ValueError(
            f"the checkpoint {source!r} lacks {len(missing)} weights of {type(model).__name__} "
            f"(the first: {missing[0]}); it is incomplete or of another architecture"
        )
    if loaded["mismatched_keys"]:
        name, found, expected = sorted(loaded["mismatched_keys"])[0]
        raise ValueError(
            f"{len(loaded['mismatched_keys'])} weights of {source!r} do not fit its config.json "
            f"(the first: {name} is {tuple(found)}, the config says {tuple(expected)})"
        )
    return model


def _refuse_other_kinds(source: str, config: Any, trust_remote_code: bool) -> None:
    if config.is_encoder_decoder:
        raise ValueError(
            f"{source!r} is an encoder-decoder ({config.model_type}); pass a causal "
            f"(decoder-only) language model"
        )
    kind = type(config)
    # Encoders such as BERT have a causal class too, and are causal only when told to be.
    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING and not config.to_dict().get(
        "is_decoder", True
    )
    if is_encoder or (kind not in MODEL_FOR_CAUSAL_LM_MAPPING and not trust_remote_code):
        raise ValueError(
            f"{source!r} is no causal language model ({config.model_type}); pass a decoder-only one"
        )


def _damaged_file(source: str) -> str:
    for path in sorted(Path(source).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError:
            return str(path)
    return f"a safetensors file of {source!r}"


def _unreadable(what: str, source: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if Path(source).is_dir():
        return f"cannot load a {what} from the folder {source!r}: {reason}"
    return (
        f"cannot load the {what} {source!r}: no such folder, and the Hugging Face hub gave "
        f"nothing ({reason}); pass a local folder, or a built-in name such as kava/tiny-llama"
    )
