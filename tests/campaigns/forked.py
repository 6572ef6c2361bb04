"""Run commands in forked processes, so that thousands of runs pay for the imports once.

Every run is a fork of this process with its own working folder, output files and time limit. What
was imported here need not be imported there: `import_libraries` imports what the commands do, and
`learn` what a first run has imported, since transformers imports most of its modules when a model
is first built, for seconds. The fork of a process that has imported little is a few times as quick.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import NamedTuple

import kava
from kava.cli import module_of, run

DEFECT = 70  # a traceback that reached the top


class Outcome(NamedTuple):
    """What a run ended with."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool


def import_libraries() -> None:
    """Load all of kava, and what it loads, once."""
    import datasets  # noqa: F401
    import torch

    for module in walk_packages(kava.__path__, "kava."):
        if not module.name.endswith("__main__"):
            # what is of another program, such as lm_eval, may not be installed
            with suppress(ImportError):
                import_module(module.name)
    torch.set_num_threads(1)


def learn(modules: Path) -> None:
    """Import the modules that are named in a file, one a line, where they can be imported."""
    for name in modules.read_text(encoding="utf-8").splitlines():
        # a module that only its own parent can import costs each run that needs it
        with suppress(Exception):
            import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would otherwise copy every page of this process


def apart(work: Callable[[], None]) -> None:
    """Do something in a process of its own, and wait for it; what it imports stays there.

    Raises:
        RuntimeError: it failed; the reason is on stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = DEFECT
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("a process failed; see above")


def run_command(
    argv: list[str], folder: Path, limit: float = 20.0, modules: Path | None = None
) -> Outcome:
    """Run `kava ARGV` in a folder, as the shell would.

    Args:
        argv: the sub-command and its arguments.
        folder: the working folder.
        limit: seconds after which the run is killed.
        modules: a file for the names of the modules that the run has imported, for `learn`.
    """
    out, err = folder / ".stdout", folder / ".stderr"
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(argv, folder, out, err, modules)
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


def _become(argv: list[str], folder: Path, out: Path, err: Path, modules: Path | None) -> None:
    code = DEFECT
    try:
        os.setpgrp()
        os.chdir(folder)
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = run(module_of(argv[0]).main, argv[1:])
        if modules is not None:
            modules.write_text("\n".join(sys.modules), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
