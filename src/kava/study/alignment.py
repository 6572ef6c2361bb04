"""The teacher layers, heads and tokens that a run's student is matched with, as plain numbers.

    {"layers": L_s × L_t weights,
     "heads": {"keys": [one H_out × H_in matrix per layer, or one for all], "values": […]},
     "time": {"sample": id, "student": tokens, "teacher": tokens, "weights": T_s × T_t}}

`heads` is left out if keys and values are not mapped or the map is not a matrix, `time` if both
models read the same tokens.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kava.align.tokens.overlap import TokenAlignmentMode
    from kava.train.build import Run
    from kava.train.data import Data


def alignment_of(run: Run) -> dict[str, Any] | None:
    """The alignment of a run; None if the run matches no cache.

    Args:
        run: a finished run, since maps may be trained.

    Example:
        >>> alignment_of(run)["layers"]
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    from kava.align.heads.head_norms import head_norms

    config = run.trainer.config
    if not config.matches_cache:
        return None
    aligner = run.trainer.accelerator.unwrap_model(run.trainer.model).map_aligner
    found: dict[str, Any] = {"layers": aligner.layer_weights.tolist()}
    projectors = aligner.projectors()
    if projectors:
        with suppress(ValueError):  # a projector with layers of its own is not a matrix over heads
            found["heads"] = {part: head_norms(projectors[part]) for part in ("keys", "values")}
    mode: TokenAlignmentMode = "hard" if config.token_alignment == "hard" else "soft"
    time = None if config.token_alignment == "none" else _time(run.data, mode)
    return found if time is None else {**found, "time": time}


def _time(data: Data, mode: TokenAlignmentMode) -> dict[str, Any] | None:
    """The token alignment of the first held-out sample, or else the first training sample."""
    from kava.data.paired_tokens import paired_tokens

    encoded, records = (
        (data.eval, data.eval_records) if data.eval else (data.train, data.train_records)
    )
    sample = encoded[0]
    record = next(record for record in records if record.id == sample.id)
    paired = paired_tokens(sample, data.template.render(record).text, mode)
    if paired is None:
        return None
    return {
        "sample": sample.id,
        "student": paired.student,
        "teacher": paired.teacher,
        "weights": paired.weights_ST,
    }
