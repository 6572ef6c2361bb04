"""Kill runs at random moments, go on, and compare with runs that nothing disturbed.

    python tests/campaigns/kills.py --kills 100 --seed 0 --commands train study evaluate
    python tests/campaigns/kills.py --kills 80 --slurm 20    # and 20 of slurm_kills.py

After every kill: no process of the run is left, its folder is free, its files are whole. Then the
same command goes on and must leave what the undisturbed run left, to the bit, and no temporary
file. Half of the kills come at a random time, half at a random change to a file: one that is
opened for writing, renamed or removed, or a folder that is made. Exits with 1 where anything was
lost; what is lost stays in the folder that is named.
"""

# ruff: noqa: E402 (the environment is set before torch reads it)

from __future__ import annotations

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # the fork of a process with other threads could hang
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import itertools
import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch

from campaigns.checks import broken_files, differences, held_locks, leftovers
from campaigns.commands import COMMANDS, Command, Outcome, prepare
from campaigns.processes import Ended, FileOperations, Running

WORKER = "KILL a worker"
WAYS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}


@dataclass(frozen=True)
class Kill:
    """One kill: of which command, how, and when.

    Attributes:
        number: in the campaign.
        command: of `COMMANDS`.
        way: of `WAYS`, or `WORKER`.
        moment: 0 to 1, as a share of the undisturbed run.
        at_file: a share of its changes to files, not of its time.
    """

    number: int
    command: str
    way: str
    moment: float
    at_file: bool

    @property
    def signum(self) -> int:
        """The signal."""
        return WAYS.get(self.way, signal.SIGKILL)


