"""What is known of llama.cpp's launches before the first: its flags, what it refuses, and what it takes of memory."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from tuner.engines.causes import Cause
from tuner.engines.ceilings import Ceilings
from tuner.engines.forecast import Forecast
from tuner.engines.foresight import (
    Foresight,
    KnownFlags,
    MemoryModel,
    MemorySettings,
    Premises,
    Question,
    RefusedRequest,
    ServerStart,
    SpaceProposal,
)
from tuner.engines.hardware import Hardware
from tuner.engines.llamacpp import flags, rules
from tuner.engines.llamacpp.bound import tokens_per_s
from tuner.engines.llamacpp.gguf import GgufModel, find
from tuner.engines.llamacpp.levers import proposal_of
from tuner.engines.llamacpp.memory.calibration import BufferCalibration, BufferPrediction
from tuner.engines.llamacpp.memory.demand import Demand, demand_of
from tuner.engines.llamacpp.memory.sizes import Sizes, sizes
from tuner.errors import InfeasibleConfig, LaunchRejected, PredictedOutOfMemory
from tuner.load.workload import Workload
from tuner.space import Settings

NAMES = MemorySettings(
    tokens="ubatch_size",
    length="ctx_size",
    unrelated=frozenset(
        {
            *("threads", "threads_batch", "threads_http", "cont_batching", "prio", "poll", "numa", "cache_reuse"),
            *("slot_prompt_similarity", "draft_max", "draft_min", "draft_p_min", "defrag_thold", "mlock"),
        }
    ),
)
"""More slots of one context need no more memory: it is divided among them."""

_FIX = "lower ctx_size or ubatch_size, quantize the cache (cache_type_k, cache_type_v), or switch flash_attn on"


@dataclass(frozen=True, kw_only=True)
class LlamaCppForesight(Foresight):
    """What is known of launches of one model.

    Attributes:
        model: The model; ``None`` where nothing on this disk tells.
        host_gib: Memory of the host that servers run on; ``None`` where it is not this one.
    """

    model: GgufModel | None
    host_gib: float | None = None
    names: MemorySettings = NAMES

    def refused_flag(self, args: Mapping[str, JsonValue]) -> LaunchRejected | None:
        """The first flag that this build does not have, or does not take in this form."""
        return flags.refused(args, self.flags) if self.flags else None

    def refused(self, settings: Settings, version: str | None, hardware: Hardware) -> InfeasibleConfig | None:
        """The first combination that llama.cpp refuses."""
        return rules.refused(settings, self._flash_by_default)

    def refused_requests(self, workload: Workload, settings: Settings, version: str | None) -> Iterable[RefusedRequest]:
        """Requests longer than a slot's context."""
        return rules.refused_requests(workload, settings, self.model.context if self.model else None)

    def ceilings(self, settings: Settings, version: str | None, hardware: Hardware, workload: Workload) -> Ceilings:
        """Slots, and what a step reads; prompts queue for slots only."""
        if self.model is None:
            return Ceilings()
        demand, users = demand_of(settings, self.model, flash_by_default=self._flash_by_default), workload.closed_users
        return Ceilings(
            sequences=demand.slots,
            users=users,
            tokens_per_s=users and tokens_per_s(self.model, demand, hardware, users, workload.mean_context),
            alone_tokens_per_s=tokens_per_s(self.model, demand, hardware),
        )

    def proposed(self, question: Question) -> SpaceProposal:
        """Settings that this build has and that act on this machine."""
        return proposal_of(question, self.flags)

    def memory(self, version: str | None, hardware: Hardware) -> MemoryModel:
        """The formulas, uncorrected."""
        if self.model is None:
            return MemoryModel()
        room = hardware.free_gib or hardware.total_gib if hardware.gpus else self.host_gib
        return LlamaCppMemory(self.model, hardware.gpus, room, self._flash_by_default, BufferCalibration())

    @property
    def _flash_by_default(self) -> bool | None:
        """Builds in which it is a switch leave it off; later ones decide by themselves."""
        switch = self.flags is not None and self.flags.choices.get("--flash-attn") == ()
        return False if switch else None


