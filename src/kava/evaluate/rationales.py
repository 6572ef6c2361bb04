"""The chains of thought that a model writes itself, and whether they lead to the right answer."""

from __future__ import annotations

from collections.abc import Sequence

from kava.data.answers import judge
from kava.data.records import Record
from kava.data.sources import default_template
from kava.student.answering import complete
from kava.student.checkpoint import LoadedStudent


def write_rationales(
    teacher: LoadedStudent,
    records: Sequence[Record],
    *,
    dataset_name: str,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
) -> list[tuple[str, bool]]:
    """What a teacher writes before its answer, greedily, and whether the answer is right.

    Args:
        teacher: a model that writes its reasoning.
        records: with the questions and gold answers.
        dataset_name: where they are from, for the template.
        batch_size: questions at a time.
        max_new_tokens: most tokens to generate; None: as `kava generate`.

    Returns:
        for each record the text up to the answer's cue; empty where no cue is written, since an
        unfinished chain of thought leads nowhere.

    Raises:
        ValueError: a latent student, which writes none.
    """
    if teacher.settings.get("student") == "latent":
        raise ValueError(
            f"{teacher.path} reasons in latent tokens and writes no chain of thought: name a model "
            f"that writes it"
        )
    template = teacher.asked_by(default_template(dataset_name))
    cue = template.cue
    completions, _ = complete(
        teacher.model,
        teacher.tokenizer,
        [record.question for record in records],
        template,
        names=[record.named for record in records],
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=True,
    )
    found = []
    for record, completion in zip(records, completions):
        text, there, _ = completion.text.partition(cue.strip())
        right = judge(completion.text, record.answer, cue, record.meta.get("choices", ())).correct
        found.append((text.strip() if there else "", right))
    return found
