"""A training step with several teachers against the step with one, as ratios in one run.

A step is the teachers' passes, compression, alignment, fusion, the student's passes, the losses and
the backward. With a fixed fusion every teacher reads every sample. With hard routing each sample
has one teacher, which the data name (`--fusion oracle`), and each teacher reads its own samples
alone, so that four should cost about what one does: the goal is 1.3. The text's cross-entropy is
left out, as it is after the first 40 % of a run: the teachers' part is then at its largest.

Two sizes are timed: the built-in game's, where Python counts more than arithmetic, and teachers of
a few million parameters. All weights and texts are random. On one thread times are CPU seconds,
which a busy machine stretches less.

    python benchmarks/teachers.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kava.data.collate import Batch
from kava.student import LatentStudent
from kava.train.config import TrainConfig
from kava.train.models import build_aligner
from kava.train.objective import Distiller
from kava.train.several import SeveralDistiller
from timing import positive, timed

GOAL = 1.3
"""Hard routing among four teachers ÷ one teacher."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Models and texts.

    Attributes:
        teacher: layers, width and heads of each teacher.
        student: the same of the student.
        vocabulary: entries of all output heads.
        batch: samples.
        text: tokens of prompt, reasoning and answer.
        latents: latents of the student, and kept positions.
        kv_method: how they are kept.
    """

    teacher: tuple[int, int, int]
    student: tuple[int, int, int]
    vocabulary: int
    batch: int
    text: tuple[int, int, int]
    latents: int
    kv_method: str


SIZES = {
    "game": Size(
        teacher=(4, 96, 3), student=(2, 64, 4), vocabulary=32, batch=64, text=(16, 3, 3),
        latents=3, kv_method="full",
    ),
    "larger": Size(
        teacher=(6, 256, 8), student=(4, 192, 6), vocabulary=512, batch=32, text=(48, 48, 8),
        latents=6, kv_method="rkv",
    ),
}  # fmt: skip


def llama(size: tuple[int, int, int], vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A model with random weights."""
    layers, width, heads = size
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
            num_key_value_heads=heads, intermediate_size=width * 8 // 3, vocab_size=vocabulary,
            max_position_embeddings=1024,
        )
    )  # fmt: skip


def make_batch(size: Size, num_teachers: int) -> Batch:
    """Random tokens in the collator's layout, without padding, which all models read alike."""
    B, (P, R, A) = size.batch, size.text
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, size.vocabulary, (B, P + R + A), generator=generator)
    segments = torch.tensor([0] * P + [1] * R + [2] * A).expand(B, -1)
    batch = Batch(
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
    if num_teachers > 1:
        batch["sides"] = [None] * num_teachers
        batch["first_reader"] = [0] * num_teachers
        batch["present"] = torch.ones(B, num_teachers, dtype=torch.bool)
        batch["teacher_index"] = torch.randperm(B, generator=generator) % num_teachers
    return batch


class Arm:
    """The step of one arm, and the time that its teachers' forward passes take.

    Args:
        size: models and texts.
        num_teachers: N.
        fusion: of their caches.
    """

    def __init__(self, size: Size, num_teachers: int, fusion: str = "fixed"):
        names = [f"t{n}=random" for n in range(num_teachers)]
        changes: dict[str, Any] = {"teachers": names, "fusion": fusion}
        if num_teachers == 1:
            changes = {"teacher_name": "random"}
        config = TrainConfig(
            model_name="student", target_len=size.latents, kv_method=size.kv_method,
            alignment_mode="structured", kv_layer_std=True, text_ce_weight=0.0, **changes,
        )  # fmt: skip
        base = llama(size.student, size.vocabulary, seed=0)
        student = LatentStudent.wrap(base, num_latents=size.latents)
        teachers = [llama(size.teacher, size.vocabulary, seed=1 + n) for n in range(num_teachers)]
        aligners = [build_aligner(config, teacher, base) for teacher in teachers]
        self.distiller: Distiller
        if num_teachers == 1:
            self.distiller = Distiller(student, config, aligners[0], teachers[0])
        else:
            self.distiller = SeveralDistiller(student, config, aligners, teachers)
        self.distiller.train()
        self.batch = make_batch(size, num_teachers)
        self.clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        self.teacher_seconds = 0.0
        for teacher in teachers:
            teacher.register_forward_pre_hook(self._begin)
            teacher.register_forward_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._start = self.clock()

    def _end(self, *_: object) -> None:
        self.teacher_seconds += self.clock() - self._start

    def step(self) -> None:
        """Forward and backward."""
        self.distiller.zero_grad(set_to_none=True)
        self.distiller(self.batch).loss.backward()

    def timed(self) -> tuple[float, float]:
        """Seconds of a step, and those of them in the teachers' passes."""
        self.teacher_seconds = 0.0
        start = self.clock()
        self.step()
        return self.clock() - start, self.teacher_seconds


ARMS: dict[str, Callable[[Size], Arm]] = {
    "1 teacher": lambda size: Arm(size, 1),
    "2 teachers, fixed": lambda size: Arm(size, 2),
    "4 teachers, fixed": lambda size: Arm(size, 4),
    "4 teachers, hard": lambda size: Arm(size, 4, "oracle"),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one arm: seconds and share by round, and peak bytes of one step."""

    seconds: list[float]
    shares: list[float]
    peak_bytes: int


def measure(size: Size, rounds: int) -> dict[str, Measured]:
    """All arms in turns, after one round that is not timed and shows the memory."""
    arms = {name: build(size) for name, build in ARMS.items()}
    for arm in arms.values():
        arm.step()
    peaks = {name: timed(arm.step)[1] for name, arm in arms.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            found[name].append(arm.timed())
    return {
        name: Measured(
            seconds=[whole for whole, _ in pairs],
            shares=[part / whole for whole, part in pairs],
            peak_bytes=peaks[name],
        )
        for name, pairs in found.items()
    }


def show(found: dict[str, Measured]) -> float:
    """Print a table, and return hard routing's ratio to one teacher."""
    print(f"{'':<20}{'ms':>9}{'÷ 1 teacher':>13}{'(min – max)':>15}{'in teachers':>13}{'MiB':>8}")
    one = found["1 teacher"].seconds
    middle = 1.0
    for name, arm in found.items():
        ratios = [a / b for a, b in zip(arm.seconds, one)]
        middle = statistics.median(ratios)
        spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
        ms, share = 1000 * statistics.median(arm.seconds), 100 * statistics.median(arm.shares)
        mib = arm.peak_bytes / 2**20
        print(f"{name:<20}{ms:>9.1f}{middle:>13.2f}{spread:>15}{share:>11.0f} %{mib:>8.1f}")
    return middle


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument(
        "--rounds", type=positive, default=9, help="timed rounds of all arms, in turns"
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    for name in args.sizes:
        size = SIZES[name]
        parameters = sum(
            part.numel() for part in llama(size.teacher, size.vocabulary, 0).parameters()
        )
        (L_t, W_t, _), (L_s, W_s, _), (P, R, A) = size.teacher, size.student, size.text
        print(
            f"{name}: teachers of {L_t} layers, width {W_t}, {parameters / 1e6:.1f} M parameters; "
            f"student of {L_s} layers, width {W_s};\nbatch {size.batch}, prompt {P}, reasoning "
            f"{R}, answer {A}, {size.latents} latents; {size.kv_method}; {args.threads} thread(s)"
        )
        ratio = show(measure(size, args.rounds))
        print(f"hard routing among 4 ÷ 1 teacher: {ratio:.2f} (goal: at most {GOAL})\n")


if __name__ == "__main__":
    main()
