#!/usr/bin/env bash
# Show the jobs of a submitted study: state, last step, loss, time left, errors.
#
#     bash scripts/monitor_training.sh                  # the study that was submitted last, once
#     bash scripts/monitor_training.sh --auto           # or -a: again every 30 seconds
#     STUDY=outputs/study/flat_vs_structured bash scripts/monitor_training.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

flags=()
for flag in "$@"; do
  if [[ $flag == -a ]]; then flag=--auto; fi
  flags+=("$flag")
done
study=${STUDY:-}
if [[ -z $study ]]; then
  record=$(ls -t outputs/study/*/cluster/jobs.json 2> /dev/null | head -n 1 || true)
  if [[ -z $record ]]; then
    echo "no study was submitted from here: name its folder, as in STUDY=outputs/study/NAME" >&2
    exit 1
  fi
  study=${record%/cluster/jobs.json}
fi
exec "$PYTHON" -m kava cluster monitor "$study" ${flags[@]+"${flags[@]}"}
