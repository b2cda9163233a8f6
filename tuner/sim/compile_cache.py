"""torch.compile's cache on disk: what was compiled before, a start need not compile again."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tuner.sim.settings import Settings

_IGNORED = frozenset(
    (
        "VLLM_CACHE_ROOT",
        "VLLM_API_KEY",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_TUNED_CONFIG_FOLDER",
        "VLLM_ENABLE_STARTUP_PLAN",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_LOGGING_LEVEL",
        "VLLM_NO_USAGE_STATS",
    )
)


class CompileCache:
    """One configuration's place in the cache.

    Args:
        root: The cache's directory, or ``None`` for a machine that keeps nothing between starts.
        settings: What is compiled.
        env: The environment; every ``VLLM_*`` variable is part of the key but a few (envs.compile_factors).
    """

    def __init__(self, root: Path | None, settings: Settings, env: Mapping[str, str]) -> None:
        self.key = _key(settings, env)
        base = root if root is not None else Path.home() / ".cache" / "vllm"
        self.folder = base / "torch_compile_cache" / self.key[:10] / "rank_0_0"
        self._keeps = root is not None

    @property
    def hit(self) -> bool:
        """Whether a start before compiled the same."""
        return self._keeps and (self.folder / "compiled").is_file()

    def store(self) -> None:
        """Keep what was compiled."""
        if self._keeps:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "compiled").touch()


def _key(settings: Settings, env: Mapping[str, str]) -> str:
    variables = sorted(item for item in env.items() if item[0].startswith("VLLM_") and item[0] not in _IGNORED)
    parts = (
        settings.site.version.text,
        settings.site.hardware.name,
        settings.model_name,
        settings.tensor_parallel_size,
        settings.pipeline_parallel_size,
        settings.enable_expert_parallel,
        settings.dtype,
        settings.max_model_len,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        settings.block_size,
        settings.kv_cache_dtype,
        settings.compile_sizes,
        settings.capture_sizes,
        variables,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()
