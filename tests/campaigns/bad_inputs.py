"""A campaign of bad inputs against every command: no traceback, nothing accepted, no long wait.

The inputs are made by rules from the commands' own flags and from whole examples of the files that
they read; nothing is listed by hand but the rules. Each input is run in a process and a folder of
its own, and must end within 20 seconds with one line that says what is wrong and a non-zero exit,
leaving nothing behind. An input that a rule cannot call wrong by itself, such as an optional key
that is missing, may also work.

    python tests/campaigns/bad_inputs.py                     # all of it, with a table of counts
    python tests/campaigns/bad_inputs.py --sample 40         # forty of all commands, by --seed
    python tests/campaigns/bad_inputs.py --light             # those that need no model
    python tests/campaigns/bad_inputs.py --only "kava.json"  # those with the text in their name
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bad_files import (
    Spoiled,
    any_file,
    any_json,
    any_text,
    json_keys,
    jsonl_rows,
    plain_lines,
    yaml_keys,
)
from bad_flags import flag_cases
from forked import Outcome, apart, import_libraries, learn, run_command
from world import TRAIN, copy_world, make_world, write_inputs

LIMIT = 20.0
"""Seconds within which an input must be refused."""

ERROR_LINE = re.compile(r"^kava( [\w-]+)*: error: .", re.MULTILINE)


class Case(NamedTuple):
    """One bad input.

    Attributes:
        name: the rule, and what it was applied to.
        argv: the command that meets it.
        spoil: makes the bad file in the working folder; nothing for a bad flag.
        refused: whether it must be refused; otherwise it may also work.
    """

    name: str
    argv: list[str]
    spoil: Callable[[Path], None]
    refused: bool

    @property
    def group(self) -> str:
        """The command of a bad flag, or what reads a bad file."""
        kind, _, rest = self.name.partition(": ")
        return rest.split(" ")[0].removesuffix(":") if kind == "flags" else kind

    @property
    def is_light(self) -> bool:
        """Whether it is refused before a model is read, and before much is imported."""
        return self.refused and self.name.startswith(("flags:", "plan:", "items:"))


SHORT = ["--max_new_tokens", "2", "--device", "cpu"]
READ = {
    "rows": [*TRAIN, "--output_dir", "out"],
    "task": ["evaluate", "--checkpoint", "run", "--tasks", "svamp:SVAMP.json", *SHORT],
    "csv": ["train", "--dataset_name", "table.csv", *TRAIN[5:], "--output_dir", "out"],
    "questions": ["generate", "--checkpoint", "run", "--input", "questions.txt", *SHORT],
    "config": ["train", "--config", "config.yaml"],
    "plan": ["study", "run", "plan.yaml", "--output_dir", "out", "--dry_run"],
    "items": ["compare", "a.jsonl", "b.jsonl", "--num_resamples", "100"],
    "map": [
        *TRAIN,
        *("--teacher_name", "kava/tiny-llama", "--alignment_mode", "structured"),
        *("--use_cka_layer_mapping", "--layer_mapping_path", "map.json", "--output_dir", "out"),
    ],
    "resume": [*TRAIN, "--max_steps", "3", "--resume", "--output_dir", "run"],
    "resume old": [*TRAIN, "--max_steps", "3", "--resume", "--output_dir", "old"],
    "evaluate": [
        *("evaluate", "--checkpoint", "old/checkpoint-2", "--dataset_name", "rows.jsonl"),
        *("--subset_size", "2", *SHORT),
    ],
    "generate": ["generate", "--checkpoint", "run", "--prompt", "What is 1 + 2 + 3?", *SHORT],
}
"""The commands that read a file of each kind."""


def file_cases(world: Path) -> Iterator[Case]:
    """Every file of the example, spoiled in every way that its kind allows.

    Args:
        world: the example, of what people write alone or with what the commands made of it.
    """

    def cases(reader: str, file: str, ways: Iterator[Spoiled]) -> Iterator[Case]:
        for way in ways:
            yield Case(
                f"{reader}: {file}: {way.name}",
                READ[reader],
                lambda folder, way=way: way.spoil(folder / file),  # type: ignore[misc]
                way.refused,
            )

    yield from cases("rows", "rows.jsonl", jsonl_rows())
    yield from cases("task", "SVAMP.json", any_json())
    yield from cases("csv", "table.csv", any_text())
    yield from cases("questions", "questions.txt", plain_lines())
    yield from cases("config", "config.yaml", yaml_keys(world / "config.yaml"))
    yield from cases("plan", "plan.yaml", yaml_keys(world / "plan.yaml"))
    yield from cases("items", "a.jsonl", jsonl_rows())
    if not (world / "run").exists():
        return
    yield from cases("map", "map.json", any_json())
    yield from cases("map", "map.json", json_keys(world / "map.json"))
    newest = world / "run" / "checkpoint-2"
    for path in sorted(newest.iterdir()):
        ways = any_json if path.suffix == ".json" else any_file
        inside = f"checkpoint-2/{path.name}"
        for reader, folder in (("resume", "run"), ("resume old", "old"), ("evaluate", "old")):
            read_by_evaluate = path.name in EVALUATED
            if reader == "evaluate" and not read_by_evaluate:
                continue
            if folder == "old" and not (newest.parent.parent / "old" / inside).exists():
                continue
            for case in cases(reader, f"{folder}/{inside}", ways()):
                # a damaged newest checkpoint gives way to the whole one before it
                yield case._replace(refused=case.refused and reader == "evaluate")
    for name in ("kava.json", "config.json"):
        yield from cases("evaluate", f"old/checkpoint-2/{name}", json_keys(newest / name))
    yield from cases(
        "resume old", "old/checkpoint-2/recording.json", json_keys(newest / "recording.json")
    )


EVALUATED = ("config.json", "model.safetensors", "tokenizer.json", "kava.json")
"""The files of a checkpoint that an evaluation cannot do without."""


def all_cases(world: Path) -> list[Case]:
    """The whole campaign, in a fixed order."""
    flags = [
        Case(f"flags: {name}", argv, lambda folder: None, refused)
        for name, argv, refused in flag_cases()
    ]
    return [*file_cases(world), *flags]


def drawn(cases: list[Case], number: int, seed: int) -> list[Case]:
    """Some of the cases at random, spread evenly over commands and files."""
    turns: Counter[str] = Counter()
    order: list[tuple[int, Case]] = []
    for case in random.Random(seed).sample(cases, len(cases)):
        order.append((turns[case.group], case))
        turns[case.group] += 1
    return [case for _, case in sorted(order, key=lambda turn: turn[0])[:number]]


def judge(case: Case, outcome: Outcome, left: list[str]) -> str | None:
    """What was wrong with how a command met an input; None where it was met well."""
    if "Traceback (most recent call last)" in outcome.stdout + outcome.stderr:
        return "traceback"
    if outcome.timed_out:
        return "wait"
    if outcome.code < 0:
        return "crash"
    if outcome.code == 0:
        return "accepted" if case.refused else None
    if len(ERROR_LINE.findall(outcome.stderr)) != 1:
        return "no line"
    return "left files" if left and case.refused else None


def try_case(case: Case, world: Path, scratch: Path) -> tuple[str | None, Outcome]:
    """Run one case in a copy of the example."""
    folder = scratch / "case"
    copy_world(world, folder)
    try:
        case.spoil(folder)
        before = set(folder.rglob("*"))
        outcome = run_command(case.argv, folder, LIMIT)
        left = sorted(
            str(path.relative_to(folder)) for path in folder.rglob("*") if path not in before
        )
    finally:
        shutil.rmtree(folder)
    return judge(case, outcome, left), outcome


def main() -> int:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, help="run this many, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="run those whose name holds this text")
    parser.add_argument("--light", action="store_true", help="run those that need no model")
    parser.add_argument("--list", action="store_true", help="print the names alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        world, modules = scratch / "world", scratch / "modules"
        write_inputs(world)
        make = partial(make_world, world, modules)
        if not args.light:
            # many wrong flags are worth a second import
            apart(make) if args.sample is None else make()
        cases = [case for case in all_cases(world) if args.only in case.name]
        cases = [case for case in cases if case.is_light or not args.light]
        if args.sample is not None:
            cases = drawn(cases, args.sample, args.seed)
        if args.list:
            print(*(case.name for case in cases), sep="\n")
            return 0
        tried: Counter[str] = Counter()
        failed: Counter[tuple[str, str]] = Counter()
        slowest = 0.0
        light = [case for case in cases if case.is_light]
        heavy = [case for case in cases if not case.is_light]
        for number, case in enumerate([*light, *heavy]):
            if number == len(light):
                import_libraries()
                learn(modules)
            problem, outcome = try_case(case, world, scratch)
            tried[case.group] += 1
            slowest = max(slowest, outcome.seconds)
            if problem is not None:
                failed[case.group, problem] += 1
                last = (outcome.stderr.strip().splitlines() or [""])[-1]
                print(
                    f"{problem}: {case.name}: kava {shlex.join(case.argv)[:200]}\n    {last[:300]}",
                    flush=True,
                )
    print(f"\n{'inputs':12} tried  met well")
    for group, count in tried.items():
        bad = sum(number for (other, _), number in failed.items() if other == group)
        print(f"{group:12} {count:5}  {count - bad:8}")
    total, bad = sum(tried.values()), sum(failed.values())
    print(f"{'all':12} {total:5}  {total - bad:8}   slowest {slowest:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
