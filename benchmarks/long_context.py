"""Time, peak memory and faithfulness of reading long texts, in one go, in chunks, and bounded.

    python benchmarks/long_context.py                  # all three parts
    python benchmarks/long_context.py --part memory    # each reading in a process of its own
    python benchmarks/long_context.py --part agree     # what is kept, beside one forward
    python benchmarks/long_context.py --part recall    # what an answer still finds in the cache

memory: a small Llama with random weights reads random tokens, one text, on one thread, and leaves
its trace with queries behind, as R-KV needs it. "seconds" are of the CPU; "peak" is the most
resident memory above what the process held before, with freed tensors given back at once; "left"
the bytes of the trace. Eager attention and padded texts hold a number for every pair of positions
in one go, and are read up to `--most_squared` tokens alone.

agree: keys of the chunked reading against those of one forward, the positions that evictions keep
of either, and how far a bounded cache is from the whole one.

recall: small models learn to answer with the value that stands behind a name, among filler; the
names stand in the first half of the text. Then they read texts with a bounded cache, up to the
question, and the share of right answers is counted, for seeds of model and data.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from kava import capture, compress
from kava.eviction.bounded import CacheBudget
from kava.models.bounded import capture_bounded
from kava.models.chunked import capture_in_chunks
from kava.profile.peak import GIVES_BACK
from kava.trace import KVTrace, Segment
from timing import positive, timed

VOCABULARY = 256
LENGTHS = (2048, 8192, 32768)
CHUNK, SIZE = 1024, 1024
READINGS = ("sdpa", "eager", "padded", "chunks", "bounded")
WORDS = {
    "sdpa": "one forward, sdpa",
    "eager": "one forward, eager",
    "padded": "one forward, sdpa, padded",
    "chunks": f"chunks of {CHUNK}",
    "bounded": f"chunks of {CHUNK}, cache of {SIZE}",
}
SQUARED = ("eager", "padded")
"""Readings that hold something for every pair of positions."""


def small_model(attention: str = "sdpa") -> LlamaForCausalLM:
    """A Llama of random weights, spread so that attention is not even."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=65536,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def texts(num: int, length: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Random tokens, and the segments of a prompt, reasoning and an answer of 16 tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (num, length), generator=generator)
    segments = torch.full((num, length), int(Segment.REASONING))
    segments[:, :16] = int(Segment.PROMPT)
    segments[:, -16:] = int(Segment.ANSWER)
    return ids, torch.ones_like(ids), segments


def bytes_of(trace: KVTrace) -> int:
    """Bytes of a trace's keys, values and queries."""
    parts = (trace.keys, trace.values, trace.queries)
    return sum(part.numel() * part.element_size() for part in parts if part is not None)


@torch.no_grad()
def measure(reading: str, length: int) -> tuple[float, int, int]:
    """Seconds, peak bytes, and bytes that are left, of one reading in this process."""
    model = small_model("eager" if reading == "eager" else "sdpa")
    left: list[KVTrace] = []

    def read(length: int) -> KVTrace:
        ids, mask, segments = texts(1, length)
        if reading == "padded":
            mask[:, 0] = 0
        options: dict[str, Any] = {"hidden_states": False, "logits_to_keep": 1, "queries": True}
        if reading == "bounded":
            budget = CacheBudget(size=SIZE)
            return capture_bounded(
                model, ids, mask, segments, budget=budget, block=CHUNK, queries=True
            )[0]
        chunk = CHUNK if reading == "chunks" else None
        return capture_in_chunks(model, ids, mask, segments, chunk=chunk, **options)[1]

    read(64)
    seconds, peak = timed(lambda: left.append(read(length)))
    return seconds, peak, bytes_of(left[0])


