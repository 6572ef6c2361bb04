"""The built-in models: tiny random ones of each family, and the trained teachers of the demo.

Names that begin with `kava/` need no download. The tiny ones are for trying out commands and for
tests; the teachers of the built-in tasks (`TRAINED_MODELS`) are trained, and lie in the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    T5Config,
)

from kava.models.tokenizers import byte_tokenizer

_ASSETS = Path(__file__).parents[1] / "assets"
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


def _llama(tokenizer: PreTrainedTokenizerBase, **sizes: Any) -> PreTrainedConfig:
    return LlamaConfig(max_position_embeddings=1024, **_vocabulary(tokenizer), **sizes)


def _gpt2(tokenizer: PreTrainedTokenizerBase, **sizes: Any) -> PreTrainedConfig:
    dropout: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Config(n_positions=256, **dropout, **_vocabulary(tokenizer), **sizes)


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _shell_llama() -> PreTrainedConfig:
    return _llama(
        _shell_tokenizer(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=172,
    )


def _shell_gpt2() -> PreTrainedConfig:
    return _gpt2(_piece_tokenizer(), n_embd=96, n_layer=4, n_head=3)


def _shell_bert() -> PreTrainedConfig:
    tokenizer = _shell_tokenizer()
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )


def _shell_t5() -> PreTrainedConfig:
    return T5Config(
        d_model=64,
        d_kv=24,
        num_heads=3,
        num_layers=2,
        d_ff=128,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
        **_vocabulary(_shell_tokenizer()),
    )


def _word_llama() -> PreTrainedConfig:
    return _llama(
        _word_tokenizer(),
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        intermediate_size=192,
        tie_word_embeddings=True,
    )


def _word_neox(tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedConfig:
    return GPTNeoXConfig(
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=1024,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
        tie_word_embeddings=True,
        **_vocabulary(tokenizer or _word_tokenizer()),
    )


def _word_neox_pieces() -> PreTrainedConfig:
    return _word_neox(_word_piece_tokenizer())


def _piece_tokenizer() -> PreTrainedTokenizerBase:
    from kava.data.shell_pieces import shell_piece_tokenizer

    return shell_piece_tokenizer()


def _shell_tokenizer() -> PreTrainedTokenizerBase:
    from kava.data.shell_game import shell_game_tokenizer

    return shell_game_tokenizer()


def _word_tokenizer() -> PreTrainedTokenizerBase:
    from kava.data.word_tokenizer import word_problems_tokenizer

    return word_problems_tokenizer()


def _word_piece_tokenizer() -> PreTrainedTokenizerBase:
    from kava.data.word_tokenizer import word_problems_tokenizer

    return word_problems_tokenizer(pieces=2)


RANDOM_MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "kava/tiny-gpt2": (_tiny_gpt2, byte_tokenizer),
    "kava/tiny-llama": (_tiny_llama, byte_tokenizer),
    "kava/tiny-qwen2": (_tiny_qwen2, byte_tokenizer),
    "kava/tiny-mistral": (_tiny_mistral, byte_tokenizer),
    "kava/tiny-gemma": (_tiny_gemma, byte_tokenizer),
    "kava/tiny-gpt-neox": (_tiny_gpt_neox, byte_tokenizer),
    "kava/shell-llama": (_shell_llama, _shell_tokenizer),
    "kava/shell-gpt2": (_shell_gpt2, _piece_tokenizer),
    "kava/word-llama": (_word_llama, _word_tokenizer),
    "kava/word-neox": (_word_neox, _word_tokenizer),
    "kava/word-neox-pieces": (_word_neox_pieces, _word_piece_tokenizer),
}
"""Built-in name → (config, tokenizer) of a model with seeded random weights."""

ENCODER_MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "kava/shell-bert": (_shell_bert, _shell_tokenizer),
    "kava/shell-t5": (_shell_t5, _shell_tokenizer),
}
"""The same of encoders, which can be teachers and nothing else."""

TRAINED_MODELS: dict[str, Path] = {
    "kava/shell-teacher": _ASSETS / "shell_teacher",
    "kava/shell-gpt2-teacher": _ASSETS / "shell_gpt2_teacher",
    "kava/word-teacher": _ASSETS / "word_teacher",
    "kava/word-neox-teacher": _ASSETS / "word_neox_teacher",
    "kava/word-adder": _ASSETS / "word_adder_teacher",
    "kava/word-multiplier": _ASSETS / "word_multiplier_teacher",
}
"""Built-in name → folder, inside the package, of a trained model and its tokenizer."""

BUILTIN_NAMES: tuple[str, ...] = (*RANDOM_MODELS, *TRAINED_MODELS)
