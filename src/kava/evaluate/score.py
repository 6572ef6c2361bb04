"""Score one student on one data set, in the same way for every student."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from kava.data.sources import default_template
from kava.evaluate.data import Evaluation, evaluation_records
from kava.evaluate.results import summarise
from kava.models.limits import table_of_positions
from kava.ranks import ALONE, Ranks
from kava.student.answering import Answers
from kava.student.checkpoint import LoadedStudent, library_versions
from kava.student.config import base_of
from kava.train.recorded import new_tokens_of


def score(
    student: LoadedStudent,
    *,
    dataset_name: str | None = None,
    split: str | None = None,
    subset_size: int | None = None,
    fields: Mapping[str, str | list[str]] | None = None,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[Answers, dict[str, Any]]:
    """Ask a student every question of a data set.

    A trained student keeps the template of its training; a plain model gets the data set's.
    Warnings about the data (used in training, some left out) go to stderr.

    Args:
        student: the result of `load_student`.
        dataset_name: a name for `load_records`; None: the run's evaluation data.
        split: None: the run's evaluation split, else "test".
        subset_size: number of random records; None takes all.
        fields: field names and triggers that replace the run's.
        batch_size: questions per batch; it does not change any answer.
        max_new_tokens: maximum tokens; None: the run's value, else the default for the kind of
            student.
        max_length: maximum positions of prompt, latents and answer; None: the limit of the model's
            configuration. Only rotary positions can go beyond that limit.
        progress: show a bar on stderr.
        ranks: the processes that share the batches; each of them calls this.

    Returns:
        the answers, and the figures that `kava evaluate --json` prints.

    Raises:
        ValueError: data that cannot be read, a prompt that is too long, or `max_length` above
            what a model with learned positions has.

    Example:
        >>> answers, summary = score(student, dataset_name="svamp:SVAMP.json")
    """
    from kava.student.answering import answer_records

    limit = table_of_positions(base_of(student.model).config)
    if max_length is not None and limit is not None and max_length > limit:
        raise ValueError(
            f"--max_length {max_length}: {student.path} has learned {limit} positions and cannot "
            f"read on past them; lower it"
        )

    def read() -> Evaluation:
        return evaluation_records(
            student.settings,
            dataset_name=dataset_name,
            split=split,
            subset_size=subset_size,
            fields=fields,
        )

    data = ranks.agree(read, lambda found: found.data_hash, "the data")
    if data.warning is not None:
        print(f"kava: warning: {data.warning}", file=sys.stderr)
    answers = answer_records(
        student.model,
        student.tokenizer,
        data.records,
        student.asked_by(default_template(data.dataset_name)),
        batch_size=batch_size,
        max_new_tokens=new_tokens_of(student.settings, max_new_tokens),
        progress=progress,
        max_length=max_length,
        ranks=ranks,
    )
    return answers, {
        "checkpoint": student.path,
        "student": student.settings.get("student", "explicit"),
        "dataset_name": data.dataset_name,
        "split": data.split,
        "data_hash": data.data_hash,
        **summarise(answers),
        "batch_size": batch_size,
        "device": str(student.model.device),
        "dtype": str(base_of(student.model).dtype).removeprefix("torch."),
        "versions": library_versions(),
    }
