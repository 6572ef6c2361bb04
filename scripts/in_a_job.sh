#!/usr/bin/env bash
# One command as a job of Slurm that goes on in further jobs until it has finished.
#
#     sbatch --time=02:00:00 --gres=gpu:1 scripts/in_a_job.sh \
#       kava train --config configs/smoke.yaml --output_dir outputs/run
#     sbatch --time=04:00:00 scripts/in_a_job.sh kava study run flat_vs_structured --jobs 2
#
# Two minutes before the limit Slurm sends USR1: the command saves its step and ends, the job is
# requeued, and the command goes on; kava train is given --resume once its folder has a checkpoint.
#SBATCH --job-name=kava
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=kava-%j.out
set -u

if [[ $# -eq 0 ]]; then
  echo "name the command: sbatch scripts/in_a_job.sh kava train …" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
command=("$@")
if [[ ${1##*/} == kava && ${2:-} == train ]]; then
  folder= config=
  for ((i = 3; i <= $#; i++)); do
    next=$((i + 1))
    case ${!i} in
      --output[_-]dir=*) folder=${!i#*=} ;;
      --output[_-]dir) folder=${!next-} ;;
      --config=*) config=${!i#*=} ;;
      --config) config=${!next-} ;;
    esac
  done
  if [[ -z $folder && -f $config ]]; then # without comment and quotes
    folder=$(sed -nE -e '/^output_dir:/!d; s/^output_dir:[[:space:]]*//; s/(^|[[:space:]]+)#.*//' \
      -e "s/[[:space:]]+$//; s/^([\"'])(.*)\1$/\2/; p" "$config")
  fi
  folder=${folder:-${KAVA_OUTPUT_PATH:-outputs}/run}
  if compgen -G "$folder/checkpoint-*" > /dev/null; then command+=(--resume); fi
fi

child=
trap '[[ -n $child ]] && kill -USR1 "$child"' USR1
trap '[[ -n $child ]] && kill -TERM "$child"' TERM
"${command[@]}" &
child=$!
# a signal ends wait, and not what is waited for
while wait "$child"; code=$?; kill -0 "$child" 2> /dev/null; do :; done
if [[ $code == 138 ]]; then # stopped by USR1
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
