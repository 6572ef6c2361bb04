"""What the answers say beside the caches: above chance, at chance, or nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from runs import all_rows, run, small

from kava.data.records import Record
from kava.format import percent
from kava.losses import CollapseVerdict
from kava.train.answers import AnswersVerdict, guessing_share, judge_answers
from kava.train.guard import RunGuard


def records(*golds: str) -> list[Record]:
    return [Record(id=str(n), question="?", reasoning="", answer=g) for n, g in enumerate(golds)]


def test_guessing_gives_the_most_frequent_answer_in_any_spelling() -> None:
    assert guessing_share(records("18", "18.0", "7", " $18 ")) == 0.5
    assert guessing_share(records("Yes", "true", "no")) == pytest.approx(2 / 3)
    assert guessing_share(records("the cat", "The CAT.", "dog", "a cow")) == 0.5
    with pytest.raises(ValueError, match="no records"):
        guessing_share([])


@pytest.mark.parametrize(
    ("right", "items", "guessing", "state"),
    [
        (11, 250, 0.044, "at chance"),
        (0, 250, 0.044, "at chance"),
        (19, 250, 0.044, "at chance"),  # guessing is as good in 1.5 % of evaluations
        (20, 250, 0.044, "above chance"),  # in 0.8 %
        (250, 250, 0.5, "above chance"),
        (130, 250, 0.5, "at chance"),
        (3, 3, 0.25, None),  # in 1.6 %: all right answers may be luck
        (4, 4, 0.25, "above chance"),
        (9, 9, 1.0, None),
    ],
)
def test_answers_are_above_chance_where_guessing_is_seldom_as_good(
    right: int, items: int, guessing: float, state: str | None
) -> None:
    found = judge_answers(right, items, guessing)
    assert (found and found.state) == state


CACHES = {
    state: CollapseVerdict(state, f"{words}: why", ("what to do", "numbers"))  # type: ignore[arg-type]
    for state, words in (
        ("transfers", "transfers"), ("partly", "transfers in part"),
        ("nothing", "nothing transfers"), ("collapsed", "collapsed"),
    )
}  # fmt: skip


@pytest.mark.parametrize("state", CACHES)
@pytest.mark.parametrize("answers", ["at chance", "above chance", None])
def test_caches_and_answers_are_said_together(state: str, answers: str | None) -> None:
    guard = RunGuard(small(), lambda student, target: None)  # type: ignore[arg-type, return-value]
    guard.verdict = CACHES[state]
    heard = None if answers is None else AnswersVerdict(answers, f"answers are {answers} (…)")
    assert guard.hear(heard) == (answers is not None)
    assert not guard.hear(heard)
    said = guard.last_word()
    assert said is not None
    first, *rest = said.split("\n")
    if answers == "at chance" and state in ("transfers", "partly"):
        words = CACHES[state].sentence.removesuffix(": why")
        assert first == f"{words}, but answers are at chance (…)"
        assert rest == ["why", "what to do", "numbers"]
    else:
        assert first == CACHES[state].sentence
        said_of_answers = [] if heard is None else [heard.sentence]
        assert rest == [*said_of_answers, "what to do", "numbers"]
    assert guard.in_short() == (state if answers is None else f"{state} (answers {answers})")
    again = RunGuard(small(), guard.loss_fn)
    again.restore(guard.state())
    assert (again.verdict, again.answers) == (guard.verdict, guard.answers)


def test_a_verdict_of_an_earlier_version_is_read() -> None:
    guard = RunGuard(small(), lambda student, target: None)  # type: ignore[arg-type, return-value]
    guard.restore({"state": "transfers", "sentence": "transfers: in every slot (KV loss 0.1)"})
    assert guard.last_word() == "transfers: in every slot (KV loss 0.1)"
    assert guard.in_short() == "transfers"


def test_a_run_that_matches_caches_and_answers_at_chance_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of its teacher that reads the same text, and is given no room to answer."""
    options: dict[str, Any] = {
        "model_name": "kava/shell-teacher", "teacher_name": "kava/shell-teacher",
        "student": "explicit", "lr": 1e-6, "max_steps": 1, "eval_size": 32, "max_new_tokens": 1,
    }  # fmt: skip
    run(small(tmp_path, **options))
    printed = capsys.readouterr().out
    (row,) = [row for row in all_rows(tmp_path) if "eval_accuracy" in row]
    assert row["eval_accuracy"] < 0.1
    assert 1 / 32 <= row["eval_guessing"] < 0.5
    right, guessing = (percent(row[name]) for name in ("eval_accuracy", "eval_guessing"))
    expected = (
        f"guard: transfers, but answers are at chance ({right}; guessing the most frequent answer "
        f"gives {guessing})\n"
        f"       every position matches its own sample's cache better than another's\n"
        f"       KV loss "
    )
    assert expected in printed
    assert re.search(r"^Evaluation .*, guard=transfers \(answers at chance\)$", printed, flags=re.M)


def test_answers_above_chance_are_said_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher itself, which writes its reasoning and answers rightly."""
    options: dict[str, Any] = {
        "model_name": "kava/shell-teacher", "teacher_name": "kava/shell-teacher",
        "student": "explicit", "lr": 1e-6, "max_steps": 1, "eval_size": 32,
    }  # fmt: skip
    run(small(tmp_path, **options))
    printed = capsys.readouterr().out
    assert "guard: transfers: every position matches its own sample's cache better" in printed
    assert "\n       answers are above chance (100.0 %; guessing" in printed