def foresight_of(premises: Premises) -> LlamaCppForesight:
    """What is known of a study's launches."""
    host_gib = _host_gib() if premises.on_this_host else None
    return LlamaCppForesight(model=find(premises.model), flags=_known_flags(premises), host_gib=host_gib)


def _known_flags(premises: Premises) -> KnownFlags | None:
    """What the command line takes, as the program itself says."""
    executable, inside = premises.engine.executable, premises.inside
    if inside is not None:
        return flags.HELP.inside(inside, executable, premises.answers)
    return flags.HELP.of_executable(executable, premises.answers) if premises.on_this_host else None


def _host_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


@dataclass(frozen=True)
class LlamaCppMemory(MemoryModel):
    """The memory model of one model on one machine.

    Attributes:
        model: The model.
        gpus: How many GPUs there are; 0 for a server on the host.
        room_gib: Memory of a GPU, or of the host; ``None`` where nobody knows.
        flash_by_default: Whether this build uses flash attention unless told.
        calibration: What starts have taught.
    """

    model: GgufModel
    gpus: int
    room_gib: float | None
    flash_by_default: bool | None
    calibration: BufferCalibration

    def after(self, starts: Sequence[ServerStart]) -> "LlamaCppMemory":
        """See ``MemoryModel.after``."""
        seen = [(computed, start.facts) for start in starts if (computed := self._sizes(start.settings))]
        return LlamaCppMemory(self.model, self.gpus, self.room_gib, self.flash_by_default, self.calibration.after(seen))

    def predict(self, settings: Settings) -> BufferPrediction | None:
        """What a server of these settings would take; ``None`` where that cannot be told."""
        computed = self._sizes(settings)
        return None if computed is None else self.calibration.predict(computed)

    def forecast(self, settings: Settings) -> Forecast | None:
        """See ``MemoryModel.forecast``."""
        prediction = self.predict(settings)
        if prediction is None:
            return None
        best = prediction.sizes
        return Forecast(
            starts=prediction.starts,
            requested_gib=self.room_gib,
            weights_gib=best.weights_gib,
            activation_gib=best.compute_gib,
            kv_gib=best.kv_gib,
            kv_tokens=self._demand(settings).context,
            max_concurrency=float(self._demand(settings).slots),
            shortage=None if self.fits(settings) else "memory of the server's buffers",
        )

    def shortage(self, settings: Settings) -> PredictedOutOfMemory | None:
        """See ``MemoryModel.shortage``."""
        prediction = self.predict(settings)
        if prediction is None or not _exceeds(prediction.least_gib, self.room_gib):
            return None
        where = "GPU" if self.gpus else "host"
        message = f"KV cache, buffers and weights would need {prediction.least_gib:.2f} GiB at the least"
        return PredictedOutOfMemory(
            f"{message}, and the {where} has {self.room_gib:.2f} (learned from {prediction.starts} starts)",
            cause=(Cause.CUDA_OOM if self.gpus else Cause.HOST_OOM).value,
            numbers=_numbers(prediction.sizes),
            fix=_FIX,
        )

    def fits(self, settings: Settings) -> bool:
        """See ``MemoryModel.fits``."""
        prediction = self.predict(settings)
        return prediction is None or not _exceeds(prediction.sizes.needed_gib, self.room_gib)

    def _demand(self, settings: Settings) -> Demand:
        return demand_of(settings, self.model, flash_by_default=self.flash_by_default)

    def _sizes(self, settings: Settings) -> Sizes | None:
        demand = self._demand(settings)
        return None if demand.beyond else sizes(self.model, demand, self.gpus)


def _exceeds(needed_gib: float | None, room_gib: float | None) -> bool:
    return needed_gib is not None and room_gib is not None and needed_gib > room_gib


def _numbers(best: Sizes) -> Mapping[str, float]:
    named = {"weights_gib": best.weights_gib, "kv_gib": best.kv_gib, "compute_gib": best.compute_gib}
    return {name: gib for name, gib in named.items() if gib is not None}
