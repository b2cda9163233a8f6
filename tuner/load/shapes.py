"""The shapes that traffic can have, as ``conf/workload`` writes them: lengths, arrivals, shared prefixes, classes."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag, model_validator

from tuner.schema import Schema


class Documented(Schema):
    """A section whose fields say what they mean."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Uniform(Documented):
    """Lengths that are equally likely between two bounds, both included."""

    kind: Literal["uniform"]
    """Which distribution."""
    low: PositiveInt
    """The shortest."""
    high: PositiveInt
    """The longest."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Lognormal(Documented):
    """Lengths of which most are short and a few are long, as people's prompts are."""

    kind: Literal["lognormal"]
    """Which distribution."""
    median: PositiveInt
    """Half of the lengths are below it."""
    sigma: PositiveFloat
    """Standard deviation of the logarithm: at 1, one in six is more than 2.7 times the median."""
    high: PositiveInt
    """The longest; what would be longer is cut to it."""


class FromFile(Documented):
    """Lengths as they were observed: a whole number a line, drawn with equal chances."""

    kind: Literal["file"]
    """Which distribution."""
    file: Path
    """The file. Its odd lines (the first, third …) are for tuning, its even ones are held out for the proof."""


class Histogram(Documented):
    """Lengths as a server's own histogram tells them (``tuner workload learn`` writes it)."""

    kind: Literal["histogram"]
    """Which distribution."""
    bounds: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """The longest of each bucket, ascending; the first bucket begins at 1, each other one behind the one before."""
    counts: tuple[NonNegativeInt, ...]
    """Requests in each."""
    mean: PositiveFloat
    """Of all lengths: it decides where in their buckets they are."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.bounds) != len(self.counts) or not any(self.counts):
            raise ValueError(f"{len(self.bounds)} bounds for {len(self.counts)} counts, of which one is above zero")
        if any(low >= high for low, high in pairwise(self.bounds)):
            raise ValueError("bounds are not ascending")
        return self

    @property
    def skew(self) -> float:
        """Where in their buckets lengths are, at a share u of each: at u to this power of its width."""
        lows = (0, *self.bounds[:-1])
        least, width = (
            sum(count * bound for count, bound in zip(self.counts, bounds, strict=True)) / sum(self.counts)
            for bounds in (lows, [high - low for low, high in zip(lows, self.bounds, strict=True)])
        )
        share = min(max((self.mean - least) / width, 0.01), 0.99)
        return 1 / share - 1


def _kind(raw: Any) -> str:
    return str(raw.get("kind", "")) if isinstance(raw, dict) else str(getattr(raw, "kind", "fixed"))


Length = Annotated[
    Annotated[PositiveInt, Tag("fixed")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Lognormal, Tag("lognormal")]
    | Annotated[FromFile, Tag("file")]
    | Annotated[Histogram, Tag("histogram")],
    Discriminator(_kind),
]
"""A whole number, or a distribution of them."""


class Prefix(Documented):
    """A beginning that requests of one class share: a system prompt, a document."""

    tokens: PositiveInt
    """Its length, part of the prompt's."""
    hit_rate: Annotated[float, Field(ge=0, lt=1)]
    """Share of the requests that begin with a prefix which an earlier request of the same stage has brought. The others
    bring a new one."""


