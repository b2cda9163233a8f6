"""Recorded traffic, sent again with its own arrivals: Mooncake's traces, access logs, and requests with their texts.

A trace line is ``{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}``: milliseconds,
tokens, and the content of each block of the prompt, so that prompts share what they shared. A request line has
``messages`` or ``prompt`` in place of the lengths; it is sent behind a few words that are new in each measurement,
since a server that has seen it would answer from its cache. Other forms are read as one of these
(``tuner.load.recorded``); where a log tells no lengths, they are the workload's.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, ValidationError, model_validator

from tuner.errors import ConfigError
from tuner.load import lengths, recorded
from tuner.load.prompts import TokenCalibration
from tuner.load.shapes import Length, Trace
from tuner.load.stage import Request, Segment
from tuner.reading import bytes_of

_FIX = (
    "a line is {timestamp, input_length, output_length, hash_ids}, {timestamp, messages, max_tokens} or {time, usage}"
)


class Line(BaseModel):
    """One recorded request; what else its line has is of no use here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timestamp: NonNegativeFloat
    input_length: PositiveInt | None = None
    output_length: PositiveInt | None = None
    hash_ids: tuple[int, ...] = ()
    messages: tuple[dict[str, Any], ...] = ()
    prompt: str | None = None
    max_tokens: PositiveInt | None = None
    lengthless: bool = False

    @model_validator(mode="after")
    def _asks(self) -> "Line":
        if not (self.input_length or self.messages or self.prompt or self.lengthless):
            raise ValueError("neither input_length nor messages nor prompt nor usage")
        return self

    @property
    def said(self) -> str:
        """The messages as JSON; empty where only their length was recorded."""
        spoken = self.messages or (({"role": "user", "content": self.prompt},) if self.prompt else ())
        return json.dumps(spoken) if spoken else ""


def half(trace: Trace, held_out: bool) -> tuple[Line, ...]:
    """The first half of a trace, which is for tuning, or its second one, which is for the proof.

    Raises:
        ConfigError: The file is no trace of two requests at least.
    """
    lines = _lines(trace.file)
    middle = (len(lines) + 1) // 2
    return (lines[middle:] if held_out else lines[:middle])[: trace.requests]


def due_ms(lines: Sequence[Line], speed: float) -> tuple[float, ...]:
    """When to send them, since the first one."""
    return tuple(round((line.timestamp - lines[0].timestamp) / speed, 3) for line in lines)


def measured(lines: Sequence[Line], prompt: Length, output: Length, shape: str, *, held_out: bool) -> tuple[Line, ...]:
    """The lines, with lengths of these distributions where their log tells none."""
    if not any(line.lengthless for line in lines):
        return tuple(lines)
    prompts = lengths.draw(prompt, len(lines), f"{shape}/prompt", held_out=held_out)
    outputs = lengths.draw(output, len(lines), f"{shape}/output", held_out=held_out)
    return tuple(
        line.model_copy(update={"input_length": asked, "output_length": generated})
        for line, asked, generated in zip(lines, prompts, outputs, strict=True)
    )


def replayed(
    lines: Iterable[Line], trace: Trace, *, seed: str, output_tokens: int, calibration: TokenCalibration
) -> tuple[Request, ...]:
    """The requests of a trace.

    Args:
        lines: Of it.
        trace: How it is to be read.
        seed: Of the texts that stand for recorded lengths: of this measurement.
        output_tokens: Where a line does not say how many were generated.
        calibration: From the server's warm-up.
    """
    return tuple(
        Request(seed, 0, None, _asked(line, output_tokens), said=line.said)
        if line.said
        else _of_length(line, trace, f"{seed}/{index}", f"{seed}/block", output_tokens, calibration)
        for index, line in enumerate(lines)
    )


def _asked(line: Line, output_tokens: int) -> int:
    return max(2, line.output_length or line.max_tokens or output_tokens)


def _of_length(
    line: Line, trace: Trace, own: str, block: str, output_tokens: int, calibration: TokenCalibration
) -> Request:
    """The last block is the prompt's own text: as long as what is left, and the same for the same content."""
    length = line.input_length or 1
    words = max(1, round(trace.block_tokens / calibration.tokens_per_word))
    prefix = tuple(Segment(f"{block}/{each}", words) for each in line.hash_ids[:-1])
    rest = max(1, calibration.words(length) - words * len(prefix))
    seed = f"{block}/{line.hash_ids[-1]}" if line.hash_ids else own
    return Request(seed, rest, length, _asked(line, output_tokens), prefix=prefix)


@lru_cache(maxsize=4)
def _lines(path: Path) -> tuple[Line, ...]:
    found = sorted(_parsed(path), key=lambda line: line.timestamp)
    if len(found) < 2:
        fix = "two are the fewest; a line is a trace's, a request, or an access log's with its moment"
        raise ConfigError(f"{path} has {len(found)} requests", place="workload.trace.file", fix=fix)
    return tuple(found)


def _parsed(path: Path) -> Iterable[Line]:
    try:
        text = bytes_of(path).decode("utf-8", "replace")
    except OSError as error:
        fix = "check the path"
        raise ConfigError(f"{path} cannot be read: {error.strerror}", place="workload.trace.file", fix=fix) from error
    if not text.lstrip().startswith("{"):
        yield from map(Line.model_validate, recorded.of_log(text))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and (fields := recorded.of_json(_object(line, f"{path}, line {number}"))) is not None:
            yield _line(fields, f"{path}, line {number}")


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: Invalid JSON: {error}", place="workload.trace.file", fix=_FIX) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: no JSON object", place="workload.trace.file", fix=_FIX)
    return raw


def _line(fields: Mapping[str, Any], where: str) -> Line:
    try:
        return Line.model_validate(fields)
    except ValidationError as error:
        what = error.errors(include_url=False)[0]
        said = ".".join(map(str, what["loc"])) or "the line"
        raise ConfigError(f"{where}: {said}: {what['msg']}", place="workload.trace.file", fix=_FIX) from error
