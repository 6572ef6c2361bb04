"""Flags of `kava train`: the samples to train and evaluate on, and how their text is read."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.dataset_names import check_dataset_name
from kava.flags import flag


@dataclass(kw_only=True)
class DataSettings:
    """Which samples are read, and how."""

    dataset_name: str = flag(
        "kava/shell-game",
        "kava/shell-game (built in, with options such as ?num_moves=4&form=verbose), a task (from "
        "the hub, or TASK:PATH), mix:TASK=SHARE,…, or the path of a .jsonl, .json, .csv or "
        ".parquet file",
        check=check_dataset_name,
        group="data",
    )
    split: str = flag("train", "split to train on, where the source has splits")
    eval_dataset_name: str | None = flag(
        None,
        "data to evaluate on; left out, eval_size samples are set apart from dataset_name",
        check=check_dataset_name,
    )
    eval_split: str = flag("test", "split of eval_dataset_name")
    subset_size: int | None = flag(None, "use this many training samples, taken at random", least=1)
    eval_size: int = flag(0, "evaluation samples; 0: no evaluation during training", least=0)
    question_field: str = flag("question", "field of a row that holds the question")
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
    reasoning_form: str = flag(
        "text",
        "calculator marks <<a=b>>b: text strips them, annotated leaves them, equations keeps "
        "nothing else",
        choices=names.REASONING_FORMS,
    )
    keep_last_step: bool = flag(
        False, "keep the last reasoning step, which states the answer (the paper leaves it out)"
    )
    max_length: int = flag(512, "most tokens of a sample, with its end-of-sequence token", least=1)
    overflow: str = flag(
        "error",
        "a sample that is too long, has fewer reasoning tokens than target_len, or whose segments "
        "are not found: error, or skip (counted and reported)",
        choices=names.OVERFLOWS,
    )
    keep_short: bool = flag(
        False,
        "keep samples with fewer reasoning tokens than target_len: all of their positions are "
        "kept, and their last latents are left without a target; also samples of a task without "
        "reasoning, whose answer alone is learned",
    )
