"""Measure the layer map before training, on texts that teacher and student both read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.fit.layer_map import LayerMapping, map_layers
from kava.fit.layer_similarity import measure_layers
from kava.store.teacher import StoredTeacher
from kava.student.checkpoint import library_versions
from kava.train.calibration import samples_to_fit
from kava.train.config import TrainConfig
from kava.train.objective import Distiller

BATCH_SIZE = 16
FILE_NAME = "layer_map.json"


def measure_layer_map(
    distiller: Distiller,
    config: TrainConfig,
    samples: Sequence[Encoded],
    collate: Collator,
    data_hash: str,
) -> LayerMapping:
    """Set the layer map of the distiller's aligner from the measured similarity of layers.

    Args:
        distiller: student, aligner and teacher; the student as it is before training.
        config: the run's configuration.
        samples: the training samples; the first `calibration_samples` of them are read.
        collate: makes batches of them.
        data_hash: of the training data, which the map names.

    Raises:
        ValueError: too few reasoning tokens, or a student layer that is like no teacher layer.
    """
    teacher = distiller.readers[0]
    chosen = samples[: config.calibration_samples]
    if isinstance(teacher, StoredTeacher):
        chosen = samples_to_fit(samples, teacher, 0, config.calibration_samples)
    tokens = "soft" if config.token_alignment == "soft" else "hard"

    def batches() -> Iterator[Batch]:
        for start in range(0, len(chosen), BATCH_SIZE):
            yield collate(chosen[start : start + BATCH_SIZE])

    training = distiller.training
    distiller.eval()
    similarity = measure_layers(
        teacher,
        distiller.base,
        batches(),
        token_alignment=tokens,
        chunk=config.capture_chunk,
    )
    distiller.train(training)
    mapping = map_layers(
        similarity,
        student_model=config.model_name,
        teacher_model=config.teacher_name or config.model_name,
        dataset_name=config.dataset_name,
        split=config.split,
        num_samples=len(chosen),
        data_hash=data_hash,
        token_alignment=tokens,
        versions=library_versions(),
    )
    # loaded as a state, which clears what the aligner derived from the earlier map
    aligner = distiller.map_aligner
    aligner.load_state_dict({**aligner.state_dict(), "layer_weights": mapping.weights})
    return mapping


def layer_map_file(config: TrainConfig) -> Path:
    """Where a run leaves the map that it measured, for `--layer_mapping_path` of another."""
    return Path(config.output_dir) / FILE_NAME
