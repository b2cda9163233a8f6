#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
MODEL=${MODEL:-Qwen/Qwen3-Coder-30B-A3B}
NAME="coder"
OPTS=(-e VLLM_USE_V1=1 -e HF_HUB_OFFLINE=1)
podman run --replace -d --name "$NAME" --device nvidia.com/gpu=1 \
  --mount type=bind,source=/srv/models,target=/models,readonly \
  --group-add keep-groups --security-opt=label=disable -p8001:8000 \
  "${OPTS[@]}" docker.io/vllm/vllm-openai:v0.11.0 \
  "$MODEL" --max-model-len ${CTX:-131072} ${EXTRA:+--enforce-eager}   # EXTRA=1 to debug
