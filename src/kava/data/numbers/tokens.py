"""Tokens of a text with numbers, and the classes of words and signs next to a number.

Every repetition is possessive (no backtracking) and tokens follow each other, so a text is split in
linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_LATIN = "A-Za-zÀ-ÖØ-öø-ɏ"
_TOKEN = re.compile(
    rf"""
      (?P<number> (?: \d | (?<![{_LATIN}\d.]) \.(?=\d) ) (?: [,.'_:/\ ]?+ \d )*+
                  (?: [eE] [+-]?+ \d++ (?![{_LATIN}\d]) )?+ )
    | (?P<word> [{_LATIN}]++ (?: ' [{_LATIN}]++ | [{_LATIN}]++ | \d | _ | (?<=\d)\.\d )*+
                (?: \^ [+-]?+ \d++ )?+ )
    | (?P<blank> \s++ )
    | (?P<tag> </?+[A-Za-z]{{1,20}}> )
    | (?P<arrow> [-=]{{1,2}}+> | [→⇒⟶⟹] )
    | (?P<compare> [!/<>]= | =< | [<>≤≥≠≮≯≪≫] )
    | (?P<equal> [:~]= | ={{1,3}}+ | [≈≃≅≡] )
    | (?P<dots> \.{{2,}}+ )
    | (?P<stars> \*++ )
    | (?P<letters> [^\W\d_]++ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

OPENING, CLOSING = frozenset("([{"), frozenset(")]}")
STOPS = frozenset(".,;:?!—―")
QUOTES = frozenset("\"'`#_•\\")
_OPERATORS = frozenset("+-×·÷/^√±∓~&@|\\%")

CURRENCIES = frozenset("$€£¥₹₽₩₺₫฿₪₦¢")
NAMED_UNITS = {
    **dict.fromkeys(("dollar", "dollars", "usd", "buck", "bucks"), "$"),
    **dict.fromkeys(("euro", "euros", "eur"), "€"),
    **dict.fromkeys(("pounds", "gbp"), "£"),
    **dict.fromkeys(("yen", "jpy", "yuan", "cny", "rmb"), "¥"),
    **dict.fromkeys(("rupee", "rupees", "inr"), "₹"),
    **dict.fromkeys(("cent", "cents"), "¢"),
    **dict.fromkeys(("percent", "pct"), "%"),
}
UNIT_LETTERS = frozenset("mgshlLdtpWVAJNCF")
"""Units of one letter that may directly follow a number, as in 5m; others are variables."""
UNIT_GREEK = frozenset("μΩ")
UNKNOWNS = frozenset("xyzni")

_SCALES = {
    "hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12,
}  # fmt: skip
SCALES = _SCALES | {name + "s": power for name, power in _SCALES.items()}
"""Words for powers of ten."""
SHORT_SCALES = frozenset(("k", "K", "M", "B", "T", "bn", "mn", "tn", "Bn", "Mn", "Tn"))
OTHER_SCALES = tuple("十百千万萬亿億兆만억조")
"""Scales that are not read, neither as a scale (5k may be a run) nor as a unit."""

MINUS = frozenset(("minus", "negative"))
BOUNDS = frozenset((
    "not", "than", "least", "most", "over", "under", "above", "below", "never", "nor", "except",
    "exceed", "exceeds", "times", "plus", "half", "twice", "thrice", "double", "triple", "log",
    "ln",
))  # fmt: skip
"""Words before a number that change the statement: at least 18, not 18, twice 18."""
SHARES = frozenset((
    "half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth",
    "fifths", "tenth", "tenths", "root", "square", "cube", "log", "logarithm", "multiple",
))  # fmt: skip
"""Words before "of" and a number that change its value: half of 18, the root of 18."""
JOINS = frozenset((
    "and", "or", "nor", "to", "through", "until", "till", "plus", "minus", "times", "by",
))  # fmt: skip
"""Words between two numbers."""
HEDGES = frozenset(("or", "nor", "below"))
REASONS = frozenset(("because", "since", "as", "so", "where", "which"))
"""First words of an explanation, which may contain any numbers."""
MORE = frozenset((
    "half", "third", "quarter", "fourth", "fifth", "more", "up", "over", "above", "counting",
))  # fmt: skip
"""Words after "and" that change a number: 18 and a half."""
PARTS = frozenset((
    "halves", "thirds", "fifths", "sixths", "sevenths", "eighths", "ninths", "tenths",
    "hundredths", "thousandths", "squared", "cubed",
))  # fmt: skip


class Token(NamedTuple):
    """A token of a text."""

    kind: str
    text: str
    start: int
    stop: int

    @property
    def says(self) -> bool:
        """Whether it is more than a blank or markup."""
        return self.kind not in ("blank", "tag", "stars") and self.text not in QUOTES

    @property
    def word(self) -> str:
        """Its text in lower case."""
        return self.text.lower()

    @property
    def is_operand(self) -> bool:
        """Whether it can be an operand."""
        return self.kind in ("number", "word", "letters") or self.text in CLOSING

    @property
    def is_operator(self) -> bool:
        """Whether it is a mathematical operator."""
        signs = len(self.text) == 1 and unicodedata.category(self.text) == "Sm"
        return self.text in _OPERATORS or signs

    @property
    def is_numeral(self) -> bool:
        """Whether it begins with a numeral that is not a digit, such as ① or Ⅷ."""
        return unicodedata.category(self.text[0]) in ("No", "Nl")

    @property
    def is_greek(self) -> bool:
        """Whether it begins or ends with a Greek letter, like a variable or a constant."""
        return any("\u0370" <= end <= "\u03ff" for end in (self.text[0], self.text[-1]))


def tokens_of(text: str) -> Iterator[Token]:
    """Split a text into tokens.

    Example:
        >>> [token.text for token in tokens_of("$1,234.50 a day")]
        ['$', '1,234.50', ' ', 'a', ' ', 'day']
    """
    for found in _TOKEN.finditer(text):
        assert found.lastgroup is not None
        yield Token(found.lastgroup, found[0], *found.span())
