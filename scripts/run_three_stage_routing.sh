#!/usr/bin/env bash
# Weights of several teachers in three stages: fixed, by similarity, learnable.
#
#     bash scripts/run_three_stage_routing.sh                     # built-in models
#     PLAN=my_curriculum.yaml bash scripts/run_three_stage_routing.sh
#
# Each stage starts from the student of the last, and is evaluated; called again, it goes on where it
# stopped. Flags are those of kava curriculum run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

exec "$PYTHON" -m kava curriculum run "${PLAN:-three_stage_routing}" "$@"
