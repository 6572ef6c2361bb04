"""Numbers that are not finite are found where a file is read, and the tensor is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kava.align import MapProjectionAligner
from kava.data.records import Template
from kava.fit import files as calibration
from kava.importance import ScoreStore
from kava.importance.store import DIGEST_SIZE
from kava.models.load import load_model, load_tokenizer
from kava.models.weights import check_finite
from kava.student.checkpoint import load_student, save_student
from kava.student.latent import LatentStudent
from kava.train.loading import load_aligner, load_checkpoint
from kava.train.models import build_distiller
from train.runs import run, small


def spoil(path: Path, name: str, value: float) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    state[name].view(-1)[-1] = value
    save_file(state, path, metadata=metadata)


def a_student(kind: str) -> Callable[[Path], tuple[Path, str, Callable[[], Any]]]:
    def make(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
        model: Any = load_model("kava/tiny-llama")
        if kind == "latent":
            model = LatentStudent.wrap(model, num_latents=2)
        settings = {"template": asdict(Template())}
        save_student(folder, model, load_tokenizer("kava/tiny-llama"), settings)
        name = "projection.4.weight" if kind == "latent" else "model.norm.weight"
        return folder / "model.safetensors", name, lambda: load_student(folder)

    return make


def an_aligner(part: str) -> Callable[[Path], tuple[Path, str, Callable[[], Any]]]:
    def make(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
        config = small(
            folder, teacher_name="kava/shell-gpt2-teacher", alignment_mode="structured",
            aligner_fit="frozen", max_steps=1,
        )  # fmt: skip
        run(config)
        distiller = build_distiller(config)
        place = folder / "checkpoint-1"
        file = place / ("model.safetensors" if part == "student" else "map_aligner.safetensors")
        name = next(name for name, one in load_file(file).items() if one.is_floating_point())
        if part == "aligner":
            return file, name, lambda: load_aligner(place, distiller.map_aligner)
        return file, name, lambda: load_checkpoint(place, distiller)

    return make


def a_calibration(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    options: dict[str, Any] = {
        "num_teacher_layers": 2, "num_student_layers": 2, "num_teacher_heads": 2,
        "num_student_heads": 2, "teacher_head_dim": 4, "student_head_dim": 4, "rank": 1,
        "per_layer": True,
    }  # fmt: skip
    aligner = MapProjectionAligner(**options)
    folder.mkdir()
    file = folder / calibration.ALIGNER_FILE
    save_file({n: p.detach().contiguous() for n, p in aligner.state_dict().items()}, file)
    (folder / calibration.REPORT_FILE).write_text(json.dumps({"aligner": options}))
    name = next(name for name, one in load_file(file).items() if one.is_floating_point())
    return file, name, lambda: calibration.load_calibration(folder)


def scores(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    folder.mkdir()
    file = folder / "scores.safetensors"
    ScoreStore({}, {b"x" * DIGEST_SIZE: np.ones(3, dtype=np.float32)}).save(file)
    return file, "scores", lambda: ScoreStore.load(file, {})


FILES = {
    "a latent student": a_student("latent"),
    "an explicit student": a_student("explicit"),
    "an aligner": an_aligner("aligner"),
    "a run's aligner": an_aligner("whole"),
    "a run's student": an_aligner("student"),
    "a calibration": a_calibration,
    "scores": scores,
}


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("kind", FILES)
def test_a_number_that_is_not_finite_is_named_where_its_file_is_read(
    kind: str, value: float, tmp_path: Path
) -> None:
    file, name, load = FILES[kind](tmp_path / "x")
    load()
    spoil(file, name, value)
    with pytest.raises((ValueError, OSError), match="are not finite: 1 of ") as caught:
        load()
    assert repr(name) in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "part",
    [
        torch.zeros(0),
        torch.tensor([1, 2]),
        torch.tensor([True]),
        torch.empty(3, device="meta"),
        torch.tensor([65504.0, -65504.0], dtype=torch.float16),
        torch.full((3,), torch.finfo(torch.bfloat16).max, dtype=torch.bfloat16),
        torch.full((1000,), 3e38),  # finite, and their sum is not
    ],
)
def test_what_is_finite_or_no_number_passes(part: torch.Tensor) -> None:
    check_finite([("a", part)], "x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_is_looked_at_and_the_first_tensor_named(dtype: torch.dtype) -> None:
    bad = torch.ones(2, 3, dtype=dtype)
    bad[1, 1], bad[0, 0] = float("nan"), float("inf")
    with pytest.raises(ValueError, match=r"'x' are not finite: 2 of 6 numbers of 'b'"):
        check_finite([("a", torch.ones(1)), ("b", bad), ("c", bad)], "x")


def test_weights_that_float16_cannot_hold_say_so(tmp_path: Path) -> None:
    model = load_model("kava/tiny-llama")
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6  # type: ignore[union-attr, operator]
    model.save_pretrained(tmp_path)
    load_model(tmp_path)
    with pytest.raises(ValueError, match="float16 ends at 65504: load it in float32 or bfloat16"):
        load_model(tmp_path, dtype="float16")


def test_every_number_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    aminmax = torch.aminmax

    def counted(part: torch.Tensor) -> Any:
        read.append(part.numel())
        return aminmax(part)

    monkeypatch.setattr(torch, "aminmax", counted)
    model = load_model("kava/tiny-llama")
    check_finite(model.named_parameters(), "x")
    assert sum(read) == sum(part.numel() for part in model.parameters())
