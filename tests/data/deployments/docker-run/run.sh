#!/bin/sh
# started by hand after a reboot
docker run -d --name glm --restart=always \
  --gpus '"device=0,1"' \
  -p 127.0.0.1:5002:8000 \
  -v "$HOME/.cache/huggingface":/home/vllm/.cache/huggingface \
  -v hf-cache:/cache:ro \
  --shm-size=8g --ulimit memlock=-1 \
  -e OMP_NUM_THREADS=4 --env=HF_TOKEN="$HF_TOKEN" \
  vllm/vllm-openai:v0.15.0 \
  --model QuantTrio/GLM-4.7-Flash-AWQ -tp 2 \
  --speculative-config '{"method": "mtp", "num_speculative_tokens": 1}'
docker logs -f glm
