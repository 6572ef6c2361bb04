#!/usr/bin/env bash
# Fifteen minutes of one GPU: checks first, then the arms of the plan `pretrained` at full size, in the order of what they
# tell. What is done is written at once, so that a machine that is taken away leaves all before it.
#
#     bash scripts/gpu_check.sh                             # all into outputs/gpu_check
#     MINUTES=60 SEEDS="0 1 2" ARMS="kv latents" bash scripts/gpu_check.sh
#     SMOLLM2=/models/SmolLM2-135M-Instruct GEMMA=/models/gemma-3-270m bash scripts/gpu_check.sh
#
# Models are as in scripts/pretrained_study.sh. DEVICE=cpu STEPS=2 SIZE=small tries the script itself, without a GPU.
# Called again, it goes on with what is missing. The last line says how many parts failed; so does the exit code.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

folder=${OUTPUT_DIR:-outputs/gpu_check}
device=${DEVICE:-cuda}
steps=${STEPS:-400}
size=${SIZE:-full}
minutes=${MINUTES:-15}
read -ra seeds <<< "${SEEDS:-0}"

refuse() {
  echo "gpu_check: $1" >&2
  exit 2
}
# is VARIABLE VALUE PATTERN WHAT: refuse a value that the pattern does not match
is() {
  if [[ ! $2 =~ ^($3)$ ]]; then refuse "$1='$2' is not $4"; fi
}
arms="kv latents none wrong_sample codi text_ce gemma written raw"
read -ra chosen <<< "${ARMS:-$arms}"
is DEVICE "$device" 'cpu|mps|cuda(:[0-9]{1,3})?' "cpu, mps, cuda or cuda:NUMBER"
is STEPS "$steps" '0*[1-9][0-9]{0,8}' "a whole number above 0"
is MINUTES "$minutes" '[0-9]{1,9}' "a whole number of minutes"
is SIZE "$size" 'full|small' "full or small"
for seed in "${seeds[@]}"; do is SEEDS "$seed" '[0-9]{1,9}' "a whole number"; done
for arm in "${chosen[@]}"; do is ARMS "$arm" "${arms// /|}" "one of $arms"; done
end=$((SECONDS + 60 * 10#$minutes))
failed=0
home=${KAVA_MODELS:-$HOME/.cache/kava-models}
smollm2=${SMOLLM2:-$home/SmolLM2-135M-Instruct}
gemma=${GEMMA:-$home/gemma-3-270m}
for model in "$smollm2" "$gemma"; do
  if [[ ! -e $model/config.json ]]; then
    refuse "$model holds no model: run scripts/pretrained_models.py smollm2 gemma3, or name SMOLLM2 and GEMMA"
  fi
done
mkdir -p "$folder"
bf16=(--bf16)
if [[ $device == cpu ]]; then bf16=(); fi

# part NAME COMMAND…: run it in the time that is left, its output in NAME.log; one that is done is not done again
part() {
  local name=$1 left=$((end - SECONDS))
  shift
  if [[ -e $folder/$name.done ]]; then
    echo "$name: done before"
    return 0
  fi
  if ((left < 10)); then
    echo "$name: no time is left" >&2
    failed=$((failed + 1))
    return 1
  fi
  local began=$SECONDS
  if timeout --signal=TERM --kill-after=20 "$left" "$@" > "$folder/$name.log" 2>&1; then
    touch "$folder/$name.done"
    echo "$name: $((SECONDS - began)) s"
  else
    echo "$name: failed, exit code $?: $(tail -n 1 "$folder/$name.log"); see $folder/$name.log" >&2
    failed=$((failed + 1))
    return 1
  fi
}

kava() { part "$1" "$PYTHON" -m kava "${@:2}"; }

problems="kava/word-problems?form=equations&steps=2-3&distractors=0&max_number=20&num_train=8000"
step=(--model_name "$smollm2" --dataset_name "$problems" --target_len 8 --kv_method full --keep_short --max_length 128
  --device "$device" --max_steps 3)

# 1. Does everything that only an accelerator can show work?
kava machine env --device "$device" --measure false || exit 1
kava step train "${step[@]}" --batch_size 4 --output_dir "$folder/step"
kava step_bf16 train "${step[@]}" ${bf16[@]+"${bf16[@]}"} --batch_size 4 --output_dir "$folder/step_bf16"
kava step_lora train "${step[@]}" ${bf16[@]+"${bf16[@]}"} --lora_r 16 --gradient_checkpointing --batch_size 4 \
  --output_dir "$folder/step_lora"
kava step_gemma train "${step[@]}" --lora_r 16 --teacher_name "$gemma" --batch_size 4 --calibration_samples 32 \
  --output_dir "$folder/step_gemma"
if [[ $device != cpu ]]; then
  kava step_offload train "${step[@]}" --lora_r 16 --teacher_name "$gemma" --teacher_offload --batch_size 4 \
    --calibration_samples 32 --output_dir "$folder/step_offload"
  kava step_fp16 train "${step[@]}" --fp16 --batch_size 4 --output_dir "$folder/step_fp16"
  for bits in 8bit 4bit; do
    kava "step_$bits" train "${step[@]}" --lora_r 16 --teacher_name "$gemma" --teacher_quantization "$bits" \
      --batch_size 4 --calibration_samples 32 --output_dir "$folder/step_$bits"
  done
  kava memory profile --memory --measure "${step[@]}" --lora_r 16 --batch_size 16 --json
fi
kava profile profile "${step[@]}" ${bf16[@]+"${bf16[@]}"} --batch_size 16 --json

# 2. The study: the plan `pretrained` with larger batches, longer problems and more items
batch=64 items=1000 teacher_steps=400
data="kava/word-problems?form=equations&num_train=40000" tests="kava/word-problems?form=equations&num_test=1250"
if [[ $size == small ]]; then
  batch=2 items=8 teacher_steps=2
  data="kava/word-problems?form=equations&steps=2-3&num_train=200"
  tests="kava/word-problems?form=equations&steps=2-3&num_test=40"
fi
"$PYTHON" - "$folder" "$device" "$steps" "$batch" "$items" "$data" "$tests" "${seeds[@]}" << 'PYTHON' || exit 1
import sys
from pathlib import Path

import yaml

folder, device, steps, batch, items, train, test, *seeds = sys.argv[1:]
text = Path("src/kava/study/plans/pretrained.yaml").read_text(encoding="utf-8")
plan = yaml.safe_load(text.replace("outputs/pretrained/", f"{folder}/"))
half = (int(steps) + 1) // 2
plan["name"] = "pretrained_gpu"
plan["base"] |= {"device": device, "bf16": device != "cpu", "eval_batch_size": 250, "max_length": 256}
plan["base"] |= {"warmup_steps": int(steps) // 10, "eval_steps": half, "save_steps": half}
plan["data"] = {"train": train, "test": test}
plan["data"] |= {"curve_items": int(items) // 4, "test_items": int(items)}
plan["budget"] = {"steps": int(steps), "batch_size": int(batch)}
plan["seeds"] = [int(seed) for seed in seeds]
if len(seeds) > 1:
    plan["primary"] = {"metric": "accuracy", "minimum_effect": 0.05, "test": "crossed", "alpha": 0.05}
path = Path(folder, "plan.yaml")
path.with_suffix(".part").write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
path.with_suffix(".part").rename(path)
PYTHON
[[ -e $folder/gemma ]] || ln -s "$gemma" "$folder/gemma"
kava teacher train --config configs/pretrained_smollm2.yaml --model_name "$smollm2" --dataset_name "$data" \
  --max_length 256 --max_steps "$teacher_steps" --warmup_steps "$((teacher_steps / 10))" --batch_size "$((batch / 2))" \
  --save_steps "$teacher_steps" --eval_steps "$teacher_steps" \
  --device "$device" ${bf16[@]+"${bf16[@]}"} --overwrite --output_dir "$folder/smollm2_lora" &&
  kava merge merge "$folder/smollm2_lora" --output_dir "$folder/smollm2" &&
  for arm in "${chosen[@]}"; do
    kava "study_$arm" study run "$folder/plan.yaml" --output_dir "$folder/study" --arms "$arm" --jobs 1
  done
if [[ -d $folder/study ]]; then
  "$PYTHON" -m kava study report "$folder/study" > "$folder/report.log" 2>&1 ||
    echo "report: see $folder/report.log" >&2
fi
echo "gpu_check: $failed parts failed; results in $folder"
exit $((failed > 0))
