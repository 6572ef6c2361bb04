"""The measured peak of a training step, in a process of its own.

    python -m kava.profile.peak '{"model_name": …}'     # prints bytes, as JSON

The step is that of a run, on the longest batch of its data, with the run's optimiser; the second
step is measured, when the optimiser has its states. An aligner is not fitted, which changes no
shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kava.errors import KavaError
from kava.models.quiet import quiet_libraries
from kava.train.config import TrainConfig

NUM_STEPS = 2
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Has glibc give freed tensors back to the system, as a GPU's allocator counts them."""


class Peak(NamedTuple):
    """What a step took.

    Attributes:
        bytes: most memory in use: allocated on a GPU, resident of the process on a CPU.
        before: of the process before models and data were read.
        seconds: of the last step.
    """

    bytes: int
    before: int
    seconds: float


def measure_peak(config: TrainConfig, *, num_steps: int = NUM_STEPS) -> Peak:
    """Run a configuration's step in a fresh process.

    Args:
        config: the run's configuration; nothing is written to its output folder.
        num_steps: the last one is measured.

    Raises:
        KavaError: the process failed, with its last line.
    """
    asked = json.dumps({"config": asdict(config), "num_steps": num_steps})
    source = str(Path(__file__).parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "kava.profile.peak", asked],
        capture_output=True,
        text=True,
        env={**os.environ, **GIVES_BACK, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise KavaError(f"the step could not be measured: {lines[-1]}")
    return Peak(**json.loads(done.stdout.strip().splitlines()[-1]))


def run_steps(config: TrainConfig, num_steps: int) -> Peak:
    """Run some steps of a configuration here, and measure the last."""
    from kava.machine.host import resident_bytes
    from kava.train.build import build_run
    from kava.train.longest import longest
    from kava.train.precision import autocast_dtype
    from kava.train.recording import peak_memory_bytes, reset_peak_memory

    before = resident_bytes()
    fit = "frozen" if config.calibrates else config.aligner_fit
    with tempfile.TemporaryDirectory() as folder:
        own: dict[str, Any] = {
            "output_dir": folder,
            "aligner_fit": fit,
            "map_rank": None,
            "resume": False,
        }
        run = build_run(replace(config, **own, eval_size=0, eval_first=False, eval_train_size=0))
        trainer = run.trainer
        optimizer = trainer.create_optimizer()
        samples = longest(run.data.train, config.batch_size)
        collate: Any = trainer.data_collator
        batch: Any = trainer._prepare_inputs(collate(samples))
        distiller, half = trainer.model.train(), autocast_dtype(config)
        device = trainer.args.device
        trained = [part for part in distiller.parameters() if part.requires_grad]
        for _ in range(num_steps):
            reset_peak_memory(device)
            started = time.perf_counter()
            with torch.autocast(device.type, half, enabled=half is not None):
                loss = distiller(batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            optimizer.step()
            distiller.zero_grad()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            seconds = time.perf_counter() - started
        return Peak(peak_memory_bytes(device), before, seconds)


def main(argv: list[str]) -> int:
    """Measure the configuration of the first argument, and print the result."""
    asked = json.loads(argv[0])
    quiet_libraries()
    print(json.dumps(run_steps(TrainConfig(**asked["config"]), asked["num_steps"])._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
