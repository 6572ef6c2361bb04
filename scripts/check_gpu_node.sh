#!/usr/bin/env bash
# What a node of the cluster has, seen from inside a job: scheduler, cores, memory, GPUs, precision.
#
#     sbatch --gres=gpu:1 scripts/check_gpu_node.sh
#     sbatch --gres=gpu:1 scripts/check_gpu_node.sh --measure --model_name gpt2   # and its batch size
#SBATCH --job-name=kava-env
#SBATCH --time=00:10:00
#SBATCH --output=kava-env-%j.out
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

exec "$PYTHON" -m kava env --measure false "$@"
