"""What happened to every request: the evidence that all numbers are made of, one JSON line each on disk."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import ConfigError
from tuner.load.counters import EngineCounters
from tuner.load.stage import Request
from tuner.reading import opened


class FailureKind(StrEnum):
    """How a request failed."""

    HTTP = "http"
    """A status other than 200; the text is the body's beginning."""
    SSE_ERROR = "sse_error"
    """An error chunk inside an HTTP 200 stream: the engine died, or refused half-way."""
    CONNECTION = "connection"
    """Refused, reset, or closed before the stream was complete."""
    TIMEOUT = "timeout"
    """Not complete within the stage's ``request_timeout_s``."""
    TRUNCATED = "truncated"
    """The stream ended in order, but without a ``finish_reason``."""
    NO_USAGE = "no_usage"
    """The stream is complete but says no token counts, so it measures nothing."""
    MALFORMED = "malformed"
    """An event that is no chunk of an answer."""
    ENGINE_ABORT = "engine_abort"
    """``finish_reason`` says that the engine gave the request up."""
    ABANDONED = "abandoned"
    """Cut off by us, because too many others had failed."""
    FLOODED = "flooded"
    """Far more bytes came than the tokens that were asked for can take."""
    CUT = "cut"
    """Cut off by us, because the stage had measured enough: neither failed nor completed."""


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why a request counts as failed.

    Attributes:
        kind: What went wrong.
        text: The server's or the client's own words, without secrets.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    kind: FailureKind
    text: str


def describe(failures: Sequence[RequestFailure]) -> str:
    """Kinds and counts, and in its own words the first one that we did not cause."""
    kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(f.kind for f in failures).most_common())
    own = [failure for failure in failures if failure.kind is not FailureKind.ABANDONED]
    return f"{kinds}; the first: {own[0].text}" if own else kinds


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, as it was sent and answered. Times are milliseconds of wall time.

    Attributes:
        stage: Name of the stage.
        index: Its place in the stage, from 0.
        stream: Which of the stage's users sent it, from 0; in an open loop the lowest number that was free.
        request: What was asked.
        started_ms: When it was sent, since the stage began.
        duration_ms: From sending until its last byte, or until it failed.
        chunk_ms: When each chunk that carries tokens arrived, since it was sent. A server may put several tokens in
            one chunk. The role-only chunk that opens a stream and the usage chunk that closes it carry none.
        prompt_tokens: As the server counted; ``None`` if it did not say. Likewise the next two.
        cached_tokens: How many of them came out of the prefix cache (vLLM tells with --enable-prompt-tokens-details).
        output_tokens: Generated, reasoning and tool calls included.
        finish_reason: ``length``, ``stop``, ``tool_calls``.
        tool_called: Whether any part of a tool call came.
        status: HTTP status; ``None`` without a response.
        failure: Why it failed, or that it was cut off at the stage's end; ``None`` when it completed.
        characters: Length of the text that was streamed; ``None`` in records from before this was kept.
        hidden_tokens: Reasoning tokens that the server counted without streaming any.
        resent: Whether it was sent twice, since its first connection turned out to be closed.
        opened_ms: When the chunk arrived that opens a stream and carries only the role, which ``vllm bench serve``
            takes for the first token; ``None`` if there was none, and in records from before this was kept.
        scheduled_ms: When it was to be sent, since the stage began; ``None`` in a closed loop.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    stage: str
    index: int
    stream: int
    request: Request
    started_ms: float
    duration_ms: float
    chunk_ms: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    tool_called: bool = False
    status: int | None = None
    failure: RequestFailure | None = None
    characters: int | None = None
    hidden_tokens: int = 0
    resent: bool = False
    opened_ms: float | None = None
    scheduled_ms: float | None = None

    @property
    def completed(self) -> bool:
        """Whether it was answered in full."""
        return self.failure is None

    @property
    def cut(self) -> bool:
        """Whether it was cut off at the stage's end, which is no failure."""
        return self.failure is not None and self.failure.kind is FailureKind.CUT

    @property
    def failed(self) -> bool:
        """Whether something went wrong with it."""
        return self.failure is not None and not self.cut

    @property
    def ttft_ms(self) -> float | None:
        """Time to first token: from sending to the first delta with text in it (reasoning, content, tool call)."""
        return self.chunk_ms[0] if self.chunk_ms else None

    @property
    def e2e_ms(self) -> float | None:
        """End-to-end latency as vLLM's benchmark has it: from sending to the last chunk that carries tokens."""
        return self.chunk_ms[-1] if self.chunk_ms else None


