"""What the answers of an evaluation say, beside what the collapse guard says of the caches.

A student can match its teacher's caches well and still answer no better than one that never read
the question. The reference is that one: always giving the most frequent answer of the evaluation
set. Accuracy is called above chance where guessing would be right as often or more in fewer than
one evaluation of a hundred (exact one-sided binomial test).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from kava.data.answers import normalize_answer
from kava.data.closed_answers import polarity
from kava.data.records import Record
from kava.format import percent

ABOVE_CHANCE = "above chance"
AT_CHANCE = "at chance"

# A guesser is as good as the student less often than this.
SIGNIFICANCE = 0.01


class AnswersVerdict(NamedTuple):
    """What the answers say: a state in a word or two, and a sentence without its first capital."""

    state: str
    sentence: str

    @property
    def doubts(self) -> bool:
        """Whether the answers say less than caches that are matched."""
        return self.state != ABOVE_CHANCE


def guessing_share(records: Sequence[Record]) -> float:
    """The accuracy of always giving the most frequent answer of some records.

    Answers that mean the same count as one: numbers in any spelling, words in any case, yes and
    true.

    Raises:
        ValueError: no records.

    Example:
        >>> records = [Record("a", "?", "", gold) for gold in ("18", "18.0", "7")]
        >>> round(guessing_share(records), 3)
        0.667
    """
    if not records:
        raise ValueError("there are no records whose answers could be guessed")
    counts = Counter(
        polarity(record.answer) or normalize_answer(record.answer) for record in records
    )
    return max(counts.values()) / len(records)


def judge_answers(num_correct: int, num_items: int, guessing: float) -> AnswersVerdict | None:
    """Whether a student's answers are better than guessing.

    Args:
        num_correct: right answers.
        num_items: all answers.
        guessing: the share that guessing gets right, from `guessing_share`.

    Returns:
        None where right answers alone could be luck: a set that is too small, or whose answers
        are all the same.

    Example:
        >>> judge_answers(11, 250, 0.044).sentence
        'answers are at chance (4.4 %; guessing the most frequent answer gives 4.4 %)'
        >>> judge_answers(240, 250, 0.044).state
        'above chance'
    """
    if guessing**num_items >= SIGNIFICANCE:
        return None
    state = ABOVE_CHANCE if _as_good(num_correct, num_items, guessing) < SIGNIFICANCE else AT_CHANCE
    return AnswersVerdict(
        state,
        f"answers are {state} ({percent(num_correct / num_items)}; guessing the most frequent "
        f"answer gives {percent(guessing)})",
    )


def _as_good(num_correct: int, num_items: int, guessing: float) -> float:
    """The probability that guessing gets as many right, or more."""
    from scipy.special import betainc

    if num_correct == 0:
        return 1.0
    return float(betainc(num_correct, num_items - num_correct + 1, guessing))
