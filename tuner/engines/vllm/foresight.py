"""What is known of vLLM's launches before the first: its flags, what it refuses, and what it takes of the GPUs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import JsonValue

from tuner.engines.base import Engine
from tuner.engines.causes import Cause
from tuner.engines.ceilings import Ceilings
from tuner.engines.forecast import Forecast
from tuner.engines.foresight import (
    Foresight,
    KnownFlags,
    MemoryModel,
    MemorySettings,
    Placement,
    Premises,
    Question,
    RefusedRequest,
    ServerStart,
    SpaceProposal,
)
from tuner.engines.hardware import Hardware
from tuner.engines.log.platform import advise
from tuner.engines.vllm import kernels, rules
from tuner.engines.vllm.bound import tokens_per_s
from tuner.engines.vllm.flags import common_flags, tagged, unknown_flags
from tuner.engines.vllm.help import HELP, of_version
from tuner.engines.vllm.memory.calibration import Calibration, ObservedStart, Prediction
from tuner.engines.vllm.memory.demand import Demand, demand_of, release
from tuner.engines.vllm.memory.sizes import MemoryEstimate, Shortage
from tuner.engines.vllm.model import hub
from tuner.engines.vllm.model.architecture import Architecture, find
from tuner.engines.vllm.placements import placements
from tuner.engines.vllm.proposal import proposal_of
from tuner.engines.vllm.requests import refused_requests
from tuner.engines.vllm.rules import PlannedLaunch
from tuner.errors import InfeasibleConfig, LaunchRejected, PredictedOutOfMemory
from tuner.host.nvidia import POWER_CAP
from tuner.load.workload import Workload
from tuner.space import Settings

NAMES = MemorySettings(
    share="gpu_memory_utilization",
    cache_bytes="kv_cache_memory_bytes",
    sequences="max_num_seqs",
    tokens="max_num_batched_tokens",
    length="max_model_len",
    block="block_size",
    eager="enforce_eager",
    unrelated=frozenset(
        {
            *("block_size", "enable_prefix_caching", "scheduling_policy", "async_scheduling", "stream_interval"),
            *("long_prefill_token_threshold", "max_num_partial_prefills", "max_long_partial_prefills", "seed"),
            *("compilation_config.compile_sizes", "disable_custom_all_reduce", "OMP_NUM_THREADS"),
            *("VLLM_MARLIN_USE_ATOMIC_ADD", "VLLM_FLOAT32_MATMUL_PRECISION", "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE"),
            *("VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING", POWER_CAP, kernels.VARIABLE),
        }
    ),
)

_FIXES: Mapping[Cause, str] = {
    Cause.INSUFFICIENT_FREE_MEMORY: "end what else holds memory on the GPU{or_less}",
    Cause.NO_KV_CACHE: "raise {share}, or lower max_num_batched_tokens or max_num_seqs",
    Cause.CONTEXT_EXCEEDS_KV_CACHE: "raise {share}, or lower max_model_len",
    Cause.CUDA_OOM: "lower max_num_seqs or max_num_batched_tokens, or spread over more GPUs",
}


@dataclass(frozen=True, kw_only=True)
class VllmForesight(Foresight):
    """What is known of launches of one model.

    Attributes:
        engine: Makes command lines.
        model: The model; ``None`` where nothing on this disk tells.
        image: The version that its image's name tells.
    """

    engine: Engine
    model: Architecture | None
    image: str | None = None
    names: MemorySettings = NAMES

    def refused_flag(self, args: Mapping[str, JsonValue]) -> LaunchRejected | None:
        """The first flag in a command line of these settings that vLLM does not have, or whose value it refuses."""
        if self.flags is None:
            return None
        argv = self.engine.command(args, {}, None).argv[len(self.engine.executable) :]
        for unknown in unknown_flags(argv, self.flags.flags):
            message = f"{unknown.flag} is not known to this vLLM ({self.flags.source})"
            fix = f"instead: {unknown.instead}" if unknown.instead else f"drop {unknown.flag}"
            return LaunchRejected(
                message, cause=Cause.BAD_FLAG.value, line=f"unrecognized arguments: {unknown.flag}", fix=fix
            )
        return next(filter(None, (_refused_value(self.flags, *pair) for pair in args.items())), None)

    def refused(self, settings: Settings, version: str | None, hardware: Hardware) -> InfeasibleConfig | None:
        """The first combination or placement that vLLM refuses."""
        demand = demand_of(settings, hardware, release(version), self.model)
        return rules.refused(PlannedLaunch(settings, demand, self.model, hardware))

    def refused_requests(self, workload: Workload, settings: Settings, version: str | None) -> Iterable[RefusedRequest]:
        """An endpoint that came later, tool calls without a parser, and requests longer than the context."""
        return refused_requests(workload, settings, self.model, version or self.image)

    def memory(self, version: str | None, hardware: Hardware) -> "VllmMemory":
        """The formulas, uncorrected."""
        return VllmMemory(self.model, version, hardware, Calibration(self.model, hardware))

    def ceilings(self, settings: Settings, version: str | None, hardware: Hardware, workload: Workload) -> Ceilings:
        """By the settings with their defaults, and what a step reads of weights and KV cache."""
        demand, bandwidth = demand_of(settings, hardware, release(version), self.model), hardware.bandwidth_gb_s
        sequences, users = demand.max_num_seqs, workload.closed_users
        return Ceilings(
            sequences=sequences and sequences * demand.data_parallel,
            step_tokens=demand.max_num_batched_tokens,
            users=users,
            tokens_per_s=users and tokens_per_s(self.model, demand, bandwidth, users, workload.mean_context),
            alone_tokens_per_s=tokens_per_s(self.model, demand, bandwidth),
        )

    def proposed(self, question: Question) -> SpaceProposal:
        """Settings that this version has and that act on this model; without a version those that all have."""
        told = replace(question, version=question.version or self.image)
        flags = self.flags or (of_version(told.version) if told.version else None)
        memory = self.memory(told.version, told.hardware)
        return proposal_of(told, self.model, memory, flags.flags if flags else common_flags())

    def placements(self, question: Question) -> Iterable[Placement]:
        """Tensor, pipeline and data parallel, and experts dealt out whole."""
        return placements(replace(question, version=question.version or self.image), self.model)


def foresight_of(premises: Premises) -> VllmForesight:
    """What is known of a study's launches; vLLM is asked for its flags, which takes half a minute the first time."""
    flags, image = _known_flags(premises), tagged(premises.image or "")
    return VllmForesight(engine=premises.engine, model=_model(premises), image=image, flags=flags)