@dataclass(frozen=True, slots=True)
class DisturbedStage:
    """A stage that was measured while the server was busy with itself, or others used the machine.

    Attributes:
        stage: Its name; one that was sent again is called ``concurrent, disturbed 1``.
        line: The log line that says so, or a sentence about the machine.
        counts: Whether its numbers are used all the same: it was the last turn. Else it was sent again.
        by_others: Whether others used the machine; else the server was busy with itself.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    stage: str
    line: str
    counts: bool
    by_others: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """The steady part of a stage, without its ramps; milliseconds of wall time since the stage began."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    start_ms: float
    end_ms: float

    def holds(self, at_ms: float) -> bool:
        """Whether a moment is within it."""
        return self.start_ms <= at_ms <= self.end_ms


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage as it ran.

    Attributes:
        stage: Its name.
        streams: How many users it had; of an open loop, how many requests were in flight on average.
        records: Every request that was sent, by index.
        wall_ms: From the first request's sending to the last one's end.
        client_cpu_share: The load worker's CPU time over ``wall_ms``; 1 is one core.
        loop_lag_p99_ms: How late the worker stamps what arrives at a random moment, 99th percentile: how wrong a
            time may be.
        loop_lag_max_ms: The worst of it.
        aborted: Whether it was ended early because too many requests had failed.
        disturbed: The log line, or the sentence about the machine, by which its numbers are not the server's usual
            ones; ``None`` if nothing speaks against them.
        superseded: Whether it was sent again for that, so that it counts for nothing; its records carry its name.
        window: Its steady part; ``None`` for a stage that sends a fixed number of requests, which counts as a whole.
        started_ns: When it began, on the clock of ``perf_counter_ns``, which all processes of a machine share.
        engine: What the server itself counted meanwhile; ``None`` if it does not tell.
        send_lag_p99_ms: How much later than scheduled requests were sent, 99th percentile; ``None`` in a closed loop.
        send_lag_max_ms: The worst of it.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    stage: str
    streams: int
    records: tuple[RequestRecord, ...]
    wall_ms: float
    client_cpu_share: float
    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    aborted: bool = False
    disturbed: str | None = None
    superseded: bool = False
    window: Window | None = None
    started_ns: int | None = None
    engine: EngineCounters | None = None
    send_lag_p99_ms: float | None = None
    send_lag_max_ms: float | None = None

    @property
    def sample(self) -> tuple[RequestRecord, ...]:
        """The completed requests that count: those sent inside the window."""
        window = self.window
        return tuple(r for r in self.records if r.completed and (window is None or window.holds(r.started_ms)))

    def set_aside(self, turn: int) -> "StageResult":
        """The same as evidence only, under a name that no stage has: ``concurrent, disturbed 1``."""
        return replace(self.renamed(f"{self.stage}, disturbed {turn}"), superseded=True)

    def renamed(self, name: str) -> "StageResult":
        """The same under another name, as its records have it."""
        return replace(self, stage=name, records=tuple(replace(record, stage=name) for record in self.records))


def encode(value: Any) -> str:
    """One line of JSON of any of this package's plain dataclasses."""
    return json.dumps(value, default=_fields, separators=(",", ":"), ensure_ascii=False)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def decode_result(line: str | bytes) -> StageResult:
    """The inverse of ``encode``.

    Raises:
        pydantic.ValidationError: A field is unknown, missing or of another type.
    """
    from pydantic import TypeAdapter  # not at the top: the load worker only encodes

    return TypeAdapter(StageResult).validate_json(line)


def dump_records(results: Iterable[StageResult]) -> Iterator[str]:
    """All requests of a measurement as JSON lines, each with its line end."""
    for result in results:
        for record in result.records:
            yield encode(record) + "\n"


def load_records(lines: Iterable[str | bytes]) -> Iterator[RequestRecord]:
    """The inverse of ``dump_records``.

    Raises:
        pydantic.ValidationError: As ``decode_result``.
    """
    from pydantic import TypeAdapter

    adapter = TypeAdapter(RequestRecord)
    return (adapter.validate_json(line) for line in lines if line.strip())


def read_records(path: Path) -> list[RequestRecord]:
    """All requests of a measurement's file.

    Raises:
        ConfigError: It is damaged: what can still be read of it would be numbers of something else.
        FileNotFoundError: It is not there.
    """
    from pydantic import ValidationError

    try:
        with opened(path) as lines:
            return list(load_records(lines))
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        fix = "restore it from a copy; the trial's own numbers are in its record"
        raise ConfigError(f"{path} is damaged: {said}", fix=fix) from error