class Slo(Documented):
    """What is promised of each request: limits that it has to keep, all of them (``vllm bench serve --goodput``)."""

    ttft_ms: PositiveFloat | None = None
    """Time to first token, at most, in the engine's own milliseconds; likewise the next two."""
    tpot_ms: PositiveFloat | None = None
    """Time per output token, in the mean over the request."""
    e2e_ms: PositiveFloat | None = None
    """From sending to the last token."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.ttft_ms is None and self.tpot_ms is None and self.e2e_ms is None:
            raise ValueError("promise something: ttft_ms, tpot_ms or e2e_ms")
        return self


class RequestClass(Documented):
    """One kind of request among several."""

    name: str
    """As the records call it."""
    weight: PositiveFloat = 1.0
    """Its share of the requests is its weight over the sum of all weights."""
    prompt_tokens: Length
    """Length of its prompts."""
    output_tokens: Length
    """Tokens generated for each."""
    prefix: Prefix | None = None
    """The beginning that its prompts share."""
    slo: Slo | None = None
    """What is promised of each of its requests, in place of the workload's ``slo``."""

    @model_validator(mode="after")
    def _own(self) -> Self:
        shortest = self.prompt_tokens.low if isinstance(self.prompt_tokens, Uniform) else self.prompt_tokens
        if self.prefix and isinstance(shortest, int) and self.prefix.tokens >= shortest:
            raise ValueError(f"a prefix of {self.prefix.tokens} tokens leaves nothing of a prompt of {shortest}")
        return self


class Arrivals(Documented):
    """An open loop: when requests are sent, whatever the server does."""

    kind: Literal["constant", "poisson", "gamma"]
    """Evenly spaced; independent of each other; or in bursts."""
    rate: PositiveFloat | Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """Requests a second, in the engine's own seconds. Of several, each is a stage of its own, and the last one is the
    concurrent stage."""
    until_rate: PositiveFloat | None = None
    """A stage begins at ``rate`` and grows (or falls) evenly to this one: a ramp."""
    burstiness: PositiveFloat = 0.25
    """Of ``gamma``, the shape of the gaps' distribution as vLLM's benchmark has it: 1 is Poisson, less comes in bursts,
    more is smoother."""

    @property
    def rates(self) -> tuple[float, ...]:
        """Those of the stages, in order."""
        return self.rate if isinstance(self.rate, tuple) else (self.rate,)


class Trace(Documented):
    """Recorded traffic: its first half is for tuning, its second one is held out for the proof."""

    file: Path
    """JSON lines as Mooncake's traces are, ``{timestamp, input_length, output_length, hash_ids}`` with milliseconds, or
    requests with their texts, ``{timestamp, messages, max_tokens}``; or an access log, in JSON with ``usage`` or in
    lines of text (docs/workloads.md)."""
    speed: PositiveFloat = 1.0
    """How many times faster than recorded it is sent, in the engine's own seconds."""
    requests: PositiveInt | None = None
    """How many of each half are sent at most, from its beginning."""
    block_tokens: PositiveInt = 512
    """Tokens that one of its ``hash_ids`` stands for."""


class Saturation(Documented):
    """How the highest rate of requests is searched for that a server sustains, where the objective names it."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """A rate is sustained if at least this share of its requests keep what ``slo`` promises, and no backlog grows."""
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.03
    """The search ends when the lowest rate that was not sustained is above the highest one that was by this share."""
    kind: Literal["constant", "poisson", "gamma"] = "poisson"
    """How requests arrive, as ``arrivals.kind``."""
    seconds: PositiveFloat = 20.0
    """How long each rate is sent, in the engine's own seconds; longer where that is fewer than ``requests``."""
    begin_rate: PositiveFloat | None = None
    """The first rate, in requests a second; by default what the concurrent stage answered."""
    most_stages: PositiveInt = 16
    """Rates that are sent at most."""


class Agents(Documented):
    """Users who are agents: a conversation each, into which every answer goes back, with the result of a tool."""

    system_tokens: PositiveInt
    """The system prompt, tool descriptions included: all agents share it."""
    turns: Length
    """Requests of a conversation."""
    result_tokens: Length
    """What a tool returns, ahead of each request but the first. The first has the workload's ``prompt_tokens``."""
    think_ms: Length
    """Time from an answer to the next request, in the engine's own milliseconds."""
    context_tokens: PositiveInt
    """A conversation ends before its prompt and output are longer than this."""
    scale: PositiveFloat = 1.0
    """Multiplies all of these but ``turns``, and the lengths of the workload: 0.01 makes a quick try of a long one."""

    def scaled(self, number: int) -> int:
        """A length or a time as it is sent."""
        return max(1, round(number * self.scale))
