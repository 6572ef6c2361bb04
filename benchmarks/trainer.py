"""What the training loop costs beside the step: `RunTrainer` against a bare loop.

Both train the same student on the same batches of the built-in game, at the size of the demo. The
bare loop is forward, backward, clipping, optimiser and schedule over batches that are made
beforehand; the trainer also makes the batches, counts, checks, records and logs. They run in
turns, and what is compared are CPU seconds of one thread, which a busy machine stretches less.

    python benchmarks/trainer.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
from transformers import get_cosine_schedule_with_warmup

from kava.data.collate import Collator
from kava.train.build import Run, build_run
from kava.train.config import TrainConfig
from timing import positive

BATCH_SIZE = 64


def build(folder: str, args: argparse.Namespace) -> Run:
    """A run of the demo's KV arm, not yet begun."""
    teaches = {"text_ce_weight": 0.0} if args.no_text else {"text_ce_steps": 10 * args.steps}
    return build_run(
        TrainConfig(
            model_name="kava/shell-teacher", teacher_name="kava/shell-teacher",
            dataset_name=f"kava/shell-game?num_train={args.steps * BATCH_SIZE}",
            target_len=3, kv_method="full", kv_weight=5.0, kv_layer_std=True, lr=1e-3,
            warmup_steps=args.steps // 10, max_steps=args.steps, batch_size=BATCH_SIZE,
            max_length=64, eval_size=0, logging_steps=25, save_only_model=True,
            output_dir=folder, overwrite=True, device="cpu", no_progress=True, **teaches,
        )
    )  # fmt: skip


def bare_loop(run: Run, num_steps: int) -> float:
    """CPU seconds of a step of the bare loop."""
    distiller = run.trainer.model
    collate = run.trainer.data_collator
    assert isinstance(collate, Collator)
    samples = run.data.train
    batches = [
        collate(samples[start : start + BATCH_SIZE])
        for start in range(0, num_steps * BATCH_SIZE, BATCH_SIZE)
    ]
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_steps // 10, num_steps)
    distiller.train()
    start = time.thread_time()
    for batch in batches:
        distiller(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return (time.thread_time() - start) / num_steps


def trainer_loop(run: Run, num_steps: int) -> float:
    """CPU seconds of a step of the trainer, between its first step and its last."""
    start = time.thread_time()
    run.trainer.train()
    return (time.thread_time() - start) / num_steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=positive, default=100, help="of a round")
    parser.add_argument("--rounds", type=positive, default=5, help="of both loops, in turns")
    parser.add_argument("--no_text", action="store_true", help="without the text's cross-entropy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"bare loop": [], "trainer": []}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            seconds["bare loop"].append(bare_loop(build(folder, args), args.steps))
            seconds["trainer"].append(trainer_loop(build(folder, args), args.steps))
    ratios = [a / b for a, b in zip(seconds["trainer"], seconds["bare loop"])]
    for name, values in seconds.items():
        print(f"{name:<10} {1000 * statistics.median(values):7.1f} ms a step (CPU)")
    print(
        f"trainer ÷ bare loop: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} – {max(ratios):.2f}, {args.rounds} rounds of {args.steps} steps)"
    )


if __name__ == "__main__":
    main()
