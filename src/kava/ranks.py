"""The processes of one command, started by `torchrun` or `accelerate launch`.

A launcher numbers them in the environment (RANK, WORLD_SIZE). Each does its share of the work; the
first one alone prints and writes what all of them made. They meet over gloo, on the CPU, and only
at the ends of their shares, so that a slow share holds up nobody before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TypeVar

from kava.errors import USER_ERRORS, KavaError, describe
from kava.stopping import Stopped

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a process waits for the shares of others. One that has ended is noticed at once."""
START = timedelta(minutes=10)
"""How long the processes look for each other."""
_SAID = "kava/said"


class ProcessLost(KavaError):  # noqa: N818
    """Another process of the command has ended before its share was done."""


_FOLLOWING = (ProcessLost, Stopped)
"""What happens to a process when another one has failed."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of a command.

    Args:
        index: which of them it is, from 0.
        count: how many there are.
        local: which of those on this machine it is.

    Example:
        >>> Ranks(1, 3).share("abcdefg")
        ['b', 'e']
    """

    index: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.index == 0

    def share(self, things: Sequence[T]) -> list[T]:
        """What this process does of a list that all have: every `count`-th."""
        return list(things[self.index :: self.count])

    def gather(self, own: T) -> list[T]:
        """One object of each process, in their order; every process must call this.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.count == 1:
            return [own]
        import torch.distributed as dist

        found: list[T | None] = [None] * self.count
        with _lost():
            dist.all_gather_object(found, own)
        return found  # type: ignore[return-value]

    def together(self, call: Callable[[], T]) -> list[T]:
        """What a call returns in each process; an error of one is raised in all.

        Args:
            call: the share of this process; it meets no other inside.

        Raises:
            KavaError: another process had an error, with its message.
            ProcessLost: another process has ended.
        """
        if self.count == 1:
            return [call()]
        error: Exception | None = None
        found: T | None = None
        try:
            found = call()
        except (ValueError, OSError, RuntimeError) as caught:
            error = caught
        shares = self.gather((found, None if error is None else describe(error)))
        if error is not None:
            raise error
        message = next((text for _, text in shares if text is not None), None)
        if message is not None:
            raise KavaError(message)
        return [one for one, _ in shares]  # type: ignore[misc]

    def agree(self, call: Callable[[], T], what: Callable[[T], str], name: str) -> T:
        """What a call returns in this process, which is the same in all of them.

        Args:
            call: as in `together`.
            what: a hash of it.
            name: of what it returns, for the message.

        Raises:
            KavaError: it differs, or as `together`.
        """
        found: list[T] = []

        def hashed() -> str:
            found.append(call())
            return what(found[0])

        if len(set(self.together(hashed))) > 1:
            raise KavaError(f"{name} of the processes differ: give all machines the same files")
        return found[0]

    def wait(self) -> None:
        """Wait until every process has come here.

        Raises:
            ProcessLost: another process has ended.
        """
        self.gather(None)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that the first process does before the others, which find what it has written.

        Raises:
            ProcessLost: another process has ended.
        """
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()
        self.wait()

    def take_device(self, name: str) -> None:
        """Choose the GPU of this process, where a device of all is named.

        Args:
            name: of `--device`.

        Raises:
            ValueError: it names one GPU for all processes.
        """
        if self.count == 1 or name == "cpu":
            return
        if ":" in name:
            raise ValueError(
                f"--device {name} names one GPU, and there are {self.count} processes: pass "
                f"--device cuda, and each takes its own"
            )
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(self.local % torch.cuda.device_count())


ALONE = Ranks()
"""One process that does all."""


def is_first() -> bool:
    """Whether the launcher calls this the first process, or there is no launcher."""
    return os.environ.get("RANK", "0") == "0"


def num_launched() -> int:
    """How many processes the launcher has started; 1 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def ranks_of_launcher(go_on: str = "") -> Iterator[Ranks]:
    """Meet the other processes of this command, if a launcher has started several.

    Inside the block the first process alone prints. An error that several processes have is said
    by one of them, and those that lost it say nothing.

    Args:
        go_on: what a user can do after a command that was stopped.

    Raises:
        KavaError: the processes cannot reach each other.
        SystemExit: another process has said why the command ends.
    """
    store, ranks = _meet()
    if store is None:
        yield ranks
        return
    import torch.distributed as dist

    try:
        with ExitStack() as stack:
            if not ranks.first:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield ranks
    except Stopped as stop:
        stop.advice = stop.advice or go_on
        _say_once(store, ranks, stop, stop.exit_code)
    except USER_ERRORS as error:
        if isinstance(error, ProcessLost) and go_on:
            error = ProcessLost(f"{error}; {go_on}")
        _say_once(store, ranks, error, 1)
    finally:
        with suppress(RuntimeError):  # of peers that are gone
            dist.destroy_process_group()


def _meet() -> tuple[Store | None, Ranks]:
    count = os.environ.get("WORLD_SIZE", "1")
    if not count.isdigit() or int(count) < 2:
        return None, ALONE
    import torch.distributed as dist

    try:
        store, index, size = next(iter(dist.rendezvous("env://", timeout=START)))
        dist.init_process_group("gloo", store=store, rank=index, world_size=size, timeout=PATIENCE)
    except (ValueError, RuntimeError, KeyError) as error:
        raise KavaError(
            f"WORLD_SIZE={count} in the environment says that there are {count} processes, and "
            f"they cannot reach each other ({str(error).splitlines()[0]}): start them by torchrun "
            f"or accelerate launch, or unset WORLD_SIZE"
        ) from error
    return store, Ranks(index, size, int(os.environ.get("LOCAL_RANK", index)))


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "another process of this command has ended before its share was done"
        ) from error


def _say_once(store: Store, ranks: Ranks, error: BaseException, code: int) -> NoReturn:
    """Raise an error again, or end silently where another process has said why all end."""
    text = describe(error)
    mine = f"{ranks.index} {text}"
    try:
        said = store.compare_set(_SAID, "", mine).decode()  # what is there now
    except RuntimeError:  # the launcher is gone
        said = mine if ranks.first or not isinstance(error, _FOLLOWING) else ""
    if said != mine and (isinstance(error, _FOLLOWING) or said.partition(" ")[2] == text):
        raise SystemExit(code)
    raise error
