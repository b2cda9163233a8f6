# The simulated engine as an image: `vllm serve MODEL …` in it is `tuner sim serve MODEL …`.
#
#   docker build -f dockerfiles/sim.Dockerfile -t tuner/sim .
#   docker run --rm -p 127.0.0.1:8000:8000 tuner/sim QuantTrio/GLM-4.7-Flash-AWQ --host 0.0.0.0 --sim-clock-startup 50
#
# The base needs Python >= 3.11 and nothing else: with the same minor version as the environment that tuner runs in,
# what the simulator imports is taken from there, and no network is needed; otherwise pip fetches it.
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /opt/tuner
ENV PYTHONPATH=/opt/tuner PYTHONUNBUFFERED=1
# of .venv only what .dockerignore lets through; the first file is there so that the line also works without it
COPY dockerfiles/sim.requirements.txt .venv* ./
RUN cp -r lib/python3*/site-packages/. . 2>/dev/null; rm -rf lib; \
    python3 -c "from aiohttp import _http_parser" 2>/dev/null \
    || python3 -m pip install --no-cache-dir --upgrade --target . -r sim.requirements.txt
COPY tuner tuner
RUN printf '#!/bin/sh\nexec python3 -m tuner.sim "$@"\n' > /usr/local/bin/vllm && chmod 755 /usr/local/bin/vllm \
    && vllm serve --help > /dev/null
EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
