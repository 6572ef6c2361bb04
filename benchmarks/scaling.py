"""How many kept positions depend on a model's own attention scaling.

    python benchmarks/scaling.py

Granite and Gemma multiply q·k by another number than 1/√D. Small models of both, of random weights,
read random tokens; each rule chooses what it keeps by the model's own scaling, as a captured trace
says it, and once more by 1/√D. The figure is the share of kept positions that are not among those
of the other choice, over samples, layers and heads. The weights are spread so that the logits of
attention, under the model's own scaling, have a standard deviation of about 1, which is printed:
the sharper attention is, the more its scaling decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from kava import capture, compress
from kava.trace import KVTrace, Segment
from timing import positive

VOCABULARY = 256
PROMPT, ANSWER = 16, 16
METHODS = ("h2o", "rkv", "rkv_official", "snapkv", "tova")
SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


class Case(NamedTuple):
    """A model, and the spread of its weights."""

    config: Callable[[], PreTrainedConfig]
    spread: float


CASES = {
    "Granite, 1/64 at D = 64": Case(
        lambda: GraniteConfig(**SHARED, attention_multiplier=1 / 64), 0.18
    ),
    "Gemma 3, 1/√168 at D = 128": Case(
        lambda: Gemma3TextConfig(**SHARED, head_dim=128, query_pre_attn_scalar=168), 0.05
    ),
}


def build(case: Case) -> PreTrainedModel:
    """The model of a case."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(case.config())
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=case.spread)
    return model.float().eval()


def read(model: PreTrainedModel, num_samples: int, length: int) -> KVTrace:
    """The trace of random tokens: a prompt, `length` reasoning tokens, and an answer."""
    total = PROMPT + length + ANSWER
    ids_BT = torch.randint(1, VOCABULARY, (num_samples, total))
    segments = [Segment.PROMPT] * PROMPT + [Segment.REASONING] * length + [Segment.ANSWER] * ANSWER
    segments_BT = torch.tensor(segments).expand(num_samples, -1)
    with torch.no_grad():
        return capture(model, ids_BT, segment_ids=segments_BT, queries=True)[1]


def spread_of_logits(trace: KVTrace) -> float:
    """The standard deviation of s · q·k over keys, under the model's own scaling."""
    assert trace.queries is not None
    assert trace.attention is not None
    groups = trace.queries.shape[2] // trace.keys.shape[2]
    keys = trace.keys.repeat_interleave(groups, dim=2)
    scaling = torch.tensor(trace.attention.scaling)[:, None, None, None]
    return float((trace.queries @ keys.mT * scaling).std(-1).mean())


def share_apart(ours: Tensor, theirs: Tensor) -> float:
    """The share of positions [B, L, H, M] in one choice that are not in the other."""
    return 1 - float((ours[..., :, None] == theirs[..., None, :]).any(-1).float().mean())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=positive, default=32)
    parser.add_argument("--length", type=positive, default=96, help="reasoning tokens")
    parser.add_argument("--target-len", type=positive, default=24, help="kept positions")
    args = parser.parse_args(argv)
    print("| model | logits' deviation | " + " | ".join(METHODS) + " |")
    print("|---" * (len(METHODS) + 2) + "|")
    for name, case in CASES.items():
        trace = read(build(case), args.samples, args.length)
        usual = trace.keys.shape[-1] ** -0.5
        apart = []
        for method in METHODS:
            own = compress(trace, method, args.target_len)[1]
            apart.append(
                share_apart(own, compress(trace, method, args.target_len, scaling=usual)[1])
            )
        shares = " | ".join(f"{100 * share:.1f} %" for share in apart)
        print(f"| {name} | {spread_of_logits(trace):.1f} | {shares} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