@dataclass
class Held:
    """What became of a kill.

    Attributes:
        hit: whether it came before the run had ended.
        late: seconds from the signal to the end.
        lost: what was not as promised.
    """

    hit: bool = False
    late: float = 0.0
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed: what it left, how long it took, how often it changed files."""

    outcome: Outcome
    seconds: float
    num_changes: int


def kills(number: int, seed: int, commands: Sequence[str]) -> list[Kill]:
    """The kills of a campaign: commands and ways in turns, moments at random."""
    chance = random.Random(seed)
    turns: list[Iterator[str]] = [
        itertools.cycle([*WAYS, WORKER] if COMMANDS[name].spawns else list(WAYS))
        for name in commands
    ]
    return [
        Kill(
            place,
            commands[place % len(commands)],
            next(turns[place % len(commands)]),
            chance.random(),
            chance.random() < 0.5,
        )
        for place in range(number)
    ]


def undisturbed(command: Command, base: Path) -> Undisturbed:
    """Run a command to its end."""
    folder = _fresh(base, "undisturbed")
    operations = FileOperations()
    ended = Running(command, command.argv(folder), folder, operations).end()
    if ended.code != 0:
        raise RuntimeError(f"the undisturbed run failed:\n{ended.said}")
    return Undisturbed(command.outcome(folder), ended.seconds, operations.count)


def do(kill: Kill, base: Path, whole: Undisturbed) -> Held:
    """Kill a run, let it go on, and look at both."""
    command, folder = COMMANDS[kill.command], _fresh(base, f"kill-{kill.number}")
    ended = _killed(kill, command, folder, whole)
    hit = ended.code != 0
    lost = [*_unexpected(kill, ended), *broken_files(folder / "out"), *held_locks(folder)]
    again = Running(command, command.argv(folder), folder).end()
    if again.left:
        lost.append(f"{len(again.left)} processes outlived the run that went on")
    if again.code != 0:
        said = (again.said.strip().splitlines() or ["nothing"])[-1]
        lost.append(f"it did not go on: exit code {again.code}, said {said!r}")
    else:
        lost += [*differences(command.outcome(folder), whole.outcome), *leftovers(folder)]
    if not lost:
        shutil.rmtree(folder)
    return Held(hit, (ended.late or 0.0) if hit else 0.0, lost)


def _killed(kill: Kill, command: Command, folder: Path, whole: Undisturbed) -> Ended:
    to_worker = kill.way == WORKER
    if kill.at_file:
        at = 1 + int(kill.moment * whole.num_changes)
        operations = FileOperations(at, kill.signum, to_worker)
        return Running(command, command.argv(folder), folder, operations).end()
    running = Running(command, command.argv(folder), folder)
    if not running.wait(kill.moment * whole.seconds):
        running.send(kill.signum, to_worker)
    return running.end()


def _unexpected(kill: Kill, ended: Ended) -> Iterator[str]:
    """What is wrong with the end of a run that was killed, before it goes on."""
    expected = {
        "KILL": {-signal.SIGKILL},
        "TERM": {128 + signal.SIGTERM},
        "INT": {128 + signal.SIGINT},
        WORKER: {1},
    }[kill.way]
    if ended.code not in {0, *expected}:
        yield f"exit code {ended.code} after {kill.way}: {ended.said[-300:]!r}"
    if ended.left:
        yield f"{len(ended.left)} processes outlived it"
    if kill.way in {"TERM", "INT"} and ended.code and "Traceback" in ended.said:
        yield "it ended with a traceback"


def _fresh(base: Path, name: str) -> Path:
    folder = base / name
    shutil.copytree(base / "prepared", folder)
    return folder


def table(done: Sequence[tuple[Kill, Held]]) -> str:
    """Tried and held, by command and way."""
    rows = [("command", "signal", "tried", "before the end", "held", "longest end")]
    for command in dict.fromkeys(kill.command for kill, _ in done):
        for way in (*WAYS, WORKER):
            held = [held for kill, held in done if (kill.command, kill.way) == (command, way)]
            if held:
                rows.append(_row(command, way, held))
    rows.append(_row("all", "", [held for _, held in done]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def _row(command: str, way: str, held: Sequence[Held]) -> tuple[str, ...]:
    hits, whole = sum(one.hit for one in held), sum(not one.lost for one in held)
    late = max((one.late for one in held), default=0.0)
    return command, way, str(len(held)), str(hits), str(whole), f"{late:.1f} s"


def campaign(planned: Sequence[Kill], base: Path, jobs: int) -> list[tuple[Kill, Held]]:
    """Do the kills, a few at a time, each process a share of them."""
    commands = dict.fromkeys(kill.command for kill in planned)
    whole = {name: undisturbed(COMMANDS[name], _base(base, name)) for name in commands}
    results = [base / f"results-{job}.jsonl" for job in range(jobs)]
    pids = []
    for job, path in enumerate(results):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                for kill in planned[job::jobs]:
                    held = do(kill, base / kill.command, whole[kill.command])
                    _tell(kill, held, base)
                    with path.open("a") as file:
                        file.write(json.dumps([asdict(kill), asdict(held)]) + "\n")
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    lines = [line for path in results if path.exists() for line in path.read_text().splitlines()]
    done = [(Kill(**kill), Held(**held)) for kill, held in map(json.loads, lines)]
    return sorted(done, key=lambda one: one[0].number)


def _base(base: Path, command: str) -> Path:
    folder = base / command
    shutil.copytree(base / "prepared", folder / "prepared")
    return folder


def _tell(kill: Kill, held: Held, base: Path) -> None:
    unit = "its changes to files" if kill.at_file else "its time"
    state = "lost" if held.lost else "held" if held.hit else "held; it had ended"
    print(f"{kill.number:>4}  {kill.command}, {kill.way} at {kill.moment:.0%} of {unit}: {state}")
    for line in held.lost:
        print(f"      {line}")
    if held.lost:
        print(f"      see {base / kill.command / f'kill-{kill.number}'}", flush=True)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their moments")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="these kills alone")
    parser.add_argument("--jobs", type=int, default=2, help="at a time (default %(default)s)")
    parser.add_argument("--slurm", type=int, default=0, help="how many more under a real Slurm")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    planned = kills(options.kills, options.seed, options.commands)
    if options.only is not None:
        planned = [planned[number] for number in options.only]
    began = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="kava-kills-"))
    (base / "prepared").mkdir()
    prepare(base / "prepared")
    done = campaign(planned, base, options.jobs)
    print(f"\n{table(done)}\n\nin {time.monotonic() - began:.0f} s")
    if len(done) < len(planned):
        print(f"{len(planned) - len(done)} kills were not tried: the campaign itself failed")
        return 1
    if any(held.lost for _, held in done):
        return 1
    shutil.rmtree(base)
    if options.slurm == 0:
        return 0
    under_slurm = [sys.executable, Path(__file__).with_name("slurm_kills.py")]
    asked = ["--kills", str(options.slurm), "--seed", str(options.seed)]
    return subprocess.run([*under_slurm, *asked], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
