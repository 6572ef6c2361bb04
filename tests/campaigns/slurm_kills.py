"""Disturb the jobs of a study under a real Slurm at random moments, and compare with one go.

    python tests/campaigns/slurm_kills.py --kills 20 --seed 0

Starts a Slurm on this machine (root, slurm-wlm and munge), submits two arms and three seeds by
`kava cluster submit`, and disturbs a running task again and again: USR1, as ahead of a time limit;
TERM, or a requeue at once, as in a preemption; KILL of all its processes, as if the node had died.
A task that has not requeued itself is requeued. In the end every run must be, to the bit, the run
of `kava study run` that nothing disturbed. Prints what was tried, and exits with 1 where a run was
lost or is another one.
"""

# ruff: noqa: E402 (the environment is set before torch reads it)

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
for _name, _value in (("OMP_NUM_THREADS", "1"), ("PYTHONPATH", str(TESTS.parent / "src"))):
    os.environ[_name] = _value  # of the jobs as well

from cluster.real import last_step, same_as_alone, small
from kava.cluster.record import last_submission
from kava.cluster.slurm import Slurm
from kava.commands.cluster import main as cluster
from study.test_plan import written

ONE_NODE = TESTS / "cluster/one_node.sh"
WAYS = ("USR1", "TERM", "KILL", "requeue")
STEPS = 400
SLURM = Slurm()


def states(out: Path) -> dict[int, str]:
    """The state of each task."""
    jobs = SLURM.jobs(last_submission(out), out)
    return {key: job.state for key, job in jobs.items() if isinstance(key, int)}


def until(out: Path, task: int, wanted: Sequence[str], seconds: float = 600) -> str:
    """Wait for a state of a task."""
    deadline = time.monotonic() + seconds
    while (state := states(out).get(task, "")) not in wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"task {task} is {state}, and not {' or '.join(wanted)}")
        time.sleep(0.3)
    return state


def kill_processes(plan: Path, arm: str, seed: int) -> None:
    """KILL every process of a run."""
    wanted = (str(plan).encode(), f"--arms\0{arm}\0--seeds\0{seed}\0".encode())
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            line = (place / "cmdline").read_bytes()
            if all(part in line for part in wanted):
                os.kill(int(place.name), signal.SIGKILL)


def disturb(out: Path, task: int, way: str) -> str:
    """Disturb a running task, and see to it that it goes on; what became of it."""
    last = last_submission(out)
    job = f"{last.runs}_{task}"
    if way == "requeue":
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, check=False)
        return "requeued" if done.returncode == 0 else "it had ended"
    if way == "KILL":
        kill_processes(out / "plan.yaml", *last.tasks[task])
    else:
        # Slurm 22.05 may answer by an error, after which scancel would send the signal again
        asked = ["timeout", "2", "scancel", f"--signal={way}", "--batch", job]
        subprocess.run(asked, capture_output=True, check=False)
    ended = ("completed", "failed", "cancelled", "pending", "requeued", "configuring")
    state = until(out, task, ended)
    if state == "failed":
        subprocess.run(["scontrol", "requeue", job], check=True)
        return "requeued by hand"
    return "it had ended" if state == "completed" else "requeued itself"


def campaign(folder: Path, kills: int, chance: random.Random) -> list[tuple[str, str, int]]:
    """Submit the study, disturb it, wait for its end; way, what became of it, and step of each."""
    plan, out = written(folder, small(STEPS, base__save_steps=50)), folder / "out"
    argv = ["submit", str(plan), "--output_dir", str(out), "--engine", "slurm", "--time", "50"]
    if cluster([*argv, "--report", "none"]) != 0:
        raise RuntimeError("the study could not be submitted")
    last = last_submission(out)
    done: list[tuple[str, str, int]] = []
    seen: dict[int, int] = {}
    while len(done) < kills:
        now = states(out)
        if all(state == "completed" for state in now.values()):
            break
        running = [
            task
            for task, state in now.items()
            if state == "running" and _step(out, last.tasks[task]) > seen.get(task, 0)
        ]
        if not running:
            time.sleep(0.3)
            continue
        task, way = chance.choice(running), WAYS[len(done) % len(WAYS)]
        time.sleep(chance.random() * 2)
        seen[task] = _step(out, last.tasks[task])
        done.append((way, disturb(out, task, way), seen[task]))
        arm, seed = last.tasks[task]
        print(
            f"{len(done):>4}  {arm} {seed}, {way} at step {seen[task]}: {done[-1][1]}", flush=True
        )
    for task in range(len(last.tasks)):
        until(out, task, ("completed",), 3600)
    same_as_alone(plan, out, folder / "alone")
    return done


def _step(out: Path, task: tuple[str, int]) -> int:
    return last_step(out / f"runs/{task[0]}/seed-{task[1]}")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their moments")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="kava-slurm-"))
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in (one, other)]
    subprocess.run(["bash", ONE_NODE, "up", folder / "slurm", *ports], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm/slurm.conf")
    os.chdir(folder)
    began = time.monotonic()
    try:
        done = campaign(folder, options.kills, random.Random(options.seed))
    except (AssertionError, TimeoutError) as error:
        print(f"lost: {error or 'a run is not that of one go'}; see {folder}")
        return 1
    finally:
        subprocess.run(["bash", ONE_NODE, "down", folder / "slurm"], check=False)
    for (way, what), count in sorted(Counter((way, what) for way, what, _ in done).items()):
        print(f"{way:<8} {what:<17} {count:>3}")
    took = time.monotonic() - began
    print(f"{len(done)} of {options.kills} tried, all runs as in one go, {took:.0f} s")
    return 0 if len(done) == options.kills else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
