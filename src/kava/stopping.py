"""Clean shutdown: SIGTERM, SIGUSR1, Ctrl-C and a closed terminal end a command in good order.

Inside `stop_on_signals` a signal raises `Stopped`, so that `finally` blocks and context managers
clean up. Code that must not be interrupted runs inside `holding`: there the signal waits for the
end of the block. A training run is such a block, and checks `stop_requested` after every step. A
second signal ends the process at once, like a kill; files are not damaged, since they are written
completely or not at all.

Without `stop_on_signals`, such as in a notebook, none of this has an effect.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""The signals that end a command in good order; schedulers send SIGUSR1 ahead of a time limit."""

REPEAT_SECONDS = 1.0
"""Signals this close together are one request: `timeout`, torchrun and schedulers send the same
signal to a process and to its group."""


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end.

    It is not an `Exception`, so that code that continues after errors does not continue after it.

    Attributes:
        signum: the signal.
        advice: how to resume, if possible.
    """

    def __init__(self, signum: int, advice: str = ""):
        super().__init__(signum, advice)
        self.signum = signum
        self.advice = advice

    @property
    def exit_code(self) -> int:
        """The usual exit code after a signal: 130 of SIGINT, 143 of SIGTERM, 138 of SIGUSR1."""
        return 128 + self.signum

    def __str__(self) -> str:
        interrupted = self.signum == signal.SIGINT
        what = "interrupted" if interrupted else f"stopped by {signal.Signals(self.signum).name}"
        return f"{what}: {self.advice}" if self.advice else what


@dataclass
class _State:
    """The signals received by this process.

    Attributes:
        received: the first signal, until the command has ended.
        at: time of the signal, in seconds of a monotonic clock.
        depth: number of open `holding` blocks.
        repeat_ends: whether a second signal ends the process at once.
    """

    received: int | None = None
    at: float = 0.0
    depth: int = 0
    repeat_ends: bool = True


_state: _State | None = None


@contextmanager
def stop_on_signals(
    signals: Sequence[signal.Signals] = SIGNALS, *, repeat_ends: bool = True
) -> Iterator[None]:
    """Raise `Stopped` on signals while the block runs.

    A signal that the process ignores, such as after `nohup`, stays ignored. Outside the main
    thread, where Python handles no signals, nothing changes.

    Args:
        signals: the signals.
        repeat_ends: a second signal ends the process at once. Not for workers, which their parent
            process ends.

    Raises:
        Stopped: a signal came.

    Example:
        >>> with stop_on_signals():
        ...     run.trainer.train()
    """
    global _state
    if not _in_main_thread():
        yield
        return
    before, hook = _state, sys.unraisablehook
    _state = _State(repeat_ends=repeat_ends)
    handlers = {}

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if not _send_again(lost.exc_value):
            hook(lost)

    try:
        sys.unraisablehook = unraisable
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, _receive)
        yield
    finally:
        _state.depth += 1  # a signal that comes now has nothing to stop
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _state, sys.unraisablehook = before, hook


def _send_again(lost: BaseException | None) -> bool:
    """Send a signal again whose `Stopped` Python dropped, as it does in `__del__` and callbacks."""
    state = _state
    if not isinstance(lost, Stopped) or state is None:
        return False
    signum, state.received = lost.signum, None

    def again() -> None:
        if _state is state:
            os.kill(os.getpid(), signum)

    timer = threading.Timer(0.01, again)
    timer.daemon = True
    timer.start()
    return True


def _receive(signum: int, frame: FrameType | None) -> None:
    state = _state
    if state is None:  # the block has just ended
        return
    if state.received is not None:
        if state.repeat_ends and time.monotonic() - state.at >= REPEAT_SECONDS:
            _end_at_once(signum)
        return
    state.received, state.at = signum, time.monotonic()
    if not state.depth:
        raise Stopped(signum)
    if state.repeat_ends:
        name = signal.Signals(signum).name
        _say(f"\nkava: {name}: finishing what is under way; again to end at once\n")


def _end_at_once(signum: int) -> NoReturn:
    os._exit(128 + signum)


def _say(line: str) -> None:
    """Write to stderr without Python's buffers, which the signal may have interrupted."""
    with suppress(OSError):  # stderr is closed, but the run must still end in good order
        os.write(2, line.encode())


def stop_requested() -> int | None:
    """The signal that was received, or None."""
    return None if _state is None else _state.received


@contextmanager
def holding() -> Iterator[None]:
    """Defer signals until the end of the block.

    Raises:
        Stopped: at the end of the outermost block, if a signal came inside it. An exception that is
            already propagating, such as an earlier `Stopped`, has priority.
    """
    state = _state if _in_main_thread() else None
    if state is None:
        yield
        return
    state.depth += 1
    try:
        yield
    finally:
        state.depth -= 1
    _raise_if_asked(state)


@contextmanager
def interruptible() -> Iterator[None]:
    """A block inside `holding` that a signal may end at once, such as an evaluation.

    Raises:
        Stopped: a signal came before or inside the block.
    """
    state = _state if _in_main_thread() else None
    if state is None:
        yield
        return
    depth, state.depth = state.depth, 0
    try:
        _raise_if_asked(state)
        yield
    finally:
        state.depth = depth


def _raise_if_asked(state: _State) -> None:
    if state.received is not None and not state.depth and sys.exc_info()[0] is None:
        raise Stopped(state.received)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
