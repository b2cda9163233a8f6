"""Two ways of writing the same command line give the same settings."""

import pytest
from pydantic import JsonValue

from tests.present import present
from tuner.engines.vllm.commandline import read
from tuner.engines.vllm.engine import VllmEngine

MODULE = ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "org/glm"]


def args(*flags):
    return dict(present(read(["vllm", "serve", "org/glm", *flags], {})).args)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--max-num-seqs", "64"], ["--max_num_seqs=64"]),
        (["--max-model-len", "131072"], ["--max-model-len=128K"]),
        (["--max-model-len", "128000"], ["--max-model-len", "128k"]),
        (["-tp", "2", "--dtype", "half"], ["--dtype=float16", "--tensor-parallel-size", "2"]),
        (["--gpu-memory-utilization", "0.92"], ["--gpu-memory-utilization=0.920"]),
        (["--kv-cache-dtype", "auto", "--no-enforce-eager"], []),
        (["--compilation-config", '{"level": 3, "compile_sizes": [4, 1]}'],
         ["-cc.compile_sizes", "[1,4]", "--compilation_config.level=3"]),
        (["--cuda-graph-sizes", "8", "1"], ["--cuda-graph-sizes", "1", "8"]),
        (["-O3"], ["-O=3"]),
        (["--seed", "-1"], ["--seed=-1"]),
    ],
)  # fmt: skip
def test_the_same_settings_are_read_however_they_are_written(one, other):
    assert args(*one) == args(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--enable-prefix-caching"], ["--no-enable-prefix-caching"]),
        (["--no-enable-prefix-caching"], []),
        (["--kv-cache-memory-bytes", "19000000001"], ["--kv-cache-memory-bytes", "19000000002"]),
        (["--max-model-len", "128k"], ["--max-model-len", "128K"]),
        (["--enforce-eager"], []),
    ],
)
def test_different_settings_stay_different(one, other):
    assert args(*one) != args(*other)


@pytest.mark.parametrize(
    "argv",
    [
        ["vllm", "serve", "org/glm", "--max-num-seqs", "64"],
        [*MODULE, "--max-num-seqs", "64"],
        ["/opt/entrypoint.sh", "--model=org/glm", "--max-num-seqs", "64"],
        ["sh", "-c", "exec vllm serve ${MODEL} --max-num-seqs $SEQS # as measured"],
        ["/bin/bash", "-lc", "vllm serve \\\n  org/glm \\\n  --max-num-seqs '64'"],
    ],
    ids=["serve", "module", "entrypoint", "shell with variables", "shell over lines"],
)
def test_a_server_is_found_in_each_way_of_starting_it(argv):
    command = present(read(argv, {"MODEL": "org/glm", "SEQS": "64"}))
    assert command.model == "org/glm"
    assert dict(command.args) == {"max_num_seqs": 64}


def test_another_program_is_no_server():
    assert read(["nginx", "-g", "daemon off;"], {}) is None
    assert read(["sh", "-c", "echo 'unfinished"], {}) is None
    assert read([], {}) is None


def test_what_the_engine_writes_is_read_back():
    settings: dict[str, JsonValue] = {
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "enable_expert_parallel": True,
        "compilation_config.level": 3,
        "speculative_config": {"method": "mtp", "num_speculative_tokens": 1},
        "kv_cache_dtype": "auto",
        "dtype": "half",
    }
    argv = VllmEngine(("vllm", "serve"), "org/glm").command(settings, {}, None).argv
    assert dict(present(read(argv, {})).args) == {
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "enable_expert_parallel": True,
        "compilation_config.level": 3,
        "speculative_config.method": "mtp",
        "speculative_config.num_speculative_tokens": 1,
        "dtype": "float16",
        "host": "{host}",
        "port": "{port}",
    }
