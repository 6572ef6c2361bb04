"""Where the disk takes no more, every command ends in one line and leaves nothing half written."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from invariants.writers import WRITERS, Writer, files_below
from kava.cli import run
from kava.files import write as files

AT_ONCE = [
    writer
    for writer in WRITERS
    if writer.name not in {"train", "study run", "curriculum run", "demo", "study report"}
]
"""Commands that write when all is computed; a report takes the time of its statistics."""

LIMITS_OF_TRAINING = (0, 100, 2000, 20_000)
LIMITS = (0, 100)


@contextmanager
def files_no_larger_than(num_bytes: int) -> Iterator[None]:
    """Have the system refuse every write beyond so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_one_line(err: str, what: str) -> None:
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("kava: error")]
    assert line.startswith(f"kava: error: {what}"), line
    assert " while writing " in line


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("writer", AT_ONCE, ids=lambda writer: writer.name)
def test_a_file_that_may_not_grow_is_named_and_all_is_as_before(
    workplace: Path, capsys: pytest.CaptureFixture[str], writer: Writer, limit: int
) -> None:
    before = sorted(workplace.rglob("*"))
    with files_no_larger_than(limit):
        assert run(writer.function, writer.argv) == 1
    check_one_line(capsys.readouterr().err, "the file would grow beyond the limit")
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize("limit", LIMITS_OF_TRAINING)
def test_a_training_run_is_ended_in_one_line_with_whole_files_alone(
    workplace: Path, capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    (train,) = (writer for writer in WRITERS if writer.name == "train")
    with files_no_larger_than(limit):
        assert run(train.function, train.argv) == 1
    err = capsys.readouterr().err
    if limit == max(LIMITS_OF_TRAINING):
        assert "the checkpoint of step 2 could not be written" in err
    else:
        check_one_line(err, "the file would grow beyond the limit")
    left = files_below(workplace / "out")
    metrics = left.pop("metrics.jsonl", b"").decode()
    assert all(json.loads(line)["step"] for line in metrics.splitlines())
    assert metrics.endswith("\n") or not metrics
    for name, content in left.items():
        assert name.startswith("tensorboard/events.out")
        while content:  # length, its checksum, the record, its checksum
            size = 16 + int.from_bytes(content[:8], "little")
            assert len(content) >= size
            content = content[size:]
    assert run(train.function, train.argv) == 0


@pytest.mark.parametrize("writer", AT_ONCE, ids=lambda writer: writer.name)
def test_a_disk_that_takes_no_more_is_named_and_all_is_as_before(
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    writer: Writer,
) -> None:
    before = sorted(workplace.rglob("*"))

    def refuse(descriptor: int) -> None:  # what a network's file system tells late
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", refuse)
    assert run(writer.function, writer.argv) == 1
    check_one_line(capsys.readouterr().err, "the disk is full")
    assert sorted(workplace.rglob("*")) == before
