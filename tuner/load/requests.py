"""Requests and stages as a workload has them: its lengths, classes, shared prefixes and timeouts."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tuner.load import lengths
from tuner.load.prompts import TokenCalibration
from tuner.load.shapes import Prefix, RequestClass
from tuner.load.stage import Request, Segment, Stage
from tuner.load.workload import Workload

_OWN_WORDS = 8
"""What a prompt has of its own, although its prefix alone would be longer than all of it."""


def stage(
    workload: Workload, name: str, requests: tuple[Request, ...], *, streams: int = 1, max_failures: float = 0
) -> Stage:
    """A stage with the workload's endpoint, temperature and timeouts."""
    return Stage(
        name,
        streams,
        tuple(replace(request, endpoint=workload.endpoint) for request in requests),
        workload.temperature,
        workload.request_timeout_s,
        max_failures,
        max_failed_share=workload.max_failed_share,
        silence_timeout_s=workload.silence_timeout_s,
    )


def prompts(seed: str, lengths: list[int], output_tokens: int, calibration: TokenCalibration) -> tuple[Request, ...]:
    """Fresh prompts of these lengths in tokens, each with a seed of its own."""
    return tuple(
        Request(f"{seed}/{index}", calibration.words(length), length, output_tokens)
        for index, length in enumerate(lengths)
    )


def mixed(
    workload: Workload, count: int, *, seed: str, shape: str, calibration: TokenCalibration, held_out: bool
) -> tuple[Request, ...]:
    """Requests of the workload's classes.

    Args:
        workload: Whose classes they are.
        count: How many requests.
        seed: Of their texts: of this measurement.
        shape: Seeds all else: measurements that are compared send the same lengths in the same order.
        calibration: From the server's warm-up.
        held_out: Whether a file of lengths gives its held-out half.
    """
    order = lengths.spread([kind.weight for kind in workload.kinds], count, f"{shape}/classes")
    made = [
        _of_class(kind, order.count(place), f"{seed}/{place}", f"{shape}/{place}", calibration, held_out)
        for place, kind in enumerate(workload.kinds)
    ]
    return tuple(next(made[place]) for place in order)


def _of_class(
    kind: RequestClass, count: int, seed: str, shape: str, calibration: TokenCalibration, held_out: bool
) -> Iterator[Request]:
    prompt = lengths.draw(kind.prompt_tokens, count, f"{shape}/prompt", held_out=held_out)
    output = lengths.draw(kind.output_tokens, count, f"{shape}/output", held_out=held_out)
    shared = _prefixes(kind.prefix, count, seed, shape, calibration)
    for index, (asked, generated, prefix) in enumerate(zip(prompt, output, shared, strict=True)):
        words = calibration.words(asked)
        begun = tuple(replace(each, words=min(each.words, words - _OWN_WORDS)) for each in prefix if words > _OWN_WORDS)
        own = words - sum(each.words for each in begun)
        yield Request(f"{seed}/{index}", own, asked, max(2, generated), traffic=kind.name or None, prefix=begun)


def _prefixes(
    prefix: Prefix | None, count: int, seed: str, shape: str, calibration: TokenCalibration
) -> Sequence[tuple[Segment, ...]]:
    """The prefix of each request: a hit repeats one that an earlier request has brought."""
    if prefix is None or not count:
        return [()] * count
    rng, words = random.Random(f"{shape}/prefix"), max(1, round(prefix.tokens / calibration.tokens_per_word))
    misses = max(1, round(count * (1 - prefix.hit_rate)))
    new = {0, *rng.sample(range(1, count), misses - 1)}
    brought: list[Segment] = []
    found: list[tuple[Segment, ...]] = []
    for index in range(count):
        if index in new:
            brought.append(Segment(f"{seed}/prefix{len(brought)}", words))
        found.append((brought[-1] if index in new else rng.choice(brought),))
    return found
