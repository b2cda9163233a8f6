"""Every way to lay a model out on GPUs: tensor, pipeline and data parallel, experts cut or dealt out whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from tuner.engines.foresight import Placement, Question
from tuner.engines.vllm import rules
from tuner.engines.vllm.bound import tokens_per_s
from tuner.engines.vllm.memory.calibration import Calibration
from tuner.engines.vllm.memory.demand import demand_of, release
from tuner.engines.vllm.memory.sizes import Shortage
from tuner.engines.vllm.model.architecture import Architecture
from tuner.engines.vllm.rules import PlannedLaunch
from tuner.space import Settings

_TENSOR, _PIPELINE, _DATA, _EXPERTS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "enable_expert_parallel",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How many ranks of each kind.

    Attributes:
        tensor: That share a layer.
        pipeline: That share the layers.
        data: Replicas.
        experts: Whether experts are dealt out whole.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    experts: bool = False

    @property
    def gpus(self) -> int:
        """How many it takes."""
        return self.tensor * self.pipeline * self.data

    @property
    def name(self) -> str:
        """For a person."""
        named = (("TP", self.tensor), ("PP", self.pipeline), ("DP", self.data))
        parts = [f"{kind} {count}" for kind, count in named if count > 1]
        return " ".join([*(parts or ["one GPU"]), *(["EP"] if self.experts else [])])

    @property
    def args(self) -> Mapping[str, JsonValue]:
        """The flags that ask for it; what is one is not said."""
        sizes = {_TENSOR: self.tensor, _PIPELINE: self.pipeline, _DATA: self.data}
        asked: dict[str, JsonValue] = {name: size for name, size in sizes.items() if size > 1}
        return {**asked, _EXPERTS: True} if self.experts else asked


def layouts(gpus: int, *, experts: bool) -> Iterator[Layout]:
    """All that use every GPU, and those of fewer GPUs that share each layer; none for a machine without."""
    yield from (Layout(tensor) for tensor in _divisors(gpus)[:-1])
    for tensor in reversed(_divisors(gpus)):
        for data in _divisors(gpus // tensor):
            layout = Layout(tensor, gpus // tensor // data, data)
            yield layout
            if experts and tensor * data > 1:
                yield replace(layout, experts=True)


def placements(question: Question, model: Architecture | None) -> Iterator[Placement]:
    """Each with what is predicted of it, or what speaks against it."""
    bare = {name: value for name, value in question.deployed.args.items() if name not in Layout(2, 2, 2, True).args}
    for layout in layouts(question.hardware.gpus, experts=model is not None and model.experts is not None):
        settings = Settings({**bare, **layout.args}, question.deployed.env)
        yield _placement(layout, settings, question, model)


def _placement(layout: Layout, settings: Settings, question: Question, model: Architecture | None) -> Placement:
    hardware = question.hardware
    demand = demand_of(settings, hardware, release(question.version), model)
    illegal = rules.refused(PlannedLaunch(settings, demand, model, hardware))
    plain = Placement(layout.name, layout.gpus, layout.args, length=demand.max_model_len)
    if illegal is not None:
        return replace(plain, refused=illegal.message)
    prediction = Calibration(model, hardware).predict(demand)
    terms, shortage = prediction.terms, prediction.ruled_out
    if terms is None:
        return replace(plain, refused="" if shortage is None else _short(shortage))
    shortage = shortage or terms.shortage
    return replace(
        plain,
        refused="" if shortage is None else _short(shortage),
        weights_gib=terms.weights_gib,
        kv_tokens=None if shortage or terms.kv_tokens is None else terms.kv_tokens * layout.data,
        requests=None if shortage or terms.max_concurrency is None else terms.max_concurrency * layout.data,
        alone_tokens_per_s=tokens_per_s(model, demand, hardware.bandwidth_gb_s),
    )


def _short(shortage: Shortage) -> str:
    if shortage.available_gib <= 0:
        return "the weights leave no room for a KV cache"
    return f"{shortage.allocation} takes {shortage.needed_gib:.1f} GiB of {shortage.available_gib:.1f}"


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
