"""YAML: keys as they are written and each once, and no number that is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kava.inputs import Malformed
from kava.inputs.yaml_text import read_yaml


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.yaml"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' stands twice, on line 1 already"),
        ("arms:\n  flat: {}\n  full: {}\n  flat: {}\n", 4, "the key 'flat' stands twice, on line"),
        ("a: {b: 1, b: 2}", 1, "the key 'b' stands twice"),
        ("a:\n- b: 1\n  'b': 2", 3, "the key 'b' stands twice, on line 2"),
        ("a: 1\rb: 1\ra: 2", 3, "the key 'a' stands twice"),
        ("? [a]\n: 1", 1, "a key must be text"),
        ("a: 1\nseed: 010", 2, "010 is another number in YAML"),
        ("a: [1:30]", 1, "1:30 is another number in YAML"),
        ("a: 1\nb: 2024-13-01", 2, "month must be in"),
        ("a: &a\n  b: *a", 2, r"\*a stands inside of &a"),
        ("a: *b", 1, "undefined alias"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: !!python/object:os.system b", 1, "could not determine a constructor"),
        ("a: 1\nb: \x07", 2, "the character .* is not allowed"),
        ("a: b: c", 1, "mapping values are not allowed"),
        ("a: " + "9" * 5000, 1, "Exceeds the limit"),
    ],
)
def test_what_cannot_be_read_is_named_by_line(
    path: Path, text: str, line: int, message: str
) -> None:
    path.write_text(text, newline="")
    with pytest.raises(Malformed, match=message) as problem:
        read_yaml(path)
    assert str(problem.value).startswith(f"{path} is not valid YAML: line {line}: ")
    assert "\n" not in str(problem.value)


def test_nesting_without_end_and_other_encodings_are_named(path: Path) -> None:
    path.write_text("[" * 20_000)
    with pytest.raises(Malformed, match="nested too deep"):
        read_yaml(path)
    path.write_bytes("a: 1\nname: café".encode("latin-1"))
    with pytest.raises(Malformed, match=r"plan.yaml, line 2 is not UTF-8 text: byte 0xe9"):
        read_yaml(path)


def test_keys_are_the_text_that_is_written(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfno: 1\r\non: {off: 2, 010: 3, 1: 4, null: 5, 1e3: 6}\r\n")
    assert read_yaml(path) == {
        "no": 1,
        "on": {"off": 2, "010": 3, "1": 4, "null": 5, "1e3": 6},
    }


def test_a_merged_key_may_be_set_anew(path: Path) -> None:
    path.write_text("a: &a {x: 1, no: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n")
    assert read_yaml(path) == {
        "a": {"x": 1, "no": 2},
        "b": {"x": 3, "no": 2},
        "c": [{"x": 1, "no": 2}] * 2,
    }


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-3", -3), ("1_000", 1000), ("0x10", 16), ("0.50", 0.5)]
)
def test_plain_numbers_are_numbers(path: Path, text: str, value: float) -> None:
    path.write_text(f"a: {text}")
    assert read_yaml(path) == {"a": value}
