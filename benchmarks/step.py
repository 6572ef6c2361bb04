"""The whole distillation step against its bare passes, as a ratio in one run.

A step is the teacher's forward, compression, alignment, the student's forward, all losses and the
backward, in self-distillation (one set of weights, as in the KaVa paper). Its bare passes are one
forward of the teacher over prompt, reasoning and answer with its cross-entropy, the student's
passes over prompt, latents and answer with theirs, and one backward: what any implementation that
reads the prompt twice must pay. A second anchor reads the teacher's text once more without
gradients for the target, as the public CODI trainer does.

With --other_teacher a frozen copy teaches, and the student is trained to read the written text in
the layout of its latents. The bare passes then are the teacher's forward without gradients, the
student's over that text and over its latents, and one backward; `step, no text` leaves the text
out, `step, injected` adds the answer behind the target's keys and values.

    python benchmarks/step.py                    # 4 layers, width 256
    python benchmarks/step.py --large            # 12 layers, width 768, 256 tokens of text
    python benchmarks/step.py --other_teacher    # what the terms of reading cost
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy, pad
from transformers import GPT2Config, GPT2LMHeadModel

from kava.align import MapProjectionAligner
from kava.data.collate import Batch
from kava.student import LatentStudent
from kava.train.config import TrainConfig
from kava.train.objective import Distiller
from kava.train.reading import written_text
from timing import positive

DECODINGS = [("6 sequential", 6, "sequential", 0), ("24 × 3 Jacobi", 24, "jacobi", 3)]


def make_batch(args: argparse.Namespace, vocabulary: int) -> Batch:
    """Random tokens in the collator's layout, without padding."""
    B, P, R, A = args.batch, args.prompt, args.reasoning, args.answer
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (B, P + R + A), generator=generator)
    segments = torch.tensor([0] * P + [1] * R + [2] * A).expand(B, -1)
    return Batch(
        ids=[str(i) for i in range(B)],
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        segment_ids=segments,
        labels=ids.masked_fill(segments == 0, -100),
        prompt_ids=ids[:, :P],
        prompt_mask=torch.ones(B, P, dtype=torch.long),
        answer_ids=ids[:, P + R :],
        answer_mask=torch.ones(B, A, dtype=torch.long),
        teacher_codi=torch.full((B,), P + R),
        student_codi=torch.zeros(B, dtype=torch.long),
        shared_prompt=True,
    )


def contenders(
    args: argparse.Namespace, batch: Batch, latents: int, decoding: str, iterations: int
) -> dict[str, Callable[[], None]]:
    """The step and its anchors, as functions that leave gradients behind."""
    torch.manual_seed(0)
    width, layers = (768, 12) if args.large else (256, 4)
    config = GPT2Config(
        n_layer=layers, n_embd=width, n_head=width // 64, vocab_size=args.vocabulary,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, n_positions=1024,
    )  # fmt: skip
    student = LatentStudent.wrap(
        GPT2LMHeadModel(config), num_latents=latents, decoding=decoding, num_iterations=iterations
    )
    settings = TrainConfig(
        target_len=latents, decoding=decoding, jacobi_iterations=iterations,
        kv_method=args.kv_method, codi_weight=1.0, kv_weight=1.0, kv_layer_std=True,
    )  # fmt: skip
    aligner = MapProjectionAligner.from_configs(config, config, mode="identity")
    distiller = Distiller(student, settings, aligner)

    def clear() -> None:
        distiller.zero_grad(set_to_none=True)

    def step() -> None:
        clear()
        distiller(batch).loss.backward()

    def bare(second_teacher: bool = False, head_at_labels: bool = False) -> None:
        clear()
        if second_teacher:
            with torch.no_grad():
                student.base(batch["input_ids"], use_cache=True, output_hidden_states=True)
        if head_at_labels:
            labels = batch["labels"][:, args.prompt :]
            keep = torch.arange(args.prompt - 1, batch["input_ids"].shape[1] - 1)
            logits = student.base(batch["input_ids"], logits_to_keep=keep).logits
            written = cross_entropy(logits.flatten(0, 1), labels.flatten())
        else:
            written = student.base(batch["input_ids"], labels=batch["labels"]).loss
        output = student(
            batch["prompt_ids"], batch["prompt_mask"], batch["answer_ids"], trace=False
        )
        answer = cross_entropy(output.logits.flatten(0, 1), batch["answer_ids"].flatten())
        (written + answer).backward()

    if args.other_teacher:
        return with_other_teacher(student, settings, aligner, batch)
    return {
        "step": step,
        "bare passes": bare,
        "bare, head at labels": lambda: bare(head_at_labels=True),
        "bare, teacher twice": lambda: bare(second_teacher=True),
    }


