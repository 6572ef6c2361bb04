"""Signals end a command in good order: at once, or when what must be whole is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kava import stopping
from kava.cli import run
from kava.files import write as files
from kava.files.write import append_whole, write_all
from kava.stopping import (
    SIGNALS,
    Stopped,
    holding,
    interruptible,
    stop_on_signals,
    stop_requested,
)


def send(signum: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(
    ("signum", "code", "line"),
    [
        (signal.SIGINT, 130, "kava: interrupted"),
        (signal.SIGTERM, 143, "kava: stopped by SIGTERM"),
        (signal.SIGHUP, 129, "kava: stopped by SIGHUP"),
        (signal.SIGUSR1, 138, "kava: stopped by SIGUSR1"),
    ],
)
def test_a_command_ends_with_one_line_and_the_usual_code(
    signum: int, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    cleaned = []

    def command(argv: list[str]) -> int:
        try:
            send(signum)
        finally:
            cleaned.append(True)
        return 0

    assert run(command, []) == code
    assert cleaned
    assert capsys.readouterr() == ("", line + "\n")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def stopped_in(block: Callable[[], None], *, repeat_ends: bool = True) -> Stopped:
    """The exception that ends a block in which a signal comes."""
    with stop_on_signals(repeat_ends=repeat_ends), pytest.raises(Stopped) as stop:
        block()
    return stop.value


def test_a_signal_waits_for_the_outermost_block_that_holds_it() -> None:
    reached = []

    def block() -> None:
        with holding():
            with holding():
                send()
                assert stop_requested() == signal.SIGTERM
            reached.append("the end")
        reached.append("behind it")

    assert stopped_in(block).exit_code == 143
    assert reached == ["the end"]
    assert stop_requested() is None


def test_an_error_of_the_block_goes_before_the_signal() -> None:
    def block() -> None:
        with holding():
            send()
            raise OSError("full")

    with stop_on_signals(), pytest.raises(OSError, match="full"):
        block()


def test_cleaning_up_behind_a_signal_raises_no_other_one() -> None:
    def block() -> None:
        try:
            raise Stopped(signal.SIGTERM, "step 3 is saved")
        finally:
            with holding():
                send()

    assert stopped_in(block).advice == "step 3 is saved"


def test_a_part_of_a_held_block_can_be_interrupted() -> None:
    reached = []

    def part(signals: bool) -> None:
        with interruptible():
            reached.append("began")
            if signals:
                send()
            reached.append("behind the signal")

    def block() -> None:
        with holding():
            for signals in (True, False):
                with pytest.raises(Stopped):
                    part(signals)
            reached.append("held again")

    stopped_in(block)
    assert reached == ["began", "held again"]


def test_only_a_later_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    now = [100.0]
    monkeypatch.setattr(stopping, "_end_at_once", ended.append)
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])

    def block() -> None:
        with holding():
            send()
            now[0] += stopping.REPEAT_SECONDS / 2  # from a group, or from torchrun
            send()
            assert ended == []
            now[0] += stopping.REPEAT_SECONDS
            send(signal.SIGINT)
            assert ended == [signal.SIGINT]

    stopped_in(block)


def test_a_worker_leaves_the_second_signal_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "REPEAT_SECONDS", 0)
    monkeypatch.setattr(stopping, "_end_at_once", lambda signum: pytest.fail("ended"))

    def block() -> None:
        with holding():
            send()
            send()

    stopped_in(block, repeat_ends=False)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals():
            send(signal.SIGHUP)
            assert stop_requested() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_happens_in_other_threads_and_without_handlers() -> None:
    seen = []

    def work() -> None:
        with stop_on_signals(), holding(), interruptible():
            seen.append(stop_requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with holding(), interruptible():
        seen.append(stop_requested())
    assert seen == [None, None]


@pytest.mark.parametrize("write", [
    lambda folder: write_all({folder / "a": "x" * 9, folder / "b": "y"}),
    lambda folder: append_whole(folder / "a", "x" * 9),
])  # fmt: skip
def test_a_signal_in_the_middle_of_a_write_comes_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    real = os.write

    def slowly(descriptor: int, data: bytes) -> int:
        written = real(descriptor, bytes(data)[:1])
        if stop_requested() is None:
            send()
        return written

    monkeypatch.setattr(files.os, "write", slowly)
    stopped_in(lambda: write(tmp_path))
    assert (tmp_path / "a").read_text().strip() == "x" * 9
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b"}


def test_the_second_signal_is_deadly_even_where_nothing_ends(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, time; from kava import stopping; from kava.cli import run\n"
        "stopping.REPEAT_SECONDS = 0\n"
        "def stubborn(argv):\n"
        "    with stopping.holding():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(600)\n"
        "sys.exit(run(stubborn, []))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 143
    assert "finishing what is under way; again to end at once" in done.stderr


def test_a_signal_in_a_finaliser_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Signalling:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):  # the handler runs between two of these
                pass

    def wait() -> None:
        deadline = time.monotonic() + 30
        thing = Signalling()
        del thing
        while time.monotonic() < deadline:
            time.sleep(0.001)

    with pytest.raises(Stopped, match="stopped by SIGTERM"), stop_on_signals():
        wait()
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook.__module__ != stopping.__name__
