"""What a real server's log says (build 4227c9b on a CPU), and what one with GPUs says in lines of its source."""

import itertools

import pytest

from tuner.engines.base import Phase, StartupFacts
from tuner.engines.llamacpp.engine import LlamaCppEngine

ENGINE = LlamaCppEngine(("llama-server",), "tiny.gguf")
ON_GPUS = [
    "build: 6200 (4227c9b) with cc (Debian 12.2.0-14) 12.2.0 for x86_64-linux-gnu",
    "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 4090) - 23000 MiB free",
    "llama_model_load_from_file_impl: using device CUDA1 (NVIDIA GeForce RTX 4090) - 22528 MiB free",
    "load_tensors: offloaded 20/33 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =  2048.00 MiB",
    "load_tensors:        CUDA1 model buffer size =  1024.00 MiB",
    "load_tensors:   CPU_Mapped model buffer size =  5120.00 MiB",
    "llama_context: n_ctx         = 8192",
    "llama_kv_cache_unified:      CUDA0 KV buffer size =   512.00 MiB",
    "llama_kv_cache_unified:        CPU KV buffer size =  4096.00 MiB",
    "llama_context:      CUDA0 compute buffer size =   256.00 MiB",
    "llama_context:  CUDA_Host compute buffer size =    24.01 MiB",
]


def test_a_server_on_the_host_says_what_the_host_holds(log):
    assert ENGINE.facts(log("llamacpp-4227c9b-cpu-ok.log")) == StartupFacts(
        engine_version="1 (4227c9b)",
        weights_gib=9.45 / 1024,
        kv_cache_gib=24 / 1024,
        kv_tokens=8192,
        max_model_len=2048,
        peak_activation_gib=22.51 / 1024,
        attention_backend="PLAIN",
    )


def test_of_a_server_on_gpus_the_fullest_counts_and_the_host_does_not():
    said = ENGINE.facts(ON_GPUS)
    assert (said.weights_gib, said.kv_cache_gib, said.peak_activation_gib) == (2.0, 0.5, 0.25)
    assert (said.free_gib, said.layers, said.offloaded_layers) == (22.0, 33, 20)
    assert [each.name for each in said.degradations] == ["layers_not_offloaded"]


def test_a_build_without_gpus_that_was_asked_for_them_is_degraded(log):
    (found,) = ENGINE.facts(log("llamacpp-4227c9b-cpu-no_gpu.log")).degradations
    assert (found.name, found.line_number, found.severe) == ("cpu_fallback", 1, True)


def test_flash_attention_is_told(log):
    assert ENGINE.facts(log("llamacpp-4227c9b-cpu-flash.log")).attention_backend == "FLASH_ATTN"


@pytest.mark.parametrize("name", ["ok", "flash"])
def test_the_phases_come_in_their_order(log, name):
    announced = [phase for line in log(f"llamacpp-4227c9b-cpu-{name}.log") if (phase := ENGINE.phase(line))]
    assert [phase for phase, _ in itertools.groupby(announced)] == [
        Phase.LOADING_WEIGHTS,
        Phase.PROFILING,
        Phase.CAPTURING_GRAPHS,
        Phase.OPENING,
    ]
