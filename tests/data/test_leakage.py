"""Questions in training and in test data: what counts as one, and every overlap is found."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data import Record, check_disjoint, leaks, load_records, question_key, split_records
from kava.data.leakage import leak_warning

SAME = [
    ("How many CLIPS?", " how  many\nclips"),
    ("Ｈow many clips?", "How many clips!"),
    ("It’s “Ann's” turn; how, then…", "its anns turn how then"),
    ("the dogs' food", "the dogs food"),
    ("a two-step walk — short", "a two step walk short"),
    ("1,000 pens at $2.50", "1000.0 pens at $ 2.5"),
    ("1,234,567 and 10", "1234567.00 and 10.0"),
    ("for .50 of it", "for 0.5 of it"),
    ("3+4=7", "3 + 4 = 7"),
    ("What is $x^{2}$ times \\frac{1}{2}?", "What is x^2 times ½"),
    ("(1,2)", "( 1, 2 )"),
    ("She has 5 pens.How many?", "She has 5 pens. How many?"),
]
OTHER = [
    ("3 + 4", "3 - 4"),
    ("3 / 4", "3 * 4"),
    ("2(x+3)", "2x+3"),
    ("1.5 pens", "15 pens"),
    ("1,000 pens", "1,00 pens"),
    ("1234,567 pens", "1234567 pens"),
    ("10² pens", "102 pens"),
    ("f(x)", "f'(x)"),
    ("What is 5?", "What is 5!?"),
    ("$5", "5 %"),
    ("x < 3", "x > 3"),
    ("four pens", "4 pens"),
    ("pens and ink", "ink and pens"),
    ("-3", "3"),
    ("0101", "101"),
    ("???", "!!"),
]


def records_of(*questions: str, name: str = "r") -> list[Record]:
    return [
        Record(id=f"{name}{i}", question=question, reasoning="1\n2", answer="2")
        for i, question in enumerate(questions)
    ]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_question_have_one_key(one: str, other: str) -> None:
    assert question_key(one) == question_key(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_changes_a_question_changes_its_key(one: str, other: str) -> None:
    assert question_key(one) != question_key(other)


@given(st.text("aB3.,'-+$( \n?", max_size=40))
def test_blanks_case_and_a_final_mark_make_no_other_question(question: str) -> None:
    key = question_key(f"3 {question}")
    assert question_key(f"\n3  {question.upper()} ?") == key
    assert question_key(f"4 {question}") != key


WORDS = st.sampled_from(
    ["ann", "Ann", "ann's", "3", "3.0", "03", "1,000", "1000", "+", "-", "(", "."]
)


@given(*[st.lists(WORDS.map(lambda word: f"{word} x"), max_size=6)] * 2)
def test_leaks_are_those_of_a_slow_loop(train: list[str], test: list[str]) -> None:
    ours, theirs = records_of(*train), records_of(*test, name="t")
    slow = {
        (one.id, other.id)
        for one, other in product(ours, theirs)
        if question_key(one.question) == question_key(other.question)
    }
    found = leaks(ours, theirs)
    assert {(a.id, b.id) for leak in found for a in leak.train for b in leak.test} == slow
    assert len({leak.question for leak in found}) == len(found)
    order = [theirs.index(leak.test[0]) for leak in found]
    assert order == sorted(order)


def test_a_leak_has_all_records_of_its_question() -> None:
    (leak,) = leaks(records_of("a?", "b", "A"), records_of("c", "a.", "a", name="t"))
    assert leak.question == "a"
    assert [record.id for record in leak.train] == ["r0", "r2"]
    assert [record.id for record in leak.test] == ["t1", "t2"]
    assert leaks([], records_of("a")) == leaks(records_of("a"), []) == []


def test_overlap_is_counted_and_named() -> None:
    train, test = records_of("a?", "b?", "c?"), records_of("x", " B ", "C!")
    check_disjoint(train, test=records_of("x"))
    check_disjoint(records_of("a", "a"))
    with pytest.raises(ValueError, match=r"train and test share 2 questions \(r1 = r1, r2 = r2\)"):
        check_disjoint(train, test=test)
    with pytest.raises(ValueError, match=r"train and calibration share 1 .*; train and test share"):
        check_disjoint(train, records_of("A?"), test)
    with pytest.raises(ValueError, match="calibration and test share 1"):
        check_disjoint([], records_of("a"), records_of("a"))


def test_a_warning_counts_the_test_records() -> None:
    train, test = records_of("a", "b"), records_of("A?", "a", "c", name="t")
    assert leak_warning(train, test, "questions") == (
        "2 of the 3 questions are in the training data too (t0, t1): the score on them says "
        "nothing of others"
    )
    assert leak_warning(train, records_of("c"), "questions") is None


@pytest.mark.parametrize("parts", [{"train": 0.5, "test": 0.5}, {"train": 12, "test": 12}])
def test_a_split_leaks_no_spelling_of_a_question(parts: dict) -> None:
    records = records_of(*(text for pair in SAME for text in pair))
    for seed in range(10):
        splits = split_records(records, parts, seed=seed)
        check_disjoint(**splits)
        assert sum(map(len, splits.values())) == 24


@pytest.mark.parametrize(
    "name", ["kava/shell-game", "kava/word-problems", "kava/word-problems?theme=sums"]
)
def test_the_splits_of_a_built_in_task_share_no_question(name: str) -> None:
    check_disjoint(load_records(name), test=load_records(name, split="test"))


def test_many_rows_take_little_time() -> None:
    question = "Ann number {} has 1,200 pens and buys {} more at $2.50; how many has she got now?"
    train = [
        Record(id=str(i), question=question.format(i, i % 7), reasoning="", answer="1")
        for i in range(20_000)
    ]
    start = time.process_time()
    assert len(leaks(train, train[:500])) == 500
    assert time.process_time() - start < 10  # 0.3 s on a free machine; quadratic: minutes


@pytest.mark.shared
def test_the_known_leak_between_gsm8k_aug_and_gsm8k_is_found(shared: Path) -> None:
    train = load_records(f"gsm8k:{shared}/data/gsm8k")
    valid, test = (
        load_records(f"gsm8k_aug:{shared}/data/gsm8k_aug", split=split)
        for split in ("valid", "test")
    )
    assert len(leaks(train, valid)) == 500
    assert leaks(train, test) == []
    assert len(leaks(load_records(f"gsm8k:{shared}/data/gsm8k", split="test"), test)) == 1319
