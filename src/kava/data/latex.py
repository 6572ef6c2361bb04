"""Compare answers in LaTeX by their normalised text, as MATH's answers are usually compared.

After Hendrycks et al. (arXiv 2103.03874), whose `is_equiv` normalises both texts and compares them.
Ignored are: the box, dollars and brackets around a formula; blanks and commands for them; `\\left`
and `\\right`; whether a fraction is `\\frac`, `\\dfrac` or `\\tfrac`, and short forms (`\\frac12`,
`1/2` of whole numbers, `\\sqrt2`); braces around one character of an exponent or index; degrees,
per cent and currencies; a unit in `\\text{}` at the end; a name before an equals sign (`x = 5`,
`x \\in [0, 1]`); the case of answers in words, and brackets around a letter. A number is also right
in every spelling of `kava.data.numbers`: `10,\\!080` and `10080`, `.5` and `0.50`, `5 cm`.

It is no algebra. Another form of the same value is judged wrong: `1+x` for `x+1`, `2/4` for `1/2`,
`0.5` for `1/2` (which `is_equiv` takes), `\\pi/2` for `\\frac{\\pi}{2}`, `\\sqrt{8}` for
`2\\sqrt{2}`, `1\\frac12` for `3/2`, several roots or a set in another order, a `bmatrix` for a
`pmatrix`, and a unit that is not in `\\text{}` behind anything but a number. An accuracy by this
judge is therefore lower than by one that computes, and comparable only with others by this judge.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kava.data.answers import Judge, answers_match
from kava.data.closed_answers import said
from kava.data.numbers import whole_number

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "π": r"\pi", "∞": r"\infty", "×": r"\times", "·": r"\cdot",
        "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "±": r"\pm", "∪": r"\cup", "∩": r"\cap",
        "∈": r"\in", "°": r"^\circ", "²": "^2", "³": "^3", "√": r"\sqrt", "\u00a0": " ",
        "θ": r"\theta",
    }
)  # fmt: skip
_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_AROUND = re.compile(r"\A(?:\$\$?|\\\(|\\\[)(?P<inside>.*?)(?:\$\$?|\\\)|\\\])\Z", re.S)
_TEXT = r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|mathit)\s*"
_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[ ,;:!]|(?<!\\)~|\\q?quad(?![A-Za-z])", " "),
        (r"\{,\}", ","),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        # a unit at the end: 5.4 \text{ cents}, 864 \mbox{ inches}^2
        (rf"(?<=[\w)}}])\s*{_TEXT}\{{[^{{}}]*\}}(?:\^\{{?\d\}}?)?\s*\Z", ""),
        (rf"{_TEXT}\{{([^{{}}]*)\}}", r"\1"),
        (r"\^\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])", ""),
        (r"\\?%|\\?\$", ""),
        (r"\\leq(?![A-Za-z])", r"\\le"),
        (r"\\geq(?![A-Za-z])", r"\\ge"),
        (r"\\neq(?![A-Za-z])", r"\\ne"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
    )
]
_NAMED = re.compile(r"\A\s*[A-Za-z]\w?\s*(?:=|\\in(?![A-Za-z]))\s*(?P<value>[^=]+)\Z", re.S)
_MIXED = re.compile(r"(?<=\d)\s+(\d+)/(\d+)(?![\w.])")
_BLANKS = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
"""All but those between two digits, which divide two numbers or the thousands of one."""
_WORDS = re.compile(r"[A-Za-z][A-Za-z .'-]*|\(\s*[A-Za-z]\s*\)")
_SHORT_FORMS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\frac(\\[A-Za-z]+|\w)", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})(\\[A-Za-z]+|\w)", r"\1{\2}"),
        (r"\\sqrt(\\[A-Za-z]+|\w)", r"\\sqrt{\1}"),
        (r"([\^_])\{(\w)\}", r"\1\2"),
        (r"\^(\d{2,})", r"^{\1}"),
        (r"(?<![\w.)\]/])(\d+)/(\d+)(?![\w.(\[{/])", r"\\frac{\1}{\2}"),
    )
]


def last_boxed(text: str) -> str | None:
    """The inside of the last `\\boxed{…}` of a text; None if there is none that is closed.

    Example:
        >>> last_boxed(r"so $\\boxed{1}$, or rather $\\boxed{\\frac{1}{2}}$.")
        '\\\\frac{1}{2}'
    """
    for box in reversed(list(_BOX.finditer(text))):
        depth = 1
        for index in range(box.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            if depth == 0:
                return text[box.end() : index]
    return None


@lru_cache(maxsize=1024)
def normal_latex(answer: str) -> str:
    """The normal spelling of an answer in LaTeX; the module's text says what it evens out.

    Example:
        >>> normal_latex(r"$\\left( 3, \\dfrac\\pi 2 \\right)$.")
        '(3,\\\\frac{\\\\pi}{2})'
        >>> [normal_latex(text) for text in (r"\\frac43", "4/3", r"x = \\tfrac{4}{3}")]
        ['\\\\frac{4}{3}', '\\\\frac{4}{3}', '\\\\frac{4}{3}']
    """
    boxed = last_boxed(answer)
    text = (answer if boxed is None else boxed).translate(_CHARACTERS).strip()
    text = text.rstrip(".,;: \n")
    around = _AROUND.match(text)
    text = (text if around is None else around["inside"]).strip().rstrip(".,;: ")
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if _WORDS.fullmatch(text):
        return " ".join(text.strip("() ").casefold().split())
    named = _NAMED.match(text)
    text = _MIXED.sub(r"\\frac{\1}{\2}", text if named is None else named["value"])
    text = _BLANKS.sub("", text.strip())
    number = whole_number(text)
    if number is not None:
        return str(number.number)
    for pattern, replacement in _SHORT_FORMS:
        text = pattern.sub(replacement, text)
    return text


def same_latex(predicted: str, gold: str) -> bool:
    """Whether two answers in LaTeX have the same normal spelling; an empty one equals no other.

    Example:
        >>> same_latex(r"\\boxed{x=\\frac12}", "1/2"), same_latex("5 cm", r"5 \\text{ cm}")
        (True, True)
        >>> same_latex("0.5", r"\\frac{1}{2}"), same_latex("1+x", "x+1")
        (False, False)
    """
    normal, wanted = normal_latex(predicted), normal_latex(gold)
    if normal == wanted:
        return normal != ""
    # of a number a unit or an explanation may follow
    return whole_number(wanted) is not None and answers_match(predicted, wanted)


def find_latex(text: str) -> str:
    """The answer of a text without a cue: its last box, or what follows "the answer is"."""
    boxed = last_boxed(text)
    return said(text).strip() if boxed is None else boxed


LATEX = Judge(find=find_latex, same=same_latex)
"""The judge of MATH's answers."""
