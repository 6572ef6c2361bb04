"""The maps of one run, read off its checkpoint: which layers, heads and tokens are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kava.align import MapProjectionAligner
    from kava.align.tokens.overlap import TokenAlignmentMode
    from kava.demo.worker import RunJob
    from kava.pictures.drawn import Draw
    from kava.train.config import TrainConfig

DRAWN = ("rank_8", "per_head", "flat", "shared")
"""The arms whose maps are fitted; the first that was run is drawn."""


def run_to_draw(runs: Sequence[RunJob]) -> RunJob | None:
    """The run whose maps are drawn; None where no map is fitted."""
    by_arm = {run.arm: run for run in reversed(runs)}
    return next((by_arm[name] for name in DRAWN if name in by_arm), None)


def draw_maps(run: RunJob) -> dict[str, Draw]:
    """The three pictures of a run's aligner.

    Raises:
        ValueError: the run's folder holds no checkpoint.
        OSError: its aligner is missing or damaged.
    """
    from kava.pictures.calibration import draw_aligner

    draws = draw_aligner(aligner_of(run))
    tokens = _draw_tokens(run.config)
    return draws if tokens is None else {**draws, "time": tokens}


def aligner_of(run: RunJob) -> MapProjectionAligner:
    """The aligner that a run left in its last checkpoint."""
    from kava.models.load import load_model
    from kava.student.checkpoint import latest_checkpoint
    from kava.train.checkpoint import load_aligner
    from kava.train.models import build_aligner

    config = run.config
    assert config.teacher_name is not None
    checkpoint = latest_checkpoint(run.folder)
    if checkpoint is None:
        raise ValueError(f"{run.folder} holds no checkpoint, so that its maps cannot be drawn")
    aligner = build_aligner(
        config,
        load_model(config.teacher_name, dtype=config.dtype),
        load_model(config.model_name, dtype=config.dtype),
    )
    load_aligner(checkpoint, aligner)
    return aligner


def _draw_tokens(config: TrainConfig) -> Draw | None:
    """One problem in both models' tokens; None where both read the same."""
    from kava.data.encode import encode_records
    from kava.data.pairing import encode_for_teacher
    from kava.data.sources import default_template, load_records
    from kava.models.tokenizers import reads_alike
    from kava.pictures.calibration import draw_tokens
    from kava.train.models import build_teacher_tokenizer, build_tokenizer

    tokenizer = build_tokenizer(config)
    teacher_tokenizer = build_teacher_tokenizer(config, tokenizer)
    template = default_template(config.dataset_name)
    records = load_records(config.dataset_name, split="test")[:1]
    text = template.render(records[0]).text
    if teacher_tokenizer is None or reads_alike(tokenizer, teacher_tokenizer, [text]):
        return None
    encoded, _ = encode_records(records, tokenizer, template, config.max_length)
    (item,), _ = encode_for_teacher(
        records, encoded, teacher_tokenizer, template, config.max_length
    )
    mode: TokenAlignmentMode = "hard" if config.token_alignment == "hard" else "soft"
    return draw_tokens(item, text, mode)
