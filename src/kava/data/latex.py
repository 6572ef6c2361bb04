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
_COMMAND_ENDS = "(?![A-Za-z])"
_TEXT = r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|mathit) ?"
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox) ?\{)|\\[{}]|[{}]")
_AROUND = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_SIZE = re.compile(rf"\\(?:left|right|displaystyle|limits){_COMMAND_ENDS}")
_SPACE = re.compile(rf"(?<!\\)\\[ ,;:!]|(?<!\\)~|\\q?quad{_COMMAND_ENDS}")
_FRACTION = re.compile(rf"\\[dtc]frac{_COMMAND_ENDS}")
_UNIT = re.compile(rf"(?<=[\w)}}]) ?{_TEXT}\{{[^{{}}]*+\}}(?:\^\{{?\d\}}?)?\Z")
"""A unit at the end: `5.4 \\text{ cents}`, `864 \\mbox{ inches}^2`."""
_INSIDE = re.compile(rf"{_TEXT}\{{(?P<inside>[^{{}}]*+)\}}")
_DEGREES = re.compile(rf"\^\{{? ?\\circ ?\}}?|\\degrees?{_COMMAND_ENDS}")
_SIGN = re.compile(r"\\?[%$]")
_COMPARED = re.compile(rf"\\(?P<name>leq|geq|neq|lt|gt){_COMMAND_ENDS}")
_COMPARISONS = {"leq": r"\le", "geq": r"\ge", "neq": r"\ne", "lt": "<", "gt": ">"}
_NAMED = re.compile(rf"[A-Za-z]\w? ?(?:=|\\in{_COMMAND_ENDS}) ?(?P<value>[^=]++)")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .'-]*+|\( ?[A-Za-z] ?\)")
_MIXED = re.compile(r"(?<=\d) (?P<top>\d++)/(?P<bottom>\d++)(?![\w.])")
_BLANK = re.compile(r"(?<!\d) | (?!\d)")
"""All blanks but those between two digits, which divide two numbers or the thousands of one."""
_TOP = re.compile(r"\\frac(?P<top>\\[A-Za-z]++|\w)")
_BOTTOM = re.compile(r"(?P<top>\\frac\{[^{}]*+\})(?P<bottom>\\[A-Za-z]++|\w)")
_ROOT = re.compile(r"\\sqrt(?P<inside>\\[A-Za-z]++|\w)")
_SCRIPT = re.compile(r"(?P<mark>[\^_])\{(?P<inside>\w)\}")
_POWER = re.compile(r"\^(?P<digits>\d{2,}+)")
_SLASH = re.compile(r"(?<![\w.)\]/])(?P<top>\d++)/(?P<bottom>\d++)(?![\w.(\[{/])")


def last_boxed(text: str) -> str | None:
    """The inside of the last `\\boxed{…}` of a text; None if there is none that is closed.

    Example:
        >>> last_boxed(r"so $\\boxed{1}$, or rather $\\boxed{\\frac{1}{2}}$.")
        '\\\\frac{1}{2}'
    """
    opened: list[re.Match[str]] = []
    last: tuple[int, int] | None = None
    for brace in _BRACES.finditer(text):
        if brace[0] == "}" and opened:
            box = opened.pop()
            if box["box"] and (last is None or box.end() > last[0]):
                last = box.end(), brace.start()
        elif brace[0] == "{" or brace["box"]:
            opened.append(brace)
    return None if last is None else text[slice(*last)]


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
    text = " ".join((answer if boxed is None else boxed).translate(_CHARACTERS).split())
    text = _SPACE.sub(" ", _SIZE.sub("", _bare(text))).replace("{,}", ",")
    text = _INSIDE.sub(r"\g<inside>", _UNIT.sub("", text.strip()))
    text = _SIGN.sub("", _DEGREES.sub("", _FRACTION.sub(r"\\frac", text)))
    text = _COMPARED.sub(lambda found: _COMPARISONS[found["name"]], " ".join(text.split()))
    if _WORDS.fullmatch(text):
        return text.strip("() .").casefold()
    named = _NAMED.fullmatch(text)
    text = _MIXED.sub(r"\\frac{\g<top>}{\g<bottom>}", named["value"] if named else text)
    text = _BLANK.sub("", text)
    number = whole_number(text)
    if number is not None:
        return str(number.number)
    text = _BOTTOM.sub(r"\g<top>{\g<bottom>}", _TOP.sub(r"\\frac{\g<top>}", text))
    text = _SCRIPT.sub(r"\g<mark>\g<inside>", _ROOT.sub(r"\\sqrt{\g<inside>}", text))
    text = _POWER.sub(r"^{\g<digits>}", text)
    return _SLASH.sub(r"\\frac{\g<top>}{\g<bottom>}", text)


def _bare(text: str) -> str:
    """A formula without what ends its sentence and what is around it."""
    text = text.rstrip(".,;: ")
    for opening, closing in _AROUND:
        inside = text[len(opening) : -len(closing)]
        if text == f"{opening}{inside}{closing}" and inside:
            return inside.strip().rstrip(".,;: ")
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
