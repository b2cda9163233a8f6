"""Continuous batching as vLLM's V1 scheduler does it: pure, without time and without sleeping.

Each step has a budget of tokens. Running requests come first: a decode needs one token, a prompt as many as are left
(chunked prefill). Then waiting requests are admitted in order of arrival while sequences, budget and KV blocks last,
starting behind the part of their prompt that is cached. When a running request finds no block, the newest one is
preempted and computed again later.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.sim.kv import BlockPool
from tuner.sim.memory import MemoryPlan
from tuner.sim.roofline import StepShape
from tuner.sim.settings import Settings


@dataclass(slots=True, eq=False)
class Request:
    """One request and how far it has come.

    Attributes:
        prompt_tokens: Length of the prompt.
        output_tokens: Tokens it will generate.
        hashes: Content hash of every full block of the prompt; each includes all before it.
        computed: Tokens whose keys and values are in the cache.
        generated: Tokens generated so far.
        cached: Tokens of the prompt that were in the cache when it was first scheduled; ``None`` before.
        preemptions: How often it was preempted.
        tag: The caller's own; the scheduler never looks at it.
    """

    prompt_tokens: int
    output_tokens: int
    hashes: Sequence[int] = ()
    computed: int = 0
    generated: int = 0
    cached: int | None = None
    preemptions: int = 0
    tag: object = None
    published: list[int] = field(default_factory=list)
    anonymous: int = 0

    @property
    def tokens(self) -> int:
        """Tokens known so far: the prompt and what was generated."""
        return self.prompt_tokens + self.generated

    @property
    def finished(self) -> bool:
        """Whether it has generated all its tokens."""
        return self.generated >= self.output_tokens

    @property
    def blocks(self) -> int:
        """KV blocks that it holds."""
        return len(self.published) + self.anonymous


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work.

    Attributes:
        work: Requests with the number of tokens to compute for each.
        shape: The same, as the roofline wants it.
        repeat: How many times the step can be taken before anything but token counts changes; 1 unless all decode.
    """

    work: tuple[tuple[Request, int], ...]
    shape: StepShape
    repeat: int


@dataclass(slots=True)
class Counters:
    """What the scheduler has done since it was made; tokens, but for ``preemptions`` and ``finished``."""

    prompt: int = 0
    generated: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    finished: int = 0


