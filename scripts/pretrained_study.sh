#!/usr/bin/env bash
# The study with pretrained models, from nothing: SmolLM2-135M-Instruct learns to write the reasoning of short word
# problems, and then, in each arm of the plan `pretrained`, to answer without writing it. Three hours on two cores.
#
#     bash scripts/pretrained_study.sh                      # all arms
#     bash scripts/pretrained_study.sh --arms latents kv    # flags are those of kava study run
#     SMOLLM2=/models/SmolLM2-135M-Instruct GEMMA=/models/gemma-3-270m bash scripts/pretrained_study.sh
#
# Without these two folders the models are those of scripts/pretrained_models.py. Called again, it goes on.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
if [[ -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi

home=${KAVA_MODELS:-$HOME/.cache/kava-models}
if [[ -z ${SMOLLM2:-} || -z ${GEMMA:-} ]]; then
  "$PYTHON" scripts/pretrained_models.py smollm2 gemma3
fi
smollm2=${SMOLLM2:-$home/SmolLM2-135M-Instruct}
gemma=${GEMMA:-$home/gemma-3-270m}
for model in "$smollm2" "$gemma"; do
  if [[ ! -e $model/config.json ]]; then
    echo "pretrained_study: $model holds no model: name folders that do as SMOLLM2 and GEMMA" >&2
    exit 2
  fi
done
folder=outputs/pretrained
mkdir -p "$folder"
if [[ ! -e $folder/smollm2 ]]; then
  flags=()
  if compgen -G "$folder/smollm2_lora/checkpoint-*" > /dev/null; then flags+=(--resume); fi
  "$PYTHON" -m kava train --config configs/pretrained_smollm2.yaml \
    --model_name "$smollm2" \
    --output_dir "$folder/smollm2_lora" ${flags[@]+"${flags[@]}"}
  "$PYTHON" -m kava merge "$folder/smollm2_lora" --output_dir "$folder/smollm2"
fi
if [[ ! -e $folder/gemma ]]; then
  ln -s "$gemma" "$folder/gemma"
fi
exec "$PYTHON" -m kava study run pretrained "$@"
