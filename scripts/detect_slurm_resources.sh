#!/usr/bin/env bash
# The cluster's partitions, their limits, and how its GPUs are spelled for --gres.
#
#     bash scripts/detect_slurm_resources.sh
#     bash scripts/detect_slurm_resources.sh --partition gpu --gres gpu:a100:1    # is that right?
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

exec "$PYTHON" -m kava cluster check --only scheduler partitions gpus accounts \
  --output slurm_resources.txt "$@"
