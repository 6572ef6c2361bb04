"""Load models and tokenizers by name: built in, from a folder, or from the Hugging Face hub.

Names that begin with `kava/` are built in and need no download (`kava.models.builtin`).
Other names are loaded with transformers, only from safetensors and without running code from a
checkpoint. A failed load raises an error; missing weights are never replaced by random ones.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kava.models.builtin import BUILTIN_NAMES, ENCODER_MODELS, RANDOM_MODELS, TRAINED_MODELS
from kava.models.devices import dtype_of
from kava.models.encoders import is_encoder
from kava.models.folders import (
    WEIGHTS_FILE,
    check_folder,
    check_not_latent,
    tokenizer_damage,
)
from kava.models.from_files import build_from, unreadable
from kava.models.gguf import SUFFIX, load_options, resolve_gguf
from kava.models.given import given_model, given_tokenizer
from kava.models.quantise import quantised_options, refuse_quantization, settle_quantised
from kava.models.traceable import check_kind, name_outputs, text_part
from kava.models.weights import check_finite

_TEXT_WEIGHTS = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
}
"""Maps weight names of a text model inside a composite model to its own names."""

logger = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
    encoders: bool = False,
    quantization: str = "none",
) -> PreTrainedModel:
    """Load a causal language model, in evaluation mode.

    Every command loads models here, so that a wrong name, a damaged file or an unreachable hub
    gives one clear line and never a model with random weights.

    Args:
        name_or_path: a built-in name (`BUILTIN_NAMES`), a local folder, a hub id, or a file in
            GGUF behind one of the two (`kava.models.gguf`).
        dtype: a torch dtype or its name; "auto" takes the checkpoint's dtype (float32 for the
            built-in random models).
        device: where to put the model; None leaves it on the CPU.
        trust_remote_code: run modeling code from the checkpoint.
        encoders: also load encoders of the BERT and T5 families, as teachers; of T5 the encoder
            alone.
        quantization: "8bit" or "4bit" quantises the linear layers (`kava.models.quantise`).

    Raises:
        KavaError: a quantisation without bitsandbytes.
        ValueError: an unknown `kava/` name, a checkpoint that is damaged, lacks weights, or is
            not a causal decoder.
        OSError: a folder or hub model that cannot be read.

    Example:
        >>> model = load_model("kava/tiny-llama")
    """
    name = str(name_or_path)
    dtype = dtype_of(dtype)
    made = name in RANDOM_MODELS or (encoders and name in ENCODER_MODELS)
    if quantization != "none" and (made or given_model(name) is not None):
        refuse_quantization(quantization, name)
    if (here := given_model(name)) is not None:
        if load_model_config(name, encoders=encoders) is not here.config:
            raise ValueError(f"{name!r} is a composite model: pass its language model alone")
        name_outputs(here.config)
        model: Any = here
        if isinstance(dtype, torch.dtype):
            model.to(dtype=dtype)
    elif made:
        model = _random_model(name)
        if isinstance(dtype, torch.dtype):
            model.to(dtype=dtype)
    else:
        source = _resolve(name)
        config, options = _read_config(source, trust_remote_code, encoders)
        if quantization != "none":
            options |= quantised_options(quantization, name, config, dtype, device)
        model = _pretrained(source, (config, options), dtype)
        if quantization != "none":
            settle_quantised(model, name, quantization)
    return model.eval() if device is None else model.eval().to(device)


def load_model_config(
    name_or_path: str | Path, *, trust_remote_code: bool = False, encoders: bool = False
) -> PreTrainedConfig:
    """Load the configuration of a model, with all checks that need no weights.

    For commands that read data before they load large models: kinds of models and folders that
    `load_model` would refuse are refused here.

    Args:
        name_or_path: as in `load_model`.
        trust_remote_code: run configuration code from the checkpoint.
        encoders: as in `load_model`.

    Returns:
        the configuration of the model, or of the text part of a composite model.

    Raises:
        ValueError: an unknown `kava/` name, a damaged file, or a model that is not a causal
            decoder with a key/value cache.
        OSError: a folder or hub model that cannot be read or lacks files.

    Example:
        >>> load_model_config("kava/tiny-llama").num_hidden_layers
        2
    """
    name = str(name_or_path)
    if (here := given_model(name)) is not None:
        return _of_text(here.config, name, encoders)[0]
    if name in RANDOM_MODELS:
        return RANDOM_MODELS[name][0]()
    if encoders and name in ENCODER_MODELS:
        return ENCODER_MODELS[name][0]()
    config, _ = _read_config(_resolve(name), trust_remote_code, encoders)
    return config


def is_local_model(name: str) -> bool:
    """Whether a name means a built-in model or a folder, not a model on the hub.

    Raises:
        ValueError: an unknown `kava/` name.
        OSError: a folder that does not exist.

    Example:
        >>> is_local_model("kava/tiny-llama"), is_local_model("gpt2")
        (True, False)
    """
    return name in (*RANDOM_MODELS, *ENCODER_MODELS) or Path(_resolve(name)).exists()


def model_folder(name: str) -> Path | None:
    """The folder that a name means; None of a model that is made by rule, given, or on the hub.

    Raises:
        ValueError, OSError: as `is_local_model`.
    """
    if given_model(name) is not None or name in (*RANDOM_MODELS, *ENCODER_MODELS):
        return None
    folder = Path(_resolve(name))
    return folder if folder.is_dir() else None


def load_tokenizer(
    name_or_path: str | Path, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; it always has a padding token.

    If a tokenizer has none, the end-of-sequence token is used, as usual for GPT-2 and Llama.
    Padding is masked by position and never by token id, so real end tokens are still supervised.

    Args:
        name_or_path: a built-in name (`BUILTIN_NAMES`), a local folder, or a hub id.
        trust_remote_code: run tokenizer code from the checkpoint.

    Raises:
        ValueError: an unknown `kava/` name, or a tokenizer with neither padding nor end token.
        OSError: a folder or hub tokenizer that cannot be read.

    Example:
        >>> load_tokenizer("kava/tiny-llama")("2 + 2")["input_ids"]
    """
    name = str(name_or_path)
    builtin = {**RANDOM_MODELS, **ENCODER_MODELS}
    if (here := given_tokenizer(name)) is not None:
        tokenizer = here
    elif name in builtin:
        tokenizer = builtin[name][1]()
    else:
        source, options = load_options(_resolve(name), tokenizer=True)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, trust_remote_code=trust_remote_code, **options
            )
        except Exception as error:  # of files that are missing, damaged, or need another library
            if (damage := tokenizer_damage(source)) is not None:
                raise OSError(
                    f"cannot load a tokenizer from the folder {source!r}: {damage}"
                ) from error
            raise OSError(unreadable("tokenizer", source, error)) from error
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):
        # what the library makes of a folder without one
        if (damage := tokenizer_damage(_resolve(name))) is not None:
            raise OSError(f"cannot load a tokenizer from the folder {name!r}: {damage}")
        raise OSError(
            f"{name!r} holds no tokenizer: copy tokenizer.json and tokenizer_config.json of the "
            f"model into it"
        )
    if tokenizer.eos_token is None and tokenizer.sep_token is not None:
        tokenizer.eos_token = tokenizer.sep_token  # of the BERT family
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                f"the tokenizer of {name!r} has neither a padding nor an end-of-sequence token: "
                f"set one in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s has no padding token: %s pads", name, tokenizer.eos_token)
    return tokenizer


