"""Where one run is at work, another is refused before anything is written or deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from invariants.writers import WRITERS, Writer, files_below
from kava.cli import run

AGAIN = {
    "train": ("--resume", "--overwrite"),
    "calibrate": ("--overwrite",),
    "demo": ("--overwrite",),
}


@pytest.mark.parametrize(
    ("writer", "flag"),
    [(writer, flag) for writer in WRITERS for flag in ("", *AGAIN.get(writer.name, ()))],
    ids=lambda value: value.name if isinstance(value, Writer) else value,
)
def test_a_second_run_is_refused_in_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], writer: Writer, flag: str
) -> None:
    output = workplace / writer.output
    if writer.is_folder:  # what an --overwrite or a --resume would touch
        for name in ("checkpoint-1/kava.json", "runs/kv-seed0/result.json", "calibration.json"):
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text("{}")
    with writer.lock(output, "kava train"):
        before = files_below(workplace)
        assert run(writer.function, [*writer.argv, *flag.split()]) == 1
        assert files_below(workplace) == before
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("kava: ")]
    assert line.startswith(f"kava: error: {writer.output} is in use: kava train has been at work")
