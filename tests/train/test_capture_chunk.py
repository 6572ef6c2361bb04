"""Runs and stores whose frozen teachers read in chunks: the same targets, in shorter forwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import all_rows, distiller_and_batch, run, small

from extract.stores import manifest_of, store
from kava.cli import run as command
from kava.commands.extract import main as extract_main
from kava.commands.train import main
from kava.models import chunked
from kava.models.capture import capture
from kava.models.load import load_model_config
from kava.profile.shapes import teacher_marks
from kava.store.manifest import FULL, TARGETS
from kava.store.reader import Tier
from one_line import refusal

STRUCTURED: dict[str, Any] = {"alignment_mode": "structured", "calibration_samples": 32}
OTHER: dict[str, Any] = {
    "model_name": "kava/shell-teacher",
    "teacher_name": "kava/shell-gpt2-teacher",
    **STRUCTURED,
}
RUNS: dict[str, dict[str, Any]] = {
    "rkv, CODI, wrong sample": {**OTHER, "kv_method": "rkv", "codi_weight": 0.5}
    | {"wrong_sample": True},
    "explicit, structural loss": {**OTHER, "student": "explicit", "kv_loss": "structural"}
    | {"kv_layer_std": False},
    "two teachers by confidence": {
        "teacher_name": None,
        "teachers": ["a=kava/shell-gpt2-teacher", "b=kava/shell-teacher"],
        "fusion": "confidence",
        **STRUCTURED,
    },
    "layers by CKA": {**OTHER, "use_cka_layer_mapping": True},
}


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The columns of each forward of a reading that can be chunked."""
    found: list[int] = []

    def watched(model: Any, ids: torch.Tensor, *args: Any, **options: Any) -> Any:
        found.append(ids.shape[1])
        return capture(model, ids, *args, **options)

    monkeypatch.setattr(chunked, "capture", watched)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_chunks_logs_the_losses_of_whole_readings(
    name: str, tmp_path: Path, widths: list[int]
) -> None:
    changes = {"max_steps": 2, "batch_size": 4, **RUNS[name]}
    rows = []
    for chunk in (None, 3):
        folder = tmp_path / str(chunk)
        widths.clear()
        run(small(folder, **changes, capture_chunk=chunk))
        rows.append(all_rows(folder))
    assert max(widths) == 3
    for whole, found in zip(*rows, strict=True):
        for key, value in whole.items():
            assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_only_the_frozen_teacher_reads_in_chunks() -> None:
    distiller, batch = distiller_and_batch(
        small("unused", **OTHER, kv_method="uniform", capture_chunk=3)
    )
    widths: dict[str, list[int]] = {"teacher": [], "student": []}
    models = {"teacher": distiller.readers[0], "student": distiller.base}
    for name, model in models.items():
        model.get_input_embeddings().register_forward_hook(
            lambda module, args, output, name=name: widths[name].append(output.shape[1])
        )
    distiller(batch)
    length = batch.get("teacher", batch)["input_ids"].shape[1]
    assert sum(widths["teacher"]) == length > 3
    assert max(widths["teacher"]) == 3
    assert max(widths["student"]) > 3


@pytest.mark.parametrize("method", ["rkv", "h2o"])
def test_a_store_extracted_in_chunks_keeps_the_same_positions(
    method: str, tmp_path: Path, widths: list[int]
) -> None:
    options = {"kv_method": method, "full": True, "include": ("answer", "queries", "weights")}
    for name, chunk in (("whole", None), ("chunks", 4)):
        store(tmp_path / name, **options, capture_chunk=chunk)
        assert (max(widths) == 4) == (name == "chunks")
        widths.clear()
    whole, in_chunks = manifest_of(tmp_path / "whole"), manifest_of(tmp_path / "chunks")
    assert whole.store_id == in_chunks.store_id
    for tier in (FULL, TARGETS):
        ours = Tier(tmp_path / "chunks", in_chunks, tier)
        theirs = Tier(tmp_path / "whole", whole, tier)
        for row in range(16):
            parts, expected = ours.read(row), theirs.read(row)
            assert parts.keys() == expected.keys()
            for part, tensor in parts.items():
                if tensor.dtype.is_floating_point:
                    torch.testing.assert_close(tensor, expected[part], atol=2e-4, rtol=1e-3)
                else:
                    assert torch.equal(tensor, expected[part]), part


def test_the_command_extracts_in_chunks_and_trains_from_it(tmp_path: Path) -> None:
    flags = "--model_name kava/shell-llama --teacher_name kava/shell-teacher --target_len 2"
    flags += " --dataset_name kava/shell-game?num_train=24 --eval_size 8 --max_length 64"
    flags += f" --capture_chunk 4 --device cpu --no_progress --store {tmp_path / 'store'}"
    assert command(extract_main, [*flags.split(), "--full"]) == 0
    flags += f" --max_steps 2 --batch_size 4 --output_dir {tmp_path / 'run'}"
    assert command(main, flags.split()) == 0
    assert len(all_rows(tmp_path / "run")) > 0


def test_the_estimate_of_a_teachers_pass_is_that_of_its_chunks() -> None:
    config = load_model_config("kava/shell-gpt2-teacher")
    peaks, left = [], []
    for chunk in (None, 16):
        marks, kept = teacher_marks(config, torch.float32, 2, 212, queries=True, chunk=chunk)
        peaks.append(max(mark.most for mark in marks))
        left.append(kept)
    assert left[0] == left[1]
    assert peaks[1] < peaks[0]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--capture_chunk 0", "--capture_chunk 0 must be at least 1"),
        ("--capture_chunk half", "half"),
        ("--capture_chunk 8", "--capture_chunk 8 is about a frozen teacher"),
        (
            "--teacher_name kava/shell-gpt2-teacher --kv_method knockout --capture_chunk 8",
            "--kv_method knockout scores positions by whole readings of a text",
        ),
        (
            "--teacher_name kava/shell-bert --alignment_mode structured --capture_chunk 8 "
            "--kv_method uniform",
            "is an encoder (bert), whose positions look at later ones",
        ),
    ],
)
def test_what_cannot_be_read_in_chunks_is_refused(
    flags: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model_name", "kava/shell-teacher", "--output_dir", str(tmp_path / "run")]
    assert part in refusal(main, [*argv, *flags.split()], capsys)
    assert not (tmp_path / "run").exists()
