"""The benchmark of the eviction methods runs and tells the two forms of a score apart."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from kava.eviction import EVICTIONS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compress.py"


def test_the_benchmark_prints_a_row_per_method(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = runpy.run_path(str(SCRIPT))
    script["main"](["--lengths", "96", "--heads", "2", "--rounds", "1"])
    rows = {
        line[:30].strip(): line[30:].split()
        for line in capsys.readouterr().out.splitlines()
        if line.strip() and not line.startswith("T =")
    }
    given = {name for name, eviction in EVICTIONS.items() if eviction.needs_scores}
    for name in ("K·Kᵀ", *sorted(set(EVICTIONS) - given - {"positions"})):
        assert len(rows[name]) == 3
    # Two heads' T×T matrix of float32 is what the closed form does without.
    matrix_mib = 2 * 96 * 96 * 4 / 2**20
    assert float(rows["T×T form of rkv's R"][2]) >= matrix_mib - 0.01
    assert float(rows["rkv: R alone"][2]) < matrix_mib
