"""Rules that make bad command lines out of the flags that each command declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from world import CALIBRATE as CALIBRATE_LINE
from world import TRAIN as TRAIN_LINE

from kava.cluster.flags import PARTS as CLUSTER
from kava.commands.calibrate import USAGE as CALIBRATE
from kava.commands.compare import USAGE as COMPARE
from kava.commands.costs import USAGE as COSTS
from kava.commands.evaluate import USAGE as EVALUATE
from kava.commands.generate import USAGE as GENERATE
from kava.commands.layer_map import USAGE as LAYER_MAP
from kava.commands.profile import USAGE as PROFILE
from kava.commands.study import REPORT, RUN, STATUS
from kava.demo.settings import USAGE as DEMO
from kava.flags import Usage
from kava.flags.fields import Setting
from kava.train.flags import USAGE as TRAIN

SHORT = ["--max_new_tokens", "2", "--device", "cpu"]
WHOLE: dict[str, tuple[Usage, list[str]]] = {  # type: ignore[type-arg]
    "train": (TRAIN, [*TRAIN_LINE, "--output_dir", "out"]),
    "evaluate": (
        EVALUATE,
        [
            *("evaluate", "--checkpoint", "run", "--dataset_name", "rows.jsonl"),
            *("--subset_size", "2", *SHORT),
        ],
    ),
    "generate": (GENERATE, ["generate", "--checkpoint", "run", "--prompt", "1 + 2?", *SHORT]),
    "costs": (
        COSTS,
        [
            *("costs", "run", "kava/tiny-gpt2", "--labels", "a", "b"),
            *("--dataset_name", "rows.jsonl", "--subset_size", "2", *SHORT),
        ],
    ),
    "compare": (COMPARE, ["compare", "a.jsonl", "b.jsonl", "--num_resamples", "100"]),
    "profile": (
        PROFILE,
        ["profile", "--model_name", "kava/tiny-gpt2", "--dataset_name", "rows.jsonl"],
    ),
    "layer-map": (
        LAYER_MAP,
        [
            *("layer-map", "--student_model", "kava/tiny-llama", "--teacher_model"),
            *("kava/tiny-gpt2", "--dataset_name", "rows.jsonl", "--num_samples", "4"),
            *("--output", "new.json"),
        ],
    ),
    "calibrate": (CALIBRATE, [*CALIBRATE_LINE, "--output_dir", "out"]),
    "demo": (DEMO, ["demo", "--arms", "none", "--steps", "1", "--output_dir", "out"]),
    "study run": (RUN, ["study", "run", "plan.yaml", "--dry_run", "--output_dir", "out"]),
    "study status": (STATUS, ["study", "status", "run"]),
    "study report": (REPORT, ["study", "report", "run"]),
    "cluster submit": (
        CLUSTER["submit"],
        [
            *("cluster", "submit", "plan.yaml", "--engine", "local", "--dry_run"),
            *("--output_dir", "out"),
        ],
    ),
    "cluster logs": (CLUSTER["logs"], ["cluster", "logs", "run"]),
    "cluster monitor": (CLUSTER["monitor"], ["cluster", "monitor", "run"]),
}
"""Each command's flags, and a line of it that works; `study status` and `report` find no study,
`cluster logs` and `monitor` neither."""

STARTS_WORKERS = ("demo",)
"""Commands whose good lines take longer than a case may: only what must be refused is tried."""


class FlagCase(NamedTuple):
    """A command line, and whether it must be refused."""

    name: str
    argv: list[str]
    refused: bool


def flag_cases() -> Iterator[FlagCase]:
    """Every flag of every command, with every value that its declaration rules out, and others."""
    for command, (usage, line) in WHOLE.items():
        for setting in usage.settings.values():
            if setting.flag.positional:
                continue
            for value, refused in _values(setting):
                if not refused and command in STARTS_WORKERS:
                    continue
                yield FlagCase(
                    f"{command} --{setting.name} {value[:24]!r}",
                    [*line, f"--{setting.name}", value],
                    refused,
                )
            if setting.kind is not bool:
                yield FlagCase(
                    f"{command} --{setting.name} without a value",
                    [*line, f"--{setting.name}"],
                    True,
                )
        yield from _of_the_line(command, line, usage)


def _of_the_line(command: str, line: list[str], usage: Usage) -> Iterator[FlagCase]:  # type: ignore[type-arg]
    """What can be wrong with a line whatever its flags are."""
    extras = [["--no_such_flag", "1"], ["-z"], ["--\udcff", "x"], ["---"], ["--="], ["--=x"]]
    for name, setting in usage.settings.items():
        if not setting.flag.positional:
            extras += [[f"--{name[:-1]}", "1"], [f"--{name.upper()}", "1"]]
    for extra in extras:
        yield FlagCase(f"{command}: with {extra!r:.40}", [*line, *extra], True)
    for index, word in enumerate(line):
        of = usage.settings.get(word.removeprefix("--"))
        # a switch needs no value
        if word.startswith("--") and of is not None and of.kind is not bool:
            yield FlagCase(f"{command}: cut behind {word}", line[: index + 1], True)


def _values(setting: Setting) -> Iterator[tuple[str, bool]]:
    """Values for a flag, each with whether its declaration rules it out."""
    about = setting.flag
    if setting.kind in (int, float):
        for text in ("abc", "", "nan", "inf", "-inf", "1e999", "0x10", "1,5", "--", "None", "1 2"):
            yield text, True
        yield "9" * 400, True
        for number in (0, -1, 10**12, 10**30):
            yield str(number), not about.allows(number)
        if setting.kind is int:
            yield "1.5", True
            yield "1e3", True
        for limit, step in ((about.least, -1), (about.above, 0), (about.most, 1), (about.below, 0)):
            if limit is not None:
                beyond = limit + step
                yield (str(int(beyond)) if setting.kind is int else repr(float(beyond))), True
        return
    if setting.kind is bool:
        for text in ("maybe", "2", "", "nan"):
            yield text, True
        return
    yield "", not about.empty
    if about.choices is not None:
        for text in ("no_such_choice", "1", *(choice.upper() for choice in about.choices)):
            yield text, text not in about.choices
        return
    for text in (
        "/dev/null",
        "/no/such/place",
        ".",
        "..",
        "\udcff",
        "a\0b",
        "x" * 5000,
        "nan",
        "-1",
    ):
        yield text, False
