#!/usr/bin/env bash
# Train a student of several teachers, whose caches are fused.
#
#     bash scripts/run_multi_teacher.sh                                   # two built-in teachers
#     bash scripts/run_multi_teacher.sh --fusion learnable --output_dir outputs/learnable
#     TEACHERS="a=Qwen/Qwen2.5-1.5B b=Qwen/Qwen2.5-0.5B" bash scripts/run_multi_teacher.sh \
#       --model_name gpt2 --dataset_name gsm8k
#
# Flags are those of kava train. As a job: sbatch scripts/in_a_job.sh bash scripts/run_multi_teacher.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

folder=${OUTPUT_DIR:-outputs/multi_teacher}
defaults=(--model_name kava/shell-teacher --dataset_name "kava/shell-game?num_train=16000"
  --target_len 3 --max_steps 300 --max_new_tokens 3 --max_length 64)
if [[ -n ${TEACHERS:-} ]]; then
  read -ra teachers <<< "$TEACHERS"
  defaults=()
else
  teachers=(llama=kava/shell-teacher gpt2=kava/shell-gpt2-teacher)
fi
flags=()
if compgen -G "$folder/checkpoint-*" > /dev/null; then flags+=(--resume); fi
exec "$PYTHON" -m kava train ${defaults[@]+"${defaults[@]}"} --teachers "${teachers[@]}" \
  --output_dir "$folder" ${flags[@]+"${flags[@]}"} "$@"
