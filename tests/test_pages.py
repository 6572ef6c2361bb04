"""The commands and Python blocks of README and docs work as they are printed.

Every command is read off the pages and run in a folder that holds what it names: hub models and
data sets are replaced by tiny ones of the same name, and training is cut to one step. What takes
long by its nature (the demo, whole studies, benchmarks) is parsed alone; it has tests of its own.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from datasets import Dataset

import gym_stand_in
from chat_models import chat_model
from conftest import ROOT
from kava.cli import module_of, run
from kava.cluster.flags import USAGE as CLUSTER
from kava.commands.rationales import USAGE as RATIONALES
from kava.curriculum.folder import lock_curriculum
from kava.curriculum.plan_file import load_curriculum
from kava.demo.settings import USAGE as DEMO
from kava.models.load import load_model, load_tokenizer
from kava.train import build
from kava.train.build import Run
from kava.train.config import TrainConfig
from report.made_up import write_study

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("kava", "python", "make", "bash", "pip", "cat", "tensorboard")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


class Printed(NamedTuple):
    """A command as a page prints it."""

    page: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands_of(page: Path) -> Iterator[Printed]:
    """The commands in the blocks of a page, in their order."""
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind not in ("", "bash", "console"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if kind == "console" or line.startswith("$ "):
                if not line.startswith("$ "):
                    continue
                line = line.removeprefix("$ ")
            if line.split(" ")[0] in PROGRAMS:
                yield Printed(page.name, tuple(shlex.split(line, comments=True)))


PRINTED = [command for page in PAGES for command in commands_of(page)]


def chain(clips: int) -> dict[str, str]:
    """A row as GSM8K's, with reasoning of more than 24 tokens."""
    may, june = clips // 2, clips // 2 - 1
    steps = (
        f"She sold {clips}/2 = <<{clips}/2={may}>>{may} in May.",
        f"She sold {may}-1 = <<{may}-1={june}>>{june} in June.",
        f"In all {clips}*1 = <<{clips}*1={clips}>>{clips}.",
    )
    question = f"Natalia sold {clips} clips. How many in all?"
    return {"question": question, "answer": "\n".join(steps) + f"\n#### {clips}"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each family as a folder, under the names of models on the hub."""
    folder = tmp_path_factory.mktemp("models")
    for name, stand_in in (
        ("gpt2", "kava/tiny-gpt2"),
        ("gpt2-medium", "kava/tiny-gpt2"),
        ("stories260K", "kava/tiny-llama"),
        ("babyllama_tok105", "kava/tiny-llama"),
        ("SmolLM2-135M-Instruct", "kava/tiny-llama"),
        ("gemma-3-270m", "kava/tiny-gemma"),
        ("STUDENT", "kava/tiny-llama"),
        ("TEACHER", "kava/tiny-gpt2"),
        ("Qwen/Qwen2-0.5B", "kava/tiny-qwen2"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "kava/tiny-qwen2"),
        ("meta-llama/Llama-3.2-1B-Instruct", "kava/tiny-llama"),
    ):
        load_model(stand_in).save_pretrained(folder / name)
        load_tokenizer(stand_in).save_pretrained(folder / name)
    chat_model(folder / "HuggingFaceTB/SmolLM2-135M-Instruct", "chatml")
    return folder


@pytest.fixture
def world(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands name; training takes one step, on a few samples."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "stories260K").symlink_to(models / "stories260K")
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in (
        "configs",
        "experiments",
        "scripts",
        "benchmarks",
        "Makefile",
        "src",
        "constraints.txt",
    ):
        (tmp_path / name).symlink_to(ROOT / name)
    task_folder(tmp_path / "data")
    monkeypatch.setattr("datasets.load_dataset", hub)
    gym_stand_in.install(monkeypatch)
    monkeypatch.setattr("kava.train.build.build_run", short(build.build_run))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hub(repository: str, *configuration: str, split: str) -> Dataset:
    """A data set of the hub: a few rows, of which no two splits share one."""
    return Dataset.from_list(rows_of(repository, 40 if split == "train" else 80))


def rows_of(source: str, start: int) -> list[dict[str, Any]]:
    """Twenty rows in the form of a task."""
    numbers = range(start, start + 20)
    if "svamp" in source.lower():
        return [
            {
                "Body": f"Ann has {n} pens.",
                "Question": "And 2 more?",
                "Equation": f"( {n}.0 + 2.0 )",
            }
            | {"ID": f"chal-{n}", "Answer": f"{n + 2}.0"}
            for n in numbers
        ]
    if "strategyqa" in source.lower():
        facts = ["Snow is white in the winter.", "Milk is white."]
        return [
            {"qid": str(n), "question": f"Is {n} snow?", "answer": n % 2 == 0, "facts": facts}
            for n in numbers
        ]
    if "arc" in source:
        choices = {"text": ["sand", "rain"], "label": ["A", "B"]}
        return [{"question": f"Wet {n}?", "choices": choices, "answerKey": "B"} for n in numbers]
    return [chain(number) for number in numbers]


def task_folder(folder: Path) -> None:
    """Local files of the tasks."""
    for name in (
        *("gsm8k/train.jsonl", "gsm8k/test.jsonl", "arc/arc_easy.jsonl"),
        *("arc/arc_challenge.jsonl", "svamp/SVAMP.json", "strategyqa/dev.json"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = rows_of(name, 40)
        text = lines(rows) if path.suffix == ".jsonl" else json.dumps(rows)
        path.write_text(text, encoding="utf-8")


def short(build_run: Callable[..., Run]) -> Callable[..., Run]:
    """The same run in one step."""

    def build_short(config: TrainConfig, *rest: Any) -> Run:
        cut: dict[str, Any] = {
            "max_steps": 1,
            "subset_size": None,
            "batch_size": 2,
            "gradient_accumulation_steps": 1,
            "warmup_steps": 0,
        }
        size = min(config.eval_size, 2)
        return build_run(replace(config, **cut, eval_size=size, max_new_tokens=2), *rest)

    return build_short


def test_the_pages_print_commands() -> None:
    assert len(PRINTED) > 40
    assert {command.words[0] for command in PRINTED} >= {"kava", "python", "make"}


READ_ELSEWHERE = ("pip", "tensorboard", "git")
"""Programs of others."""

RUN_ELSEWHERE = {
    "demo": "trains for minutes; tests/demo runs it",
    "lm-eval": "reads its tasks from the hub; tests/evaluate/test_harness.py runs it",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_holds_what_a_reader_would_have_to_replace(page: Path) -> None:
    holes = [
        command.line
        for command in commands_of(page)
        if any(word in ("…", "...") or word.startswith("[") for word in command.words)
    ]
    assert holes == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if list(commands_of(page))], ids=lambda page: page.name
)
def test_the_commands_of_a_page_work_in_their_order(
    page: Path,
    world: Path,
    students: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in commands_of(page):
        problem = meet(command, students, monkeypatch, capsys)
        assert problem is None, f"{command.line}\n{problem}"


def meet(
    command: Printed,
    students: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str | None:
    """Run a command; what was wrong with it, if something was."""
    program, *rest = command.words
    if program == "cat":
        provide(rest[2:], students, rest[:1])
        text = Path(rest[0]).read_text(encoding="utf-8")
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        program, *rest = rest[2:]
    if program == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        return (
            None if re.search(rf"^{rest[0]}:", targets, re.M) else "the Makefile has no such target"
        )
    if program in ("python", "bash"):
        return unknown_flag(rest)
    if program != "kava":
        return None if program in READ_ELSEWHERE else f"{program} is not known here"
    if rest[0].startswith("-"):
        return None if rest[0] in ("--version", "--help", "--install-completion") else "unknown"
    if rest[0] == "demo":
        DEMO.parse(rest[1:])
        return None
    if rest[0] == "cluster":  # needs a scheduler; tests/cluster runs it
        CLUSTER.parts[rest[1]].parse(rest[2:])
        return None
    if rest[0] == "rationales":
        teachers = RATIONALES.parse(rest[1:]).teachers
        if not all("=kava/" in teacher for teacher in teachers):
            return None  # a model of random weights writes none
        rest += ["--subset_size", "2"]
    if rest[0] in RUN_ELSEWHERE:
        return None
    provide(rest, students)
    runs = rest[:2] in (["study", "run"], ["curriculum", "run"])
    whole_study = runs and "--dry_run" not in rest
    main = module_of(rest[0]).main
    code = run(main, [*rest[1:], *(["--dry_run"] if whole_study else [])])
    return capsys.readouterr().err if code else None


def unknown_flag(words: list[str]) -> str | None:
    """The script is there, and knows every flag that it is given."""
    if words[0] == "-m":
        return None if words[1] == "kava" else f"{words[1]} is not known here"
    text = (ROOT / words[0]).read_text(encoding="utf-8")
    if "import main" in text:  # a command of kava under the name of a script
        return None
    flags = [word for word in words[1:] if word.startswith("--")]
    unknown = [
        flag
        for flag in flags
        # of argparse, or a field of a dataclass of flags
        if f'"{flag}"' not in text and not re.search(rf"^    {flag[2:]}:", text, re.M)
    ]
    return f"{words[0]} has no flag {unknown[0]}" if unknown else None


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs as `kava train` leaves them: of the built-in game, and of one that reads any text."""
    folders = {}
    for name, model in (("game", "kava/shell-teacher"), ("text", "kava/tiny-gpt2")):
        folders[name] = tmp_path_factory.mktemp("students") / name
        config = TrainConfig(
            model_name=model,
            dataset_name="kava/shell-game?num_train=8&num_test=20",
            target_len=3,
            max_steps=1,
            batch_size=2,
            no_progress=True,
            device="cpu",
            output_dir=str(folders[name]),
        )
        build.build_run(config).trainer.train()
    return folders


def lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as the text of a jsonl file."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def thought(number: int) -> str:
    """A raw text whose reasoning stands between marks."""
    return f"What is {number} + 2? <think>Add 2.\nThat is all.</think>{number + 2}"


FILES = {
    "data.jsonl": lines(
        {"question": f"What is {n} + 2 + 3?", "reasoning": f"{n} + 2 = {n + 2}\nall", "answer": n}
        for n in range(20)
    ),
    "thoughts.jsonl": lines({"id": f"t-{n}", "story": thought(n)} for n in range(20)),
    "stories.jsonl": lines(
        {"question": f"Once, {n} cats", "reasoning": "sat in the warm sun.", "answer": "The end"}
        for n in range(1500)
    ),
    "a.jsonl": lines({"id": n, "correct": n % 2 == 0} for n in range(40)),
    "b.jsonl": lines({"id": n, "correct": n % 3 == 0} for n in range(40)),
    "c.jsonl": lines({"id": n, "correct": n % 5 == 0} for n in range(40)),
    **{
        f"{method}{seed}.jsonl": lines({"id": n, "correct": n % 7 != seed} for n in range(40))
        for method in "ab"
        for seed in range(3)
    },
    "gsm8k_aug_nl.jsonl": lines(
        {
            "question": f"What is {n}/2 + 6?",
            "answer": f"{n + 6}",
            "cot": "Half is 2.\nAll is 8.\n" * 5,
        }
        for n in range(20)
    ),
    "math_data.json": json.dumps([{"instruction": f"And {n}?", "output": ""} for n in range(5)]),
    "rationales.jsonl": lines(
        {
            "id": f"gsm8k-{split}-{n}",
            "question": row["question"],
            "reasoning": dict.fromkeys("ab", "She sold half, and then the rest."),
            "right": dict.fromkeys("ab", True),
        }
        for split, start in (("train", 40), ("test", 80))
        for n, row in enumerate(rows_of("gsm8k", start))
    ),
    "train.jsonl": lines({"question": f"And {n}?"} for n in range(5)),
    "questions.txt": "Cups abcd moves 3412 3142 1234 4231 order ?\n",
}


def provide(words: list[str], students: dict[str, Path], files: Sequence[str] = ()) -> None:
    """Make what a command reads and no command before it on its page has made."""
    written = {words[index + 1] for index, word in enumerate(words[:-1]) if word in OUTPUTS}
    for word in (*words, *files):
        path = Path(word)
        if path.exists() or word in written:
            continue
        if path.name in FILES:
            path.write_text(FILES[path.name], encoding="utf-8")
        elif word.startswith("outputs/curriculum/"):
            lock_curriculum(path, load_curriculum(path.name), "", "kava curriculum run")
        elif word.startswith("outputs/study/"):
            write_study(path, {"flat": 0.5, "wrong": 0.1}, seeds=range(2))
        elif word.startswith("outputs/"):
            # the pages ask outputs/run about anything, and the others about the game
            shutil.copytree(students["text" if word == "outputs/run" else "game"], path)


OUTPUTS = ("--output", "--output_dir")
