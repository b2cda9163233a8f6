"""A measurement without a server: the scheduler and the roofline on a closed-loop workload, in no time.

What takes a server minutes takes milliseconds here: steps that only decode are taken many at a time.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from tuner.sim.backends import outcome
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.noise import QUIET, Noise, StepTimer
from tuner.sim.roofline import Roofline, StepShape, frontend_s
from tuner.sim.scheduler import Batch, Request, Scheduler
from tuner.sim.settings import Settings


@dataclass(frozen=True, slots=True)
class Job:
    """One request of a workload.

    Attributes:
        prompt: Its parts in order: what identifies the content, and how many tokens. Requests that begin with the
            same parts share a prefix.
        output_tokens: Tokens to generate.
    """

    prompt: tuple[tuple[str, int], ...]
    output_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Length of the whole prompt."""
        return sum(tokens for _, tokens in self.prompt)


@dataclass(frozen=True, slots=True)
class Served:
    """How one request went, in seconds of the simulated server.

    Attributes:
        stream: Which stream it belonged to.
        start_s: When the client sent it.
        ttft_s: Until its first token.
        latency_s: Until its last token.
        prompt_tokens: Length of the prompt.
        cached_tokens: How much of it was in the prefix cache.
        output_tokens: Tokens generated.
        preemptions: How often it was preempted.
    """

    stream: int
    start_s: float
    ttft_s: float
    latency_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    preemptions: int

    @property
    def tpot_s(self) -> float | None:
        """Mean time between its tokens; ``None`` with fewer than two."""
        return (self.latency_s - self.ttft_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole workload's result.

    Attributes:
        plan: The memory it ran in.
        served: Every request, in order of completion.
        duration_s: From the first request to the last token.
    """

    plan: MemoryPlan
    served: tuple[Served, ...]
    duration_s: float

    @property
    def output_tokens_per_s(self) -> float:
        """Generated tokens a second over the whole run."""
        return sum(request.output_tokens for request in self.served) / self.duration_s


def measure(
    settings: Settings,
    streams: Sequence[Sequence[Job]],
    *,
    seed: int = 0,
    launch_id: str = "",
    noise: Noise = QUIET,
    leap: bool = True,
) -> Outcome | StartupFailure:
    """What a warmed-up server with these settings does on a closed loop.

    Args:
        settings: The engine's configuration.
        streams: For each stream its requests, sent one after the other, each when the one before is complete.
        seed: The study's seed.
        launch_id: What tells this launch from others of the same seed; same seed and id repeat exactly.
        noise: How much chance.
        leap: Take steps that only decode many at a time; off, every step is taken by itself.

    Returns:
        The result, or why the server would not have started.
    """
    plan = outcome(settings)
    if isinstance(plan, StartupFailure):
        return plan
    timer = StepTimer(Roofline(settings), noise, seed, launch_id)
    return _Loop(settings, plan, timer, streams, leap).run()


@dataclass(slots=True)
class _Sent:
    """A request on its way: whose it is, when it was sent, when its first token came."""

    stream: int
    start_s: float
    first_s: float | None = None


class _Loop:
    def __init__(
        self, settings: Settings, plan: MemoryPlan, timer: StepTimer, streams: Sequence[Sequence[Job]], leap: bool
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.timer = timer
        self.scheduler = Scheduler(settings, plan)
        self.streams = [list(reversed(jobs)) for jobs in streams]
        self.leap = leap
        self.now = 0.0
        self.served: list[Served] = []
        self.arrivals: list[tuple[float, int, Request]] = []
        self.sent = 0

    def run(self) -> Outcome:
        for stream in range(len(self.streams)):
            self._send(stream)
        while self.arrivals or self.scheduler.busy:
            self._admit()
            batch = self.scheduler.schedule()
            assert batch is not None
            self._step(batch)
        return Outcome(self.plan, tuple(self.served), self.now)

    def _send(self, stream: int) -> None:
        if not self.streams[stream]:
            return
        job = self.streams[stream].pop()
        hashes = block_hashes(job.prompt, self.settings.block_size)
        request = Request(job.prompt_tokens, job.output_tokens, hashes, tag=_Sent(stream, self.now))
        ready = self.now + frontend_s(self.settings, job.prompt_tokens)
        self.sent += 1
        heapq.heappush(self.arrivals, (ready, self.sent, request))

    def _admit(self) -> None:
        if not self.scheduler.busy:
            self.now = max(self.now, self.arrivals[0][0])
        while self.arrivals and self.arrivals[0][0] <= self.now:
            self.scheduler.add(heapq.heappop(self.arrivals)[2])

    def _step(self, batch: Batch) -> None:
        steps = self._steps(batch) if self.leap and batch.repeat > 1 else 1
        self.now += self.timer.duration_s(_midway(batch.shape, steps), steps)
        for request in self.scheduler.commit(batch, steps):
            self._record(request)

    def _steps(self, batch: Batch) -> int:
        """How many steps fit before the next request arrives; it is scheduled after the step it arrives in."""
        if not self.arrivals:
            return batch.repeat
        step_s = self.timer.roofline.step_s(batch.shape)
        return max(1, min(batch.repeat, -int(-(self.arrivals[0][0] - self.now) // step_s)))

    def _record(self, request: Request) -> None:
        sent = request.tag
        assert isinstance(sent, _Sent)
        if sent.first_s is None:
            sent.first_s = self.now
        if not request.finished:
            return
        self.served.append(
            Served(
                stream=sent.stream,
                start_s=sent.start_s,
                ttft_s=sent.first_s - sent.start_s,
                latency_s=self.now - sent.start_s,
                prompt_tokens=request.prompt_tokens,
                cached_tokens=request.cached or 0,
                output_tokens=request.generated,
                preemptions=request.preemptions,
            )
        )
        self._send(sent.stream)


def _midway(shape: StepShape, steps: int) -> StepShape:
    """The middle one of ``steps`` decode steps: time grows linearly with the context."""
    if steps == 1:
        return shape
    context = shape.decode_context + shape.decodes * (steps - 1) / 2
    return StepShape(decodes=shape.decodes, decode_context=context)


@lru_cache(maxsize=4096)
def block_hashes(prompt: tuple[tuple[str, int], ...], block_size: int) -> tuple[int, ...]:
    """Content hashes of a prompt's full blocks; equal between prompts as far as all before is equal."""
    starts = list(accumulate((tokens for _, tokens in prompt), initial=0))
    hashes: list[int] = []
    chain, part = 0, 0
    for end in range(block_size, starts[-1] + 1, block_size):
        while starts[part + 1] <= end - block_size:
            part += 1
        last = part
        while starts[last + 1] < end:
            last += 1
        inside = tuple((prompt[index][0], starts[index] - end) for index in range(part, last + 1))
        chain = hash((chain, inside))
        hashes.append(chain)
    return tuple(hashes)
