"""What a step of training takes in several processes, and whether its gradients are those of one.

    python benchmarks/processes.py                  # 1 and 2 processes on the CPU
    python benchmarks/processes.py --device cuda    # 1, 2, 4, … as there are GPUs

Every count of processes takes the same steps on the same samples: each process has its share of the
batch, so that the time of a sample falls where processes are of use. The counts take turns, each
started anew by torchrun with one thread in a process. Efficiency is the time of one process, by
that of P and by P: 1 where P processes are P times as quick. It is stated in wall seconds, which a
busy machine stretches, and in CPU seconds of the slowest process, which leave out what it waits.
Student and teacher are Llamas with random weights that read the built-in word problems.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from kava.format import columns
from kava.models.load import load_model_config, load_tokenizer
from kava.train.build import build_run
from kava.train.config import TrainConfig
from timing import positive

MODEL, GRADIENTS, TIMES = "model", "gradients.safetensors", "times.json"


class Watch(TrainerCallback):
    """The time of every step, from its first micro-batch on, and the gradients of the first one."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.gradients: dict[str, torch.Tensor] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clocks."""
        self._start = time.perf_counter(), time.process_time()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the gradients of the first step."""
        if not self.wall:
            self.gradients = {
                name.removeprefix("module."): part.grad.detach().cpu().clone()
                for name, part in kwargs["model"].named_parameters()
                if part.grad is not None
            }

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clocks."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, cpu = self._start
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def make_model(folder: Path, width: int) -> None:
    """A Llama of random weights that reads the words of the built-in problems."""
    config = load_model_config("kava/word-teacher").to_dict()
    config.update(hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4)
    config.update(num_attention_heads=8, num_key_value_heads=4, head_dim=width // 8)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    load_tokenizer("kava/word-teacher").save_pretrained(folder)


def train(args: argparse.Namespace) -> None:
    """Be one of the processes: train, and leave times and gradients behind."""
    torch.set_num_threads(1)
    folder = Path(args.folder)
    count = int(os.environ["WORLD_SIZE"])
    run = build_run(
        TrainConfig(
            model_name=str(folder / MODEL), teacher_name=str(folder / MODEL),
            dataset_name=f"kava/word-problems?num_train={2 * args.batch * args.steps}",
            overflow="skip", max_length=512, target_len=4, batch_size=args.batch // count,
            max_steps=args.steps + 1, logging_steps=10 * args.steps, save_steps=10 * args.steps,
            max_grad_norm=1e9, text_ce_steps=100 * args.steps, device=args.device, eval_size=0,
            save_only_model=True, output_dir=str(folder / "run"), overwrite=True, no_progress=True,
        )
    )  # fmt: skip
    watch = Watch()
    run.trainer.add_callback(watch)
    run.trainer.train()
    shares = gather_object([(watch.wall[1:], watch.cpu[1:])])
    if run.trainer.is_world_process_zero():
        wall, cpu = (
            [max(step) for step in zip(*(share[part] for share in shares))] for part in (0, 1)
        )
        (folder / TIMES).write_text(json.dumps({"wall": wall, "cpu": cpu}))
        save_file(watch.gradients, folder / GRADIENTS)


def start(count: int, folder: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """Train once with a count of processes: times of the steps, of the slowest process."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count)),
            *(__file__, "--folder", str(folder), "--device", args.device),
            *("--batch", str(args.batch), "--steps", str(args.steps)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{count} processes failed:\n{done.stderr[-2000:]}")
    found: dict[str, list[float]] = json.loads((folder / TIMES).read_text())
    return found


def difference(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """The greatest difference of two gradients, as a share of the greatest of their numbers."""
    if ours.keys() != theirs.keys():
        raise SystemExit(f"gradients of other parameters: {sorted(ours.keys() ^ theirs.keys())}")
    apart = max(float((part - theirs[name]).abs().max()) for name, part in ours.items())
    return apart / max(float(part.abs().max()) for part in theirs.values())


def counts_of(args: argparse.Namespace) -> list[int]:
    """The counts of processes, all of which divide the batch."""
    most = 2 if args.device == "cpu" else torch.cuda.device_count()
    return [count for count in (1, 2, 4, 8) if count <= most and args.batch % count == 0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=positive, default=16, help="samples of a step, of all")
    parser.add_argument("--steps", type=positive, default=5, help="of a round, after the first one")
    parser.add_argument("--rounds", type=positive, default=3, help="of all counts, in turns")
    parser.add_argument("--width", type=positive, default=256, help="of the models")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        train(args)
        return
    times: dict[int, dict[str, list[float]]] = {}
    apart: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / MODEL, args.width)
        first: dict[str, torch.Tensor] = {}
        for turn in range(args.rounds):
            for count in counts_of(args):
                found = start(count, folder, args)
                kept = times.setdefault(count, {"wall": [], "cpu": []})
                for clock, seconds in found.items():
                    kept[clock].append(statistics.median(seconds) / args.batch)
                gradients = {n: part.clone() for n, part in load_file(folder / GRADIENTS).items()}
                first = first or gradients
                apart[count] = max(apart.get(count, 0.0), difference(gradients, first))
                print(f"round {turn + 1}, {count} processes: {kept['wall'][-1]:.4f} s", flush=True)
    head = ("processes", "ms a sample", "efficiency", "CPU ms a sample", "CPU efficiency")
    rows: list[tuple[str, ...]] = [(*head, "gradients differ by")]
    for count, kept in times.items():
        cells = [str(count)]
        for clock in ("wall", "cpu"):
            ratios = [one / own / count for one, own in zip(times[1][clock], kept[clock])]
            cells.append(f"{1e3 * statistics.median(kept[clock]):.1f}")
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})")
        rows.append((*cells, f"{apart[count]:.1e}"))
    print("\n".join(columns(rows, left=1)))


if __name__ == "__main__":
    main()
