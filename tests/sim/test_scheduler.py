"""Continuous batching: what must hold in every step, whatever the workload."""

import random
from collections.abc import Sequence

import pytest

from tests.sim.conftest import Configure
from tuner.sim import memory
from tuner.sim.memory import MemoryPlan
from tuner.sim.scheduler import Request, Scheduler

SMALL = "--max-model-len 512 --max-num-seqs 6 --max-num-batched-tokens 64"


def scheduler(configure: Configure, blocks: int, arguments: str = "") -> Scheduler:
    settings = configure(f"{SMALL} --num-gpu-blocks-override {blocks} {arguments}", model="tiny", gpus=1)
    plan = memory.plan(settings)
    assert isinstance(plan, MemoryPlan)
    return Scheduler(settings, plan)


def hashes(name: str, tokens: int, block: int = 16) -> list[int]:
    return [hash((name, index)) for index in range(tokens // block)]


def requests(seed: int, count: int) -> list[Request]:
    chance = random.Random(seed)
    made = []
    for index in range(count):
        prompt, output = chance.randrange(1, 300), chance.randrange(1, 200)
        shared = hashes("system", min(prompt, 96))
        own = [hash((index, position)) for position in range(len(shared), prompt // 16)]
        made.append(Request(prompt, output, [*shared, *own]))
    return made


def run(engine: Scheduler, arriving: Sequence[Request], every: int = 3) -> dict[int, int]:
    """Run to the end, one request arriving every few steps; tokens emitted by request, and invariants on the way."""
    settings, emitted = engine.settings, dict.fromkeys(map(id, arriving), 0)
    waiting = list(arriving)
    steps = 0
    while waiting or engine.busy:
        if waiting and steps % every == 0:
            engine.add(waiting.pop(0))
        steps += 1
        assert steps < 20_000, "starved"
        batch = engine.schedule()
        if batch is None:
            continue
        assert batch.shape.tokens == sum(tokens for _, tokens in batch.work) <= settings.max_num_batched_tokens
        assert len(engine.running) <= settings.max_num_seqs
        assert 0 <= engine.pool.used <= engine.pool.blocks
        assert engine.pool.used + engine.pool.cached <= engine.pool.blocks
        for request, tokens in batch.work:
            assert tokens > 0
            assert request.blocks * settings.block_size >= request.computed + tokens
        for request in engine.commit(batch):
            emitted[id(request)] += 1
    return emitted


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("blocks", [34, 60, 1000])
@pytest.mark.parametrize("arguments", ["", "--no-enable-prefix-caching", "--long-prefill-token-threshold 20"])
def test_every_request_gets_exactly_its_tokens_and_the_cache_is_never_overdrawn(
    configure: Configure, seed: int, blocks: int, arguments: str
) -> None:
    engine = scheduler(configure, blocks, arguments)
    arriving = requests(seed, 25)
    emitted = run(engine, arriving)
    assert [emitted[id(request)] for request in arriving] == [request.output_tokens for request in arriving]
    assert engine.counters.finished == len(arriving)
    assert engine.counters.generated == sum(request.output_tokens for request in arriving)
    assert engine.counters.prompt == sum(request.prompt_tokens for request in arriving)
    assert engine.pool.used == 0


def test_a_small_cache_preempts_and_a_large_one_does_not(configure: Configure) -> None:
    small, large = scheduler(configure, 34), scheduler(configure, 1000)
    run(small, requests(0, 25))
    run(large, requests(0, 25))
    assert small.counters.preemptions > 0
    assert large.counters.preemptions == 0


def test_a_prompt_sent_twice_is_computed_once(configure: Configure) -> None:
    engine = scheduler(configure, 1000)
    run(engine, [Request(200, 3, hashes("a", 200)), Request(200, 3, hashes("a", 200))], every=20)
    assert engine.counters.prefix_hits == 192
    assert engine.counters.prefix_queries == 400


def test_a_fully_cached_prompt_still_computes_its_last_block(configure: Configure) -> None:
    engine = scheduler(configure, 1000)
    second = Request(192, 1, hashes("a", 192))
    run(engine, [Request(192, 1, hashes("a", 192)), second], every=20)
    assert second.cached == 176


def test_without_prefix_caching_nothing_is_hit(configure: Configure) -> None:
    engine = scheduler(configure, 1000, "--no-enable-prefix-caching")
    run(engine, [Request(200, 3, hashes("a", 200)), Request(200, 3, hashes("a", 200))], every=20)
    assert engine.counters.prefix_hits == 0


def test_what_was_used_longest_ago_is_evicted_first(configure: Configure) -> None:
    engine = scheduler(configure, 34)
    names = ("a", "b", "c", "b", "a")
    sent = [Request(240, 1, hashes(name, 240)) for name in names]
    run(engine, sent, every=40)
    cached = [request.cached or 0 for request in sent]
    assert cached[:4] == [0, 0, 0, 224]
    assert cached[4] < 64, "c took the blocks of a, from the end of the prompt on"


def test_a_long_prompt_is_computed_in_chunks_beside_running_decodes(configure: Configure) -> None:
    engine = scheduler(configure, 1000)
    engine.add(Request(10, 50))
    first = engine.schedule()
    assert first is not None
    engine.commit(first)
    engine.add(Request(300, 5))
    sizes = []
    for _ in range(5):
        batch = engine.schedule()
        assert batch is not None
        sizes.append((batch.shape.decodes, batch.shape.prefill_tokens))
        engine.commit(batch)
    assert sizes == [(1, 63), (1, 63), (1, 63), (1, 63), (1, 48)]


def test_more_requests_than_sequences_queue_in_order(configure: Configure) -> None:
    engine = scheduler(configure, 1000)
    sent = [Request(8, 4) for _ in range(9)]
    for request in sent:
        engine.add(request)
    batch = engine.schedule()
    assert batch is not None
    assert engine.running == sent[:6]
    assert list(engine.waiting) == sent[6:]


def test_an_aborted_request_gives_its_blocks_back(configure: Configure) -> None:
    engine = scheduler(configure, 1000)
    running, waiting = Request(100, 50), Request(100, 50)
    engine.add(running)
    batch = engine.schedule()
    assert batch is not None
    engine.commit(batch)
    engine.add(waiting)
    engine.abort(waiting)
    engine.abort(running)
    assert (engine.busy, engine.pool.used) == (False, 0)
