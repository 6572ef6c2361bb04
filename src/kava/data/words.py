"""Normalise answers in words: one spelling for equal meanings, never for different ones.

Differences in case, quotation marks, emphasis and final punctuation are ignored, and also variants
of characters and LaTeX (`kava.data.plain`) and blanks next to an operator. Everything that may have
meaning is kept: signs and operators (-x, A+, C++, F#, n!, x'), brackets (of a pair, an interval, a
set), commas between numbers, dots for "and so on", unknown symbols.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kava.data.plain import plain

_HEADING = re.compile(r"\A#++ ")
_TIGHT = re.compile(r" ?(==|[=<>≤≥≠≈×÷·/^]) ?")
_BETWEEN = re.compile(r"(?<=\S) ([-+*]) (?=\S)")
_LEADING_SIGN = re.compile(r"\A([-+]) (?=\S)")
_UNIT_SIGN = re.compile(r"(?<=\d) (?=[%°])")
_BRACKET = re.compile(r"[(\[{] ?| ?[)\]}]|, ?(\d{0,4})")
# units whose meaning depends on case: mW and MW, Mb and MB
_CASED_UNIT = re.compile(r"\d ?([mM](?:W|g|J|Hz|V|A|N|Pa|eV|Ω)|[kKMGT]i?[bB])(?!\w)")


@lru_cache(maxsize=1024)
def normal_words(answer: str) -> str:
    """The normal spelling of an answer in words.

    Example:
        >>> [normal_words(answer) for answer in (' "The  CAT". ', "**-½**", "C++.", "( 1,2 )")]
        ['the cat', '-1/2', 'c++', '(1; 2)']
    """
    text = " ".join(plain(answer).split())
    text = _HEADING.sub("", text)
    text = _BETWEEN.sub(r"\1", _TIGHT.sub(r"\1", text))
    text = _UNIT_SIGN.sub("", _bracketed(text))
    text = " ".join(_folded(_peeled(text)).split())
    words = text.split(" ")
    text = " ".join([*(_peeled(word, inner=True) for word in words[:-1]), _peeled(words[-1])])
    return _LEADING_SIGN.sub(r"\1", text)


def same_words(one: str, other: str) -> bool:
    """Whether two answers in words mean the same; an empty answer equals no other.

    Example:
        >>> same_words("Paris.", "paris"), same_words("x", "-x"), same_words("", "")
        (True, False, False)
    """
    normal = normal_words(one)
    return normal != "" and normal == normal_words(other)


def _folded(text: str) -> str:
    """Fold case, except in symbols of units that differ only in case."""
    parts, start = [], 0
    for unit in _CASED_UNIT.finditer(text):
        # kilo is written in both cases
        parts += [text[start : unit.start(1)].casefold(), unit[1].replace("K", "k")]
        start = unit.end(1)
    return "".join([*parts, text[start:].casefold()])


def _bracketed(text: str) -> str:
    """Separate parts in brackets by semicolons, since "(1,234)" may be one number."""
    if not any(bracket in text for bracket in "([{"):
        return text
    parts, start, depth = [], 0, 0
    for found in _BRACKET.finditer(text):
        mark = found[0].strip()
        if mark[0] in "([{":
            depth += 1
        elif mark[0] in ")]}":
            depth = max(depth - 1, 0)
        elif depth == 0 or (len(found[1]) == 3 and not found[0].startswith(", ")):
            continue
        else:
            mark = f"; {found[1]}"
        parts += [text[start : found.start()], mark]
        start = found.end()
    return "".join([*parts, text[start:]])


def _peeled(text: str, *, inner: bool = False) -> str:
    """Remove surrounding quotes, emphasis and round brackets, and the final punctuation.

    Args:
        text: an answer, or one of its words.
        inner: whether more words follow, so that a comma after a digit separates two numbers.
    """
    while True:
        bare = _unquoted(_unstopped(text, inner))
        if bare == text or not bare:
            return text
        text = bare


def _unquoted(text: str) -> str:
    first = text[:1]
    if first == "(" and text.endswith(")"):
        inside = text[1:-1]
        return inside if inside.replace(" ", "").isalpha() else text
    if first == "" or first not in "\"'*`":
        return text
    run = len(text) - len(text.lstrip(first))
    inside = text[run:-run]
    enclosed = text.endswith(first * run) and inside and first not in inside
    return inside if enclosed else text


def _unstopped(text: str, inner: bool) -> str:
    """Remove punctuation that ends a sentence or a clause, unless it is an operator."""
    bare = text.rstrip("?!")
    if bare != text:
        # "10!" and "n!" are factorials
        word = bare[-2:].isalpha() and len(bare) > 1
        return bare if word or bare[-1:] in ('"', "'") or set(text[len(bare) :]) == {"?"} else text
    last, before = text[-1:], text[-2:-1]
    if last == ".":
        return text if before == "." else text[:-1]
    if last != "" and last in ",;:":
        return text if inner and before.isdigit() else text[:-1]
    return text
