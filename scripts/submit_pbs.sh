#!/usr/bin/env bash
# Submit a study to PBS: an array of its runs, and the report behind it.
#
#     bash scripts/submit_pbs.sh --partition workq --cpus 8 --gres gpu:1 --time 04:00:00
#     bash scripts/submit_pbs.sh --directive "-l nodes=1:ppn=8:gpus=1"    # in Torque's words
#
# Flags are those of kava cluster submit; --partition is the queue.
set -euo pipefail

ENGINE=pbs exec bash "$(dirname "${BASH_SOURCE[0]}")/submit_slurm.sh" "$@"
