"""Load a checkpoint's weights: the student's, and those beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from kava.align.heads.build import QUERY_PROJECTORS
from kava.align.heads.layerwise import LayerwiseProjector
from kava.models.lora import has_lora
from kava.models.weights import read_tensors
from kava.student.adapted import load_adapted_weights
from kava.student.config import base_of
from kava.student.whole import ALIGNER_FILE, WEIGHTS_FILE, is_adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kava.align import MapProjectionAligner
    from kava.train.objective import Distiller


def beside_student(distiller: Distiller) -> dict[str, Tensor]:
    """Parameters and buffers outside the student: the aligner's, and CODI's projection."""
    state = distiller.state_dict()
    return {name: part for name, part in state.items() if not name.startswith("student.")}


def load_checkpoint(directory: str | Path, distiller: Distiller) -> None:
    """Load a checkpoint's student and aligner into `distiller`.

    Raises:
        OSError: a file is missing or damaged; the message names it.
        ValueError: weights of other names or shapes.
    """
    directory = Path(directory)
    load_student_weights(directory, distiller.student)
    rest = _read(directory / ALIGNER_FILE)
    if distiller.settings.map_rank == "auto":
        for name, projector in distiller.map_aligner.named_children():
            key = f"map_aligner.{name}.head_mix"
            if key in rest and isinstance(projector, LayerwiseProjector):
                projector.set_rank(rest[key].shape[1])
    expected = beside_student(distiller)
    for name, part in expected.items():
        if name not in rest or rest[name].shape != part.shape:
            raise ValueError(
                f"{directory / ALIGNER_FILE}: {name!r} is missing or has another shape"
            )
    distiller.load_state_dict(rest, strict=False)


def load_student_weights(directory: str | Path, student: PreTrainedModel) -> None:
    """Load a checkpoint's student into one of the same form.

    Raises:
        OSError: the file is missing or damaged.
        ValueError: weights of other names or shapes.
    """
    if is_adapted(directory) or has_lora(base_of(student)):
        load_adapted_weights(Path(directory), student)
        return
    weights = _read(Path(directory) / WEIGHTS_FILE)
    ours = student.state_dict()
    # tied weights are stored once
    tied = {name for name in ours if name not in weights}
    known = {ours[name].data_ptr() for name in weights if name in ours}
    lost = [name for name in tied if ours[name].data_ptr() not in known]
    foreign = [
        name for name, part in weights.items() if name not in ours or ours[name].shape != part.shape
    ]
    if lost or foreign:
        raise ValueError(
            f"{directory} is a checkpoint of another model: {(lost + foreign)[0]!r} does not match"
        )
    student.load_state_dict(weights, strict=False)


def load_aligner(directory: str | Path, aligner: MapProjectionAligner) -> None:
    """Load a checkpoint's aligner into one of the same geometry, mode and rank.

    Raises:
        OSError: the file is missing or damaged.
        ValueError: weights of other names or shapes.
    """
    path, prefix = Path(directory) / ALIGNER_FILE, "map_aligner."
    theirs = {name: part for name, part in _read(path).items() if name.startswith(prefix)}
    state = {name.removeprefix(prefix): part for name, part in theirs.items()}
    for name, part in aligner.state_dict().items():
        if name not in state or state[name].shape != part.shape:
            raise ValueError(f"{path}: {prefix + name!r} is missing or has another shape")
    # earlier releases stored query maps that were never used
    aligner.load_state_dict({name: state[name] for name in aligner.state_dict()})


def holds_query_maps(directory: str | Path) -> bool:
    """Whether a checkpoint's aligner contains query maps.

    Raises:
        OSError: the file is missing or damaged.
    """
    names = {name.split(".")[1] for name in _read(Path(directory) / ALIGNER_FILE) if "." in name}
    return not names.isdisjoint(QUERY_PROJECTORS)


def _read(path: Path) -> dict[str, Tensor]:
    return read_tensors(path, "resume from another checkpoint")
