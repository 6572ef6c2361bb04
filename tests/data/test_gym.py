"""reasoning_gym as a source: names, splits, steps and judging, with a stand-in and the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gym_stand_in
from kava.cli import run
from kava.commands.evaluate import main as evaluate_main
from kava.commands.train import main as train_main
from kava.data import Record, load_records, question_key
from kava.data.answers import judge
from kava.data.gym import HASH_SEEDED, SCORED
from kava.data.sources import load_questions
from kava.dataset_names import check_dataset_name, gym_options
from kava.dataset_names.gym import INSTALL, TEST_SEED, gym_tasks
from kava.evaluate.data import evaluation_records
from kava.evaluate.tasks import resolve_tasks
from one_line import refusal

GYM = "reasoning_gym:"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gym_stand_in.install(monkeypatch)
    yield
    gym_stand_in.forget()


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)


@pytest.fixture
def package() -> Iterator[None]:
    gym_stand_in.forget()
    pytest.importorskip(
        "reasoning_gym.factory",
        reason=f"reasoning_gym is not installed: {INSTALL}",
        exc_type=ImportError,
    )
    yield
    gym_stand_in.forget()


def keys(records: list[Record]) -> list[str]:
    return [question_key(record.question) for record in records]


@pytest.mark.usefixtures("stand_in")
def test_a_written_solution_becomes_the_reasoning() -> None:
    records = load_records(GYM + "gsm_symbolic?size=20&seed=1")
    assert len(records) == 20
    first = records[0]
    a, b = (int(word.strip("?")) for word in first.question.split()[2::2])
    assert first.steps[0].startswith(f"Take {a}, which is")
    assert first.steps[1:] == (f"With {b} that is {a + b}.",)
    assert (first.id, first.answer) == ("gsm_symbolic-train-0", str(a + b))
    assert first.where == "reasoning_gym:gsm_symbolic, train problem 0"
    assert first.meta == {}


@pytest.mark.usefixtures("stand_in")
def test_states_become_steps() -> None:
    (record,) = load_records(GYM + "string_splitting?size=1")
    a, b = (int(word.strip("?")) for word in record.question.split()[2::2])
    assert record.steps == (f"{a} {b}", f"{a + b} 0")
    assert record.answer == record.steps[-1]


@pytest.mark.usefixtures("stand_in")
def test_options_reach_the_task() -> None:
    name = GYM + "chain_sum?size=30&largest=3&operators=+,-&style=long&seed=7"
    options = gym_options(name)
    assert (options.task, options.size, options.test_size, options.seed) == ("chain_sum", 30, 30, 7)
    assert dict(options.settings) == {"largest": 3, "operators": ("+", "-"), "style": "long"}
    questions = {record.question for record in load_records(name)}
    assert all(int(q.split()[2]) <= 3 for q in questions)
    assert {q.split()[3] for q in questions} == {"+", "-"}


@pytest.mark.usefixtures("stand_in")
def test_the_splits_share_no_question_and_are_drawn_alike_again() -> None:
    name = GYM + "chain_sum?size=40&test_size=60&largest=9&seed=3"
    train, test = load_records(name), load_records(name, split="test")
    assert not {*keys(train)} & {*keys(test)}
    assert len({*keys(test)}) == len(test) < 60
    # as a slow loop draws them
    drawn = gym_stand_in.Drawn(gym_stand_in.Config(largest=9, seed=3 + TEST_SEED))
    expected = []
    for index in range(60):
        question = drawn[index]["question"]
        if question_key(question) not in {*keys(train), *map(question_key, expected)}:
            expected.append(question)
    assert [record.question for record in test] == expected
    gym_stand_in.forget()
    assert (load_records(name), load_records(name, split="test")) == (train, test)


@pytest.mark.usefixtures("stand_in")
def test_near_seeds_share_problems_but_no_test_split_is_reached() -> None:
    one, other = (load_records(f"{GYM}chain_sum?size=20&seed={seed}") for seed in (1, 2))
    assert [r.question for r in one[1:]] == [r.question for r in other[:-1]]
    most = gym_options(GYM + "chain_sum?size=1000000&seed=1073741824")
    assert most.seed + most.size < TEST_SEED
    assert TEST_SEED + most.seed + most.test_size < 2**32


@pytest.mark.usefixtures("stand_in")
def test_a_test_split_that_training_holds_as_a_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="all 5 test problems occur in training; raise test_size"):
        load_records(GYM + "chain_sum?size=20&test_size=5&largest=1", split="test")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("task", "answer", "right"),
    [
        ("jugs", "Fill a.", True),  # the same words
        ("jugs", "pour B", True),  # the full score
        ("jugs", "pour B out", False),  # a part of it
        ("jugs", "raise it", False),  # which the scorer cannot read
        ("sokoban_like", "fill A", True),
        ("sokoban_like", "pour B", False),  # its scorer is not called
        ("grid", "3\n0 2", True),
        ("grid", "3\n0 3", False),
        ("grid", "3", False),
    ],
)
def test_answers_that_are_no_numbers_are_judged(task: str, answer: str, right: bool) -> None:
    (record,) = load_records(f"{GYM}{task}?size=1")
    own = record.meta["judge"]
    assert judge(f"so\n#### {answer}\n\nnext", record.answer, "#### ", (), own).correct == right
    assert "seen" not in (own.same.item["metadata"] or {})


@pytest.mark.usefixtures("stand_in")
def test_it_is_a_source_among_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = GYM + "chain_sum?size=6"
    mixed = load_records(f"mix:{name}=1,{GYM}gsm_symbolic?size=6=1")
    assert [record.id for record in mixed if record.id.startswith(name)]
    assert len(mixed) == 12
    assert resolve_tasks([name, GYM + "jugs"]) == {
        "reasoning_gym_chain_sum": name,
        "reasoning_gym_jugs": GYM + "jugs",
    }
    assert len(load_questions(name, split="test")) == 6
    assert capsys.readouterr().out == ""  # what the tasks print is no output of ours
    settings = {"config": {"dataset_name": name, "split": "train"}}
    assert evaluation_records(settings).warning is None
    other = evaluation_records(
        settings, dataset_name=GYM + "chain_sum?size=6&seed=1", split="train"
    )
    assert str(other.warning).startswith("5 of the 6 questions are in the training data too")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gsm_symbolik", "has no task 'gsm_symbolik' (did you mean 'gsm_symbolic'?)"),
        ("zzz", "has no task 'zzz'; choose from chain_sum, failing,"),
        ("composite", "composite mixes other tasks: write a mix"),
        ("chain_sum?sise=3", "has no option 'sise' (did you mean 'size'?); choose from size, test"),
        ("chain_sum?nested=3", "has no option 'nested'"),
        ("chain_sum?size=0", "chain_sum?size=0 must be from 1 to 1,000,000"),
        ("chain_sum?seed=9999999999", "seed=9999999999 must be from 0 to 1,073,741,824"),
        ("chain_sum?size=ten", "chain_sum?size=ten must be a whole number"),
        ("chain_sum?size=3&size=4", "size stands there twice"),
        ("chain_sum?style=odd", "style=odd is unknown; choose short, long"),
        ("chain_sum?largest=0", "chain_sum refuses largest=0, size=500: largest must be positive"),
        ("chain_sum?ratio=2", "refuses ratio=2.0, size=500: out of the range that it takes"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, complaint: str) -> None:
    for check in (check_dataset_name, load_records):
        with pytest.raises(ValueError, match=r"^reasoning_gym:") as error:
            check(GYM + name)
        assert complaint in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("graph_color", "train problem 0 has no answer of its own, only a scorer"),
        ("failing", "problem 0 of seed 0 cannot be drawn: no puzzle was found"),
        ("word_ladder", "set PYTHONHASHSEED=0 in the environment"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    name: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    check_dataset_name(GYM + name)
    with pytest.raises(ValueError, match=complaint):
        load_records(GYM + name)
    with pytest.raises(ValueError, match="split='valid' is not in reasoning_gym:TASK"):
        load_records(GYM + "chain_sum", split="valid")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert len(load_records(GYM + "word_ladder?size=3")) == 3


TRAIN = ["--model_name", "kava/tiny-gpt2", "--target_len", "2", "--max_steps", "1"]
TRAIN += ["--batch_size", "2", "--device", "cpu", "--no_progress", "--max_new_tokens", "2"]


@pytest.mark.usefixtures("stand_in")
def test_students_are_trained_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = str(tmp_path / "run"), GYM + "gsm_symbolic?size=8&test_size=4&seed=1"
    assert run(train_main, [*TRAIN, "--dataset_name", name, "--output_dir", folder]) == 0
    capsys.readouterr()
    assert run(evaluate_main, [folder, "--max_new_tokens", "2", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert f"data            {name}, test\nitems           4\n" in printed.out
    assert "warning" not in printed.err


@pytest.mark.usefixtures("stand_in")
def test_training_without_written_steps_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    argv = [*TRAIN, "--dataset_name", GYM + "chain_sum?size=8", "--output_dir", str(folder)]
    line = [part for part in _errors(train_main, argv, capsys) if "error" in part]
    assert line == [
        "kava: error: reasoning_gym:chain_sum, train problem 0: sample 'chain_sum-train-0' has no "
        "reasoning; learn its answer alone by --keep_short or pass --overflow skip"
    ]
    assert not folder.exists()


def _errors(main, argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:  # type: ignore[no-untyped-def]
    assert run(main, argv) == 1
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("missing")
def test_without_the_package_one_line_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from kava.commands.leaks import main

    name = GYM + "gsm_symbolic?size=20"
    check_dataset_name(name)  # a plan that names it can be read all the same
    line = refusal(main, [name, "kava/shell-game"], capsys)
    assert "needs the package reasoning-gym with what it imports" in line
    assert line.endswith(INSTALL)


def test_the_package_is_imported_only_where_a_name_asks_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "reasoning_gym"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    program = (
        "from kava.data import load_records\n"
        "load_records('kava/shell-game?num_train=2')\n"
        "load_records('mix:kava/shell-game?num_train=2=1')\n"
        "from kava.data import gym; import kava.commands.train, kava.commands.evaluate\n"
        "load_records('{}')"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    for name, code in (("kava/word-problems?num_train=2", 0), (GYM + "chain_sum", 1)):
        done = subprocess.run(
            [sys.executable, "-c", program.format(name)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, "it was imported" in done.stderr) == (code, bool(code))


@pytest.mark.usefixtures("stand_in")
def test_the_snippet_of_the_page_writes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs/reasoning_gym.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace("size=2000", "size=20"), {})
    for split in ("train", "test"):
        drawn = load_records(GYM + "gsm_symbolic?size=20&seed=1", split=split)
        assert load_records("gsm_symbolic", split=split) == drawn


def test_the_page_names_what_the_code_has() -> None:
    page = (Path(__file__).parents[2] / "docs/reasoning_gym.md").read_text(encoding="utf-8")
    text = " ".join(page.split())
    assert INSTALL in text
    assert f"{', '.join(f'`{task}`' for task in sorted(HASH_SEEDED))} (found" in text
    assert f"counts as right: {', '.join(f'`{task}`' for task in sorted(SCORED))}." in text


@pytest.mark.usefixtures("package")
def test_gsm_symbolic_has_solutions_whose_answers_are_judged_right() -> None:
    name = GYM + "gsm_symbolic?size=300&seed=1"
    train, test = load_records(name), load_records(name, split="test")
    assert len(train) == 300
    assert not {*keys(train)} & {*keys(test)}
    assert all(len(record.steps) >= 1 and "####" not in record.reasoning for record in train)
    assert load_records(name) == train


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("task", ["string_manipulation", "string_splitting", "string_synthesis"])
def test_the_last_state_is_the_answer(task: str) -> None:
    records = load_records(f"{GYM}{task}?size=40")
    assert all(record.steps[-1] == record.answer for record in records)


@pytest.mark.slow
@pytest.mark.usefixtures("package")
def test_every_task_loads_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which tasks have steps, and which cannot be loaded, is what docs/reasoning_gym.md says."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    written, refused = set(), set()
    assert {*gym_tasks()} >= SCORED | HASH_SEEDED
    for task in sorted(gym_tasks().keys() - {"composite"}):
        try:
            (record, *_) = load_records(f"{GYM}{task}?size=2")
        except ValueError as error:
            refused.add((task, "no answer of its own" in str(error)))
            continue
        if record.reasoning:
            written.add(task)
    assert written == {
        *("gsm_symbolic", "string_manipulation", "string_splitting", "string_synthesis")
    }
    without = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")
    assert refused == {(task, True) for task in without}
