"""The shell game: right answers, no repeats, disjoint splits, one token a word."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kava.data import (
    CHANCE,
    SHELL_GAME_TEMPLATE,
    Collator,
    Record,
    Template,
    encode_records,
    oracle_positions,
    shell_game,
    shell_game_splits,
    shell_game_tokenizer,
    with_oracle_positions,
)

TOKENIZER = shell_game_tokenizer()


def play(record: Record) -> list[str]:
    """The states after each move, cup by cup, from the question's text."""
    words = record.question.split()
    state, states = words[1], []
    for move in words[3:-2]:
        row = [""] * 4
        for place in range(4):
            row[place] = state[int(move[place]) - 1]
        state = "".join(row)
        states.append(state)
    return states


def problem(record: Record) -> tuple[str, ...]:
    return tuple(record.question.split()[1:-2])


@pytest.mark.parametrize("num_moves", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("form", ["compact", "verbose", "both"])
def test_reasoning_and_answer_are_those_of_the_game(num_moves: int, form: str) -> None:
    records = shell_game(40, num_moves, num_moves=num_moves, form=form, fixed_start=False)  # type: ignore[arg-type]
    for record in records:
        states = play(record)
        assert len(states) == num_moves
        assert record.answer == states[-1]
        words = record.reasoning.split()
        assert [words[i] for i in record.meta["result_words"]] == states
        assert len(record.steps) == num_moves
        if record.meta["form"] == "compact":
            assert words == states
            assert record.question.endswith("order ?")
        else:
            before = [record.question.split()[1], *states[:-1]]
            moves = record.question.split()[3:-2]
            assert record.steps == tuple(
                f"{b} {m} > {a} ;" for b, m, a in zip(before, moves, states)
            )
            assert record.question.endswith("steps ?")
    assert {r.meta["form"] for r in records} == (
        {"compact", "verbose"} if form == "both" else {form}
    )


def test_the_example_of_the_documentation() -> None:
    question = "Cups bdca moves 3142 2143 4231 1432 order ?"
    record = Record(id="x", question=question, reasoning="", answer="")
    assert play(record) == ["cbad", "bcda", "acdb", "abdc"]


def test_same_seed_same_records_and_none_twice() -> None:
    records = shell_game(5000, seed=3)
    assert records == shell_game(5000, seed=3)
    assert records != shell_game(5000, seed=4)
    assert len({r.question for r in records}) == len({r.id for r in records}) == 5000


def test_a_small_task_can_be_drawn_whole() -> None:
    records = shell_game(24**2, num_moves=1, fixed_start=False)
    assert {problem(r) for r in records} == {
        ("".join(s), "moves", "".join(m))
        for s in permutations("abcd")
        for m in permutations("1234")
    }
    train = shell_game(20, num_moves=1, fixed_start=True, split="train")
    with pytest.raises(ValueError, match=r"num_records=577 .* the 576 .*num_moves=1;"):
        shell_game(577, num_moves=1, fixed_start=False)
    with pytest.raises(ValueError, match="in the test split"):
        shell_game(24, num_moves=1, fixed_start=True, split="test")
    assert all(r.question.startswith("Cups abcd ") for r in train)


@pytest.mark.parametrize("num_moves", [2, 4])
def test_splits_are_disjoint_for_all_seeds_forms_and_counts(num_moves: int) -> None:
    train, test = shell_game_splits(3000, 600, 0, num_moves=num_moves, fixed_start=False)
    _, other = shell_game_splits(
        10, 900, seed=1, num_moves=num_moves, form="verbose", fixed_start=False
    )
    fixed, _ = shell_game_splits(300, 10, seed=2, num_moves=num_moves, fixed_start=True)
    held_out = {problem(r) for r in (*test, *other)}
    assert not held_out & {problem(r) for r in (*train, *fixed)}
    assert len(test) == 600


def test_about_an_eighth_is_held_out() -> None:
    drawn = {problem(r) for r in shell_game(24**3, num_moves=2, fixed_start=False)}
    train = {problem(r) for r in shell_game(11_000, num_moves=2, fixed_start=False, split="train")}
    assert train < drawn
    with pytest.raises(ValueError, match=r"than the 1[67]\d\d different"):
        shell_game(13_000, num_moves=2, fixed_start=False, split="test")


def test_no_answer_is_likelier_than_another() -> None:
    counts = Counter(r.answer for r in shell_game(24**3, num_moves=2, fixed_start=False))
    assert set(counts.values()) == {24**2}
    assert pytest.approx(1 / len(counts)) == CHANCE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "long"}, "form='long'"),
        ({"student_form": "both"}, "student_form='both'"),
        ({"num_moves": 0}, "num_moves=0"),
        ({"num_moves": 13}, "num_moves=13"),
        ({"num_records": 0}, "num_records=0"),
        ({"split": "valid"}, "split='valid'"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shell_game(**{"num_records": 4, **options})


@pytest.mark.parametrize("form", ["compact", "verbose"])
def test_a_word_is_a_token_and_decodes_to_itself(form: str) -> None:
    for record in shell_game(50, form=form):  # type: ignore[arg-type]
        text = SHELL_GAME_TEMPLATE.render(record).text
        output = TOKENIZER(text, return_offsets_mapping=True)
        assert [text[a:b] for a, b in output["offset_mapping"]] == text.split()
        assert TOKENIZER.decode(output["input_ids"]) == " ".join(text.split())
        assert TOKENIZER.unk_token_id not in output["input_ids"]
    assert len(TOKENIZER(record.question)["input_ids"]) <= 12


def test_the_tokenizer_is_saved_and_loaded_equal(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = shell_game(1)[0].question + " Answer bdca"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    assert loaded.padding_side == "left"


def test_oracle_positions_are_the_result_tokens() -> None:
    records = shell_game(8, num_moves=5, form="verbose", student_form="compact")
    encoded, _ = encode_records(records, TOKENIZER, SHELL_GAME_TEMPLATE, 64, target_len=4)
    batch = Collator(0)(with_oracle_positions(records, encoded)[3:])
    kept = batch["input_ids"].gather(1, batch["positions"])
    assert [TOKENIZER.decode(row).split() for row in kept] == [play(r)[:-1] for r in records[3:]]
    assert (batch["segment_ids"].gather(1, batch["positions"]) == 1).all()
    whole = Template(cue="Answer ", drop_last_step=False)
    encoded, _ = encode_records(records, TOKENIZER, whole, 64)
    assert len(oracle_positions(records[0], encoded[0])) == 5
    with pytest.raises(ValueError, match="differ"):
        oracle_positions(records[0], encoded[1])
    with pytest.raises(ValueError, match="of no built-in task"):
        oracle_positions(Record(id="a", question="?", reasoning="", answer=""), encoded[0])


@pytest.mark.parametrize(
    ("target_len", "expected"),
    [
        (None, (3, 8, 13)),
        (3, (3, 8, 13)),
        (2, (3, 8)),
        (4, (3, 5, 8, 13)),
        (5, (3, 5, 8, 10, 13)),
        (6, (3, 5, 8, 10, 13, 14)),
        (14, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)),
        (15, tuple(range(15))),
        (40, tuple(range(15))),
    ],
)
def test_the_oracle_fills_up_with_repeated_results_then_the_last_others(
    target_len: int | None, expected: tuple[int, ...]
) -> None:
    records = shell_game(3, 0, form="verbose")
    encoded, _ = encode_records(records, TOKENIZER, SHELL_GAME_TEMPLATE, 64)
    for item in with_oracle_positions(records, encoded, target_len):
        assert item.positions == tuple(item.prompt_length + place for place in expected)


def test_the_student_is_asked_for_its_own_form() -> None:
    verbose, compact = (
        shell_game(2, form="verbose", student_form=form)[0]  # type: ignore[arg-type]
        for form in ("verbose", "compact")
    )
    assert verbose.student_question is None
    assert compact.student_question == compact.question.replace("steps", "order")


def test_each_form_writes_a_game_twice_under_one_question() -> None:
    pairs = shell_game(7, seed=3, form="each", split="train")
    assert len(pairs) == 7
    assert len(shell_game(1, form="each")) == 1
    plain = shell_game(4, seed=3, split="train")
    assert [one.question for one in pairs[::2]] == [one.question for one in plain]
    for compact, verbose in zip(pairs[::2], pairs[1::2]):
        assert compact.question == verbose.question
        assert compact.answer == verbose.answer
        assert (compact.meta["form"], verbose.meta["form"]) == ("compact", "verbose")
        words = verbose.reasoning.split()
        assert [words[index] for index in verbose.meta["result_words"]] == [*compact.steps]
    assert len({one.id for one in pairs}) == 7
