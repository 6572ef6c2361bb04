"""Every family whose attention is proven, as a tiny model whose windows are shorter than a text.

What the table of `docs/traces.md` says of a family stands beside its config here, so that neither
can change without the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from families import VOCAB_SIZE

LAYERS = 4
WINDOW = 4
EVERY = (WINDOW,) * LAYERS
EVERY_OTHER = (WINDOW, None, WINDOW, None)
LAST_FULL = (WINDOW, WINDOW, WINDOW, None)
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family's config, and how its layers attend.

    Attributes:
        kind: the `model_type` of its config.
        options: of the config, beside `SIZES`.
        scaling: one number for all layers, or one of each.
        scaled_by: the same in words.
        window: of each layer; empty where none has one.
        softcap: whether logits are capped.
        chunk: of each layer; empty where none has one.
        sinks: whether a row's softmax has one.
        positions: how a token's place is told.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    scaling: float | tuple[float, ...] = 8**-0.5
    scaled_by: str = "1/√D"
    window: tuple[int | None, ...] = ()
    softcap: bool = False
    chunk: tuple[int | None, ...] = ()
    sinks: bool = False
    positions: str = "rotary"

    def build(self, attention: str = "eager", **options: Any) -> PreTrainedModel:
        """The tiny model, its weights spread so widely that attention is far from even."""
        config = CONFIG_MAPPING[self.kind](**SIZES | self.options | options)
        config._attn_implementation = attention
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.4)
        return model.float().eval()


def _by_gemma(kind: str, **facts: Any) -> Family:
    options = {"head_dim": 8, "query_pre_attn_scalar": 24, "sliding_window": WINDOW}
    words = "1/√`query_pre_attn_scalar`"
    return Family(
        kind=kind,
        options=options | facts.pop("options"),
        scaling=24**-0.5,
        scaled_by=words,
        **facts,
    )


_SLIDES = {"sliding_window": WINDOW}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_OLD_SIZES = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "rotary_dim": 4}
_HALF = "rotary, part of each head"

FAMILIES: dict[str, Family] = {
    "Llama": Family(kind="llama"),
    "Arcee": Family(kind="arcee"),
    "Apertus": Family(kind="apertus"),
    "Helium": Family(kind="helium", options={"head_dim": 8}),
    "Seed-OSS": Family(kind="seed_oss", options={"head_dim": 8}),
    "ERNIE 4.5": Family(kind="ernie4_5", options={"head_dim": 8}),
    "Qwen2": Family(
        kind="qwen2",
        options={"use_sliding_window": True, "max_window_layers": 2} | _SLIDES,
        window=(None, None, WINDOW, WINDOW),
    ),
    "Qwen2-MoE": Family(
        kind="qwen2_moe",
        options=_EXPERTS | {"shared_expert_intermediate_size": 16},
    ),
    "Qwen3": Family(
        kind="qwen3",
        options={"head_dim": 8, "use_sliding_window": True, "max_window_layers": 2} | _SLIDES,
        window=(None, None, WINDOW, WINDOW),
    ),
    "Qwen3-MoE": Family(kind="qwen3_moe", options=_EXPERTS | {"head_dim": 8}),
    "Mistral": Family(kind="mistral", options=_SLIDES, window=EVERY),
    "Ministral": Family(kind="ministral", options=_SLIDES | {"head_dim": 8}, window=EVERY),
    "Mixtral": Family(
        kind="mixtral",
        options=_SLIDES | {"num_local_experts": 2},
        window=EVERY,
    ),
    "Gemma": Family(kind="gemma", options={"head_dim": 8}),
    "Gemma 2": _by_gemma(
        "gemma2", options={"attn_logit_softcapping": 2.0}, window=EVERY_OTHER, softcap=True
    ),
    "Gemma 3 (text)": _by_gemma(
        "gemma3_text", options={"sliding_window_pattern": 2}, window=EVERY_OTHER
    ),
    "Granite": Family(
        kind="granite",
        options={"attention_multiplier": 0.1},
        scaling=0.1,
        scaled_by="`attention_multiplier`",
    ),
    "Granite-MoE": Family(
        kind="granitemoe",
        options={"attention_multiplier": 0.1, "num_local_experts": 4},
        scaling=0.1,
        scaled_by="`attention_multiplier`",
    ),
    "GPT-2": Family(kind="gpt2", positions="learned"),
    "GPT-2, `scale_attn_weights=False`": Family(
        kind="gpt2",
        options={"scale_attn_weights": False},
        scaling=1.0,
        scaled_by="1",
        positions="learned",
    ),
    "GPT-2, `scale_attn_by_inverse_layer_idx`": Family(
        kind="gpt2",
        options={"scale_attn_by_inverse_layer_idx": True},
        scaling=tuple(8**-0.5 / layer for layer in range(1, LAYERS + 1)),
        scaled_by="1/√D over the layer's number",
        positions="learned",
    ),
    "GPT-BigCode": Family(kind="gpt_bigcode", positions="learned"),
    "GPT-Neo": Family(
        kind="gpt_neo",
        options={
            "num_layers": LAYERS,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": WINDOW,
        },
        scaling=1.0,
        scaled_by="1",
        window=(None, WINDOW, None, WINDOW),
        positions="learned",
    ),
    "GPT-NeoX": Family(kind="gpt_neox", positions=_HALF),
    "GPT-J": Family(kind="gptj", options=_OLD_SIZES, positions=_HALF),
    "CodeGen": Family(kind="codegen", options=_OLD_SIZES, positions=_HALF),
    "OPT": Family(
        kind="opt",
        options={"ffn_dim": 48, "word_embed_proj_dim": 32},
        scaling=1.0,
        scaled_by="1, queries come scaled",
        positions="learned",
    ),
    "Phi": Family(kind="phi", positions=_HALF),
    "Phi-3": Family(kind="phi3", options=_SLIDES, window=EVERY),
    "OLMo": Family(kind="olmo"),
    "OLMo 2": Family(kind="olmo2"),
    "OLMo 3": Family(kind="olmo3", options=_SLIDES, window=LAST_FULL),
    "Cohere": Family(kind="cohere", options={"use_qk_norm": True}),
    "Cohere 2": Family(
        kind="cohere2",
        options=_SLIDES | {"head_dim": 8},
        window=LAST_FULL,
        positions="rotary, none in full layers",
    ),
    "StarCoder2": Family(kind="starcoder2", options=_SLIDES, window=EVERY),
    "StableLM": Family(kind="stablelm", options={"qk_layernorm": True}, positions=_HALF),
    "SmolLM3": Family(
        kind="smollm3",
        options={"no_rope_layers": [1, 0, 1, 0]},
        positions="rotary, none in some layers",
    ),
    "EXAONE 4": Family(
        kind="exaone4", options=_SLIDES, window=LAST_FULL, positions="rotary, none in full layers"
    ),
    "GLM": Family(kind="glm", options={"head_dim": 8}, positions=_HALF),
    "GLM-4": Family(kind="glm4", options={"head_dim": 8}, positions=_HALF),
    "Nemotron": Family(kind="nemotron", positions=_HALF),
    "gpt-oss": Family(
        kind="gpt_oss",
        options=_SLIDES | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        window=EVERY_OTHER,
        sinks=True,
    ),
    "Llama 4 (text)": Family(
        kind="llama4_text",
        options={
            "head_dim": 8,
            "attention_chunk_size": WINDOW,
            "num_local_experts": 2,
            "intermediate_size_mlp": 48,
        },
        chunk=LAST_FULL,
        positions="rotary, none in full layers",
    ),
}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "BLOOM": ("bloom", {}, "ALiBi; no attention interface"),
    "MPT": ("mpt", {}, "ALiBi; no attention interface"),
    "Falcon": ("falcon", {}, "no attention interface"),
    "Falcon, `alibi=True`": ("falcon", {"alibi": True}, "ALiBi; no attention interface"),
    "DiffLlama": ("diffllama", {}, "the difference of two softmaxes"),
    "Doge": ("doge", {}, "a mask that is computed from the values"),
    "JetMoE": ("jetmoe", {"kv_channels": 8}, "query heads in another order than their keys'"),
}
"""Families whose attention cannot be rebuilt: model type, options, and why."""


def refused(name: str) -> PreTrainedModel:
    """A tiny model of a family that is refused."""
    kind, options, _ = REFUSED[name]
    return Family(kind=kind, options=options).build()


def row(name: str, family: Family) -> str:
    """What the documentation says of a family."""
    reach = family.window or family.chunk
    where = "every layer" if None not in reach else "some layers"
    what = f"{where}, in chunks" if family.chunk else where
    cells = (
        family.scaled_by,
        what if reach else "",
        "yes" if family.softcap else "",
        "yes" if family.sinks else "",
        family.positions,
    )
    return f"| {name} | {' | '.join(cells)} |"


def refused_row(name: str) -> str:
    """What the documentation says of a family that is refused."""
    return f"| {name} | {REFUSED[name][2]} |"
