"""A run in a process of its own, to be killed or distributed by a test.

python process.py SETTINGS_AS_JSON [--kill_in=step|save] [--interrupt=STEP] [--max_file=BYTES]
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

import torch
from runs import interrupted, run, small
from transformers import TrainerCallback

from kava.cli import run as guarded
from kava.train import checkpoint as checkpoint_module

KILLED_AT = 4


def kill_in_save() -> None:
    """Die when the second checkpoint is written, before it is renamed."""
    replace = checkpoint_module._replace

    def die(source: Any, target: Any) -> None:
        if target.name == f"checkpoint-{KILLED_AT}":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    checkpoint_module._replace = die


class KillInStep(TrainerCallback):
    """Die in the middle of a step, when its gradients are there."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == KILLED_AT - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(argv: list[str]) -> int:
    torch.set_num_threads(1)
    settings = json.loads(argv[0])
    flags = dict(flag.removeprefix("--").split("=") for flag in argv[1:])
    if "max_file" in flags:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(flags["max_file"]),) * 2)
    if flags.get("kill_in") == "save":
        kill_in_save()
    config = small(**settings)
    if "interrupt" in flags:
        interrupted(config, int(flags["interrupt"]))
    elif flags.get("kill_in") == "step":
        from kava.train.build import build_run

        built = build_run(config)
        built.trainer.add_callback(KillInStep())
        built.trainer.train()
    else:
        run(config)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
