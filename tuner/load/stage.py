"""What the load worker is told to do: plain data, importable without pydantic."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tuner.load.endpoints.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt that several requests share: the same seed and length make the same text."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    seed: str
    words: int


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to ask for.

    Attributes:
        seed: Seeds the prompt; two requests of the same seed and length send the same prompt.
        words: Length of what is the prompt's own: in words where it is made of random ones (``tuner.load.prompts``), in
            tokens where it is natural text (``tuner.load.prose``).
        prompt_tokens: The length in tokens that those aim at; ``None`` where any will do. The true one is the
            server's ``usage``.
        output_tokens: How many tokens to generate: exactly so many (``ignore_eos``), or at most for a tool call and
            where the endpoint has no word for it.
        tool_call: Whether to offer a tool and ask for its use.
        traffic: Name of its class, where a workload has several.
        prefix: What the prompt begins with, shared with other requests of the stage.
        system: The system prompt: it stays the same for all of a measurement.
        follows: Whether it continues the conversation of the request in front of it: its text is a tool's result.
        think_ms: Of one that does, how long after the answer it is sent.
        said: Messages to send as they are, in JSON, behind a few words of the seed; nothing of it is kept in records.
        endpoint: Where it goes.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    seed: str
    words: int
    prompt_tokens: int | None
    output_tokens: int
    tool_call: bool = False
    traffic: str | None = None
    prefix: tuple[Segment, ...] = ()
    said: str = ""
    system: Segment | None = None
    follows: bool = False
    think_ms: float = 0.0
    endpoint: Endpoint = Endpoint.CHAT

    def again(self, mark: str) -> "Request":
        """The same with a fresh prompt; requests that shared a beginning share another one."""
        prefix = tuple(Segment(f"{segment.seed}/{mark}", segment.words) for segment in self.prefix)
        return replace(self, seed=f"{self.seed}/{mark}", prefix=prefix)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a stage that lasts has measured enough. Seconds are of wall time, from the start of its steady window.

    Attributes:
        least_s: Never before.
        most_s: Then, whatever the spread; only ``least_requests`` may delay it.
        least_requests: Answered requests that the sample needs, for its percentiles or because the workload says so.
        rate: How tight the throughput must be: half the width of its 95 % interval over its mean. ``None`` if nothing
            is decided by it; likewise the next two.
        ttft: The same for the median TTFT.
        tpot: The same for the median TPOT.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    least_s: float
    most_s: float
    least_requests: int = 1
    rate: float | None = None
    ttft: float | None = None
    tpot: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A closed loop: each of ``streams`` users sends its next request when its last one is answered.

    With a schedule it is an open loop instead: each request is sent when it is due, whatever the server does.

    Attributes:
        name: What is measured; unique within a plan.
        streams: How many requests are in flight at any time, until none are left to send; 1 for an open loop.
        requests: What to send, in this order.
        temperature: Of sampling.
        request_timeout_s: After which a request has failed, from sending to its last byte.
        max_failures: More failures than this among these requests end the stage: its numbers cannot be used any more.
        rule: When a stage that lasts has measured enough: its users continue with fresh requests until then. ``None``
            for one that sends just these requests.
        max_failed_share: As many more failures are allowed, as a share of the fresh requests.
        silence_timeout_s: A request to which nothing has come for so long has failed.
        due_ms: Of an open loop, when to send each request, in ascending milliseconds since the stage began.
    """

    name: str
    streams: int
    requests: tuple[Request, ...]
    temperature: float
    request_timeout_s: float
    max_failures: float
    rule: StopRule | None = None
    max_failed_share: float = 0.0
    silence_timeout_s: float = 300.0
    due_ms: tuple[float, ...] = ()

    def request(self, index: int) -> Request:
        """What to send as the ``index``-th request: past the last one they begin again, each with a fresh prompt."""
        lap, place = divmod(index, len(self.requests))
        given = self.requests[place]
        return given.again(f"{lap}") if lap else given

    def afresh(self, turn: int) -> "Stage":
        """The same load with prompts of its own for each turn; turn 0 is the stage itself."""
        return replace(self, requests=tuple(each.again(f"turn{turn}") for each in self.requests)) if turn else self


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """One line on the worker's standard input: a stage and where to send it.

    Attributes:
        stage: What to send.
        url: The server's base URL.
        headers: Of every request.
        model: The name to ask for.
        ticks: Whether somebody wants to hear meanwhile how many requests have been answered.
        counts: As ``Target`` has them.
    """

    stage: Stage
    url: str
    headers: dict[str, str]
    model: str
    ticks: bool = False
    counts: tuple[float, ...] = ()


def command(raw: dict[str, Any]) -> WorkerCommand:
    """A command out of the JSON that ``tuner.load.records.encode`` made of it."""
    stage = raw["stage"]
    requests, rule = tuple(map(_request, stage["requests"])), stage["rule"] and StopRule(**stage["rule"])
    made = Stage(**{**stage, "requests": requests, "rule": rule, "due_ms": tuple(stage["due_ms"])})
    return WorkerCommand(made, raw["url"], raw["headers"], raw["model"], raw["ticks"], tuple(raw["counts"]))


def _request(raw: dict[str, Any]) -> Request:
    system, prefix = raw["system"] and Segment(**raw["system"]), tuple(Segment(**each) for each in raw["prefix"])
    return Request(**{**raw, "system": system, "prefix": prefix, "endpoint": Endpoint(raw["endpoint"])})
