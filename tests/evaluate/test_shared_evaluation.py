"""Several processes evaluate as one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kava.data.records import Record, Template
from kava.models.load import load_model, load_tokenizer
from kava.ranks import Ranks
from kava.student import answering
from kava.student.answering import Answers, answer_records
from launch import Threads, launch, said

OF_THE_MACHINE = {"seconds", "seconds_per_answer", "tokens_per_second"}
FLAGS = [
    *("kava/shell-teacher", "--dataset_name", "kava/shell-game?num_test=30", "--batch_size", "4"),
    *("--device", "cpu"),
]


@pytest.fixture
def answers() -> Callable[[Ranks, int], Answers]:
    """What the processes answer, in batches of two; threads share the model."""
    model, tokenizer = (load("kava/tiny-llama") for load in (load_model, load_tokenizer))
    options: dict[str, Any] = {"batch_size": 2, "max_new_tokens": 5}
    return lambda ranks, number: answer_records(
        model, tokenizer, asked(number), Template(), ranks=ranks, **options
    )


def asked(number: int) -> list[Record]:
    return [
        Record(id=str(n), question="What is it? " * (1 + n % 4), reasoning="", answer=str(n))
        for n in range(number)
    ]


@pytest.mark.parametrize(("count", "number"), [(2, 9), (3, 4), (3, 1)])
def test_the_answers_are_those_of_one_process(
    count: int,
    number: int,
    answers: Callable[[Ranks, int], Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = answers(Ranks(), number)
    for found in Threads(monkeypatch).run(count, lambda ranks: answers(ranks, number)):
        assert found.items == alone.items
        assert found.seconds > 0


def test_an_error_in_one_share_is_that_of_all(
    answers: Callable[[Ranks, int], Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = answering.generate_text

    def failing(model: Any, ids: Any, *rest: Any, **options: Any) -> Any:
        if len(ids) == 1:  # the last batch
            raise RuntimeError("out of memory")
        return generate(model, ids, *rest, **options)

    monkeypatch.setattr(answering, "generate_text", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        Threads(monkeypatch).run(2, lambda ranks: answers(ranks, 5))


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(tmp_path: Path) -> None:
    for processes in (1, 2):
        output = tmp_path / f"{processes}.jsonl"
        done = launch(["evaluate", *FLAGS, "--output", str(output)], processes)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("accuracy ") == 1  # one process speaks
    assert (tmp_path / "2.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert len((tmp_path / "2.jsonl").read_text().splitlines()) == 30
    one, two = (
        json.loads((tmp_path / f"{processes}.jsonl.summary.json").read_text())
        for processes in (1, 2)
    )
    for name in one.keys() | two.keys():
        if name not in OF_THE_MACHINE:
            assert one[name] == two[name], name
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_tasks_go_on_in_all_processes_when_one_fails(tmp_path: Path) -> None:
    rows = [
        {"question": f"{n} and 1?", "answer": f"It is {n} + 1 = {n + 1}.\n#### {n + 1}"}
        for n in range(5)
    ]
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bad.jsonl").write_text("no JSON\n")
    tasks = [str(tmp_path / f"{name}.jsonl") for name in ("bad", "good")]
    argv = ["evaluate", "kava/tiny-llama", "--tasks", *tasks, "--output", str(tmp_path / "out")]
    done = launch([*argv, "--max_new_tokens", "3", "--batch_size", "2", "--device", "cpu"], 2)
    assert done.returncode == 1
    assert [line for line in said(done) if "error" in line] == [
        line for line in said(done) if "1 of 2 tasks failed" in line
    ]
    assert len(said(done)) == 2  # the warning, and the error at the end
    assert len((tmp_path / "out/good.jsonl").read_text().splitlines()) == 5
