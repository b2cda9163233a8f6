"""Settings of vLLM's scheduler that a running server can change."""

from tuner.engines.vllm.live.files import VllmLive, live_of

__all__ = ["VllmLive", "live_of"]
