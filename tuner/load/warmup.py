"""Requests that are never measured: they take the stalls that a fresh server has for its first users.

vLLM compiles kernels just in time when it first meets a batch shape, also after its own start-up and with CUDA graphs
captured; on an H100 the first benchmark after a start reads 1398 output tokens/s and the second 3847. Each long prompt
is sent once, alone; short ones are repeated at the workload's concurrency until their TTFT has settled and the server
compiles no more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from statistics import median

from pydantic import BaseModel, ConfigDict

from tuner.errors import MeasurementError
from tuner.load.client import LoadClient, undisturbed
from tuner.load.plan import Room, Skipped, tool_call
from tuner.load.prompts import WORDS, TokenCalibration, calibrate
from tuner.load.records import StageResult
from tuner.load.refusals import unusable
from tuner.load.requests import prompts, stage
from tuner.load.stage import Request
from tuner.load.target import Target
from tuner.load.workload import Workload

_OUTPUT_TOKENS = 16
_SHORT_TOKENS = 2000
_LENGTHS_PER_DECADE = 2


class WarmUp(BaseModel):
    """How a server was warmed up. Times are wall time."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    calibration: TokenCalibration
    """How its tokenizer counts our words: what ``plan`` needs."""
    prompts: str = "random words"
    """What prompts were made of, with the reason where it is not what was asked for."""
    rounds: int
    """Rounds of short prompts."""
    requests: int
    """Requests sent in all."""
    settled: bool
    """Whether TTFT had settled, and no kernel was compiled any more, before ``max_rounds``."""
    first_request_ttft_ms: float | None
    """What the first user after this start would have waited."""
    ttft_ms_first: float | None
    """Median TTFT of the first round."""
    ttft_ms_last: float | None
    """Median TTFT of the last round."""
    duration_s: float
    """How long it took."""
    skipped: tuple[Skipped, ...]
    """Prompt lengths that did not fit."""


def warm_up(
    client: LoadClient,
    target: Target,
    workload: Workload,
    *,
    context_tokens: int | None,
    kv_tokens: int | None,
    seed: int,
    watch: Callable[[], None],
    disturbed: Callable[[], str | None] = undisturbed,
    prompts: str = "random words",
) -> WarmUp:
    """Warm a server up.

    Args:
        client: Sends the load.
        target: The server.
        workload: Whose lengths and concurrency matter.
        context_tokens: The server's ``max_model_len``; ``None`` if unknown.
        kv_tokens: The capacity of its KV cache; ``None`` if unknown.
        seed: Its prompts share no prefix with those that ``plan`` makes of the same seed.
        watch: As in ``LoadClient.run``.
        disturbed: As in ``LoadClient.run_all``: a round that was disturbed is not the last.
        prompts: What they are made of, in words; the target's ``counts`` decide.

    Raises:
        MeasurementError: More requests failed than the workload allows, or the token counts make no sense.
        RequestsRefused: The server refuses them all.
    """
    warming = _WarmingUp(client, target, workload, f"{seed}/warm_up", watch, disturbed)
    return warming.run(Room(context_tokens, kv_tokens)).model_copy(update={"prompts": prompts})


def lengths(workload: Workload, room: Room) -> tuple[tuple[int, ...], tuple[Skipped, ...]]:
    """Prompt lengths to warm up with: geometric steps between the limits, and what will be measured.

    Returns:
        Those that fit, ascending, and those that do not.
    """
    wanted = {
        *_steps(workload.warm_up.shortest_tokens, workload.warm_up.longest_tokens),
        *(workload.typical[0], workload.longest[0], workload.single_user.prompt_tokens, *workload.ttft_prompt_tokens),
    }
    reasons = {length: room.objection(length, _OUTPUT_TOKENS) for length in sorted(wanted)}
    skipped = tuple(Skipped(f"warm_up_{length}", reason) for length, reason in reasons.items() if reason)
    return tuple(length for length, reason in reasons.items() if not reason), skipped


def _steps(shortest: int, longest: int) -> set[int]:
    steps, length = {longest}, float(shortest)
    while length < longest:
        steps.add(round(length))
        length *= 10 ** (1 / _LENGTHS_PER_DECADE)
    return steps


