CUDA_VISIBLE_DEVICES=0,1 VLLM_WORKER_MULTIPROC_METHOD=spawn nohup vllm serve /data/models/qwen3-coder \
    --served-model-name coder qwen3-coder --tensor-parallel-size 2 --port 8003 \
    --rope-scaling '{"rope_type":"yarn","factor":2.0}' > vllm.log 2>&1 &
