"""One way to write what means the same, and never one way for what does not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data.plain import plain


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("１８％", "18%"),
        ("٣٫٥", "3.5"),
        ("१२", "12"),
        ("1\u00a0000\u2009000", "1 000 000"),
        ("\u22123 \u20134 \u20115", "-3 -4 -5"),
        ("‘a’ “b” «c»", '\'a\' "b" "c"'),
        ("a\\\n0", "a 0"),
        ("½", "1/2"),
        ("1½", "1 1/2"),
        ("1½5", "1 1/2 5"),
        ("1\u20442", "1/2"),
        ("10²", "10^2"),
        ("10⁻³", "10^-3"),
        ("m²", "m^2"),
        ("H₂O", "H2O"),
        ("10₂", "10_2"),
        ("ﬁ", "fi"),
        ("e\u0301", "é"),
        ("…", "..."),
        ("18\u200e", "18"),
        # LaTeX
        ("1{,}000", "1,000"),
        ("1\\,000", "1 000"),
        ("1,\\!000", "1,000"),
        ("\\$18", "$18"),
        ("$18$", "18"),
        ("$$18$$", "18"),
        ("$\\$18$", "$18"),
        ("\\(18\\)", "18"),
        ("18\\%", "18%"),
        ("\\boxed{\\text{18 eggs}}", "18 eggs"),
        ("\\boxed{\\frac{1}{2}}", "1/2"),
        ("-\\frac{1}{2}", "-1/2"),
        ("1\\frac12", "1 1/2"),
        ("10^{3}", "10^3"),
        ("5^{\\circ}", "5°"),
        ("90^\\circ", "90°"),
        ("2 \\times 3", "2 × 3"),
        ("x \\le 3", "x ≤3"),
        ("\\{1, 2\\}", "{1, 2}"),
        ("\\left(1, 2\\right)", "(1, 2)"),
    ],
)
def test_what_means_the_same_is_written_the_same(text: str, written: str) -> None:
    assert plain(text).replace("≤ ", "≤") == written


@pytest.mark.parametrize(
    "text",
    [
        "①", "⑱", "⒈", "2ⁿ", "ℝ", "™", "㎡", "x'", "5′", "C:\\temp", "a\\", "\\alpha", "\\boxed{18",
        "18}", "$5 and $6", "5$ or $6", "{1, 2}", "-x", "A+", "C++", "F#", "±5", "a_1", "—",
    ],
)  # fmt: skip
def test_what_means_something_of_its_own_stays(text: str) -> None:
    assert plain(text) == text


@given(st.text(st.characters(min_codepoint=128), max_size=8))
def test_no_digit_appears_or_disappears(text: str) -> None:
    decimals = [c for c in text if unicodedata.category(c) == "Nd"]
    others = any(unicodedata.category(c) in ("No", "Nl") for c in text)
    written = [c for c in plain(text) if c.isdecimal()]
    # a superscript or a fraction is written in digits, with its sign
    assert others or written == [str(unicodedata.decimal(c)) for c in decimals]
