"""A vLLM command line is taken apart however it is written: the model first, then flags by their long names."""

import shlex

import pytest

from tests.present import present
from tuner.engines.vllm.serving import from_file, gone, serving, settings

IMAGE = "vllm/vllm-openai:latest"


def taken_apart(line, image=None):
    found = serving(shlex.split(line), image)
    return (
        None if found is None else [found.model, *(word for flag in found.flags for word in (flag.name, *flag.values))]
    )


@pytest.mark.parametrize(
    ("line", "image", "argv"),
    [
        (
            "vllm serve org/m -tp 2 -pp=3 -q awq",
            None,
            "org/m --tensor-parallel-size 2 --pipeline-parallel-size 3 --quantization awq",
        ),
        ("serve org/m -ep", IMAGE, "org/m --enable-expert-parallel"),
        (
            "python3 -m vllm.entrypoints.openai.api_server --model=org/m --max_num_seqs=8",
            None,
            "org/m --max-num-seqs 8",
        ),
        ("python -m vllm serve org/m", None, "org/m"),
        ("--model org/m --seed -1", IMAGE, "org/m --seed -1"),
        ("--trust-remote-code org/m", IMAGE, "org/m --trust-remote-code"),
        ("--port 8000 org/m --served-model-name a b", IMAGE, "org/m --port 8000 --served-model-name a b"),
        ("--served-model-name a --model org/m", IMAGE, "org/m --served-model-name a"),
        ("org/m -O3 --gpu-mem 0.5", IMAGE, "org/m --optimization-level 3 --gpu-memory-utilization 0.5"),
        ("org/m -O3", "vllm/vllm-openai:v0.10.2", "org/m --compilation-config 3"),
        (
            "org/m --compilation_config.pass_config.fuse_x true",
            IMAGE,
            "org/m --compilation-config.pass_config.fuse_x true",
        ),
        ("vllm serve vllm serve org/m", None, "org/m"),
        ("numactl --membind 0 vllm serve org/m", None, "org/m"),
        ("--model /m --max-model-len 8k", "corp/serve:1", "/m --max-model-len 8k"),
    ],
)
def test_spellings(line, image, argv):
    assert taken_apart(line, image) == argv.split()


@pytest.mark.parametrize(
    ("line", "image"),
    [
        ("vllm bench serve --model org/m", None),
        ("--config /app/config.yaml --port 4000", "ghcr.io/berriai/litellm:main"),
        ("python -m sglang.launch_server --model-path org/m", None),
        ("--target http://vllm:8000", "acme/vllm-exporter:1"),
        ("--model base --language en", "fedirz/faster-whisper-server:latest"),
        ("nginx -g 'daemon off;'", "nginx:1"),
    ],
)
def test_what_is_no_server(line, image):
    assert taken_apart(line, image) is None


def test_flags_become_values():
    flags = present(
        serving(
            ["org/m", "--max-model-len", "32K", "--hf-overrides", '{"a": [1]}', "--no-x", "--y", "--z", "1", "2"], IMAGE
        )
    )
    assert settings(flags.flags) == {
        "max_model_len": 32768,
        "hf_overrides": {"a": [1]},
        "x": False,
        "y": True,
        "z": [1, 2],
    }


def test_a_flag_that_stands_twice_is_said():
    found = present(
        serving(
            ["org/m", "--max-num-seqs", "8", "--middleware", "a", "--middleware", "b", "--max-num-seqs", "9"], IMAGE
        )
    )
    assert found.remarks == ("--max-num-seqs stands 2 times: the last counts",)
    assert settings(found.flags)["max_num_seqs"] == 9


def test_flags_that_are_gone_are_named_with_what_took_their_place():
    flags = present(serving(["org/m", "--swap-space", "4", "--max-num-seqs", "8"], IMAGE)).flags
    assert list(gone(flags, IMAGE)) == []
    (said,) = gone(flags, "vllm/vllm-openai:v0.20.0")
    assert said.startswith("vLLM 0.20.0 has no --swap-space; instead: nothing")


def test_a_settings_file_is_told_from_any_other():
    assert from_file({"model": "org/m", "enable_lora": True, "x": None}) == ("--model", "org/m", "--enable_lora")
    assert from_file({"model_list": [], "general_settings": {}}) == ()
