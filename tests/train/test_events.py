"""TensorBoard's event files: whole records, that TensorBoard itself reads."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kava.files import write as files
from kava.train.events import EventsWriter


def scalars(folder: Path) -> list[tuple[int, float]]:
    """What TensorBoard shows of the quantity `loss`."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars("loss")]


def test_tensorboard_reads_what_was_added_without_a_flush(tmp_path: Path) -> None:
    writer = EventsWriter(tmp_path / "tensorboard")
    for step in (1, 2, 3):
        writer.add_scalar("loss", step / 4, step)
    assert scalars(tmp_path / "tensorboard") == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_a_run_that_goes_on_takes_the_place_of_the_steps_that_it_does_again(tmp_path: Path) -> None:
    for first, values in ((0, (1.0, 2.0, 3.0)), (3, (9.0, 8.0))):
        writer = EventsWriter(tmp_path, purge_step=first)
        for step, value in enumerate(values, start=max(first, 1)):
            writer.add_scalar("loss", value, step)
        writer.close()
    assert scalars(tmp_path) == [(1, 1.0), (2, 2.0), (3, 9.0), (4, 8.0)]


def test_a_full_disk_is_told_at_once_and_leaves_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EventsWriter(tmp_path)
    writer.add_scalar("loss", 0.5, 1)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[: len(data) - 10])

    monkeypatch.setattr(files.os, "write", half)
    with pytest.raises(OSError, match="No space left") as error:
        writer.add_scalar("loss", 0.25, 2)
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
