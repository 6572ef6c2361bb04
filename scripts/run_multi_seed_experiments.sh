#!/usr/bin/env bash
# Flat against structured alignment over several seeds, and the page of the result.
#
#     bash scripts/run_multi_seed_experiments.sh                      # the built-in pair, on the CPU
#     PLAN=gpt2_gsm8k bash scripts/run_multi_seed_experiments.sh      # any plan: a name or a file
#     bash scripts/run_multi_seed_experiments.sh --seeds 0 1          # flags of kava study run
#
# Called again, it goes on where it stopped.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

plan=${PLAN:-flat_vs_structured}
folder=${OUTPUT_DIR:-outputs/study/$(basename "$plan" .yaml)}
"$PYTHON" -m kava.cli study run "$plan" --output_dir "$folder" "$@"
for flag in "$@"; do
  if [[ $flag == --dry_run ]]; then exit 0; fi
done
"$PYTHON" -m kava.cli study report "$folder"
