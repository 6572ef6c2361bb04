"""Scores of whole data sets: computed once per sample, kept in a file, read by later runs.

Shapes: B batch, T columns, R reasoning tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from kava.data.collate import Batch
from kava.data.encoded import Encoded
from kava.data.records import Record, Template
from kava.importance.batches import batches_of, make_batch
from kava.importance.gradient import gradient
from kava.importance.knockout import knockout
from kava.importance.stages import Reach, token_stages
from kava.importance.store import ScoreStore, sample_digest
from kava.store.fingerprints import weights_fingerprint
from kava.store.teacher import StoredTeacher

Scorer = Callable[[PreTrainedModel, Batch, Tensor | None], Tensor]

SCORERS: dict[str, Scorer] = {"knockout": knockout, "knockout_gradient": gradient}
"""Method → (model, batch, stages [B, T]) → scores [B, T]."""


def score_samples(
    model: PreTrainedModel | StoredTeacher,
    samples: Sequence[Encoded],
    records: Sequence[Record],
    template: Template,
    *,
    method: str = "knockout",
    reach: Reach = "later_steps",
    path: str | Path | None = None,
    progress: bool = False,
) -> list[np.ndarray]:
    """How much the teacher needs each reasoning token of each sample.

    Args:
        model: the teacher, on the device that shall compute; of a stored one the file must hold
            all scores.
        samples: in the teacher's tokens.
        records: those that the samples were made of, and possibly others; matched by id.
        template: how a record became text.
        method: a key of `SCORERS`.
        reach: which later tokens count, as in `token_stages`.
        path: where scores are kept. What the file holds is not computed again, and what is
            missing is added to it.
        progress: show a bar.

    Returns:
        [R] float32 of each sample, in the order of `samples`.

    Raises:
        ValueError: an unknown method, a sample without its record, or a file of another teacher,
            method or reach.
        OSError: the file cannot be written.

    Example:
        >>> scores = score_samples(teacher, encoded, records, template)
        >>> [len(row) for row in scores[:2]]
        [15, 15]
    """
    if method not in SCORERS:
        raise ValueError(f"method={method!r} has no scores; choose from {', '.join(SCORERS)}")
    by_id = {record.id: record for record in records}
    lost = next((sample.id for sample in samples if sample.id not in by_id), None)
    if lost is not None:
        raise ValueError(f"sample {lost!r} has no record among the {len(records)} given")
    stages = [token_stages(by_id[s.id], s, template, reach) for s in samples]
    digests = [sample_digest(sample, stage) for sample, stage in zip(samples, stages)]
    teacher = model.weights if isinstance(model, StoredTeacher) else weights_fingerprint(model)
    manifest = {"method": method, "reach": reach, "teacher": teacher}
    store = ScoreStore(manifest)
    if path is not None and Path(path).exists():
        store = ScoreStore.load(path, manifest)
    missing = store.missing(digests)
    if isinstance(model, StoredTeacher):
        if missing:
            raise ValueError(
                f"{path or 'no file'} holds scores of {len(samples) - len(missing):,} of "
                f"{len(samples):,} samples, and without the teacher no others can be computed: "
                f"name its file by --kv_scores_path, or read the store's targets"
            )
        return [store.scores[digest] for digest in digests]
    with tqdm(
        total=len(missing), desc=method, unit=" samples", disable=not progress or not missing
    ) as bar:
        for places in batches_of(model, samples, missing):
            chosen = [samples[place] for place in places]
            batch, stages_BT = make_batch(model, chosen, [stages[place] for place in places])
            # for all later tokens a scorer may know a shorter way
            asked_BT = None if reach == "all" else stages_BT
            scores_BT = SCORERS[method](model, batch, asked_BT).float().cpu().numpy()
            start = max(sample.prompt_length for sample in chosen)
            for place, sample, row_T in zip(places, chosen, scores_BT):
                stop = start + sample.answer_start - sample.prompt_length
                store.scores[digests[place]] = row_T[start:stop].copy()
            bar.update(len(places))
    if missing and path is not None:
        store.save(path)
    return [store.scores[digest] for digest in digests]
