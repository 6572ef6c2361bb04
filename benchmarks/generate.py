"""Time of latent generation over written reasoning, against the ratio of their forward passes.

Both read the same prompts and end after the same number of answer tokens; the written reasoning
adds its own tokens, the latent one its latents. Both go through the same preallocated cache and
the same greedy loop, with the same weights. A quotient of 1 means that the forward passes which
are saved are saved in full; target for sequential latents: at most 1.15 at batch 1 and 64.

    python benchmarks/generate.py
    python benchmarks/generate.py --prompt 16 --batch 1 8 64

Two things move the quotient away from 1. Latent passes need no output head: it falls, with a
large vocabulary. The prompt's pass, which both have, counts as one pass and costs as many as it
has tokens to compute: it rises, with long prompts and large batches. "after prompt" is the
quotient without that pass, in time and count. Written and latent runs take turns; ratios are
medians over the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kava.student import LatentStudent
from kava.student.decode import Generation, generate_text
from timing import positive


class Decoding(NamedTuple):
    """A latent student's setting."""

    label: str
    num_latents: int
    decoding: str
    num_iterations: int


DECODINGS = (
    Decoding("6 sequential", 6, "sequential", 0),
    Decoding("24 × 3 Jacobi", 24, "jacobi", 3),
)


def build(args: argparse.Namespace, decoding: Decoding) -> LatentStudent:
    """A random GPT-2 that reasons in latents; its `base` writes."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=args.layers, n_embd=args.width, n_head=args.width // 64,
        vocab_size=args.vocabulary, n_positions=1024, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LatentStudent.wrap(
        GPT2LMHeadModel(config).eval(),
        num_latents=decoding.num_latents,
        decoding=decoding.decoding,
        num_iterations=decoding.num_iterations,
    ).eval()


def timed(generate: Callable[[], Generation]) -> tuple[float, int]:
    """Seconds and forward passes of one generation."""
    start = time.perf_counter()
    generated = generate()
    return time.perf_counter() - start, generated.num_passes


def measure(args: argparse.Namespace, decoding: Decoding, batch: int) -> tuple[str, ...]:
    """One row of the table: written and latent generation in turns, after a round that warms up."""
    student = build(args, decoding)
    new_tokens = args.reasoning + args.answer
    prompt_ids = torch.randint(1, args.vocabulary, (batch, args.prompt))

    def written() -> Generation:
        return generate_text(student.base, prompt_ids, max_new_tokens=new_tokens)

    def latent() -> Generation:
        return student.answer(prompt_ids, max_new_tokens=args.answer)

    def prompt() -> Generation:
        return generate_text(student.base, prompt_ids, max_new_tokens=1)

    runs = {"written": written, "latent": latent, "prompt": prompt}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    passes: dict[str, int] = {}
    for round_ in range(args.repeats + 1):
        for name, generate in runs.items():
            spent, passes[name] = timed(generate)
            if round_:
                seconds[name].append(spent)
    rounds = list(zip(seconds["latent"], seconds["written"], seconds["prompt"]))
    ratios = [latent / written for latent, written, _ in rounds]
    rest = statistics.median(
        (latent - prompt) / (written - prompt) for latent, written, prompt in rounds
    )
    pass_ratio = passes["latent"] / passes["written"]
    rest_pass_ratio = (passes["latent"] - 1) / (passes["written"] - 1)
    ratio = statistics.median(ratios)
    return (
        decoding.label,
        f"{batch}",
        *(f"{1000 * statistics.median(values):.1f}" for values in seconds.values()),
        f"{passes['latent']}/{passes['written']}",
        f"{pass_ratio:.3f}",
        f"{ratio:.3f}",
        f"{ratio / pass_ratio:.2f}",
        f"{min(ratios) / pass_ratio:.2f} – {max(ratios) / pass_ratio:.2f}",
        f"{rest / rest_pass_ratio:.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 64], help="batch sizes")
    parser.add_argument("--prompt", type=positive, default=48, help="prompt tokens")
    parser.add_argument("--reasoning", type=positive, default=48, help="written reasoning tokens")
    parser.add_argument("--answer", type=positive, default=8, help="answer tokens")
    parser.add_argument("--layers", type=positive, default=4, help="layers")
    parser.add_argument("--width", type=positive, default=256, help="hidden size; heads of 64")
    parser.add_argument(
        "--vocabulary", type=positive, default=50257, help="entries of the output head"
    )
    parser.add_argument("--repeats", type=positive, default=7, help="counted pairs of runs")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"GPT-2 of {args.layers} layers, width {args.width}, vocabulary {args.vocabulary}; prompt "
        f"{args.prompt}, written reasoning {args.reasoning}, answer {args.answer} tokens; "
        f"{args.threads} thread(s), {args.repeats} pairs"
    )
    form = "{:<14}{:>6}{:>12}{:>11}{:>11}{:>9}{:>8}{:>8}{:>10}{:>14}{:>14}"
    print(form.format(
        "latents", "batch", "written ms", "latent ms", "prompt ms", "passes", "ratio", "time",
        "quotient", "(min – max)", "after prompt",
    ))  # fmt: skip
    for decoding in DECODINGS:
        for batch in args.batch:
            print(form.format(*measure(args, decoding, batch)), flush=True)


if __name__ == "__main__":
    main()
