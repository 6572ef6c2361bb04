"""Flags of `kava train`: the two models, and the student's latents."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag


@dataclass(kw_only=True)
class ModelSettings:
    """The models, and the number of latents of the student."""

    model_name: str = flag(
        "kava/shell-teacher",
        "student: a hub id, a local folder, or a built-in kava/ name; also where it starts from",
        group="models",
    )
    teacher_name: str | None = flag(
        None,
        "frozen teacher (same kinds of name). Left out, the student teaches itself: its own "
        "weights read the written reasoning (self-distillation, as in the KaVa paper)",
    )
    gguf_file: str | None = flag(
        None,
        "the file of model_name in GGUF, in its folder; the same as --model_name FOLDER/FILE.gguf, "
        "which every flag that names a model takes",
    )
    teacher_gguf_file: str | None = flag(None, "the same of teacher_name")
    start_from: str | None = flag(
        None,
        "a checkpoint of kava train, or a run's folder, whose student this one starts from, in "
        "place of the weights of model_name; read at the beginning of a run only",
    )
    student: str = flag(
        "latent",
        "latent: M latent tokens replace the written reasoning; explicit: the student reads it",
        choices=names.STUDENTS,
        hint="the student's model is named by --model_name",
        group="latents",
    )
    target_len: int = flag(
        None,
        "M, the number of latents, and of kept cache positions; 0: none",
        least=0,
        most=names.MOST_LATENTS,
        unset="6, or fewer where a built-in task has fewer tokens",
    )
    decoding: str = flag("sequential", "how latents are decoded", choices=names.DECODINGS)
    jacobi_iterations: int = flag(
        3,
        "T, Jacobi passes after the first; target_len equals sequential, 0 is pause tokens",
        least=0,
        most=names.MOST_LATENTS,
    )
    thought_positions: str = flag(
        "own",
        "own: begin- and end-of-thought have positions, as new tokens do; shared: they have that "
        "of the token before them and start near the mean embedding, so that a written chain of "
        "thought between them is read as in plain text",
        choices=names.THOUGHT_POSITIONS,
    )
    projection_dropout: float = flag(
        0.0, "dropout in the projection from hidden state to latent", least=0, below=1
    )
