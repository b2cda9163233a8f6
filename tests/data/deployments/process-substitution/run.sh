#!/usr/bin/env bash
set -e
MODEL=${1:-Qwen/Qwen3-8B}
docker rm -f vllm || true
docker run -d --name vllm --gpus '"device=0,1"' --ipc=host \
  --mount type=bind,src="$HOME/.cache/huggingface",dst=/cache/huggingface,readonly \
  --env-file <(grep -v '^#' llm.env) --env-file quoted.env -eOMP_NUM_THREADS=4 \
  -p127.0.0.1:5001:8000 \
  vllm/vllm-openai:v0.15.0 --model "$MODEL" --chat-template /templates/x.jinja "${@:2}" > >(tee log) 2>&1
