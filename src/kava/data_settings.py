"""Flags shared by all commands that read data.

A command inherits from the classes that it needs, or takes a single flag with `kava.flags.again`.
The names of flags are also the keys in recorded runs, plans and `load_records`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.dataset_names import check_dataset_name
from kava.flags import check_fields, flag
from kava.flags.check import as_argument


@dataclass(kw_only=True)
class Source:
    """The data set."""

    dataset_name: str = flag(
        "kava/shell-game",
        "kava/shell-game or kava/word-problems (built in, with options such as ?num_moves=4 or "
        "?steps=2-5), a task (from the hub, or TASK:PATH), reasoning_gym:TASK?size=500&seed=0, "
        "mix:TASK=SHARE,…, or the path of a .jsonl, .json, .csv or .parquet file",
        check=check_dataset_name,
        group="data",
    )
    split: str = flag("train", "split of the data, where the source has splits")


@dataclass(kw_only=True)
class RowFields:
    """The fields of a row with its question, reasoning and answer."""

    question_field: str = flag("question", "field of a row that holds the question", group="data")
    reasoning_field: str = flag("reasoning", "field that holds the reasoning")
    answer_field: str = flag("answer", "field that holds the answer")
    text_field: str | None = flag(
        None,
        "field of a raw text, whose parts are found by their markers; left out: text, where a row "
        "has no question",
    )
    reasoning_triggers: list[str] | None = flag(
        None, "markers at which the reasoning of a raw text begins; left out: kava.segments's"
    )
    answer_triggers: list[str] | None = flag(
        None,
        "markers before the answer of a raw text, or of an answer that holds its reasoning; left "
        "out: kava.segments's",
    )


@dataclass(kw_only=True)
class RowSettings(RowFields):
    """How a row becomes a record.

    Raises:
        ValueError: a value that its flag does not take.

    Example:
        >>> load_records("rows.jsonl", rows=RowSettings(reasoning_field="cot"))
    """

    reasoning_form: str = flag(
        "text",
        "calculator marks <<a=b>>b: text strips them, annotated leaves them, equations keeps "
        "nothing else",
        choices=names.REASONING_FORMS,
    )

    def __post_init__(self) -> None:
        check_fields(self, as_argument)


CHAT_HELP = (
    "none: question, reasoning and answer are plain text; tokenizer: the question stands in the "
    "tokenizer's own chat template, and reasoning and answer are the assistant's turn; or the path "
    "of a .jinja file with another chat template"
)


def check_chat_template(choice: str) -> None:
    """Refuse a string that is neither none, tokenizer nor the name of a .jinja file.

    Raises:
        ValueError: another one.

    Example:
        >>> check_chat_template("tokenizer")
    """
    if choice not in (names.NO_CHAT, names.OWN_CHAT) and not choice.endswith(".jinja"):
        raise ValueError(
            f"the chat template {choice!r} is unknown; choose {names.NO_CHAT}, {names.OWN_CHAT} or "
            f"the path of a .jinja file"
        )


@dataclass(kw_only=True)
class DataConfig(RowSettings):
    """How a row becomes a sample.

    Raises:
        ValueError: a value that its flag does not take.
    """

    keep_last_step: bool = flag(
        False, "keep the last reasoning step, which states the answer (the paper leaves it out)"
    )
    max_length: int = flag(512, "most tokens of a sample, with its end-of-sequence token", least=1)
    overflow: str = flag(
        "error",
        "a sample that is too long, or holds what a tokenizer does not know: error, or skip "
        "(counted and reported)",
        choices=names.OVERFLOWS,
    )
    chat_template: str = flag(names.NO_CHAT, CHAT_HELP, check=check_chat_template)
