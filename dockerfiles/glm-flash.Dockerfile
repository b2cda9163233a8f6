# The first user's image: vLLM with all that GLM-4.7-Flash (glm4_moe_lite) needs of it, changed only where the base lacks it.
#
#   docker build -f dockerfiles/glm-flash.Dockerfile -t tuner/glm-flash --build-arg BASE=vllm/vllm-openai:v0.20.0 .
#
# The nightly image moves every day: name a version, or a digest, to build the same one again.
ARG BASE=vllm/vllm-openai:nightly
FROM ${BASE}
# its configuration class exists from transformers 5 on
RUN python3 -c "from importlib.metadata import version; assert int(version('transformers').split('.')[0]) >= 5" \
    || python3 -m pip install --no-cache-dir "transformers>=5,<6"
# vLLM before https://github.com/vllm-project/vllm/pull/32614 takes it for a model without MLA: 17.8 times the KV cache
COPY dockerfiles/glm_flash_mla.py /tmp/glm_flash_mla.py
RUN python3 /tmp/glm_flash_mla.py && rm /tmp/glm_flash_mla.py
