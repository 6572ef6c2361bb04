"""One made-up study whose treatment wins, and its report, for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kava.report import write_report
from report.made_up import write_study


@pytest.fixture(scope="session")
def won(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study in which per_head clearly beats flat, and wrong does not."""
    folder = tmp_path_factory.mktemp("won") / "study"
    return write_study(folder, {"flat": 0.6, "per_head": 0.75, "wrong": 0.45, "raw": 0.05})


@pytest.fixture(scope="session")
def page(won: Path) -> Path:
    """Its page."""
    return write_report(won)
