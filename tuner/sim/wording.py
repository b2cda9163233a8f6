"""Where in vLLM's source each line comes from, by generation; what the generations word differently."""

from collections.abc import Mapping

from tuner.sim.versions import Version

# 0.26: ../shared/engine-logs of the H100; 0.15 and 0.10: the wheels of 0.15.0 and 0.10.2
_SOURCES: Mapping[str, tuple[str, str, str]] = {
    "banner": ("api_server.py:1896", "utils.py:325", "api_utils.py:345"),
    "arguments": ("utils.py:328", "utils.py:261", "api_utils.py:273"),
    "architecture": ("__init__.py:742", "model.py:541", "model.py:623"),
    "max_len": ("__init__.py:1815", "model.py:1561", "model.py:1788"),
    "chunked": ("scheduler.py:222", "scheduler.py:226", "scheduler.py:252"),
    "async": ("scheduler.py:230", "vllm.py:624", "vllm.py:1109"),
    "eager": ("cuda.py:103", "vllm.py:655", "vllm.py:1163"),
    "cudagraph_off": ("__init__.py:3036", "vllm.py:762", "vllm.py:1392"),
    "fallback": ("arg_utils.py:1643", "arg_utils.py:1643", "arg_utils.py:1643"),
    "core": ("core.py:76", "core.py:96", "core.py:116"),
    "v0": ("llm_engine.py:221", "llm_engine.py:221", "llm_engine.py:221"),
    "torch_threads": ("multiproc_worker_utils.py:307", "multiproc_executor.py:910", "multiproc_executor.py:910"),
    "world": ("parallel_state.py:1165", "parallel_state.py:1212", "parallel_state.py:1615"),
    "ranks": ("parallel_state.py:1165", "parallel_state.py:1423", "parallel_state.py:1946"),
    "nccl": ("pynccl.py:70", "pynccl.py:111", "pynccl.py:113"),
    "all_reduce": ("custom_all_reduce.py:143", "custom_all_reduce.py:154", "custom_all_reduce.py:154"),
    "sampler": ("topk_topp_sampler.py:55", "topk_topp_sampler.py:47", "topk_topp_sampler.py:39"),
    "load": ("gpu_model_runner.py:2338", "gpu_model_runner.py:4033", "gpu_model_runner.py:5250"),
    "attention": ("cuda.py:289", "cuda.py:364", "cuda.py:482"),
    "weights": ("default_loader.py:268", "default_loader.py:291", "default_loader.py:397"),
    "loaded": ("gpu_model_runner.py:2392", "gpu_model_runner.py:4130", "gpu_model_runner.py:5347"),
    "cache_dir": ("backends.py:539", "backends.py:812", "backends.py:1094"),
    "dynamo": ("backends.py:550", "backends.py:872", "backends.py:1155"),
    "cache_graph": ("backends.py:194", "backends.py:302", "backends.py:378"),
    "compiled": ("backends.py:215", "backends.py:319", "backends.py:393"),
    "cache_hit": ("backends.py:161", "backends.py:267", "backends.py:292"),
    "aot_saved": ("decorators.py:580", "decorators.py:580", "decorators.py:708"),
    "aot_loaded": ("decorators.py:290", "decorators.py:290", "decorators.py:311"),
    "compile_total": ("monitor.py:34", "monitor.py:34", "monitor.py:53"),
    "profiled": ("monitor.py:81", "monitor.py:81", "monitor.py:81"),
    "moe": ("fused_moe.py:798", "fused_moe.py:1092", "fused_moe.py:1094"),
    "graph_profile": ("gpu_model_runner.py:6612",) * 3,
    "graph_estimate": ("gpu_model_runner.py:6737",) * 3,
    "available": ("gpu_worker.py:298", "gpu_worker.py:355", "gpu_worker.py:560"),
    "fixed_cache": ("gpu_worker.py:243", "gpu_worker.py:336", "gpu_worker.py:541"),
    "broadcast": ("shm_broadcast.py:466", "shm_broadcast.py:542", "shm_broadcast.py:681"),
    "equivalent": ("gpu_worker.py:575",) * 3,
    "capacity": ("kv_cache_utils.py:864", "kv_cache_utils.py:1307", "kv_cache_utils.py:2177"),
    "concurrency": ("kv_cache_utils.py:868", "kv_cache_utils.py:1312", "kv_cache_utils.py:2178"),
    "captured": ("gpu_model_runner.py:3118", "gpu_model_runner.py:5063", "gpu_model_runner.py:6844"),
    "graph_pool": ("gpu_worker.py:793",) * 3,
    "usage": ("gpu_worker.py:391", "gpu_worker.py:490", "gpu_worker.py:857"),
    "init": ("core.py:218", "core.py:272", "core.py:340"),
    "core_failed": ("core.py:718", "core.py:946", "core.py:1330"),
    "worker_failed": ("multiproc_executor.py:585", "multiproc_executor.py:772", "multiproc_executor.py:905"),
    "worker_error": ("multiproc_executor.py:654", "multiproc_executor.py:852", "multiproc_executor.py:981"),
    "tasks": ("api_server.py:1692", "api_server.py:665", "api_server.py:673"),
    "sampling": ("__init__.py:1587", "model.py:1371", "model.py:1546"),
    "starting": ("api_server.py:1971", "api_server.py:946", "api_server.py:677"),
    "routes": ("launcher.py:36", "launcher.py:38", "launcher.py:37"),
    "route": ("launcher.py:44", "launcher.py:46", "launcher.py:46"),
    "stats": ("loggers.py:123", "loggers.py:257", "loggers.py:310"),
    "jit": ("jit_monitor.py:135",) * 3,
    "jit_on": ("jit_monitor.py:79",) * 3,
    "core_died": ("core_client.py:564", "core_client.py:605", "core_client.py:702"),
    "fatal": ("core.py:727", "core.py:955", "core.py:1339"),
    "output_failed": ("async_llm.py:480", "async_llm.py:525", "async_llm.py:704"),
    "stream_failed": ("serving_chat.py:1145", "serving.py:1278", "serving.py:929"),
    "shutdown": ("launcher.py:98", "launcher.py:110", "launcher.py:100"),
    "client_shutdown": ("core_client.py:560", "core_client.py:600", "core_client.py:655"),
}
BROADCAST = (
    "No available shared memory broadcast block found in 60 seconds. This typically happens when some processes are "
    "hanging or doing some time-consuming work (e.g. compilation, weight/kv cache quantization)."
)
_COLUMN: Mapping[str, int] = {"0.10": 0, "0.15": 1, "0.26": 2}


def source(version: Version, key: str) -> str:
    """File and line that print the line called ``key``."""
    return _SOURCES[key][_COLUMN[version.family]]


def compile_range(version: Version, size: int | None, largest: int) -> str:
    """How a compiled graph's batch sizes are named; ``None`` means the general graph."""
    if version.family == "0.10":
        return "dynamic shape" if size is None else f"shape {size}"
    return f"compile range {(1, largest) if size is None else (size, size)}"
