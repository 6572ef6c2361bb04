#!/usr/bin/env bash
# Every part of the recipe changed alone, over several seeds, and the page of the result.
#
#     bash scripts/run_ablation_studies.sh                            # all arms
#     bash scripts/run_ablation_studies.sh --arms recipe wrong_sample keys_only values_only
#
# Called again, it goes on where it stopped.
set -euo pipefail

PLAN=${PLAN:-ablations} exec bash "$(dirname "${BASH_SOURCE[0]}")/run_multi_seed_experiments.sh" "$@"