class SchedulerConfig:
    """The part of vLLM's configuration of this name that a scheduler reads at each step.

    Args:
        settings: The engine's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_num_batched_tokens = settings.max_num_batched_tokens
        self.long_prefill_token_threshold = settings.long_prefill_token_threshold


class Scheduler:
    """Requests in, batches out. What vLLM's scheduler reads at each step has its name here.

    Args:
        settings: The engine's configuration.
        plan: Its memory.
    """

    def __init__(self, settings: Settings, plan: MemoryPlan) -> None:
        self.settings = settings
        self.pool = BlockPool(plan.num_blocks, caching=settings.enable_prefix_caching)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.counters = Counters()
        self.scheduler_config = SchedulerConfig(settings)
        self.max_model_len = settings.max_model_len
        self.max_num_running_reqs = settings.max_num_seqs
        self.max_num_scheduled_tokens = settings.max_num_batched_tokens
        if settings.site.version.at_least(0, 31):
            self.max_num_active_reqs = settings.max_num_seqs
        self._block = settings.block_size

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.running or self.waiting)

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def abort(self, request: Request) -> None:
        """Drop a request, wherever it is."""
        if request in self.running:
            self.running.remove(request)
            self._free(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def preempt_newest(self) -> None:
        """Take the newest running request's blocks, as when there are none left; the last one keeps its own."""
        if len(self.running) > 1:
            self._preempt(self.running.pop())

    def schedule(self) -> Batch | None:
        """What the next step computes; ``None`` when there is nothing to do.

        KV blocks are taken here; ``commit`` must follow before the next call.
        """
        preemptions = self.counters.preemptions
        work, budget = self._continue_running()
        if self.counters.preemptions == preemptions:
            self._admit(work, budget)
        assert len(self.running) <= self.max_num_running_reqs  # as vLLM asserts it, and dies of it
        if not work:
            return None
        shape = _shape(work)
        return Batch(tuple(work), shape, 1 if shape.prefills else self._repeat(work))

    def commit(self, batch: Batch, steps: int = 1) -> list[Request]:
        """Account for a batch that ran; gives back the requests that got tokens.

        Args:
            batch: What ``schedule`` gave.
            steps: How many times it ran; at most ``batch.repeat``. Each emitting request got that many tokens.
        """
        emitted: list[Request] = []
        for request, tokens in batch.work:
            request.computed += tokens
            if request.computed < request.tokens:
                continue
            if steps > 1:
                self._take(request, request.computed + steps - 1)
                request.computed += steps - 1
            request.generated += steps
            emitted.append(request)
        self.counters.generated += steps * len(emitted)
        for request in emitted:
            if request.finished:
                self._finish(request)
        return emitted

    def _continue_running(self) -> tuple[list[tuple[Request, int]], int]:
        budget = self.max_num_scheduled_tokens
        work: list[tuple[Request, int]] = []
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            tokens = min(request.tokens - request.computed, budget, self._chunk)
            if not self._make_room(request, tokens):
                break
            work.append((request, tokens))
            budget -= tokens
            index += 1
        return work, budget

    def _make_room(self, request: Request, tokens: int) -> bool:
        """Take the blocks that a running request needs, at the cost of the newest ones; whether it may run."""
        while not self._take(request, request.computed + tokens):
            newest = self.running.pop()
            self._preempt(newest)
            if newest is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self._free(request)
        request.computed = 0
        request.preemptions += 1
        self.counters.preemptions += 1
        self.waiting.appendleft(request)

    def _admit(self, work: list[tuple[Request, int]], budget: int) -> None:
        while self.waiting and budget > 0 and not self._full:
            request = self.waiting[0]
            tokens = self._start(request, budget)
            if tokens == 0:
                return
            self.waiting.popleft()
            self.running.append(request)
            work.append((request, tokens))
            budget -= tokens

    @property
    def _full(self) -> bool:
        """As vLLM asks it: before 0.31 only whether the two are equal."""
        running = len(self.running)
        most: int | None = getattr(self, "max_num_active_reqs", None)
        return running == self.max_num_running_reqs if most is None else running >= most

    @property
    def _chunk(self) -> int:
        return self.scheduler_config.long_prefill_token_threshold or self.max_num_scheduled_tokens

    def _start(self, request: Request, budget: int) -> int:
        """Give a waiting request its cached blocks and fresh ones; how many tokens it computes, 0 if it must wait."""
        hits = self.pool.match(request.hashes, (request.tokens - 1) // self._block)
        wanted = request.tokens - hits * self._block
        if wanted > budget and not self.settings.enable_chunked_prefill:
            return 0
        tokens = min(wanted, budget, self._chunk)
        shared = request.hashes[:hits]
        needed = -(-(hits * self._block + tokens) // self._block) - hits
        if needed + self.pool.idle_among(shared) > self.pool.available:
            return 0
        self._record_admission(request, hits * self._block)
        self.pool.share(shared)
        request.published = list(shared)
        request.computed = hits * self._block
        self._take(request, request.computed + tokens)
        return tokens

    def _record_admission(self, request: Request, hits: int) -> None:
        if request.cached is not None:
            return
        request.cached = hits
        self.counters.prompt += request.prompt_tokens
        self.counters.prefix_queries += request.prompt_tokens
        self.counters.prefix_hits += hits

    def _take(self, request: Request, tokens: int) -> bool:
        """Have blocks for the first ``tokens`` tokens of a request; whether they could be had."""
        needed = -(-tokens // self._block) - request.blocks
        if needed > 0:
            if needed > self.pool.available:
                return False
            self.pool.take(needed)
            request.anonymous += needed
        full = min(tokens // self._block, len(request.hashes))
        known = request.computed // self._block
        if full > known:
            fresh = self.pool.publish(request.hashes[known:full])
            request.published += fresh
            request.anonymous -= len(fresh)
        return True

    def _free(self, request: Request) -> None:
        self.pool.release(request.published, request.anonymous)
        request.published, request.anonymous = [], 0

    def _finish(self, request: Request) -> None:
        self.running.remove(request)
        self._free(request)
        self.counters.finished += 1

    def _repeat(self, work: Sequence[tuple[Request, int]]) -> int:
        steps = min(request.output_tokens - request.generated for request, _ in work)
        block = self._block
        needed = sum(-(-(request.computed + steps) // block) - request.blocks for request, _ in work)
        return steps if needed <= self.pool.available else 1


def _shape(work: Sequence[tuple[Request, int]]) -> StepShape:
    decodes = decode_context = prefill_tokens = pairs = context = 0
    for request, tokens in work:
        if tokens == 1 and request.generated:
            decodes += 1
            decode_context += request.computed
        else:
            prefill_tokens += tokens
            pairs += tokens * (2 * request.computed + tokens)
            context += request.computed
    return StepShape(decodes, decode_context, prefill_tokens, len(work) - decodes, pairs / 2, context)
