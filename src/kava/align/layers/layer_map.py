"""Layer maps: which teacher layers a student layer is compared with.

A map is a matrix of weights [L_s, L_t] whose rows sum to 1, so that a student layer's target is
an average of teacher layers and its scale is kept. Every strategy is monotone (deeper student
layers read deeper teacher layers), leaves no row empty, and is the identity for L_t = L_s.

Shapes: L_t teacher layers, L_s student layers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kava.files.write import write_whole
from kava.inputs import Malformed, read_json

LayerMapStrategy = Callable[[int, int], Tensor]

LAYER_MAPS: dict[str, LayerMapStrategy] = {}

FILE_FORMAT = "kava.layer_map.v1"

ROW_SUM_TOLERANCE = 1e-3


def register_layer_map(name: str) -> Callable[[LayerMapStrategy], LayerMapStrategy]:
    """Make a strategy (L_t, L_s) -> weights [L_s, L_t] known under `name`."""

    def register(strategy: LayerMapStrategy) -> LayerMapStrategy:
        LAYER_MAPS[name] = strategy
        return strategy

    return register


def proportional_position(student: int, num_teacher: int, num_student: int) -> tuple[int, int, int]:
    """The proportional position of a student layer among the teacher's: i·(L_t − 1)/(L_s − 1).

    A single student layer is placed at the teacher's last, which the output reads. Integer
    arithmetic, so that a position that coincides with a layer does so exactly.

    Returns:
        whole, numerator, denominator of the position whole + numerator / denominator.
    """
    if num_student == 1:
        return num_teacher - 1, 0, 1
    span = num_student - 1
    return *divmod(student * (num_teacher - 1), span), span


@register_layer_map("ratio")
def ratio_map(num_teacher: int, num_student: int) -> Tensor:
    """Interpolate between the two teacher layers around the proportional position."""
    weights_ST = torch.zeros(num_student, num_teacher)
    for student in range(num_student):
        lower, rest, span = proportional_position(student, num_teacher, num_student)
        weights_ST[student, lower] = 1 - rest / span
        if rest:
            weights_ST[student, lower + 1] = rest / span
    return weights_ST


@register_layer_map("uniform")
def uniform_map(num_teacher: int, num_student: int) -> Tensor:
    """Average the student layer's own contiguous group of teacher layers.

    The groups are a partition of the teacher's layers, in order, of sizes that differ by at most
    one. A teacher with fewer layers than the student gives each student layer its nearest one.
    """
    weights_ST = torch.zeros(num_student, num_teacher)
    for student in range(num_student):
        if num_teacher >= num_student:
            first = student * num_teacher // num_student
            last = (student + 1) * num_teacher // num_student
        else:
            first = (2 * student + 1) * num_teacher // (2 * num_student)
            last = first + 1
        weights_ST[student, first:last] = 1 / (last - first)
    return weights_ST


@register_layer_map("skip")
def skip_map(num_teacher: int, num_student: int) -> Tensor:
    """Take the one teacher layer nearest to the proportional position (the later of two)."""
    weights_ST = torch.zeros(num_student, num_teacher)
    for student in range(num_student):
        lower, rest, span = proportional_position(student, num_teacher, num_student)
        weights_ST[student, lower + (2 * rest >= span)] = 1.0
    return weights_ST


def layer_map(num_teacher_layers: int, num_student_layers: int, strategy: str = "ratio") -> Tensor:
    """Weights with which each student layer reads the teacher's layers.

    Args:
        num_teacher_layers: L_t ≥ 1.
        num_student_layers: L_s ≥ 1.
        strategy: "ratio" (interpolate at the proportional position; first and last reached),
            "uniform" (average contiguous groups) or "skip" (one teacher layer each, evenly
            spaced; first and last reached).

    Returns:
        [L_s, L_t], float32, rows summing to 1.

    Raises:
        ValueError: an unknown strategy, or a number of layers below 1.

    Example:
        >>> layer_map(4, 2, strategy="uniform")
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    if strategy not in LAYER_MAPS:
        raise ValueError(f"layer_map={strategy!r} is unknown; choose from {', '.join(LAYER_MAPS)}")
    for name, number in (("teacher", num_teacher_layers), ("student", num_student_layers)):
        if number < 1:
            raise ValueError(f"num_{name}_layers={number} must be at least 1")
    return LAYER_MAPS[strategy](num_teacher_layers, num_student_layers)


