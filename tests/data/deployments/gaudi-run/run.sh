# Intel Gaudi 3
export https_proxy=http://proxy.example:911
docker run -d --runtime=habana --name gaudi-vllm \
  -e HABANA_VISIBLE_DEVICES=0,1,2,3 \
  -e OMPI_MCA_btl_vader_single_copy_mechanism=none \
  -e https_proxy -e no_proxy=localhost,127.0.0.1 \
  --cap-add=sys_nice --ipc=host --pids-limit=-1 \
  -p 127.0.0.1:8100:8100 -v $PWD/data:/data \
  vault.habana.ai/gaudi-docker/1.22/ubuntu22.04/habanalabs/vllm-installer:latest \
  python -m vllm.entrypoints.openai.api_server \
    --model=/data/Llama-3.1-70B --port=8100 --block-size=128 \
    --tensor_parallel_size=4 --trust_remote_code
