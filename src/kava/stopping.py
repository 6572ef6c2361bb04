"""Stopping when asked to: SIGTERM, Ctrl-C and a closed terminal end a command in good order.

Inside `stop_on_signals` a signal raises `Stopped`, so that `finally` blocks and context managers
clean up. What must not be left half done runs inside `holding`: there the signal waits for the
end of the block. A training run is one such block, and asks `stop_requested` after every step.
A second signal ends the process at once, as a kill does; nothing that is written is ever harmed
by that, since files appear whole or not at all.

All of it is a no-op where `stop_on_signals` was not entered, such as in a notebook.
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

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command in good order; another signal is one more entry here."""

REPEAT_SECONDS = 1.0
"""Signals this close together are one request: `timeout`, torchrun and schedulers send the same
signal to a process and to its group."""


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end.

    It is no `Exception`, so that code that goes on after errors does not go on after this.

    Attributes:
        signum: the signal.
        advice: how to go on, where there is something to go on from.
    """

    def __init__(self, signum: int, advice: str = ""):
        super().__init__(signum, advice)
        self.signum = signum
        self.advice = advice

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended: 130 after Ctrl-C, 143 after TERM."""
        return 128 + self.signum

    def __str__(self) -> str:
        interrupted = self.signum == signal.SIGINT
        what = "interrupted" if interrupted else f"stopped by {signal.Signals(self.signum).name}"
        return f"{what}: {self.advice}" if self.advice else what


@dataclass
class _State:
    """What has been asked of this process.

    Attributes:
        received: the first signal, until the command has ended.
        at: when it came, in seconds of a monotonic clock.
        depth: how many `holding` blocks are open.
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
    """Turn signals into `Stopped` while the block runs.

    A signal that the process ignores, such as after `nohup`, stays ignored. Outside the main
    thread, where Python handles no signals, nothing changes.

    Args:
        signals: which.
        repeat_ends: a second signal ends the process at once. A worker that its parent ends
            leaves that to the parent.

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
    before = _state
    _state = _State(repeat_ends=repeat_ends)
    handlers = {}
    try:
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, _receive)
        yield
    finally:
        _state.depth += 1  # one that comes now finds nothing to stop
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _state = before


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
    """To stderr without Python's buffers, which the signal may have come in the middle of."""
    with suppress(OSError):  # nobody listens, and the run still has to end in good order
        os.write(2, line.encode())


def stop_requested() -> int | None:
    """The signal that asked the command to end, if one did."""
    return None if _state is None else _state.received


@contextmanager
def holding() -> Iterator[None]:
    """Let signals wait until the block has ended.

    Raises:
        Stopped: at the end of the outermost block, where a signal came within it. An error that
            is under way, such as an earlier `Stopped` that is being cleaned up after, goes first.
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
    """Inside `holding`, a block that a signal may end at once, such as an evaluation.

    Raises:
        Stopped: a signal came before the block or within it.
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