def _model(premises: Premises) -> Architecture | None:
    """From this disk; what the hub says of it is kept where the engine's answers are."""
    model, answers = premises.model, premises.answers
    known = find(model, premises.env) or hub.kept(model, answers)
    return known or (hub.asked(model, premises.env, answers) if premises.may_ask else None)


def _known_flags(premises: Premises) -> KnownFlags | None:
    """What the command line takes: as configured, else as the program itself says."""
    executable, inside = premises.engine.executable, premises.inside
    if premises.version is not None:
        return of_version(premises.version)
    if inside is not None:
        return HELP.inside(inside, executable, premises.answers)
    return HELP.of_executable(executable, premises.answers) if premises.on_this_host else None


def _refused_value(flags: KnownFlags, name: str, value: JsonValue) -> LaunchRejected | None:
    flag = f"--{name.replace('_', '-')}"
    valid = flags.choices.get(flag)
    if value is None or not valid or isinstance(value, bool | list | dict) or str(value) in valid:
        return None
    message = f"{flag} {value} is not among the values that this vLLM takes ({flags.source})"
    return LaunchRejected(message, cause=Cause.BAD_FLAG.value, line=flag, fix=f"choose one of: {', '.join(valid)}")


class VllmMemory(MemoryModel):
    """The memory model of one model on one machine.

    Args:
        model: The model; ``None`` where nothing is known of it.
        version: Of vLLM; ``None`` until its first log names it.
        hardware: The GPUs: vLLM's defaults depend on their memory.
        calibration: The memory model as the starts' own logs have corrected it.
    """

    def __init__(
        self, model: Architecture | None, version: str | None, hardware: Hardware, calibration: Calibration
    ) -> None:
        self.calibration = calibration
        self._model = model
        self._version = version
        self._hardware = hardware
        self._predictions: dict[Demand, Prediction] = {}

    def after(self, starts: Sequence[ServerStart]) -> "VllmMemory":
        """See ``MemoryModel.after``."""
        seen = [ObservedStart(self._demand(start.settings), start.facts, start.out_of_memory) for start in starts]
        return VllmMemory(self._model, self._version, self._hardware, self.calibration.after(seen))

    def predict(self, settings: Settings) -> Prediction:
        """What a server of these settings would take of the GPUs."""
        demand = self._demand(settings)
        if demand not in self._predictions:
            self._predictions[demand] = self.calibration.predict(demand)
        return self._predictions[demand]

    def forecast(self, settings: Settings) -> Forecast:
        """See ``MemoryModel.forecast``."""
        prediction = self.predict(settings)
        terms, shortage = prediction.terms, prediction.ruled_out
        if terms is None:
            return Forecast(starts=prediction.starts, shortage=shortage and shortage.allocation)
        told = {name: value for name, value in asdict(terms).items() if name in Forecast.model_fields}
        shortage = shortage or terms.shortage
        told |= {"shortage": shortage and shortage.allocation}
        return Forecast(starts=prediction.starts, margin_gib=prediction.margin_gib, **told)

    def shortage(self, settings: Settings) -> PredictedOutOfMemory | None:
        """See ``MemoryModel.shortage``."""
        prediction = self.predict(settings)
        fixed_cache = settings.args.get("kv_cache_memory_bytes") is not None
        return None if prediction.ruled_out is None else _error(prediction, prediction.ruled_out, fixed_cache)

    def fits(self, settings: Settings) -> bool:
        """See ``MemoryModel.fits``."""
        terms = self.predict(settings).terms
        return terms is None or terms.shortage is None

    def _demand(self, settings: Settings) -> Demand:
        return demand_of(settings, self._hardware, release(self._version), self._model)


