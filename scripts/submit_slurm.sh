#!/usr/bin/env bash
# Submit a study to Slurm: an array of its runs, and the report behind it.
#
#     bash scripts/submit_slurm.sh --partition gpu --gres gpu:1 --time 04:00:00
#     PLAN=gpt2_gsm8k bash scripts/submit_slurm.sh --dry_run          # prints the scripts
#
# Flags are those of kava cluster submit. Called again, it submits the runs that are missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

exec "$PYTHON" -m kava cluster submit "${PLAN:-flat_vs_structured}" --engine "${ENGINE:-slurm}" "$@"
