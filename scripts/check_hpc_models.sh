#!/usr/bin/env bash
# Which of a plan's models the shared store has, their sizes, and how to get the others.
#
#     SHARED_MODEL_DIR=/home/share/models bash scripts/check_hpc_models.sh
#     PLAN=gpt2_gsm8k bash scripts/check_hpc_models.sh --store /home/share/models
#
# Exit code 1 if one is missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

export SHARED_MODEL_DIR=${SHARED_MODEL_DIR:-/home/share/models}
exec "$PYTHON" -m kava cluster models "${PLAN:-qwen_reasoning_mix}" "$@"
