"""What decides a run beside its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def fingerprint_of(
    model_name: str,
    teacher_name: str | None = None,
    start_from: str | None = None,
    teachers: Sequence[str] = (),
) -> dict[str, str]:
    """The libraries' versions, and the hashes of local models' weights.

    Args:
        model_name: a hub id, a local folder, or a built-in kava/ name.
        teacher_name: the same; None where the student teaches itself.
        start_from: an earlier run's student that the student starts from, if there is one.
        teachers: several teachers, as NAME or LABEL=NAME.

    Raises:
        OSError, ValueError: there is no such student.

    Example:
        >>> fingerprint_of("kava/shell-teacher").keys()
        dict_keys(['python', 'kava', 'torch', 'transformers', 'weights'])
    """
    from kava.models.builtin import TRAINED_MODELS
    from kava.student.checkpoint import WEIGHTS_FILE, find_student, library_versions

    known = {}
    start = None if start_from is None else str(find_student(start_from))
    for name, key in (
        (model_name, "weights"),
        (teacher_name, "teacher_weights"),
        (start, "start_weights"),
        *((name.rpartition("=")[2], f"teacher_weights_{n}") for n, name in enumerate(teachers)),
    ):
        if name is None:
            continue
        weights = TRAINED_MODELS.get(name, Path(name)) / WEIGHTS_FILE
        if weights.is_file():
            known[key] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {**library_versions(), **known}
