"""Normalise characters and LaTeX that have the same meaning to one form.

Unicode's compatibility form (NFKC) changes too much: it turns 10² into 102, 1½ into 11/2 and 2ⁿ
into 2n. Here a character is replaced only by text with the same meaning: digits of every script,
full width, kinds of blanks, dashes and quotation marks, a fraction with a slash (`½` is 1/2, `1½`
is 1 1/2) and a superscript with `^`. A circled digit is not changed.
"""

from __future__ import annotations

import re
import unicodedata

_SAME = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63", "-"),
    **dict.fromkeys("‘’‚‛ʼ", "'"),
    **dict.fromkeys("“”„‟«»", '"'),
    **dict.fromkeys("\u2044\u2215", "/"),
    **dict.fromkeys("⋅∙", "·"),
    "∗": "*",
    "∶": ":",
    "〜": "~",
    "。": ".",
    "٫": ".",
    "٬": ",",
    "،": ",",
    "٪": "%",
    # marks of direction and of places to break a line
    **dict.fromkeys(
        "\u00ad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff",
        "",
    ),
}
_SAME_FORMS = (
    "<wide>", "<narrow>", "<small>", "<noBreak>", "<compat>", "<vertical>",
    "<isolated>", "<initial>", "<medial>", "<final>",
)  # fmt: skip
_FRACTION = re.compile(r"(?P<whole>\d?)(?P<fraction>[¼-¾⅐-⅞↉])(?=(?P<digit>\d?))")
_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉₊₋"
_SCRIPT = re.compile(rf"(?P<up>[{_RAISED}]++)|(?P<letter>(?<=[^\W\d_]))?(?P<down>[{_LOWERED}]++)")
_LEVEL = str.maketrans(_RAISED + _LOWERED, "0123456789+-" * 2)

_MATHS = re.compile(r"(?<!\\)\$\$?+(?P<inside>(?:\\.|[^$\\\n])++)\$\$?+(?!\d)")
_COMMANDS = {
    "times": "×", "cdot": "·", "div": "÷", "pm": "±", "mp": "∓", "le": "≤", "leq": "≤",
    "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "lt": "<", "gt": ">", "approx": "≈",
    "to": "→", "rightarrow": "→", "infty": "∞", "pi": "π", "degree": "°", "circ": "°",
    "ldots": "...", "dots": "...", "cdots": "...", "quad": " ", "qquad": " ", "left": "",
    "right": "", "displaystyle": "",
}  # fmt: skip
_MARKS = {
    ",": " ", ";": " ", ":": " ", "!": "", "$": "$", "%": "%", "#": "#", "&": "&",
    "_": "_", "{": "{", "}": "}", "(": "", ")": "", "[": "", "]": "", "\\": " ",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?:(?P<name>[A-Za-z]++)(?: (?=[^\s\d]))?|(?P<mark>[^A-Za-z0-9]))")
_WRAPPERS = ("boxed", "fbox", "text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit")
_BRACES = re.compile(rf"(?P<wrapper>\\(?:{'|'.join(_WRAPPERS)}) ?\{{)|\\[{{}}]|[{{}}]")
_FRAC = re.compile(
    r"(?P<whole>\d?)\\[cdt]?frac"
    r"(?:\{(?P<top>[+-]?+[\w.]++)\}\{(?P<bottom>[\w.]++)\}| ?(?P<one>\d)(?P<other>\d))"
)


class _Characters(dict[int, str]):
    """Code point → replacement, filled on demand."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = found = _SAME.get(character, character)
        if found is character and code > 127:
            category = unicodedata.category(character)
            form = unicodedata.decomposition(character).split(" ", 1)[0]
            if category == "Nd":
                found = str(unicodedata.decimal(character))
            elif category == "Zs":
                found = " "
            elif form in _SAME_FORMS and category != "No":
                other = unicodedata.normalize("NFKC", character)
                found = other if other.split() == [other] else character
            self[code] = found
        return found


_CHARACTERS = _Characters()


def plain(text: str) -> str:
    """Normalise a text to one form of each character and LaTeX command.

    Example:
        >>> [plain(text) for text in ("１８", "–3", "1½", "10²", "\\\\frac{1}{2}")]
        ['18', '-3', '1 1/2', '10^2', '1/2']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = _FRACTION.sub(_slashed, text).translate(_CHARACTERS)
        text = _SCRIPT.sub(_levelled, text)
    if "\\" in text or "$" in text or "{" in text:
        text = _without_latex(text)
    return text


def _slashed(fraction: re.Match[str]) -> str:
    written = unicodedata.normalize("NFKC", fraction["fraction"])
    before, behind = " " if fraction["whole"] else "", " " if fraction["digit"] else ""
    return fraction["whole"] + before + written + behind


def _levelled(script: re.Match[str]) -> str:
    """`²` as ^2; `₂` as 2 after a letter, since H₂O is also written H2O, and else as _2."""
    if script["up"]:
        return "^" + script["up"].translate(_LEVEL)
    return ("" if script["letter"] is not None else "_") + script["down"].translate(_LEVEL)


def _without_latex(text: str) -> str:
    """Remove the dollars, boxes and commands that format an answer in LaTeX."""
    text = _MATHS.sub(_inside, text).replace("{,}", ",")
    if "\\" in text:
        text = _unwrapped(text)
        text = _FRAC.sub(_divided, text)
        text = re.sub(r"\^\{\\circ\}|\^\\circ(?![A-Za-z])", "°", text)
        text = _COMMAND.sub(_symbol, text)
    return re.sub(r"\^\{([+-]?+\w++)\}", r"^\1", text)


def _inside(maths: re.Match[str]) -> str:
    """The text between two dollars, unless they are currencies: "$5 and $6" has a blank there."""
    inside = maths["inside"]
    return inside if inside.strip() == inside else maths[0]


def _unwrapped(text: str) -> str:
    """Remove \\boxed{…}, \\text{…} and similar commands at any nesting, if they are closed."""
    open_braces: list[re.Match[str]] = []
    dropped: list[tuple[int, int]] = []
    for brace in _BRACES.finditer(text):
        if brace[0] == "}" and open_braces:
            opening = open_braces.pop()
            if opening["wrapper"]:
                dropped += [opening.span(), brace.span()]
        elif brace[0] == "{" or brace["wrapper"]:
            open_braces.append(brace)
    parts, start = [], 0
    for begin, end in sorted(dropped):
        parts.append(text[start:begin])
        start = end
    return "".join([*parts, text[start:]])


def _divided(fraction: re.Match[str]) -> str:
    top, bottom = fraction["top"] or fraction["one"], fraction["bottom"] or fraction["other"]
    return f"{fraction['whole']}{' ' if fraction['whole'] else ''}{top}/{bottom}"


def _symbol(command: re.Match[str]) -> str:
    if command["name"] is not None:
        known = _COMMANDS.get(command["name"])
    else:
        # a backslash before any blank or line break is a blank
        known = " " if command["mark"].isspace() else _MARKS.get(command["mark"])
    return command[0] if known is None else known
