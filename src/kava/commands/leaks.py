"""`kava leaks`: the questions that training and test data share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from kava.data_settings import RowFields, RowSettings, Source
from kava.dataset_names import check_dataset_name
from kava.flags import Usage, again, check_fields, flag, flags_of, needed

if TYPE_CHECKING:
    from kava.data.leakage import Leak

LEAKS = 1
"""The exit code where questions are shared."""


@dataclass(kw_only=True)
class LeaksConfig:
    """What `kava leaks` is asked for.

    Raises:
        ValueError: a value outside its range, or fewer than two data sets.
    """

    data: list[str] = needed(
        "the training data, then one or more data sets to test on, named as for --dataset_name",
        positional=True,
        metavar="DATA",
        check=check_dataset_name,
    )
    train_split: str = again(
        Source, "split", "train", help="split of the training data, if it has any", group="data"
    )
    test_split: str = again(
        Source, "split", "test", help="split of the data to test on, if they have any"
    )
    question_field: str = again(RowFields, "question_field", "question", group=None)
    test_question_field: str | None = again(
        RowFields,
        "question_field",
        None,
        help="the same for the test data",
        unset="question_field",
        group=None,
    )
    text_field: str | None = again(
        RowFields,
        "text_field",
        None,
        help="field of a raw text, whose question ends at the markers of the reasoning",
    )
    reasoning_triggers: list[str] | None = again(RowFields, "reasoning_triggers", None)
    examples: int = flag(
        5, "shared questions to print for each test set", least=0, most=1_000_000, group="output"
    )
    json: bool = flag(False, "print the counts and every shared question as JSON")

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.data) < 2:
            raise ValueError(
                f"{self.data[0]} alone has nothing to be compared with: name the training data, "
                f"then the data to test on"
            )


USAGE = Usage(
    prog="kava leaks",
    kind=LeaksConfig,
    summary="Find the questions of test data that stand in training data.\n"
    "Questions are compared whatever their case, punctuation, blanks and the form of their "
    "numbers. The exit code is 1 where there are any, and 0 where there are none.",
    example="kava leaks train.jsonl gsm8k svamp",
)


class Compared(NamedTuple):
    """A test set, and what it shares with the training data."""

    name: str
    split: str
    num_rows: int
    leaks: list[Leak]

    @property
    def num_leaked(self) -> int:
        """Rows of the test set whose question stands in the training data."""
        return sum(len(leak.test) for leak in self.leaks)

    @property
    def num_train_rows(self) -> int:
        """Rows of the training data that hold these questions."""
        return sum(len(leak.train) for leak in self.leaks)


def main(argv: list[str]) -> int:
    """Compare the first data set with each of the others: a table or JSON on stdout."""
    config = USAGE.parse(argv)

    from kava.data.leakage import leaks
    from kava.data.sources import load_questions
    from kava.models.quiet import quiet_libraries

    quiet_libraries()
    names = flags_of(RowFields).keys() & flags_of(LeaksConfig).keys()
    rows = RowSettings(**{name: getattr(config, name) for name in names})
    train_name, *test_names = config.data
    train = load_questions(train_name, split=config.train_split, rows=rows)
    if config.test_question_field is not None:
        rows = replace(rows, question_field=config.test_question_field)
    found = []
    for name in test_names:
        test = load_questions(name, split=config.test_split, rows=rows)
        found.append(Compared(name, config.test_split, len(test), leaks(train, test)))
    if config.json:
        named = {"name": train_name, "split": config.train_split, "num_rows": len(train)}
        print(json.dumps(as_json(named, found), indent=2, ensure_ascii=False))
    else:
        print(f"train  {train_name}, {config.train_split}: {_rows(len(train))}")
        print("\n".join(as_text(found, config.examples)))
    return LEAKS if any(one.leaks for one in found) else 0


def as_json(train: dict[str, Any], found: Sequence[Compared]) -> dict[str, Any]:
    """Every figure and every shared question, for other programs."""
    return {
        "train": train,
        "tests": [
            {
                "name": one.name,
                "split": one.split,
                "num_rows": one.num_rows,
                "num_leaked": one.num_leaked,
                "num_train_rows": one.num_train_rows,
                "leaks": [
                    {
                        "question": leak.test[0].question,
                        "test_ids": [record.id for record in leak.test],
                        "train_ids": [record.id for record in leak.train],
                    }
                    for leak in one.leaks
                ],
            }
            for one in found
        ],
    }


def as_text(found: Sequence[Compared], num_examples: int) -> list[str]:
    """Lines for the terminal: what is compared, the counts, and examples."""
    lines = []
    for one in found:
        lines.append(f"test   {one.name}, {one.split}: {_rows(one.num_rows)}")
        if not one.leaks:
            lines.append("leaks  none")
            continue
        lines.append(
            f"leaks  {one.num_leaked:,} of the {_rows(one.num_rows)} "
            f"({100 * one.num_leaked / one.num_rows:.1f} %) have their question in the training "
            f"data, in {_rows(one.num_train_rows)} of it"
        )
        for leak in one.leaks[:num_examples]:
            start = " ".join(leak.test[0].question.split())
            start = start if len(start) <= 80 else f"{start[:79]}…"
            lines.append(f"       {leak.test[0].id} = {leak.train[0].id}: {start}")
        if len(one.leaks) > num_examples:
            lines.append(f"       … and {len(one.leaks) - num_examples:,} more questions")
    return lines


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"