def with_other_teacher(
    student: LatentStudent, settings: TrainConfig, aligner: MapProjectionAligner, batch: Batch
) -> dict[str, Callable[[], None]]:
    """The step under a frozen teacher, with and without the terms of reading, and its anchor."""
    teacher = deepcopy(student.base)
    text = written_text(batch)

    def step_of(weight: float, inject: float = 0.0) -> Callable[[], None]:
        config = replace(
            settings, teacher_name="another", text_ce_weight=weight, inject_weight=inject
        )
        distiller = Distiller(student, config, aligner, teacher)

        def step() -> None:
            distiller.zero_grad(set_to_none=True)
            distiller(batch).loss.backward()

        return step

    def bare(head_at_labels: bool = False) -> None:
        student.zero_grad(set_to_none=True)
        with torch.no_grad():
            teacher(batch["input_ids"], use_cache=True, output_hidden_states=True)
        prompt = batch["prompt_ids"], batch["prompt_mask"]
        if head_at_labels:
            logits, labels = student.read_written(*prompt, text).logits, text.labels
        else:
            begin, end = student.thought_embeddings
            tokens = student.get_input_embeddings()(text.ids)
            thought = text.thought[..., None]
            tokens = torch.where(thought == 0, begin, torch.where(thought == 1, end, tokens))
            embeds = torch.cat([student.get_input_embeddings()(prompt[0]), tokens], dim=1)
            logits = student.base(inputs_embeds=embeds).logits
            labels = pad(text.labels, (embeds.shape[1] - tokens.shape[1], 0), value=-100)
        output = student(*prompt, batch["answer_ids"], trace=False)
        read = cross_entropy(logits.flatten(0, 1), labels.flatten())
        answer = cross_entropy(output.logits.flatten(0, 1), batch["answer_ids"].flatten())
        (read + answer).backward()

    return {
        "step": step_of(1.0),
        "step, no text": step_of(0.0),
        "step, injected": step_of(1.0, inject=1.0),
        "bare passes": bare,
        "bare, head at labels": lambda: bare(head_at_labels=True),
    }


def measure(functions: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, run in turn, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="12 layers of width 768")
    parser.add_argument("--other_teacher", action="store_true", help="a frozen copy teaches")
    parser.add_argument("--batch", type=positive, default=8, help="samples")
    parser.add_argument("--prompt", type=positive, help="prompt tokens (48; 128 with --large)")
    parser.add_argument(
        "--reasoning", type=positive, help="reasoning tokens (48; 112 with --large)"
    )
    parser.add_argument("--answer", type=positive, help="answer tokens (8; 16 with --large)")
    parser.add_argument(
        "--vocabulary", type=positive, default=50257, help="entries of the output head"
    )
    parser.add_argument("--kv_method", default="rkv", help="eviction method")
    parser.add_argument("--repeats", type=positive, default=9, help="counted rounds")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, small, large in (("prompt", 48, 128), ("reasoning", 48, 112), ("answer", 8, 16)):
        if getattr(args, name) is None:
            setattr(args, name, large if args.large else small)
    batch = make_batch(args, args.vocabulary)
    print(
        f"GPT-2 of {12 if args.large else 4} layers, width {768 if args.large else 256}, "
        f"vocabulary {args.vocabulary}; batch {args.batch}, prompt {args.prompt}, reasoning "
        f"{args.reasoning}, answer {args.answer}; {args.kv_method}; {args.threads} thread(s)"
    )
    print(f"{'latents':<16}{'':<22}{'ms':>9}{'ratio to bare':>16}{'(min – max)':>16}")
    for label, latents, decoding, iterations in DECODINGS:
        functions = contenders(args, batch, latents, decoding, iterations)
        seconds = measure(functions, args.repeats)
        for name, values in seconds.items():
            ratios = [a / b for a, b in zip(values, seconds["bare passes"])]
            middle = statistics.median(ratios)
            spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
            ms = 1000 * statistics.median(values)
            print(f"{label:<16}{name:<22}{ms:>9.1f}{middle:>16.2f}{spread:>16}")


if __name__ == "__main__":
    main()
