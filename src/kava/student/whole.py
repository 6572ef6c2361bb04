"""Check that a checkpoint is complete: for a student to answer, and for a run to resume.

    model.safetensors, config.json, tokenizer…, kava.json           the student
    adapter/                                                        its LoRA adapters, if it has any
    optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json,
    recording.json, map_aligner.safetensors                         what a run needs to resume

Sizes are always compared with the manifest, hashes only if a run resumes. A checkpoint of an
earlier version has no manifest: its files must exist and must not be truncated.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from kava.inputs import read_json
from kava.models.lora import ADAPTER_WEIGHTS
from kava.models.places import CONFIG_FILE
from kava.models.weights import tensors_damage
from kava.student.manifest import MANIFEST_FILE, find_damage

WEIGHTS_FILE = "model.safetensors"
ADAPTER_FOLDER = "adapter"
ALIGNER_FILE = "map_aligner.safetensors"
STATE_FILE = "trainer_state.json"
RECORDING_FILE = "recording.json"
OPTIMISER_FILES = ("optimizer.pt", "scheduler.pt")
TRAINING_FILES = (*OPTIMISER_FILES, "scaler.pt", STATE_FILE, RECORDING_FILE, ALIGNER_FILE)
"""The files that a run needs to resume, except random states; answering does not need them."""

_RANDOM_STATES = re.compile(r"rng_state(_\d+)?\.pth")


def student_damage(folder: str | Path) -> str | None:
    """What is wrong with the files of a student; None if nothing is.

    Example:
        >>> student_damage("outputs/run/checkpoint-500")
    """
    folder = Path(folder)
    return _weights_damage(folder) or find_damage(folder, counts=_of_student)


def run_damage(folder: str | Path) -> str | None:
    """Why a run cannot resume from a checkpoint (a missing, truncated or changed file), or None.

    With a manifest, every file is read once.
    """
    folder = Path(folder)
    found = _weights_damage(folder) or tensors_damage(folder / ALIGNER_FILE)
    for name in (STATE_FILE, RECORDING_FILE):
        found = found or _damaged_json(folder / name)
    num_processes = written_by(folder)
    for name in (*OPTIMISER_FILES, *random_state_files(num_processes or 1)):
        found = found or _damaged_archive(folder / name)
    return found or find_damage(folder, hashes=True)


def written_by(folder: str | Path) -> int | None:
    """The number of processes that wrote a checkpoint, from its random states; None without
    them."""
    names = [path.name for path in Path(folder).glob("rng_state*.pth")]
    matches = [match for name in names if (match := _RANDOM_STATES.fullmatch(name))]
    if not matches:
        return None
    return max(1 if match[1] is None else int(match[1][1:]) + 1 for match in matches)


def random_state_files(num_processes: int) -> list[str]:
    """The names of the random state files that `num_processes` processes write."""
    if num_processes == 1:
        return ["rng_state.pth"]
    return [f"rng_state_{process}.pth" for process in range(num_processes)]


def is_adapted(folder: str | Path) -> bool:
    """Whether a checkpoint holds LoRA adapters, and not its base model."""
    return (Path(folder) / ADAPTER_FOLDER).is_dir()


def weights_files(folder: str | Path) -> list[Path]:
    """The files that hold the weights of a student."""
    folder = Path(folder)
    if not is_adapted(folder):
        return [folder / WEIGHTS_FILE]
    # an explicit student is its base and the adapters
    own = [folder / WEIGHTS_FILE] if (folder / CONFIG_FILE).is_file() else []
    return [folder / ADAPTER_FOLDER / ADAPTER_WEIGHTS, *own]


def has_manifest(folder: str | Path) -> bool:
    """Whether a checkpoint has a manifest."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def _weights_damage(folder: Path) -> str | None:
    return next(filter(None, map(tensors_damage, weights_files(folder))), None)


def _of_student(name: str) -> bool:
    return name not in TRAINING_FILES and not _RANDOM_STATES.fullmatch(name)


def _damaged_json(path: Path) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    try:
        read_json(path)
    except ValueError as error:
        return f"{path} is damaged or truncated ({error})"
    return None


def _damaged_archive(path: Path) -> str | None:
    """Whether a file of torch.save, a zip archive with its directory at the end, is truncated."""
    if not path.is_file():
        return f"{path} is missing"
    return None if zipfile.is_zipfile(path) else f"{path} is damaged or truncated"