@dataclass(slots=True)
class _WarmingUp:
    client: LoadClient
    target: Target
    workload: Workload
    seed: str
    watch: Callable[[], None]
    disturbed: Callable[[], str | None]
    sent: int = 0
    disturbed_by: str | None = None

    def run(self, room: Room) -> WarmUp:
        start_ns = time.perf_counter_ns()
        first_ms, calibration = self._calibrate()
        fitting, skipped = lengths(self.workload, room)
        self._alone(fitting, calibration)
        medians = self._rounds(fitting, calibration)
        return WarmUp(
            calibration=calibration,
            rounds=len(medians),
            requests=self.sent,
            settled=self._settled(medians),
            first_request_ttft_ms=first_ms,
            ttft_ms_first=medians[0] if medians else None,
            ttft_ms_last=medians[-1] if medians else None,
            duration_s=(time.perf_counter_ns() - start_ns) / 1e9,
            skipped=skipped,
        )

    def _calibrate(self) -> tuple[float | None, TokenCalibration]:
        sizes = (len(WORDS), 2 * len(WORDS))
        requests = tuple(Request(f"{self.seed}/calibration/{n}", n, None, _OUTPUT_TOKENS) for n in sizes)
        one, two = self._send("calibration", requests).records
        try:
            counted = calibrate(one.prompt_tokens or 0, two.prompt_tokens or 0)
            return one.ttft_ms, counted.in_tokens() if self.target.counts else counted
        except ValueError as error:
            raise MeasurementError(f"{sizes[0]} and {sizes[1]} words gave {error}: no tokenizer counts so") from None

    def _alone(self, fitting: tuple[int, ...], calibration: TokenCalibration) -> None:
        """Each long prompt once, one at a time, and a tool call if one will be measured."""
        long = [length for length in fitting if not self._is_short(length)]
        if long:
            self._send("long", prompts(f"{self.seed}/long", long, _OUTPUT_TOKENS, calibration))
        if self.workload.tool_call:  # whether the server can is for the measurement to say
            self._send("tool_call", (tool_call(f"{self.seed}/tool_call"),), max_failures=1)

    def _rounds(self, fitting: tuple[int, ...], calibration: TokenCalibration) -> list[float]:
        """The median TTFT of each round of short prompts."""
        short = [length for length in fitting if self._is_short(length)] * self.workload.users
        allowed = floor(self.workload.max_failed_share * len(short))
        medians: list[float] = []
        while short and len(medians) < self.workload.warm_up.max_rounds and not self._settled(medians):
            name = f"round_{len(medians)}"
            requests = prompts(f"{self.seed}/{name}", short, _OUTPUT_TOKENS, calibration)
            self.disturbed()  # what came before is not this round's
            result = self._send(name, requests, streams=self.workload.users, max_failures=allowed)
            self.disturbed_by = self.disturbed()
            medians.append(_median_ttft_ms(result))
        return medians

    def _is_short(self, length: int) -> bool:
        return length <= _SHORT_TOKENS or length == self.workload.typical[0]

    def _settled(self, medians: list[float]) -> bool:
        if len(medians) < 2 or self.disturbed_by:
            return False
        before, last = medians[-2:]
        return abs(last - before) <= self.workload.warm_up.settle_tolerance * before

    def _send(
        self, name: str, requests: tuple[Request, ...], *, streams: int = 1, max_failures: int = 0
    ) -> StageResult:
        sent = stage(self.workload, f"warm_up_{name}", requests, streams=streams, max_failures=max_failures)
        result = self.client.run(sent, self.target, self.watch)
        self.sent += len(result.records)
        failures = [record.failure for record in result.records if record.failure is not None]
        if len(failures) > max_failures:
            share = f"{len(failures)} of {len(result.records)} requests failed in {sent.name}"
            raise unusable(share, failures, max_failures)
        return result


def _median_ttft_ms(result: StageResult) -> float:
    return median(record.ttft_ms or record.duration_ms for record in result.records if record.completed)
