"""Calculator marks are found where they are such, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data.calculator import equations, strip_marks


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("48/2 = <<48/2=24>>24 clips", "48/2 = 24 clips"),
        ("<<10*450=4500>>4,500 and <<48 + 24 = 72>>72", "4,500 and 72"),
        ("<<.5*3=1.5>>1.5, <<98*3400=333200.00>>333,200.00", "1.5, 333,200.00"),
        ("<<3/4=3/4>>3/4, <<5-8=-3>>-3, <<(2+3)*2=10>>10%", "3/4, -3, 10%"),
    ],
)
def test_marks_are_stripped(text: str, stripped: str) -> None:
    assert strip_marks(text) == stripped


@pytest.mark.parametrize(
    "text",
    [
        "1 << 4 is 16 and 64 >> 2 is 16",
        "cout << x; cin >> y; a<<=b>>c",
        "x <<= 2; y >>= 2",
        "<<Dune>> is a book",
        "<<4-2=2>> <<2/.5=4>>",  # GSM8K-Aug: nothing stands behind
        "<<1+1=2>>3",
        "<<x+1=2>>2",
        "<<1+1>>2",
        "<<1=1=1>>1",
        "<<>> <<=>> <<=1>",
    ],
)
def test_what_is_no_mark_is_left(text: str) -> None:
    assert strip_marks(text) == text


@given(st.text(alphabet="<>=0123 +*.,a\n", max_size=40))
def test_nothing_but_whole_marks_is_taken_away(text: str) -> None:
    stripped = iter(strip_marks(text))
    kept = next(stripped, None)
    for character in text:
        if character == kept:
            kept = next(stripped, None)
    assert kept is None  # what stays is the text with parts left out
    if "<<" not in text or "=" not in text or ">>" not in text:
        assert strip_marks(text) == text


def test_equations_are_those_of_the_marks() -> None:
    text = "She sold 48/2 = <<48 / 2 = 24>>24. 1 << 4 is 16, 64 >> 2 too. <<24+48=72>>72"
    assert equations(text) == "<<48/2=24>> <<24+48=72>>"
    assert equations("1 << 4 is 16 and 64 >> 2 is 16") == ""


@pytest.mark.shared
def test_every_mark_of_gsm8k_is_stripped(shared: Path) -> None:
    num_marks = 0
    for split in ("train", "test"):
        with (shared / "data/gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                answer = json.loads(line)["answer"]
                num_marks += answer.count("<<")
                assert "<<" not in strip_marks(answer)
    assert num_marks == 27_998
