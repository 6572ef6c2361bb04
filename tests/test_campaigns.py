"""A sample of the campaign of bad inputs: what a command cannot use is refused, in one line.

The whole campaign is `python tests/campaigns/bad_inputs.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent / "campaigns" / "bad_inputs.py"


def campaign(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CAMPAIGN), *options], capture_output=True, text=True, check=False
    )


def all_met(ended: subprocess.CompletedProcess[str], number: int) -> bool:
    """Whether the table's last line counts so many tried, and as many met well."""
    words = (ended.stdout.strip().splitlines() or [""])[-1].split()
    return ended.returncode == 0 and words[:3] == ["all", str(number), str(number)]


def test_wrong_flags_plans_and_results_are_refused_in_one_line() -> None:
    ended = campaign("--light", "--sample", "40")
    assert all_met(ended, 40), ended.stdout + ended.stderr


@pytest.mark.slow
def test_bad_inputs_of_every_kind_are_met_well() -> None:
    ended = campaign("--sample", "36", "--seed", "32")
    assert all_met(ended, 36), ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_killed_calibration_goes_on_as_if_nothing_had_happened() -> None:
    script = CAMPAIGN.with_name("kills.py")
    options = ("--kills", "3", "--commands", "calibrate", "--jobs", "1")
    ended = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(": held") == 3
