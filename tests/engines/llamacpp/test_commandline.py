"""Command lines that start the same server give equal settings, and switches have the forms that llama.cpp knows."""

import pytest

from tests.present import present
from tuner.engines.llamacpp.commandline import read, switch
from tuner.engines.llamacpp.engine import LlamaCppEngine


@pytest.mark.parametrize(
    "line",
    [
        "llama-server -m m.gguf -c 8192 -np 4 -ngl 99 --no-mmap -fa -ctk q8_0",
        "/app/llama-server --model m.gguf --ctx-size 8192 --parallel 4 --gpu-layers 99 --no-mmap -fa -ctk q8_0",
        "-m m.gguf --cache-type-k=q8_0 --no-mmap --flash-attn -ngl 99 -c 8192 -np 4",
    ],
)
def test_a_setting_has_one_name_however_it_is_written(line):
    read_back = present(read(line.split(), {}))
    assert read_back.model == "m.gguf"
    assert read_back.args == {
        **{"ctx_size": 8192, "parallel": 4, "n_gpu_layers": 99, "mmap": False},
        **{"flash_attn": True, "cache_type_k": "q8_0"},
    }


def test_a_shell_and_its_variables_are_read_through():
    line = ("sh", "-c", "exec llama-server -hf org/m-GGUF:Q4_K_M -c $CONTEXT -fa on")
    assert present(read(line, {"CONTEXT": "4096"})).args == {"ctx_size": 4096, "flash_attn": "on"}
    assert present(read(line, {})).model == "org/m-GGUF:Q4_K_M"


def test_a_switch_is_written_in_the_form_that_llamacpp_has_for_it():
    assert (switch("mmap", True), switch("mmap", False)) == ("", "--no-mmap")
    assert (switch("flash_attn", True), switch("flash_attn", False)) == ("--flash-attn", "")
    assert (switch("cont_batching", True), switch("cont_batching", False)) == ("--cont-batching", "--no-cont-batching")


def test_a_file_is_a_model_and_a_repository_is_fetched():
    for model, flag in (("/models/m.gguf", "--model"), ("org/m.gguf", "--model"), ("org/m-GGUF:Q4_K_M", "--hf-repo")):
        assert LlamaCppEngine(("llama-server",), model).command({}, {}, None).argv[1:3] == (flag, model)


def test_the_one_name_that_a_server_has_is_the_launchs():
    argv = LlamaCppEngine(("llama-server",), "m.gguf").command({"alias": "mine"}, {}, "tuner-1").argv
    assert argv[argv.index("--alias") + 1] == "tuner-1"
    assert "mine" not in argv
