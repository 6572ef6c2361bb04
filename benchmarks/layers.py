"""Cost of measuring a layer map, as a ratio to the two models' own forward passes.

Teacher and student with random weights read batches of random tokens of the lengths that GSM8K's
texts have; keys and values of all layers go through `StreamingCKA`. The head of the models is
computed at one position only. Memory is the highest that any update takes above what was there
before; it must not grow with the number of batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from kava.align import StreamingCKA
from kava.fit.paired_traces import paired_traces
from kava.fit.statistics import TracePair
from timing import positive, timed

VOCAB_SIZE, SHORTEST, LONGEST = 1000, 80, 260


def gpt2(layers: int, heads: int, width: int) -> GPT2Config:
    """Every query head has keys of its own."""
    return GPT2Config(
        vocab_size=VOCAB_SIZE, n_layer=layers, n_head=heads, n_embd=width, n_positions=512,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def llama(layers: int, heads: int, width: int) -> LlamaConfig:
    """Four query heads share one key/value head."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        hidden_size=width,
        intermediate_size=8 * width // 3,
    )


PAIRS = {
    "grouped heads": (llama(16, 16, 512), llama(8, 8, 512)),
    "all heads": (gpt2(12, 8, 512), gpt2(6, 6, 384)),
}
"""Name → configurations of teacher and student."""


class Measured(NamedTuple):
    """Seconds of the forwards and of the measurement, and the peak bytes of its updates."""

    forward_seconds: float
    cka_seconds: float
    peak_bytes: int
    num_tokens: int


def build(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def batches(num_batches: int, size: int) -> Iterator[Any]:
    """Texts of random tokens, padded to the right."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_batches):
        lengths = torch.linspace(SHORTEST, LONGEST, size).long()[:, None]
        mask = (torch.arange(LONGEST) < lengths).long()
        ids = torch.randint(1, VOCAB_SIZE, mask.shape, generator=generator)
        yield {"input_ids": ids, "attention_mask": mask, "segment_ids": mask - 1}


def measure(teacher_config: Any, student_config: Any, num_batches: int, size: int) -> Measured:
    """Read the batches with both models, and time what each part takes."""
    teacher, student = build(teacher_config), build(student_config)
    layers = student_config.num_hidden_layers, teacher_config.num_hidden_layers
    parts = StreamingCKA(*layers), StreamingCKA(*layers)
    pairs = paired_traces(teacher, student, batches(num_batches, size))
    forward = cka = 0.0
    peaks = []

    def update(pair: TracePair) -> None:
        parts[0].update(pair.student.keys, pair.teacher.keys, pair.mask)
        parts[1].update(pair.student.values, pair.teacher.values, pair.mask)

    read: list[TracePair] = []
    for index in range(num_batches):
        forward_seconds, _ = timed(lambda: read.append(next(pairs)))
        cka_seconds, peak = timed(partial(update, read.pop()))
        if index:  # the first also reads off how the models rotate, and makes room for the sums
            forward += forward_seconds
            cka += cka_seconds
            peaks.append(peak)
    for part in parts:
        part.matrix()
    return Measured(forward, cka, max(peaks), parts[0].num_rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=positive, default=4, help="batches (default 4)")
    parser.add_argument("--batch", type=positive, default=8, help="samples of a batch (default 8)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"batches of {args.batch} texts, {args.threads} thread(s), torch {torch.__version__}\n")
    heads = ("batches", "tokens", "forward s", "CKA s", "ratio", "peak MB")
    print(f"{'pair':<16}" + "".join(f"{head:>10}" for head in heads))
    for name, configs in PAIRS.items():
        for num_batches in (args.batches, 4 * args.batches):
            found = measure(*configs, num_batches, args.batch)
            cells = (
                f"{num_batches}",
                f"{found.num_tokens:,}",
                f"{found.forward_seconds:.2f}",
                f"{found.cka_seconds:.2f}",
                f"{found.cka_seconds / found.forward_seconds:.2f}",
                f"{found.peak_bytes / 1e6:.0f}",
            )
            print(f"{name:<16}" + "".join(f"{cell:>10}" for cell in cells))
    print(
        "\nseconds: of the CPU on one thread, of the clock on several; without the first batch.\n"
        "ratio: CKA to the two forwards. peak MB: the highest of an update, without the first."
    )


if __name__ == "__main__":
    main()
