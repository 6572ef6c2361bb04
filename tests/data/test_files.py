"""Files of every format: the same rows, and what is malformed named by its line or row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from kava.data import load_records
from kava.data.files import format_of, is_one_split, stem_of
from kava.data_settings import RowSettings

Rows = list[dict[str, str]]
Write = Callable[[Path, Rows], None]
ROWS = [
    {"question": "1+1?", "reasoning": "1+1=2, by hand", "answer": "2"},
    {"question": 'Say "no",\nplease', "reasoning": "one\r\ntwo\rthree", "answer": "007"},
    {"question": "三加四？\u2028\x85\0", "reasoning": "1 << 4 {reasoning}", "answer": "1e3"},
]


def _jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _escaped(path: Path, rows: Rows) -> None:
    path.write_text("\r\n".join(json.dumps(row) for row in rows), newline="")


def _json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8-sig")


def _csv_text(rows: Rows, **options: Any) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv(path: Path, rows: Rows) -> None:
    path.write_bytes(_csv_text(rows).encode("utf-8-sig"))


def _quoted_csv(path: Path, rows: Rows) -> None:
    path.write_bytes(_csv_text(rows, quoting=csv.QUOTE_ALL, lineterminator="\n").encode("utf-8"))


def _parquet(path: Path, rows: Rows) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path)


def _packed(write: Write) -> Write:
    def packed(path: Path, rows: Rows) -> None:
        write(path, rows)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return packed


def _saved(path: Path, rows: Rows) -> None:
    datasets.Dataset.from_list(rows).save_to_disk(str(path))


def _saved_splits(path: Path, rows: Rows) -> None:
    other = [{**rows[0], "question": "other?"}]
    splits = {"test": other, "train": rows}
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(part) for name, part in splits.items()}
    ).save_to_disk(str(path))


FILES: dict[str, Write] = {
    "a.jsonl": _jsonl,
    "b.jsonl": _escaped,
    "a.ndjson": _jsonl,
    "a.json": _json,
    "b.json": _jsonl,
    "a.csv": _csv,
    "b.CSV": _quoted_csv,
    "a.parquet": _parquet,
    "a.jsonl.gz": _packed(_jsonl),
    "a.json.gz": _packed(_json),
    "a.csv.gz": _packed(_csv),
    "no ending": _jsonl,
    "saved": _saved,
    "splits": _saved_splits,
}


def parts(name: str, **options: Any) -> list[tuple[str, str, str]]:
    records = load_records(name, **options)
    return [(record.question, record.reasoning, record.answer) for record in records]


def expected(rows: Rows) -> list[tuple[str, str, str]]:
    """Blanks around a text are left out, and nothing else."""
    return [
        (row["question"].strip(), row["reasoning"].strip(), row["answer"].strip()) for row in rows
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_records(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name, ROWS)
    assert parts(str(tmp_path / name)) == expected(ROWS)


# half of a surrogate pair is no character, and no file of UTF-8 can hold it
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = TEXT | st.text(alphabet='",\r\n <>=#0129{}\\\0\u2028\x85\ufeff', max_size=20)
# a reasoning that holds the cue, and a number with more lines behind it, are refused
REASONING = TEXTS.filter(lambda text: "####" not in text)
ANSWER = TEXTS.map(lambda text: f"a {text}")
ROW = st.fixed_dictionaries({"question": TEXTS, "reasoning": REASONING, "answer": ANSWER})


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl", "a.json", "b.json", "b.CSV", "a.parquet"])
@given(rows=st.lists(ROW, min_size=2, max_size=4))
def test_any_row_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: Rows
) -> None:
    path = tmp_path_factory.mktemp("rows") / name
    FILES[name](path, rows)
    assert parts(str(path), rows=RowSettings(reasoning_form="annotated")) == expected(rows)


def test_cells_of_a_csv_file_are_text(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("id,question,reasoning,answer,student_question\n007,a,,1e3,\n,NA,null,,x\n")
    first, second = load_records(str(path))
    assert (first.id, first.reasoning, first.answer, first.student_question) == (
        "007", "", "1e3", None,
    )  # fmt: skip
    assert (second.id, second.question, second.reasoning, second.answer) == (
        "train-1", "NA", "null", "",
    )  # fmt: skip
    assert second.where == f"{path}, line 3, row 1"


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = tmp_path / "a.csv"
    path.write_text(f"question,reasoning,answer\nq,{'x' * 200_000},a\n")
    assert len(load_records(str(path))[0].reasoning) == 200_000
    assert csv.field_size_limit() == limit


HEAD = "question,reasoning,answer\n"
PACKED = gzip.compress(HEAD.encode() * 50, mtime=0)  # the same at every collection


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", "", "is empty: it holds no row"),
        ("a.csv", HEAD, "is empty: it holds no row"),
        ("a.csv", HEAD + "a,b,c\nd,e\n", "line 3 has 2 cell.s., but the header has 3"),
        ("a.csv", HEAD + '"a\nb",c,d\ne,f,g,h\n', "line 4 has 4 cell.s., but the header has 3"),
        ("a.csv", HEAD + 'a,"b"c,d\n', "line 2 is not CSV: "),
        ("a.csv", HEAD + 'a,b,c\nd,"e,f\ng,h,i\n', "line 3 is not CSV: unexpected end of data"),
        ("a.csv", HEAD.replace("reasoning", "answer"), "has two columns 'answer'"),
        ("a.csv", "question;answer\na;b\n", r"row 0 has no field 'question' \(it has 'question;a"),
        ("a.csv", (HEAD + "a,b,caf\xe9").encode("latin-1"), "line 2 is not UTF-8 text"),
        ("a.csv", (HEAD + "a,b,c").encode("utf-16"), "is not UTF-8 text but UTF-16; convert it"),
        ("a.csv.gz", PACKED[:-9], "is cut or damaged: its gzip data"),
        ("a.parquet", b"PAR1 no", "is no parquet file, or a damaged one"),
        ("a.parquet", b"", "is no parquet file, or a damaged one"),
        ("a.json", '[{"text": "a?\\nb #### 1"},\n7]', "line 2, row 1 must be a JSON object, got 7"),
        ("a.json", '[{"question": "a",\n"answer": null}]', "line 1, row 0: field 'answer' must be"),
        ("a.json", '{"a": {"question": "b"}}', "a list of rows, got dict with the keys 'a'"),
        ("a.json", '[{"answer": "a",\n"answer": "b"}]', 'line 2 has the key "answer" twice'),
        ("a.json", '{"question": "a"}\n{"question"', "line 1 has no field 'answer'"),
        ("a.tsv", "question\tanswer\n", r"that ends in .tsv is not read; write its rows as .jsonl"),
        ("a.xlsx", b"PK\x03\x04\xff", r"that ends in .xlsx is not read; write its rows as .jsonl"),
        ("a.zip", b"PK\x03\x04\0\0", r"that ends in .zip is not read"),
        ("rows", "question\n", "that ends in nothing is not read"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(ValueError, match=message) as problem:
        load_records(str(path))
    assert str(path) in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("column", "answers"),
    [
        (pa.array([72, -5]), ["72", "-5"]),
        (pa.array([2.5, 1e16]), ["2.5", "10000000000000000"]),
        (pa.array([0.1, 1e-5], pa.float32()), ["0.1", "0.00001"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_numbers_of_a_parquet_file_are_the_shortest_digits(
    tmp_path: Path, column: pa.Array, answers: list[str]
) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.array(["a", "b"])
    parquet.write_table(pa.table({"question": texts, "reasoning": texts, "answer": column}), path)
    assert [record.answer for record in load_records(str(path))] == answers


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a", None]), "row 1: field 'answer' must be text, got None"),
        (pa.array([1.0, float("nan")]), "row 1: field 'answer' is the number NaN"),
        (pa.array([1.0, float("nan")], pa.float32()), "row 1: field 'answer' is the number NaN"),
        (pa.array([1, None]), "row 1: field 'answer' must be text, got None"),
        (pa.array([True, False]), "row 0: field 'answer' must be text, got True"),
        (pa.array([b"a", b"b"]), "row 0: field 'answer' must be text, got b'a'"),
        (pa.array([["a"], []]), r"row 0: field 'answer' must be text, got \['a'\]"),
        (pa.array([b"a", b"\xff"]).view(pa.string()), "row 1: field 'answer' is not UTF-8 text"),
    ],
)
def test_a_bad_row_of_a_parquet_file_is_named(
    tmp_path: Path, column: pa.Array, message: str
) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.array(["a", "b"])
    parquet.write_table(pa.table({"question": texts, "reasoning": texts, "answer": column}), path)
    with pytest.raises(ValueError, match=message) as problem:
        load_records(str(path))
    assert str(problem.value).startswith(str(path))


def test_a_folder_holds_its_splits_in_any_format(tmp_path: Path) -> None:
    _csv(tmp_path / "test.csv", ROWS)
    assert parts(str(tmp_path), split="test") == expected(ROWS)
    with pytest.raises(ValueError, match=r"holds no train\.jsonl, nor a train of another format"):
        load_records(str(tmp_path))
    _parquet(tmp_path / "train-00000-of-00002.parquet", ROWS[:2])
    _parquet(tmp_path / "train-00001-of-00002.parquet", ROWS[2:])
    records = load_records(str(tmp_path))
    assert [record.id for record in records] == ["train-0", "train-1", "train-2"]
    assert records[2].where == f"{tmp_path / 'train-00001-of-00002.parquet'}, row 0"
    _jsonl(tmp_path / "train.jsonl", ROWS[:1])  # goes before the others
    assert parts(str(tmp_path)) == expected(ROWS[:1])


def test_a_saved_data_set_names_its_splits_and_its_damage(tmp_path: Path) -> None:
    _saved_splits(tmp_path / "splits", ROWS)
    _saved(tmp_path / "saved", ROWS)
    assert len(load_records(str(tmp_path / "splits"), split="test")) == 1
    with pytest.raises(ValueError, match="holds no split valid, only test, train"):
        load_records(str(tmp_path / "splits"), split="valid")
    assert is_one_split(str(tmp_path / "saved"))
    assert not is_one_split(str(tmp_path / "splits"))
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"")
    with pytest.raises(ValueError, match="is no saved data set, or a damaged one"):
        load_records(str(tmp_path / "saved"))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json", "a.jsonl.gz", "saved"])
def test_tasks_and_mixes_read_every_format(tmp_path: Path, name: str) -> None:
    rows = [
        {"question": f"{n}+1?", "answer": f"One and {n} is <<1+{n}={n + 1}>>{n + 1}.\n#### {n + 1}"}
        for n in range(4)
    ]
    FILES[name](tmp_path / name, rows)
    direct = load_records(f"gsm8k:{tmp_path / name}")
    assert [record.answer for record in direct] == ["1", "2", "3", "4"]
    assert direct[1].reasoning == "One and 1 is 2."
    assert direct[0].id == ("gsm8k-train-0" if name == "saved" else "gsm8k-a-0")
    mixed = load_records(f"mix:gsm8k:{tmp_path / name}=1")
    assert sorted(record.question for record in mixed) == ["0+1?", "1+1?", "2+1?", "3+1?"]


def test_a_task_finds_its_file_in_any_format(tmp_path: Path) -> None:
    rows = [{"question": "1+1?", "answer": "One and one.\n#### 2"}]
    _csv(tmp_path / "test.csv", rows)
    _saved_splits(tmp_path / "saved", rows)
    for path in (tmp_path, tmp_path / "saved"):
        (record,) = load_records(f"gsm8k:{path}", split="test")
        assert (record.id, record.answer) == ("gsm8k-test-0", "2")


def test_types_that_csv_has_not_are_read_from_its_text(tmp_path: Path) -> None:
    path = tmp_path / "dev.csv"
    path.write_text("qid,question,facts,answer\nx,Is it?,It is.,True\n")
    (record,) = load_records(f"strategyqa:{path}", split="test")
    assert (record.answer, record.reasoning) == ("yes", "It is.")


@pytest.mark.parametrize(
    ("name", "format", "stem"),
    [
        ("data/train.jsonl", ".jsonl", "train"),
        ("data/Train.CSV.GZ", ".csv", "Train"),
        ("data.v2/train.v3.json", ".json", "train.v3"),
        ("train", "", "train"),
    ],
)
def test_a_files_name_says_its_format(name: str, format: str, stem: str) -> None:
    assert format_of(Path(name)) == format
    assert stem_of(Path(name)) == stem
