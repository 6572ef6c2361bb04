"""Sources: rows read as they are meant, and every kind of bad file named by line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kava.data import default_template, load_records, shell_game
from kava.data_settings import RowSettings

GSM = {
    "question": "How many? ",
    "answer": "She sold 48/2 = <<48/2=24>>24 in May.\nAll: <<48+24 = 72>>72.\n#### 72",
}
GENERIC = {"id": 7, "question": "1+1?", "reasoning": "1+1=2", "answer": 2, "student_question": "?"}
TEXT = {"text": "1+1?\n1+1=2\n#### 2"}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_all_three_kinds_of_rows_are_read(tmp_path: Path) -> None:
    gsm, generic, text = load_records(write(tmp_path / "train.jsonl", GSM, GENERIC, TEXT))
    assert (gsm.id, gsm.question, gsm.answer) == ("train-0", "How many?", "72")
    assert gsm.reasoning == "She sold 48/2 = 24 in May.\nAll: 72."
    assert (generic.id, generic.reasoning, generic.answer) == ("7", "1+1=2", "2")
    assert generic.student_question == "?"
    assert (text.id, text.question, text.reasoning, text.answer) == (
        "train-2",
        "1+1?",
        "1+1=2",
        "2",
    )
    assert text.student_question is None


def test_annotations_are_stripped_kept_or_all_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GSM)
    (annotated,) = load_records(path, rows=RowSettings(reasoning_form="annotated"))
    assert annotated.reasoning == GSM["answer"].split("\n####")[0]
    (equations,) = load_records(path, rows=RowSettings(reasoning_form="equations"))
    assert equations.reasoning == "<<48/2=24>> <<48+24=72>>"
    assert equations.steps == ("<<48/2=24>>", "<<48+24=72>>")
    with pytest.raises(ValueError, match="reasoning_form='aug'"):
        load_records(path, rows=RowSettings(reasoning_form="aug"))


def test_fields_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"q": "1+1?", "why": "1+1=2; done", "a": "2"})
    (record,) = load_records(
        path,
        rows=RowSettings(question_field="q", reasoning_field="why", answer_field="a"),
        step_separator="; ",
    )
    assert record.steps == ("1+1=2", "done")
    with pytest.raises(ValueError, match=r"line 1 has no field 'question' \(it has 'q', 'why'"):
        load_records(path)
    with pytest.raises(ValueError, match="no field 'answer'"):
        load_records(path, rows=RowSettings(question_field="q"))


def test_a_folder_holds_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", GENERIC)
    assert len(load_records(str(tmp_path), split="test")) == 1
    with pytest.raises(ValueError, match=r"holds no train\.jsonl"):
        load_records(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (
            b'{"question": "a", "reasoning": "b", "answer": "c"}\n{"question": \n',
            "line 2 is not JSON",
        ),
        (b'\xff\xfe{"a": 1}\n', "line 1 is not UTF-8 text"),
        (b'{"text": "caf\xe9"}\n', "line 1 is not UTF-8 text: byte 0xe9; if it is Latin-1"),
        (b'{"question": "a", "answer": NaN}', "line 1: field 'answer' is the number NaN, which"),
        (b'{"question": -Infinity, "answer": "b"}', "field 'question' is the number -inf"),
        (b'{"question": "a", "answer": true}', "line 1: field 'answer' must be text, got True"),
        (b'{"question": ["a"], "answer": "b"}', r"field 'question' must be text, got \['a'\]"),
        (b'{"question": {"a": 1}, "answer": "b"}', r"'question' must be text, got \{'a': 1\}"),
        (
            b'{"question": "a", "reasoning": "\\ud800", "answer": "b"}',
            r"line 1: field 'reasoning' holds '\\ud800', half of a surrogate pair",
        ),
        (b'{"text": "\\udc00?\\nb\\n#### 1"}', "line 1: field 'text' holds"),
        (b'{"question": "a", "answer": "b", "answer": "c"}', 'line 1 has the key "answer" twice'),
        (b'{"id": [1], "text": "a?\\nb\\n#### 1"}', r"line 1: field 'id' must be text, got \[1"),
        (b'{"id": NaN, "text": "a?\\nb\\n#### 1"}', "line 1: field 'id' is the number NaN"),
        (b'{"student_question": {}, "text": "a?\\nb\\n#### 1"}', "'student_question' must be text"),
        (b'{"question": "a", "answer": "#### 1"},', "line 1 is not JSON: Extra data"),
        (b'[{"question": "a", "answer": "b"}]', "line 1 must be a JSON object, got"),
        (b"[" * 100_000, "line 1 is nested too deep"),
        (b"[1, 2]\n", r"line 1 must be a JSON object, got \[1, 2\]"),
        (b'\n{"question": "a"}\n', "line 2 has no field 'answer'"),
        (b'{"question": null, "answer": "#### 1"}\n', "field 'question' must be text, got None"),
        (
            b'{"question": "a", "answer": "72"}\n',
            "line 1 has no field 'reasoning', and its 'answer'",
        ),
        (b'{"text": "What?\\nThat."}\n', "line 1: no marker of the answer"),
        (
            b'{"id": 1, "text": "a?\\nb\\n#### 1"}\n{"id": 1, "text": "a?\\nb\\n#### 1"}\n',
            "line 2 has the id '1' of line 1",
        ),
    ],
)
def test_a_bad_file_is_named_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as problem:
        load_records(str(path))
    assert str(path) in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("number", ["0.00001", "1e-05", "1e16", "1E+16", "72.0", "-0", "9" * 5000])
def test_a_number_stays_as_it_is_written(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"id": {number}, "question": "a", "reasoning": "b", "answer": {number}}}')
    (record,) = load_records(str(path))
    assert (record.id, record.answer) == (number, number)


def test_rows_without_an_id_are_named_by_their_place(tmp_path: Path) -> None:
    rows = [{**GENERIC, "id": id_} for id_ in (None, "", "  ", 1)]
    records = load_records(write(tmp_path / "a.jsonl", *rows))
    assert [record.id for record in records] == ["a-0", "a-1", "a-2", "1"]
    assert [record.where for record in records] == [
        f"{tmp_path / 'a.jsonl'}, line {line}" for line in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_markers_of_raw_text_stand_on_lines_of_any_ends(tmp_path: Path, end: str) -> None:
    lines = ["How many clips?", "Solution: half of 48.", "That is 24.", "Answer: 24"]
    (record,) = load_records(write(tmp_path / "a.jsonl", {"text": end.join(lines)}))
    assert record.question == lines[0]
    assert record.reasoning == end.join(lines[1:3])
    assert record.answer == "24"
    assert record.steps == (lines[1], lines[2])


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GENERIC).encode())
    assert load_records(str(path))[0].question == "1+1?"


def test_a_pipe_is_no_data_set(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in (str(tmp_path / "pipe.jsonl"), f"gsm8k:{tmp_path / 'pipe.jsonl'}"):
        with pytest.raises(ValueError, match=r"neither a file nor a known name|is no such file"):
            load_records(name)


@pytest.mark.parametrize("name", ["nowhere/train.jsonl", "gsm9k", "kava/other"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is neither a file nor a known name"):
        load_records(name)


def test_a_subset_is_drawn_by_seed_and_grows(tmp_path: Path) -> None:
    rows = [{**GENERIC, "id": i} for i in range(50)]
    path = write(tmp_path / "a.jsonl", *rows)
    chosen = [[r.id for r in load_records(path, subset_size=n, seed=1)] for n in (5, 20, 50)]
    assert set(chosen[0]) < set(chosen[1]) < set(chosen[2])
    assert chosen == [sorted(ids, key=int) for ids in chosen]
    assert chosen[0] != [r.id for r in load_records(path, subset_size=5, seed=2)]
    for size in (0, 51):
        with pytest.raises(ValueError, match=f"subset_size={size} must be from 1 to the 50"):
            load_records(path, subset_size=size)


def test_the_shell_game_is_loaded_by_name() -> None:
    assert len(load_records("kava/shell-game")) == 20_000
    test = load_records("kava/shell-game", split="test")
    assert test == shell_game(1000, split="test")
    name = "kava/shell-game?num_moves=6&form=verbose&student_form=compact&seed=5&num_train=30"
    assert load_records(name) == shell_game(
        30, 5, num_moves=6, form="verbose", student_form="compact", split="train"
    )
    fixed = load_records("kava/shell-game?fixed_start=true&num_test=10", split="test")
    assert fixed == shell_game(10, fixed_start=True, split="test")
    # the seed of the choice does not change the data
    one, other = (load_records("kava/shell-game?num_train=30", seed=seed) for seed in (0, 9))
    assert one == other


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("moves=4", "no option 'moves' .did you mean 'num_moves'..; choose from .*num_moves"),
        ("num_moves=four", "num_moves=four must be a whole number"),
        ("num_moves=", "num_moves= must be"),
        ("num_moves=nan", "num_moves=nan must be a whole number"),
        ("num_moves=3&num_moves=4", "num_moves stands there twice"),
        ("num_moves=40", "num_moves=40 must be from 1 to 12"),
        ("fixed_start=maybe", "must be true or false"),
        ("form=long", "form='long' is unknown; choose compact, verbose, both"),
        ("num_train=0", "num_train=0 must be from 1 to"),
        ("num_test=99999999999", "num_test=99999999999 must be from 1 to 10,000,000"),
    ],
)
def test_bad_options_of_the_shell_game_are_named(query: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_records(f"kava/shell-game?{query}")


def test_an_unknown_split_is_refused() -> None:
    for name in ("kava/shell-game", "gsm8k"):
        with pytest.raises(ValueError, match="split='valid' is not in"):
            load_records(name, split="valid")


def test_each_source_has_its_cue() -> None:
    assert default_template("kava/shell-game?num_moves=6").cue == "Answer "
    assert default_template("gsm8k", drop_last_step=False).cue == "#### "
    assert not default_template("gsm8k", drop_last_step=False).drop_last_step
    assert default_template("gsm8k").drop_last_step


def test_gsm8k_without_a_network_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"gsm8k cannot be loaded .* path of a local train\.jsonl"):
        load_records("gsm8k")


def test_gsm8k_from_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(name: str, config: str, *, split: str) -> list[dict[str, str]]:
        assert (name, config, split) == ("openai/gsm8k", "main", "test")
        return [GSM, GSM]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    records = load_records("gsm8k", split="test")
    assert [r.id for r in records] == ["gsm8k-test-0", "gsm8k-test-1"]
    assert records[0].answer == "72"


@pytest.mark.shared
def test_all_of_gsm8k_is_read(shared: Path) -> None:
    folder = shared / "data/gsm8k"
    records = load_records(str(folder))
    assert len(records) == 7473
    assert records[17].id == "train-17"
    rows = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
    for row, record in zip(rows, records):
        assert record.answer == row["answer"].rpartition("#### ")[2].strip()
        assert "<<" not in record.reasoning
        assert len(record.steps) >= 2
    equations = load_records(str(folder), rows=RowSettings(reasoning_form="equations"))
    assert sum(not r.steps for r in equations) == 95