def show_memory(readings: list[str], lengths: list[int], most_squared: int) -> None:
    """The table of times and memory, each cell measured in a process of its own."""
    print(flush=True)
    print(f"{'reading':34}{'tokens':>8}{'seconds':>9}{'peak MB':>9}{'left MB':>9}")
    for reading in readings:
        for length in lengths:
            if reading in SQUARED and length > most_squared:
                print(f"{WORDS[reading]:34}{length:>8}{'not read':>9}", flush=True)
                continue
            command = [sys.executable, __file__, "--part", "one", reading, str(length)]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env={**os.environ, **GIVES_BACK},
                check=True,
            )
            seconds, peak, left = map(float, done.stdout.split())
            print(
                f"{WORDS[reading]:34}{length:>8}{seconds:9.2f}{peak / 1e6:9.1f}{left / 1e6:9.1f}",
                flush=True,
            )


@torch.no_grad()
def show_agreement() -> None:
    """Chunked and bounded readings beside one forward."""
    model, length = small_model(), 2048
    ids, mask, segments = texts(2, length)
    _, whole = capture(model, ids, mask, segments, queries=True)
    print(f"\n{length} tokens, 2 texts: in chunks, beside one forward")
    print(f"{'chunk':>8}{'keys off':>10}   kept positions of 64 that are others")
    for chunk in (100, 512, 1024):
        _, found = capture_in_chunks(model, ids, mask, segments, chunk=chunk, queries=True)
        others = ", ".join(
            f"{method} {others_of(found, whole, method)}"
            for method in ("rkv", "rkv_official", "h2o", "snapkv", "tova")
        )
        print(f"{chunk:>8}{off(found.keys, whole.keys):10.1e}   {others}")
    print("\na bounded cache, beside what one forward leaves at the same positions and would keep")
    print(f"{'scores':>8}{'size':>6}{'block':>7}{'keys off':>10}{'values off':>12}{'others':>8}")
    plain = KVTrace(
        whole.keys,
        whole.values,
        whole.queries,
        attention=whole.attention,
        positions=whole.positions,
    )
    for size, block in ((2048, 256), (512, 2048), (512, 512), (512, 128), (256, 128)):
        for score in ("h2o", "rkv", "recent"):
            budget = CacheBudget(size=size, score=score)
            trace, columns = capture_bounded(model, ids, budget=budget, block=block)
            there = plain.gather(columns, mask=torch.ones_like(columns, dtype=torch.bool))
            _, once = capture_bounded(model, ids, budget=budget, block=length)
            share = sum(
                len(set(ours) - set(theirs)) / len(ours)
                for ours, theirs in zip(columns.tolist(), once.tolist())
            ) / len(ids)
            print(
                f"{score:>8}{size:>6}{block:>7}{off(trace.keys, there.keys):10.1e}"
                f"{off(trace.values, there.values):12.1e}{share:8.1%}"
            )


def others_of(found: KVTrace, whole: KVTrace, method: str) -> int:
    """Kept positions of one trace that are not kept of the other."""
    ours, theirs = (
        compress(trace, method, 64)[1].flatten(0, 2).tolist() for trace in (found, whole)
    )
    return sum(len(set(a) - set(b)) for a, b in zip(ours, theirs))


