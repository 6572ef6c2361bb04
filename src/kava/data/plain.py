"""One way to write each character and each piece of LaTeX, where two ways mean the same.

Unicode's own compatibility form (NFKC) goes too far for that: it makes 102 of 10², 11/2 of 1½ and
2n of 2ⁿ. Here a character is replaced only by one that means the same: digits of every script,
full width, kinds of blanks, dashes and quotation marks, a fraction by its slash (`½` is 1/2, `1½`
is 1 1/2) and a superscript by its `^`. A circled digit stays what it is.
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
    ",": " ", ";": " ", ":": " ", " ": " ", "!": "", "$": "$", "%": "%", "#": "#", "&": "&",
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
    """Code point → what it is written as; filled as characters are met."""

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
    """The text with one way to write what means the same.

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
    """`²` as ^2; `₂` as 2 behind a letter, where H₂O is written H2O too, and else as _2."""
    if script["up"]:
        return "^" + script["up"].translate(_LEVEL)
    return ("" if script["letter"] is not None else "_") + script["down"].translate(_LEVEL)


def _without_latex(text: str) -> str:
    """Without the dollars, boxes and commands that set an answer in LaTeX."""
    text = _MATHS.sub(_inside, text).replace("{,}", ",")
    if "\\" in text:
        text = _unwrapped(text)
        text = _FRAC.sub(_divided, text)
        text = re.sub(r"\^\{\\circ\}|\^\\circ(?![A-Za-z])", "°", text)
        text = _COMMAND.sub(_symbol, text)
    return re.sub(r"\^\{([+-]?+\w++)\}", r"^\1", text)


def _inside(maths: re.Match[str]) -> str:
    """What two dollars enclose, where they are no currencies: "$5 and $6" has a blank there."""
    inside = maths["inside"]
    return inside if inside.strip() == inside else maths[0]


def _unwrapped(text: str) -> str:
    """Without \\boxed{…}, \\text{…} and their like, however they are nested, where they end."""
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
    known = _MARKS.get(command["mark"]) if command["name"] is None else None
    if command["name"] is not None:
        known = _COMMANDS.get(command["name"])
    return command[0] if known is None else known
