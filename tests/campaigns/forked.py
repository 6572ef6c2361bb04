"""Run commands in forked processes, so that hundreds of runs pay for the imports once.

The libraries are imported here, and every run is a fork of this process with its own working
folder, output files and time limit.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from kava.cli import COMMANDS, run

DEFECT = 70  # a traceback that reached the top


class Outcome(NamedTuple):
    """What a run ended with."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool


def import_libraries() -> None:
    """Load what the commands load, once."""
    import datasets  # noqa: F401
    import torch
    import transformers  # noqa: F401

    for command in COMMANDS:
        import_module(command.module)
    torch.set_num_threads(1)


def run_command(argv: list[str], folder: Path, limit: float = 20.0) -> Outcome:
    """Run `kava ARGV` in a folder, as the shell would.

    Args:
        argv: the sub-command and its arguments.
        folder: the working folder.
        limit: seconds after which the run is killed.
    """
    out, err = folder / ".stdout", folder / ".stderr"
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(argv, folder, out, err)
    timed_out = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > limit:
            timed_out = True
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    seconds = time.monotonic() - started
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    for path in (out, err):
        path.unlink()
    return Outcome(os.waitstatus_to_exitcode(status), texts[0], texts[1], seconds, timed_out)


def _become(argv: list[str], folder: Path, out: Path, err: Path) -> None:
    code = DEFECT
    try:
        os.setpgrp()
        os.chdir(folder)
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        (command,) = (known for known in COMMANDS if known.name == argv[0])
        main = getattr(import_module(command.module), command.function)
        code = run(main, argv[1:])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
