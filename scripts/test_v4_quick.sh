#!/usr/bin/env bash
# The short way through everything: two trainings, two profiles, the integration checks.
#
#     bash scripts/test_v4_quick.sh               # built-in models, no network
#     MODEL=gpt2 bash scripts/test_v4_quick.sh    # any model: a hub id, a folder, …
#
# Stops at the first failure. What the trainings write goes to a temporary folder.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
else
  PYTHON=${PYTHON:-python}
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

run() {
  echo "+ $*"
  "$@"
}

train() {
  run "$PYTHON" experiments/train_with_kv.py --model_name "${MODEL:-kava/tiny-gpt2}" \
    --subset_size 10 --batch_size 2 --epochs 1 --kv_method rkv "$@"
}

train --alignment_mode flat --output_dir "$folder/smoke_flat"
train --alignment_mode structured --map_proj_share_dim --map_proj_init_uniform \
  --output_dir "$folder/smoke_structured"
run "$PYTHON" experiments/profile_alignment.py --mode flat
run "$PYTHON" experiments/profile_alignment.py --mode structured
run "$PYTHON" experiments/test_v4_integration.py
echo "everything runs"