def check_layer_map(
    weights: Tensor,
    num_teacher_layers: int,
    num_student_layers: int,
    source: str = "layer_map",
) -> Tensor:
    """Return `weights` as a detached float32 copy, or raise an error if they are no layer map.

    Args:
        weights: [L_s, L_t].
        num_teacher_layers: L_t, the depth that is expected.
        num_student_layers: L_s, the depth that is expected.
        source: the name of the weights in the error message.

    Raises:
        ValueError: another shape, an entry that is not finite, or a row that does not sum to 1.
    """
    expected = (num_student_layers, num_teacher_layers)
    if tuple(weights.shape) != expected:
        raise ValueError(
            f"{source} has shape {list(weights.shape)}, but {num_student_layers} student and "
            f"{num_teacher_layers} teacher layers need {list(expected)}; make it for these depths"
        )
    weights = weights.detach().to(torch.float32).clone()
    if not weights.isfinite().all():
        raise ValueError(f"{source} holds an entry that is not finite")
    sums = weights.sum(dim=1)
    worst = int((sums - 1).abs().argmax())
    if abs(float(sums[worst]) - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(
            f"{source}: row {worst} sums to {float(sums[worst]):.4g}; every row must sum to 1, "
            f"so divide each row by its sum"
        )
    return weights


def save_layer_map(
    weights: Tensor, path: str | Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write a map [L_s, L_t] as JSON, exact to the bit; the file is written whole or not at all.

    Args:
        weights: [L_s, L_t].
        path: the file.
        facts: metadata to store beside the weights, such as how they were found, as JSON values.
            Loading ignores them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_layer_map(layer_map(3, 2, strategy="skip"), f"{folder}/map.json")
        ...     load_layer_map(f"{folder}/map.json", 3, 2)
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    write_whole(path, layer_map_text(weights, facts))


def layer_map_text(weights: Tensor, facts: Mapping[str, Any] | None = None) -> str:
    """The text that `save_layer_map` writes."""
    num_student, num_teacher = weights.shape
    record = {
        **(facts or {}),
        "format": FILE_FORMAT,
        "num_teacher_layers": num_teacher,
        "num_student_layers": num_student,
        "weights": weights.detach().float().tolist(),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    # a row of a matrix on one line
    text = re.sub(r"\[\n[^][{}\"]+\]", lambda row: " ".join(row[0].split()), text)
    return text + "\n"


def load_layer_map(
    path: str | Path, num_teacher_layers: int | None = None, num_student_layers: int | None = None
) -> Tensor:
    """Read a map that `save_layer_map` wrote.

    Args:
        path: the JSON file.
        num_teacher_layers: the teacher's depth; None accepts the file's.
        num_student_layers: the student's depth; None accepts the file's.

    Returns:
        [L_s, L_t], float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or one made for other depths.
    """
    try:
        record = read_json(path)
    except Malformed as error:
        raise ValueError(f"{path} is not a layer map: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FILE_FORMAT:
        raise ValueError(f"{path} is not a layer map: its format is not {FILE_FORMAT!r}")
    missing = {"num_teacher_layers", "num_student_layers", "weights"} - record.keys()
    if missing:
        raise ValueError(f"{path} is not a layer map: it lacks {', '.join(sorted(missing))}")
    in_file = record["num_teacher_layers"], record["num_student_layers"]
    wanted = (
        in_file[0] if num_teacher_layers is None else num_teacher_layers,
        in_file[1] if num_student_layers is None else num_student_layers,
    )
    if in_file != wanted:
        raise ValueError(
            f"{path} maps {in_file[0]} teacher layers to {in_file[1]} student layers, but these "
            f"models have {wanted[0]} and {wanted[1]}; make a map for them"
        )
    try:
        weights = torch.tensor(record["weights"], dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: weights are not a matrix of numbers: {error}") from None
    return check_layer_map(weights, *wanted, source=str(path))


def resolve_layer_map(
    choice: str | Path | Tensor, num_teacher_layers: int, num_student_layers: int
) -> Tensor:
    """Weights [L_s, L_t] from a strategy's name, a JSON file's path, or the weights themselves.

    Raises:
        ValueError: neither a known name nor a path that ends in .json; or a map for other depths.
    """
    if isinstance(choice, Tensor):
        return check_layer_map(choice, num_teacher_layers, num_student_layers)
    if isinstance(choice, Path) or choice.endswith(".json"):
        return load_layer_map(choice, num_teacher_layers, num_student_layers)
    if choice not in LAYER_MAPS:
        raise ValueError(
            f"layer_map={choice!r} is unknown; choose from {', '.join(LAYER_MAPS)}, "
            f"or give a path that ends in .json"
        )
    return layer_map(num_teacher_layers, num_student_layers, choice)
