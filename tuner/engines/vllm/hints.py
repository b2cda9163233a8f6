"""What is known of vLLM's settings before any launch, for the search."""

from tuner.engines.base import Hints

HINTS = Hints(
    weights={
        # they decide what fits, and not how fast it is
        "gpu_memory_utilization": 0.05,
        "kv_cache_memory_bytes": 0.05,
        "block_size": 0.2,
        "OMP_NUM_THREADS": 0.2,
        "VLLM_FLOAT32_MATMUL_PRECISION": 0.2,
        "enable_prefix_caching": 0.5,
        "attention_backend": 0.5,
        "compilation_config.cudagraph_mode": 0.5,
        "performance_mode": 0.5,
        "pipeline_parallel_size": 0.5,
    },
    lossy=frozenset({"kv_cache_dtype", "speculative_config", "quantization", "dtype"}),
    slow={"enforce_eager": True},  # three to nine times on real GPUs
)
