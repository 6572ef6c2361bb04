"""Answers in LaTeX: one spelling for equal texts, and none for different values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data.answers import judge
from kava.data.latex import LATEX, last_boxed, normal_latex, same_latex
from kava.data.tasks.gsm_hard import near_number

RIGHT = [
    (r"\frac{14}{3}", r"\dfrac{14}{3}"),
    (r"\frac43", "4/3"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"\frac 59", r"\tfrac{5}{9}"),
    (r"\frac\pi 2", r"\frac{\pi}{2}"),
    (r"11 \sqrt{5} + 11", r"11\sqrt5+11"),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", r"(\frac35, \frac83]"),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}",
        r"\begin{pmatrix}-\frac13\\\frac23\end{pmatrix}",
    ),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"\$32,\!348", "32,348"),
    (r"\$18.90", "$18.9"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"5.4 \text{ cents}", "5.4 cents"),
    (r"120^\circ", "120°"),
    (r"120^{\circ}", "120 degrees"),
    (r"25\%", "25"),
    (r"\text{(C)}", "(C)"),
    (r"\text{Evelyn}", "Evelyn."),
    (r"4210_{5}", "4210_5"),
    ("x=5", "5"),
    ("y = 2x + 3", "2x+3"),
    (r"(0,9) \cup (9,36)", "(0,9)∪(9,36)"),
    (r"(-\infty, 0]", "(-∞,0]"),
    ("x^{10}", "x^10"),
    (".35625", "0.35625"),
    (r"137 \frac{1}{2}", "137 1/2"),
    (r"p \le q", r"p\leq q"),
    ("6 - 5i", r"\boxed{6-5i}"),
    ("6 - 5i", "$6 - 5i$."),
    ("6 - 5i", r"\(6-5i\)"),
]
WRONG = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\frac{2}{4}"),
    (r"\frac{1}{2}", r"-\frac{1}{2}"),
    (r"\frac{1}{2}x", r"\frac{1}{2x}"),
    ("x^{2y}", "x^2y"),
    ("x+1", "1+x"),
    ("1,-2", "-2,1"),
    ("(3,4]", "[3,4)"),
    ("12", "1 2"),
    (r"\frac{1371}{2}", "137 1/2"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    (r"\frac{\pi}{2}", r"\pi/2"),
    ("5", "x < 5"),
    ("a+b", "x = a+b = 3"),
    ("52_8", "52"),
    (r"\text{east}", "west"),
    ("3", ""),
]


@pytest.mark.parametrize(("gold", "other"), RIGHT)
def test_spellings_of_one_answer_are_the_same(gold: str, other: str) -> None:
    assert same_latex(other, gold)
    assert same_latex(gold, gold)
    assert judge(f"It is so.\n#### {other}", gold, "#### ", (), LATEX).correct
    assert judge(f"So it is $\\boxed{{{gold}}}$, as said.", gold, "#### ", (), LATEX).correct


@pytest.mark.parametrize(("gold", "other"), WRONG)
def test_other_answers_are_not_the_same(gold: str, other: str) -> None:
    assert not same_latex(other, gold)


def test_what_computes_to_the_same_is_listed_as_not_caught() -> None:
    from kava.data import latex

    text = re.sub(r"\s+", " ", str(latex.__doc__))
    for form in ("`1+x` for `x+1`", "`2/4` for `1/2`", r"`\sqrt{8}` for `2\sqrt{2}`"):
        assert form in text


@given(st.text(r"\{}$frac12 ,.^_()[]~!x", max_size=30))
def test_no_text_breaks_the_normal_form(text: str) -> None:
    normal = normal_latex(text)
    assert normal == normal_latex(f" {text} ")
    assert same_latex(text, text) == (normal != "")


def test_the_last_closed_box_counts() -> None:
    assert last_boxed(r"\boxed{1} and \boxed{\frac{1}{2}} and \boxed{3") == r"\frac{1}{2}"
    assert last_boxed("none") is None
    found = judge(r"first \boxed{1}, then \boxed{2}.", "2", "#### ", (), LATEX)
    assert (found.prediction, found.correct) == ("2", True)
    assert not judge("2 of them, and more", "2", "#### ", (), LATEX).correct


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("-9867630", "-9,867,630 dollars", True),
        ("3244047.0999999996", "3244047.1", True),
        ("3244047.0999999996", "3244047.11", False),
        ("9284017268534.400390625", "9284017268534.4", True),
        ("9284017268534.400390625", "9284017268534", False),
        ("0.0000020107", "0.000002011", True),
        ("0.0000020107", "0.00000202", False),
        ("0.0000020107", "0", False),
        ("0", "0.0", True),
        ("0", "0.0001", False),
        ("18", "1e999999999", False),
        ("18", "18 or 19", False),
        ("18", "none", False),
    ],
)
def test_a_number_of_gsm_hard_is_right_within_its_tolerance(
    gold: str, answer: str, right: bool
) -> None:
    assert near_number(answer, gold) == right