def off(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((found - expected).norm() / expected.norm())


NAMES, VALUES, FILLER = 8, 16, 40
RECALL_LENGTH, RECALL_SIZE, RECALL_BLOCK = 256, 48, 16


class Recall(NamedTuple):
    """Texts of the task: ids up to the question's name, and the value it asks for."""

    ids: Tensor
    answers: Tensor


def recall_texts(num: int, length: int, pairs: int, generator: torch.Generator) -> Recall:
    """Filler with pairs of name and value in its first half, and a name at the end."""
    ids = NAMES + VALUES + torch.randint(FILLER, (num, length), generator=generator)
    answers = torch.zeros(num, dtype=torch.long)
    for row in range(num):
        names = torch.randperm(NAMES, generator=generator)[:pairs]
        values = NAMES + torch.randint(VALUES, (pairs,), generator=generator)
        places = 2 * torch.randperm(length // 4, generator=generator)[:pairs]
        ids[row, places], ids[row, places + 1] = names, values
        asked = int(torch.randint(pairs, (1,), generator=generator))
        ids[row, -1], answers[row] = names[asked], values[asked]
    return Recall(ids, answers)


def train_recall(seed: int, steps: int, pairs: int) -> LlamaForCausalLM:
    """A small model that has learned the task, on texts of mixed lengths."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=NAMES + VALUES + FILLER,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (1 - step / steps)
        most = 16 + (RECALL_LENGTH - 16) * min(1.0, 1.5 * step / steps)
        length = int(torch.randint(16, int(most) + 1, (1,), generator=generator))
        batch = recall_texts(32, length, pairs, generator)
        logits = model(batch.ids, logits_to_keep=1).logits[:, -1]
        loss = functional.cross_entropy(logits, batch.answers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, batch: Recall, budget: CacheBudget | None) -> float:
    """Share of right answers, the question read over the cache of all that stands before it."""
    if budget is None:
        logits = model(batch.ids, logits_to_keep=1).logits[:, -1]
    else:
        trace, _ = capture_bounded(model, batch.ids[:, :-1], budget=budget, block=RECALL_BLOCK)
        cache = DynamicCache()
        for layer in range(trace.num_layers):
            cache.update(trace.keys[:, layer], trace.values[:, layer], layer)
        at = torch.full((len(batch.ids), 1), batch.ids.shape[1] - 1)
        logits = model(batch.ids[:, -1:], past_key_values=cache, position_ids=at).logits[:, -1]
    return float((logits.argmax(-1) == batch.answers).float().mean())


RECALL_ARMS: dict[str, CacheBudget | None] = {
    "the whole cache": None,
    "the newest alone": CacheBudget(size=RECALL_SIZE, num_sinks=0, score="recent"),
    "4 sinks and the newest": CacheBudget(size=RECALL_SIZE, num_sinks=4, score="recent"),
    "h2o": CacheBudget(size=RECALL_SIZE, score="h2o"),
    "h2o, each head its own": CacheBudget(size=RECALL_SIZE, score="h2o", scope="head"),
    "rkv": CacheBudget(size=RECALL_SIZE, score="rkv"),
    "rkv, each head its own": CacheBudget(size=RECALL_SIZE, score="rkv", scope="head"),
}


def show_recall(seeds: int, steps: int, samples: int, pairs: int) -> None:
    """Right answers of each arm, seed by seed."""
    print(
        f"\nright answers in %, {samples} texts of {RECALL_LENGTH} tokens a seed, cache of "
        f"{RECALL_SIZE}, blocks of {RECALL_BLOCK}; by chance {100 / VALUES:.1f}, by any value "
        f"of the text {100 / pairs:.0f}"
    )
    found: dict[str, list[float]] = {name: [] for name in RECALL_ARMS}
    for seed in range(seeds):
        model = train_recall(seed, steps, pairs)
        batch = recall_texts(
            samples, RECALL_LENGTH, pairs, torch.Generator().manual_seed(1000 + seed)
        )
        for name, budget in RECALL_ARMS.items():
            found[name].append(100 * accuracy(model, batch, budget))
    for name, shares in found.items():
        told = ", ".join(f"{share:.1f}" for share in shares)
        print(f"{name:34}{statistics.mean(shares):7.1f}   ({told})", flush=True)


def main() -> int:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", choices=("all", "memory", "agree", "recall", "one"), default="all"
    )
    parser.add_argument("one", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--readings", choices=READINGS, nargs="+", default=list(READINGS))
    parser.add_argument("--lengths", type=positive, nargs="+", default=list(LENGTHS))
    parser.add_argument("--most_squared", type=positive, default=8192)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=500)
    parser.add_argument("--pairs", type=positive, default=1, help="names and values of a text")
    parser.add_argument("--samples", type=positive, default=256)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.part == "one":
        print(*measure(flags.one[0], int(flags.one[1])))
        return 0
    parts: dict[str, Callable[[], None]] = {
        "memory": lambda: show_memory(flags.readings, flags.lengths, flags.most_squared),
        "agree": show_agreement,
        "recall": lambda: show_recall(flags.seeds, flags.steps, flags.samples, flags.pairs),
    }
    for name, show in parts.items():
        if flags.part in ("all", name):
            show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
