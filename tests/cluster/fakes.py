"""Stand-ins for a scheduler's programs and for the Python of a job, as shell scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SINFO = (
    "gpu*|1-00:00:00|up|4|gpu:a100:8(S:0-1)\\n"
    "long|infinite|up|2|(null)\\n"
    "old|2:00:00|down|1|gpu:v100:2"
)
"""Partitions as `sinfo -h -o "%P|%l|%a|%D|%G"` prints them."""

SLURM = {
    "sinfo": f"printf '{SINFO}\\n'",
    "sbatch": """
echo "sbatch $*" >> "$FAKE/calls"
case "$*" in
  --version) echo slurm-wlm 22.05.8; exit ;;
  *report.sbatch)
    [ -f "$FAKE/no_report" ] && { echo "sbatch: error: QOSMaxSubmitJob" >&2; exit 1; } ;;
esac
echo $((40 + $(grep -c parsable "$FAKE/calls")))
""",
    "squeue": 'cat "$FAKE/queue" 2> /dev/null || '
    '{ echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }',
    "sacct": 'cat "$FAKE/accounting" 2> /dev/null || exit 1',
    "scontrol": "echo 'MaxArraySize            = 1001'",
    "scancel": 'echo "scancel $*" >> "$FAKE/calls"',
    "sacctmgr": "exit 1",
}

PYTHON = """
# kava, for a job: saves a checkpoint when it is asked to stop, and ends at its third start
while [ $# -gt 0 ]; do
  case "$1" in
    report) echo "$*" >> "$FAKE/reported"; exit ;;
    --arms) arm=$2 ;;
    --seeds) seed=$2 ;;
    --output_dir) out=$2 ;;
  esac
  shift
done
run=$out/runs/$arm/seed-$seed
mkdir -p "$run"
echo x >> "$run/starts"
starts=$(wc -l < "$run/starts")
trap '[ -f "$FAKE/stuck" ] || mkdir "$run/checkpoint-${starts}0"; exit 138' USR1
trap 'mkdir "$run/checkpoint-${starts}0"; exit 143' TERM
if [ "$starts" -ge 3 ] && [ ! -f "$FAKE/stuck" ]; then exit 0; fi
touch "$run/ready"
while :; do sleep 0.05; done
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str]) -> Path:
    """Put programs first on the PATH; what they write goes to the folder."""
    place = folder / "bin"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        path = place / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder


def environment(folder: Path) -> Path:
    """A virtual environment whose Python is the stand-in."""
    venv = folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").write_text(f"#!/bin/bash\n{PYTHON}\n")
    (venv / "bin/python").chmod(0o755)
    (venv / "bin/activate").write_text(f"PATH={venv}/bin:$PATH\n")
    return venv
