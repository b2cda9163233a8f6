#!/usr/bin/env bash
# Serves the chat model; see README
set -euo pipefail

MODEL="${MODEL:-mistralai/Mistral-Small-3.2-24B-Instruct-2506}"
PORT=${PORT:-8001}
GPU_IDS="${GPU_IDS:-0,1}"
TP=2
CACHE="${HF_HOME:-$HOME/.cache/huggingface}"
NAME="vllm-$(hostname -s)"

docker rm -f vllm-chat 2>/dev/null || true

docker run -d \
  --name vllm-chat \
  --gpus "\"device=${GPU_IDS}\"" \
  --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 \
  -p "${PORT}":8000 \
  -v "${CACHE}":/opt/huggingface \
  -e "HF_TOKEN=$(cat "$HOME/.cache/huggingface/token")" \
  -e VLLM_ATTENTION_BACKEND=FLASH_ATTN \
  --label "host=${NAME}" \
  --restart unless-stopped \
  vllm/vllm-openai:v0.10.1.1 \
  --model "$MODEL" \
  --tokenizer_mode mistral --config_format mistral --load_format mistral \
  --tensor-parallel-size "$TP" \
  --limit-mm-per-prompt '{"image": 4}' \
  --max-model-len 32768 # fits two cards
