"""What decides a run beside its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def fingerprint_of(
    model_name: str,
    teacher_name: str | None = None,
    teachers: Sequence[str] = (),
    start_from: str | None = None,
    rationales: Sequence[str] = (),
) -> dict[str, str]:
    """The libraries' versions, and the hashes of local weights and of files beside the data.

    Args:
        model_name: a hub id, a local folder, or a built-in kava/ name.
        teacher_name: the same; None where the student teaches itself.
        teachers: the names of several teachers, without their labels.
        start_from: an earlier run's student that the student starts from, if there is one.
        rationales: files with the teachers' own chains of thought.

    Raises:
        OSError, ValueError: there is no such student.

    Example:
        >>> fingerprint_of("kava/shell-teacher").keys()
        dict_keys(['python', 'kava', 'torch', 'transformers', 'weights'])
    """
    from kava.models.builtin import TRAINED_MODELS
    from kava.student.checkpoint import find_student, library_versions
    from kava.student.whole import weights_files

    known = {}
    named = [(model_name, "weights"), (teacher_name, "teacher_weights")]
    named += [(name, f"teacher_{n}_weights") for n, name in enumerate(teachers)]
    if start_from is not None:
        named.append((str(find_student(start_from)), "start_weights"))
    for name, key in named:
        if name is None:
            continue
        files = weights_files(TRAINED_MODELS.get(name, Path(name)))
        if all(file.is_file() for file in files):
            known[key] = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    if rationales:
        texts = b"".join(Path(file).read_bytes() for file in rationales)
        known["rationales"] = hashlib.sha256(texts).hexdigest()
    return {**library_versions(), **known}
