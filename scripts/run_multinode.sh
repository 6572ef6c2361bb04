#!/usr/bin/env bash
# kava train with a process for each GPU of several nodes, as one job of Slurm.
#
#     sbatch scripts/run_multinode.sh --config configs/kava_llama_1b_aug.yaml     # 4 nodes of 8 GPUs
#     sbatch --nodes=2 --ntasks-per-node=4 --gres=gpu:4 scripts/run_multinode.sh --config run.yaml
#
# Flags are those of kava train; OUTPUT_DIR names the folder. srun starts the processes themselves,
# without torchrun, so that signals reach them: two minutes before the limit they save their step,
# the job is requeued, and they go on from it.
#SBATCH --job-name=kava-multinode
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=kava-multinode-%j.out
set -u

cd "${SLURM_SUBMIT_DIR:?submit this script by sbatch}" || exit 1
export PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=$PWD/.venv/bin/python
fi
folder=${OUTPUT_DIR:-outputs/multinode}
flags=("$@" --output_dir "$folder")
if compgen -G "$folder/checkpoint-*" > /dev/null; then flags+=(--resume); fi

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
export WORLD_SIZE=$SLURM_NTASKS

stopping=
# to the processes of srun; once, since a second signal ends them without saving, and a scancel that
# gets no answer sends it again
trap 'stopping=1; timeout 3 scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
srun --kill-on-bad-exit=0 bash -c \
  'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "$PYTHON" -m kava train "$@"' \
  kava "${flags[@]}" &
child=$!
while wait "$child"; code=$?; kill -0 "$child" 2> /dev/null; do :; done
if [[ -n $stopping && $code != 0 ]] && compgen -G "$folder/checkpoint-*" > /dev/null; then
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
