#!/usr/bin/env bash
# All checks before a study is submitted; pre_deployment_check_report.txt keeps what they say.
#
#     bash scripts/comprehensive_pre_deployment_check.sh --partition gpu --gres gpu:1
#     PLAN=gpt2_gsm8k bash scripts/comprehensive_pre_deployment_check.sh
#
# Flags are those of kava cluster check. Exit code 1 if there was an error.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

wrong=0
for script in scripts/*.sh; do
  bash -n "$script" || wrong=1
  if grep -q $'\r' "$script"; then
    echo "$script has Windows line ends: bash scripts/auto_fix.sh mends them" >&2
    wrong=1
  fi
done
"$PYTHON" -m kava cluster check "${PLAN:-flat_vs_structured}" "$@" || wrong=1
exit "$wrong"
