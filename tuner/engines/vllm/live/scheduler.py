"""A scheduler for vLLM whose limits can be changed while the server runs.

It is copied next to the file of the settings and runs inside the engine's process: nothing of tuner, the standard
library and vLLM only. It reads that one file and writes nothing but log lines.
"""

import copy
import json
import logging
import os
import sys
from typing import Any

VARIABLE = "TUNER_LIVE_SETTINGS"
"""Names the file: ``{"change": 3, "setting": {"max_num_seqs": 16}}``; to change it, replace it."""

_log = logging.getLogger("vllm.live_settings")  # vLLM shows only what is logged below "vllm"


class _Live:
    """Goes before one of vLLM's schedulers in the order of bases."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Since 0.31 admission has a limit of its own; the older one is asserted on at every step, so that it must never
        # fall below what runs, and old schedulers admit until the two are equal.
        self._live_in_mid_load = hasattr(self, "max_num_active_reqs")
        self._live_started = self._live_most = {
            "max_num_seqs": getattr(self, self._live_sequences),
            "max_num_batched_tokens": self.max_num_scheduled_tokens,  # type: ignore[has-type]
        }
        if self._live_in_mid_load:
            threshold, longest = self._live_config.long_prefill_token_threshold, self.max_model_len  # type: ignore[attr-defined]
            self._live_started = {**self._live_started, "long_prefill_token_threshold": threshold}
            self._live_most = {**self._live_most, "long_prefill_token_threshold": longest}
        self._live_version = _version()
        _log.info("live settings: at most %s", json.dumps(self._live_most))

    @property
    def _live_config(self) -> Any:
        return self.scheduler_config  # type: ignore[attr-defined]

    @property
    def _live_sequences(self) -> str:
        return "max_num_active_reqs" if self._live_in_mid_load else "max_num_running_reqs"

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """A step, by the settings that are asked for now."""
        if self._live_in_mid_load or not self.running:  # type: ignore[attr-defined]
            self._live_follow()
        return super().schedule(*args, **kwargs)  # type: ignore[misc]

    def _live_follow(self) -> None:
        version = _version()
        if version == self._live_version:
            return
        self._live_version = version
        with open(os.environ[VARIABLE], encoding="utf-8") as file:
            asked = json.load(file)
        change, setting = asked["change"], {**self._live_started, **asked["setting"]}
        if refusal := _refusal(setting, self._live_most):
            _log.warning("live settings: change %d refused: %s", change, refusal)
            return
        setattr(self, self._live_sequences, setting["max_num_seqs"])
        self.max_num_scheduled_tokens = setting["max_num_batched_tokens"]
        if self._live_in_mid_load:
            self._live_config.long_prefill_token_threshold = setting["long_prefill_token_threshold"]
        _log.info("live settings: change %d in force: %s", change, json.dumps(setting))


def _version() -> tuple[int, int]:
    """Tells whether the file is another than before."""
    status = os.stat(os.environ[VARIABLE])
    return status.st_mtime_ns, status.st_ino


def _refusal(setting: dict[str, Any], most: dict[str, int]) -> str:
    for name, value in setting.items():
        if name not in most:
            return f"{name} cannot be changed in this server"
        least = 0 if name == "long_prefill_token_threshold" else 1
        if type(value) is not int or not least <= value <= most[name]:
            return f"{name}={value!r} is not a whole number from {least} to {most[name]}"
    return ""


def LiveScheduler(vllm_config: Any, **kwargs: Any) -> Any:
    """The scheduler that the engine would have chosen, with settings that can be changed where that is sound."""
    if getattr(vllm_config.model_config, "is_diffusion", False):
        raise ValueError("live settings: a diffusion model has a scheduler of its own, which --scheduler-cls displaces")
    if _is_foreign():
        raise ValueError("live settings: this platform has a scheduler of its own, which --scheduler-cls displaces")
    config = copy.copy(vllm_config.scheduler_config)
    config.scheduler_cls = None
    base = config.get_scheduler_cls()
    if (budget := getattr(config, "max_num_scheduled_tokens", None)) not in (None, config.max_num_batched_tokens):
        # speculative decoding keeps slots for drafts, or the user set it
        _log.warning("live settings: none: a step holds %d tokens, not max_num_batched_tokens", budget)
        return base(vllm_config=vllm_config, **kwargs)
    return type("LiveScheduler", (_Live, base), {})(vllm_config=vllm_config, **kwargs)


def _is_foreign() -> bool:
    """Whether the platform came with a plugin, or is a TPU: such platforms choose the scheduler themselves."""
    platform = getattr(sys.modules.get("vllm.platforms"), "current_platform", None)
    return platform is not None and bool(platform.is_out_of_tree() or platform.is_tpu())
