#!/usr/bin/env bash
set -euo pipefail
ARGS=(
  --served-model-name "$MODEL_NAME"   # what clients ask for
  --max-num-seqs 32
)
if [ "$LORA" = "1" ]; then
  ARGS+=(--enable-lora --max-lora-rank 32)
fi
exec vllm serve "/models/$MODEL_NAME" "${ARGS[@]}" --port "${PORT:-8000}" "$@"
