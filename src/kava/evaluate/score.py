"""One student on one data set: its answers and the figures, the same way for every student."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from kava.data.sources import default_template
from kava.evaluate.data import evaluation_records
from kava.evaluate.results import summarise
from kava.models.limits import table_of_positions
from kava.student.answering import Answers
from kava.student.checkpoint import LoadedStudent, library_versions
from kava.student.prompts import base_of
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
) -> tuple[Answers, dict[str, Any]]:
    """Ask a student every question of a data set.

    A student that was trained keeps the template of its training; a plain model gets the data
    set's. What is to be said of the data (they were trained on, some are left out) goes to stderr.

    Args:
        student: of `load_student`.
        dataset_name: as `load_records` takes it; None: the run's evaluation data.
        split: None: the run's evaluation split, else "test".
        subset_size: how many records to take at random; None takes all.
        fields: names of a row's fields and triggers in place of the run's.
        batch_size: questions at a time; it changes no answer.
        max_new_tokens: None: what the run evaluated with, else the student's kind decides.
        max_length: most positions of prompt, latents and answer; None: as many as the model's
            configuration names. More are read by rotary positions alone.
        progress: show a bar on stderr.

    Returns:
        the answers, and the figures as `kava evaluate --json` prints them.

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
    data = evaluation_records(
        student.settings,
        dataset_name=dataset_name,
        split=split,
        subset_size=subset_size,
        fields=fields,
    )
    if data.warning is not None:
        print(f"kava: warning: {data.warning}", file=sys.stderr)
    answers = answer_records(
        student.model,
        student.tokenizer,
        data.records,
        student.template if student.settings else default_template(data.dataset_name),
        batch_size=batch_size,
        max_new_tokens=new_tokens_of(student.settings, max_new_tokens),
        progress=progress,
        max_length=max_length,
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
        "dtype": str(student.model.dtype).removeprefix("torch."),
        "versions": library_versions(),
    }
