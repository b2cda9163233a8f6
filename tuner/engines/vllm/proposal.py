"""A whole proposal: trial 0 where nobody deploys anything yet, and what may be tried around it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from tuner.engines.foresight import MemoryModel, Placement, Question, SpaceProposal
from tuner.engines.vllm.levers import LeverContext, space_of
from tuner.engines.vllm.memory.demand import whole
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.placements import placements
from tuner.space import Settings

_STAGES = "pipeline_parallel_size"
_PARALLEL = ("tensor_parallel_size", _STAGES, "data_parallel_size")
_LENGTHS = (131072, 65536, 32768, 16384, 8192, 4096)
_WHY = {
    "max_model_len": "more context is predicted not to fit",
    "enable_expert_parallel": "its experts cannot be cut among so many GPUs",
}


@dataclass(frozen=True, slots=True)
class Trial0:
    """What is launched first.

    Attributes:
        question: With the deployment as it is launched.
        possible: All layouts that are predicted to start with that context.
        added: What the deployment did not say.
    """

    question: Question
    possible: tuple[Placement, ...] = ()
    added: Mapping[str, JsonValue] = field(default_factory=dict)


def proposal_of(
    question: Question, model: Architecture | None, memory: MemoryModel, flags: frozenset[str]
) -> SpaceProposal:
    """What may be tried, and what trial 0 needs next to the engine's defaults.

    Args:
        question: The deployment, the GPUs, the version, the workload.
        model: The model; ``None`` where nothing is known of it.
        memory: What starts are predicted to take.
        flags: The long flags of this version.
    """
    first = trial_0(question, model)
    numbers = {flag: _numbers(flag, first) for flag in _PARALLEL}
    space = space_of(LeverContext(model, first.question, memory, flags, numbers))
    rules = {**space.rules, **_all_work(first, set(space.params))}
    remarks = (*_remarks(first, model), *space.remarks)
    return SpaceProposal(space.model_copy(update={"rules": rules, "remarks": remarks}), first.added)


def trial_0(question: Question, model: Architecture | None) -> Trial0:
    """What is deployed, as it is; where nothing is, a layout in which every GPU works and that is predicted to start.

    The longest context that fits is kept. Of the layouts that share each layer come first, then replicas, then stages.
    """
    if question.deployed.args or model is None:
        return Trial0(question, _possible(question, model))
    for length in _lengths(question, model):
        shorter: dict[str, JsonValue] = {} if length is None else {"max_model_len": length}
        possible = _possible(_with(question, shorter), model)
        whole_machine = [each for each in possible if each.gpus == question.hardware.gpus]
        if whole_machine:
            added = {**min(whole_machine, key=_unusual).args, **shorter}
            return Trial0(_with(question, added), possible, added)
    return Trial0(question)


def _possible(question: Question, model: Architecture | None) -> tuple[Placement, ...]:
    return tuple(each for each in placements(question, model) if not each.refused) if model else ()


def _lengths(question: Question, model: Architecture) -> Iterator[int | None]:
    """The model's own context, then shorter ones."""
    yield None
    own, needed = model.max_positions or 0, sum(question.workload.longest)
    yield from (length for length in _LENGTHS if needed <= length < own)


def _unusual(placement: Placement) -> tuple[int, int, bool]:
    """By how much a layout is not the usual one, in which all GPUs share each layer."""
    stages, replicas = _size(placement.args, _STAGES), _size(placement.args, "data_parallel_size")
    return stages, replicas, "enable_expert_parallel" in placement.args


def _remarks(first: Trial0, model: Architecture | None) -> Iterator[str]:
    for name, value in first.added.items():
        yield f"trial 0 has {name}={value}: {_WHY.get(name, 'the engine alone would use one GPU')}"
    deployed = first.question.deployed.args
    ranks, gpus = math.prod(_size(deployed, flag) for flag in _PARALLEL), first.question.hardware.gpus
    if ranks < gpus and (first.possible or model is None):
        yield f"trial 0 uses {ranks} of {gpus} GPUs"
    if gpus and model and not first.possible:
        yield "trial 0 is predicted not to fit on these GPUs: `tuner doctor` shows every layout"


def _with(question: Question, args: Mapping[str, JsonValue]) -> Question:
    return replace(question, deployed=question.deployed.merged(Settings(args)))


def _numbers(flag: str, first: Trial0) -> tuple[int, ...]:
    """The sizes in layouts that use every GPU."""
    every = [each.args for each in first.possible if each.gpus == first.question.hardware.gpus]
    return tuple(sorted({_size(args, flag) for args in every}))


def _size(args: Mapping[str, JsonValue], flag: str) -> int:
    return whole(args.get(flag)) or 1


def _all_work(first: Trial0, params: set[str]) -> dict[str, str]:
    tried, deployed = [flag for flag in _PARALLEL if flag in params], first.question.deployed.args
    fixed = math.prod(_size(deployed, flag) for flag in _PARALLEL if flag not in params)
    ranks = first.question.hardware.gpus // fixed
    said = [flag for flag in tried if deployed.get(flag)]
    if len(tried) < 2 or (said == tried and math.prod(_size(deployed, flag) for flag in tried) != ranks):
        return {}  # there is nothing to choose, or what is deployed would break the rule
    return {"every_gpu_works": f"{' * '.join(tried)} == {ranks}"}