def _random_model(name: str) -> PreTrainedModel:
    logger.warning("%s has random weights: its answers mean nothing until it is trained", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in ENCODER_MODELS:
            return AutoModelForTextEncoding.from_config(ENCODER_MODELS[name][0]())
        return AutoModelForCausalLM.from_config(RANDOM_MODELS[name][0]())


def _resolve(name: str) -> str:
    """Resolve a name to an existing folder or a hub id, for transformers."""
    if name in TRAINED_MODELS:
        folder = TRAINED_MODELS[name]
        if not (folder / WEIGHTS_FILE).is_file():
            raise OSError(
                f"the weights of {name!r} are not in this installation (looked in {folder}): "
                f"reinstall the package, or train them again"
            )
        return str(folder)
    if name in ENCODER_MODELS:
        raise ValueError(f"{name!r} is an encoder, which can be a teacher and nothing else")
    if name.startswith("kava/"):
        raise ValueError(f"unknown built-in model {name!r}; choose from {', '.join(BUILTIN_NAMES)}")
    path = Path(name).expanduser()
    if name and path.is_dir():
        return str(path)
    if path.suffix == SUFFIX:
        return resolve_gguf(path, name)
    if path.is_file():
        raise OSError(f"{name!r} is a file; pass the folder that holds config.json and the weights")
    looks_local = name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1
    # outputs/gpt2 could be a hub id, but not if there is a folder outputs
    looks_local = looks_local or ("/" in name and path.parent.is_dir())
    if looks_local or not name:
        raise OSError(
            f"the folder {name!r} does not exist; pass a folder that holds config.json and "
            f"model.safetensors, a hub id, or one of {', '.join(BUILTIN_NAMES)}"
        )
    return name


def _read_config(
    source: str, trust_remote_code: bool, encoders: bool = False
) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The configuration of a text model, and how to load its weights."""
    if Path(source).is_dir():
        check_folder(source)
    place, options = load_options(source)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code, **options)
    except Exception as error:  # a config's own checks may raise any exception
        raise OSError(unreadable("model", source, error)) from error
    if trust_remote_code and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return config, {"trust_remote_code": True}
    return _of_text(config, source, encoders)


def _of_text(
    config: PreTrainedConfig, source: str, encoders: bool
) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The configuration of a model's text part, checked, and how to load its weights."""
    check_not_latent(config.model_type, source)
    if encoders and is_encoder(config):
        config.is_encoder_decoder = False  # of T5 the encoder alone
        return config, {}
    text = text_part(config, source)
    check_kind(text, source)
    return text, {} if text is config else {"key_mapping": _TEXT_WEIGHTS}


def _pretrained(
    source: str, found: tuple[PreTrainedConfig, dict[str, Any]], dtype: Any
) -> PreTrainedModel:
    config, options = found
    encoder = is_encoder(config)
    model, loaded = build_from(
        source,
        AutoModelForTextEncoding if encoder else AutoModelForCausalLM,
        config=config,
        dtype=dtype,
        ignore_mismatched_sizes=True,
        **options,
    )
    missing = sorted(
        # a pooler reads the last hidden states, which are not used here
        name
        for name in loaded["missing_keys"]
        if not (encoder and name.startswith("pooler."))
    )
    if missing:
        raise ValueError(
            f"the checkpoint {source!r} lacks {len(missing)} weights of {type(model).__name__} "
            f"(the first: {missing[0]}); it is incomplete or of another architecture"
        )
    if loaded["mismatched_keys"]:
        name, found_shape, expected = sorted(loaded["mismatched_keys"])[0]
        raise ValueError(
            f"{len(loaded['mismatched_keys'])} weights of {source!r} do not fit its config.json "
            f"(the first: {name} is {tuple(found_shape)}, the config says {tuple(expected)})"
        )
    name_outputs(model.config)
    if "key_mapping" in options:
        # if saved again, it is a text model with its own weight names
        vars(model).pop("_weight_conversions", None)
    check_finite(model.named_parameters(), source)
    return model
