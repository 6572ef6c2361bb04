"""The page on evaluation says what is so, and the docstrings' examples run."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from kava.commands.evaluate import EvaluateConfig
from kava.commands.evaluate import main as evaluate_main
from kava.commands.generate import GenerateConfig
from kava.data import default_template
from kava.data.answers import judge
from kava.data.tasks import TASKS
from kava.student.answering import Answers

PAGE = Path(__file__).parents[2] / "docs/evaluation.md"


@pytest.mark.parametrize(
    "name",
    [
        *("data.answers", "data.closed_answers", "data.latex", "data.mix", "data.tasks"),
        *("data.tasks.arc", "data.tasks.asdiv", "data.tasks.gsm_hard", "data.fields"),
        *("data.numbers.read", "data.numbers.tokens", "data.plain", "data.words"),
        *("statistics.intervals", "evaluate.tasks"),
    ],
)
def test_the_examples_of_a_module_run(name: str) -> None:
    failures, count = doctest.testmod(importlib.import_module(f"kava.{name}"))
    assert (failures, count > 0) == (0, True)


def test_the_examples_of_the_page_run() -> None:
    failures, count = doctest.testfile(str(PAGE), module_relative=False)
    assert (failures, count) == (0, 3)


def conventions() -> list[tuple[str, str, str, bool]]:
    """Task, gold answer, generated text and judgement of every line of the table."""
    table = PAGE.read_text(encoding="utf-8").partition("<!-- conventions -->\n")[2]
    rows, tasks = [], ""
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        task, gold, generated, judged = (cell.strip() for cell in line[2:-1].split("| "))
        tasks = task or tasks
        assert judged in ("right", "wrong")
        (text, *others) = map(unescaped, re.findall(r"`([^`]+)`", generated))
        # "also `\\u00a0`": the same with another character in place of the one that is not ASCII
        texts = [text, *(re.sub(r"[^\x00-\x7f]", other, text) for other in others)]
        rows += [(name, gold.strip("`"), text, judged == "right")
                 for name in tasks.split(", ") for text in texts]  # fmt: skip
    return rows


def unescaped(text: str) -> str:
    text = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
    return text.replace("\\n", "\n")


@pytest.mark.parametrize(("task", "gold", "text", "right"), conventions())
def test_every_convention_of_the_page_is_so(task: str, gold: str, text: str, right: bool) -> None:
    choices = ("sand", "rain") if task.startswith("arc") else ()
    own = TASKS[task].judge if task in TASKS else None
    assert judge(text, gold, default_template(task).cue, choices, own).correct == right


def test_the_table_of_conventions_has_every_task() -> None:
    tasks = {task for task, *_ in conventions()}
    assert tasks == {*TASKS, "kava/shell-game", "your own data"}
    assert len(conventions()) > 100


def test_the_python_of_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    values: dict[str, object] = {}
    exec(block, values)
    answers = values["answers"]
    assert isinstance(answers, Answers)
    assert (answers.num_items, answers.accuracy) == (8, 1.0)


@pytest.mark.parametrize(
    ("command", "config"), [("evaluate", EvaluateConfig), ("generate", GenerateConfig)]
)
def test_every_flag_on_the_page_exists(command: str, config: type) -> None:
    known = {f"--{field.name}" for field in fields(config)}
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if f"kava {command} " in line]
    if command == "evaluate":
        lines += [line for line in text.splitlines() if line.startswith("| `--")]
    used = set(re.findall(r"(?<![\w-])--\w+", "\n".join(lines)))
    assert used
    assert used <= known


def test_the_figures_of_the_teacher_are_what_its_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r"```\n(kava evaluate --checkpoint kava/shell-teacher.*)\n```\n```\n", text)
    assert found is not None
    quoted = text[found.end() :].partition("```")[0]
    assert evaluate_main(shlex.split(found[1])[2:]) == 0
    assert capsys.readouterr().out.startswith(quoted)