def _error(prediction: Prediction, shortage: Shortage, fixed_cache: bool) -> PredictedOutOfMemory:
    """What is missing, and by how much more than the prediction may be wrong."""
    message = f"{shortage.allocation} would need {shortage.needed_gib:.2f} GiB of {shortage.available_gib:.2f}"
    if prediction.margin_gib is not None and shortage.cause is not Cause.INSUFFICIENT_FREE_MEMORY:
        message += f", with {prediction.margin_gib:.2f} GiB of margin in its favour"
    if prediction.starts:
        message += f" (learned from {prediction.starts} starts)"
    numbers = {"needed_gib": shortage.needed_gib, "available_gib": shortage.available_gib}
    if prediction.margin_gib is not None:
        numbers["margin_gib"] = prediction.margin_gib
    return PredictedOutOfMemory(
        message,
        cause=shortage.cause.value,
        numbers={**numbers, **_numbers(prediction.terms)},
        fix=advise(_FIXES[shortage.cause], fixed_cache=fixed_cache),
    )


def _numbers(terms: MemoryEstimate | None) -> Mapping[str, float]:
    """The terms by name, for the record."""
    if terms is None:
        return {}
    named = {
        "weights_gib": terms.weights_gib,
        "activation_gib": terms.activation_gib,
        "non_torch_gib": terms.non_torch_gib,
        "graph_gib": terms.graph_gib,
        "kv_gib": terms.kv_gib,
        "kv_tokens": terms.kv_tokens,
    }
    return {name: float(value) for name, value in named.items() if value is not None}
