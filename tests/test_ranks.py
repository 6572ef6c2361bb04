"""The processes of a command share its work, and one of them speaks."""

from __future__ import annotations

from typing import Any

import pytest

from kava.errors import KavaError
from kava.ranks import ALONE, ProcessLost, Ranks, _say_once, ranks_of_launcher
from kava.stopping import Stopped
from launch import Threads


class Board:
    """The store that processes share, without them."""

    def __init__(self) -> None:
        self.said = b""

    def compare_set(self, key: str, expected: str, wanted: str) -> bytes:
        if self.said == expected.encode():
            self.said = wanted.encode()
        return self.said


def test_the_shares_are_all_things_once() -> None:
    things = list(range(11))
    shares = [Ranks(index, 3).share(things) for index in range(3)]
    assert sorted(one for share in shares for one in share) == things
    assert max(map(len, shares)) - min(map(len, shares)) == 1
    assert ALONE.share(things) == things


def test_what_each_returns_comes_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Threads(monkeypatch).run(3, lambda ranks: ranks.together(lambda: ranks.index**2))
    assert found == [[0, 1, 4]] * 3
    assert ALONE.together(lambda: "own") == ["own"]


def test_an_error_of_one_is_raised_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(ranks: Ranks) -> str:
        def share() -> None:
            if ranks.index == 1:
                raise ValueError("record 'a' is too long")

        with pytest.raises((ValueError, KavaError), match="record 'a' is too long") as caught:
            ranks.together(share)
        ranks.wait()  # they still meet
        return type(caught.value).__name__

    assert Threads(monkeypatch).run(3, call) == ["KavaError", "ValueError", "KavaError"]


def test_processes_with_other_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def agree(ranks: Ranks, own: str) -> str:
        return ranks.agree(lambda: own, str, "the data")

    threads = Threads(monkeypatch)
    assert threads.run(2, lambda ranks: agree(ranks, "a")) == ["a", "a"]
    with pytest.raises(KavaError, match="the data of the processes differ: give all machines"):
        threads.run(2, lambda ranks: agree(ranks, "ab"[ranks.index]))


def test_the_first_is_before_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []

    def call(ranks: Ranks) -> None:
        with ranks.in_turn():
            order.append(ranks.index)
        assert len(order) == 3

    Threads(monkeypatch).run(3, call)
    assert order[0] == 0


@pytest.mark.parametrize(
    ("first", "second", "silent"),
    [
        (ValueError("bad"), ValueError("bad"), True),
        (ValueError("bad"), OSError("worse"), False),
        (ValueError("bad"), ProcessLost("gone"), True),
        (ValueError("bad"), Stopped(15), True),
        (ProcessLost("gone"), Stopped(15), True),
        (Stopped(15), ValueError("bad"), False),
    ],
)
def test_one_process_says_what_ends_all(
    first: BaseException, second: BaseException, silent: bool
) -> None:
    board: Any = Board()
    with pytest.raises(type(first)):
        _say_once(board, Ranks(1, 2), first, 1)
    with pytest.raises(SystemExit if silent else type(second)):
        _say_once(board, Ranks(0, 2), second, 1)


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with ranks_of_launcher() as ranks:
        assert ranks == ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    with ranks_of_launcher() as ranks:
        assert ranks == ALONE
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(KavaError, match=r"there are 4 processes, and they cannot .* torchrun"):
        ranks_of_launcher().__enter__()
