"""Find questions that stand in training data and in test data, whatever their spelling.

A score on a question that a model was trained on says nothing of other questions. For example, the
validation file of GSM8k-Aug is 500 rows of GSM8K's train split. Every command that trains or
evaluates compares its data here, and `kava leaks` compares any two data sets.

Two questions count as one where their keys are equal. A key (`question_key`) ignores

- case, the kind of blanks and line breaks, and blanks next to signs: `3+4` is `3 + 4`;
- spellings of a character or a LaTeX command, as answers do (`kava.data.plain`): a full-width
  letter, a curly quote, `\\frac{1}{2}` for `1/2`, dollars around a formula;
- punctuation: `. , ; : ? ! … —`, quotation marks, underscores, apostrophes inside words, and a
  hyphen between two letters;
- how a number is written: `1,000` and `1000.0` are `1000`, and `.50` is `0.5`; but `0101` is not
  `101`.

It keeps what can change a question: digits, words and their order, the signs `+ - * / = < > ^ %`,
currencies, brackets, `f'` and `5!`. Other numbers, names or wordings make another question: a
paraphrase is not found, nor a problem of GSM-Hard that is GSM8K's with larger numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kava.data.plain import plain
from kava.data.records import Record

_LETTER = r"[^\W\d_]"
_APOSTROPHE = re.compile(rf"(?<!\b{_LETTER})'|'(?={_LETTER})")
_TOKEN = re.compile(
    rf"""
    \d++ (?: ,\d++ )*+ (?: \.\d++ )?+
    | (?<!\w) \.\d++
    | {_LETTER}++
    | (?<=[\d)]) !
    | (?! (?<={_LETTER}) - (?={_LETTER}) ) [^\w\s.,;:?!…—"`´、。¿¡]
    """,
    re.VERBOSE,
)


class Leak(NamedTuple):
    """A question of the test data that the training data hold too.

    Attributes:
        question: its key.
        train: the training records with this question.
        test: the test records with it.
    """

    question: str
    train: tuple[Record, ...]
    test: tuple[Record, ...]


def question_key(question: str) -> str:
    """The form in which questions are compared; the module's text says what it ignores.

    Example:
        >>> question_key("Ann's 1,000 pens; how many  are LEFT?")
        'anns 1000 pens how many are left'
        >>> question_key("What is 3-2?") == question_key("What is 3+2?")
        False
    """
    # most questions are plain as they are, and there may be hundreds of thousands
    formula = question.count("$") > 1 or "\\" in question or "{" in question
    text = plain(question) if formula or not question.isascii() else question
    words = text.casefold().split()
    return " ".join(filter(None, map(_WORDS.__getitem__, words))) or " ".join(words)


def leaks(train: Iterable[Record], test: Iterable[Record]) -> list[Leak]:
    """The questions that training and test data share, in the order of the test data.

    The keys of the test data are kept and those of the training data pass by, so that a large
    training set needs no memory of its own.

    Args:
        train: training records; only their questions are compared.
        test: test records.

    Returns:
        One entry per shared question, with all its records.

    Example:
        >>> [leak.test[0].id for leak in leaks(train, test)]
        []
    """
    asked: dict[str, list[Record]] = {}
    for record in test:
        asked.setdefault(question_key(record.question), []).append(record)
    seen: dict[str, list[Record]] = {}
    for record in train:
        key = question_key(record.question)
        if key in asked:
            seen.setdefault(key, []).append(record)
    return [
        Leak(key, tuple(seen[key]), tuple(records)) for key, records in asked.items() if key in seen
    ]


def check_disjoint(
    train: Sequence[Record], calibration: Sequence[Record] = (), test: Sequence[Record] = ()
) -> None:
    """Refuse splits that share a question.

    Raises:
        ValueError: two splits overlap; the message has the count and the first ids.

    Example:
        >>> check_disjoint(train=train, test=test)
    """
    found = []
    for one, records, other, others in (
        ("train", train, "calibration", calibration),
        ("train", train, "test", test),
        ("calibration", calibration, "test", test),
    ):
        shared = leaks(records, others)
        if shared:
            pairs = ", ".join(f"{leak.train[0].id} = {leak.test[0].id}" for leak in shared[:3])
            more = ", …" if len(shared) > 3 else ""
            found.append(f"{one} and {other} share {len(shared)} questions ({pairs}{more})")
    if found:
        raise ValueError(f"{'; '.join(found)}: leave them out of one of the two")


def leak_warning(train: Iterable[Record], test: Sequence[Record], whose: str) -> str | None:
    """A sentence on the test questions that the training data hold too; None if there are none.

    Args:
        train: training records.
        test: test records.
        whose: what the test questions are called, such as "questions".

    Example:
        >>> leak_warning(train, test, "questions") is None
        True
    """
    ids = [record.id for leak in leaks(train, test) for record in leak.test]
    if not ids:
        return None
    names = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
    return (
        f"{len(ids)} of the {len(test)} {whose} are in the training data too ({names}): "
        f"the score on them says nothing of others"
    )


class _Words(dict[str, str]):
    """What stands between two blanks → its tokens, filled on demand because words repeat."""

    def __missing__(self, word: str) -> str:
        if len(self) >= _MOST_WORDS:
            self.clear()
        tokens = _TOKEN.findall(_APOSTROPHE.sub("", word))
        self[word] = found = " ".join(
            _number(token) if token[-1].isdigit() else token for token in tokens
        )
        return found


_MOST_WORDS = 2**17
_WORDS = _Words()


def _number(token: str) -> str:
    """A number without separators of thousands, and without zeros behind its point.

    Other commas divide numbers.
    """
    whole, point, fraction = token.partition(".")
    first, *others = whole.split(",")
    if len(first) <= 3 and all(len(group) == 3 for group in others):
        whole = whole.replace(",", "")
    fraction = fraction.rstrip("0")
    return (whole.replace(",", " ") or "0") + (point + fraction if fraction else "")
