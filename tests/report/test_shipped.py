"""The reports that the documentation quotes are those that their logs give today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kava.report import write_report

RESULTS = Path(__file__).parents[2] / "docs/results"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/report")))
def test_a_shipped_report_is_that_of_its_logs(name: str, tmp_path: Path) -> None:
    shutil.copytree(RESULTS / name, tmp_path / name)
    shutil.rmtree(tmp_path / name / "report")
    page = write_report(tmp_path / name)
    ours = page.with_name("report.md").read_text(encoding="utf-8")
    assert ours == (RESULTS / name / "report/report.md").read_text(encoding="utf-8"), (
        f"run `kava study report docs/results/{name}` and commit what it writes"
    )
