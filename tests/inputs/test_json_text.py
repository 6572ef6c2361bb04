"""JSON: values as they are written, and what is none named by file, line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.inputs import (
    Malformed,
    json_items,
    json_lines,
    parse_json,
    read_json,
    shown,
    whole_json_lines,
)

KEYS = st.text(max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([None, 0, 2]))
def test_values_are_read_as_python_reads_them(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert parse_json(text, "a.json") == json.loads(text) == value


@pytest.mark.parametrize(
    "number", ["0", "-0", "72", "72.0", "2.50", "0.00001", "1e-05", "1e16", "1E+16", "9" * 5000]
)
def test_numbers_may_stay_as_they_are_written(number: str) -> None:
    row = parse_json(f'{{"a": {number}, "b": [{number}]}}', "a.json", as_written=True)
    assert row == {"a": number, "b": [number]}
    assert repr(row["a"]) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 1, "b": {"c": 2, "d": 3, "c": 4}}', r'line 2 has the key "c" twice'),
        ('\n{"a": [{"b": 1}, {"b": 1, "b": 2}], "a": 1}', r'line 2 has the key "b" twice'),
        ('{"a": "{\\"b\\", 1", "\\u0061": 2}', r'line 1 has the key "\\u0061" twice'),
        ('{"a": 1,}', "line 1 is not JSON: .*, at character"),
        ('{"a": 1},', "line 1 is not JSON: Extra data, at character 9"),
        ('{"a": 1} {"a": 1}', "line 1 is not JSON: Extra data, at character 10"),
        ('{"a": "x\ty"}', "line 1 is not JSON: Invalid control character"),
        ('{"a": "x\0y"}', "line 1 is not JSON: Invalid control character"),
        ("{'a': 1}", "line 1 is not JSON"),
        ("[\n{}\n]", r"line 1 is not JSON: it goes on on the next line.*ends in \.json"),
        ('{\n"a": 1}', "line 1 is not JSON: it goes on on the next line"),
        ('[{"a": 1}]', r"line 1 must be a JSON object, got \[\{'a': 1\}\]"),
        ('"text"', "line 1 must be a JSON object, got 'text'"),
        ("NaN", "line 1 must be a JSON object, got nan"),
        ("[" * 100_000 + "]" * 100_000, "line 1 is nested too deep to be read"),
        ('{"a": ' * 100_000, "line 1 is nested too deep to be read"),
        ('\n{"a": %s}' % ("9" * 5000), "line 2 holds a whole number of too many digits"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(Malformed, match=message) as problem:
        list(json_lines(path))
    assert str(problem.value).startswith(str(path))
    assert "\n" not in str(problem.value)
    assert len(str(problem.value)) < len(str(path)) + 300


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_read_with_any_ends_and_marks(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"a": "x\u2028y\x85z"}, {"a": "\n\r\0"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text(f"\ufeff{lines[0]}{end}{end}\ufeff{lines[1]}", encoding="utf-8", newline="")
    assert list(json_lines(path)) == [(1, rows[0]), (3, rows[1])]


def test_a_document_names_the_line_and_the_key(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1,\r"b": {"c": 1,\r\n"c": 2}}')
    with pytest.raises(Malformed, match='line 3 has the key "c" twice'):
        read_json(path)
    path.write_text('{"a": 1,\n\n"b": }')
    with pytest.raises(Malformed, match="line 3 is not JSON: Expecting value, at character 6"):
        read_json(path)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=4), st.sampled_from([None, 1]))
def test_the_items_of_a_list_are_its_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("items") / "a.json"
    path.write_text("\r\n" + json.dumps(rows, indent=indent), newline="")
    assert [row for _, row in json_items(path)] == rows
    lines = [line for line, _ in json_items(path)]
    assert lines == ([2] * len(rows) if indent is None else sorted(set(lines)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must be a list of rows, got dict"),
        ('{"train": [], "test": []}', "got dict with the keys 'train', 'test'"),
        ("3", "must be a list of rows, got int"),
        ("", "line 1 is not JSON: Expecting value"),
        ("[", "line 1 is not JSON: Expecting value"),
        ("[{},\n]", "line 2 is not JSON: Expecting value"),
        ("[{}\n{}]", "line 2 is not JSON: Expecting ',' delimiter"),
        ("[,{}]", "line 1 is not JSON: Expecting value"),
        ("[{}]\n]", "line 2 is not JSON: Extra data"),
        ('[{},\n{"a": 1,\n"a": 2}]', 'line 3 has the key "a" twice'),
    ],
)
def test_a_list_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(Malformed, match=message):
        list(json_items(path))


def test_the_half_line_of_a_killed_run_is_left_out_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": NaN}\n{"a": {"b": 1}')
    first, second = whole_json_lines(path)
    assert first == {"a": 1}
    assert second["a"] != second["a"]
    path.write_text('{"a": 1}\n{"a": 2}')
    assert whole_json_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 2}\n')
    with pytest.raises(Malformed, match="line 2 is not JSON"):
        whole_json_lines(path)


def test_a_value_in_a_message_is_short() -> None:
    deep: list[Any] = []
    for _ in range(990):
        deep = [deep]
    assert len(shown(deep)) <= 40
    assert "\n" not in shown("a\nb")
