"""Asks a server all questions, some at a time, each streamed as clients have it."""

import asyncio
from collections.abc import Callable, Sequence

import httpx

from tuner.load import sse
from tuner.load.target import Target
from tuner.quality.cases import Ask
from tuner.schema import Schema

_WITHIN_S = 300.0
_MOST_BYTES = 4 << 20
_KEPT = 64
"""Tokens of an answer whose log probabilities are kept: what drifts does so from the first one on."""


class Completion(Schema):
    """What came of one request."""

    name: str
    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments of each call, as text."""
    finish_reason: str | None = None
    error: str | None = None
    """Why there is no answer, or only a part of one."""
    tokens: tuple[sse.TokenScore, ...] = ()
    """The first ones with their log probabilities; none where they were not asked for or the server gives none."""


class Answers(Schema):
    """What a server was asked in one launch, and answered."""

    questions: str
    """Names them: ``Quality.digest``."""
    completions: tuple[Completion, ...]
    """In their order."""


def answers(
    asks: Sequence[Ask], target: Target, concurrency: int, answered: Callable[[int], None]
) -> tuple[Completion, ...]:
    """Ask everything.

    Args:
        asks: What.
        target: Whom.
        concurrency: Requests at a time.
        answered: Told how many have been answered, each time.

    Returns:
        An answer for each, in their order; what failed says why.
    """
    return asyncio.run(_all(asks, target, concurrency, answered))


async def _all(
    asks: Sequence[Ask], target: Target, concurrency: int, answered: Callable[[int], None]
) -> tuple[Completion, ...]:
    some, done = asyncio.Semaphore(concurrency), 0
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(verify=target.url.startswith("https:"), limits=limits, timeout=_WITHIN_S) as client:

        async def one(ask: Ask) -> Completion:
            nonlocal done
            async with some:
                answer = await _one(ask, target, client)
            answered(done := done + 1)
            return answer

        return tuple(await asyncio.gather(*map(one, asks)))


async def _one(ask: Ask, target: Target, client: httpx.AsyncClient) -> Completion:
    try:
        found = await _answer(ask, target, client, scored=ask.scored)
        if found.error and ask.scored:  # a server that gives no log probabilities may refuse who asks for them
            return await _answer(ask, target, client, scored=False)
        return found
    except (httpx.HTTPError, TimeoutError) as error:
        return Completion(name=ask.name, error=str(error) or type(error).__name__)


async def _answer(ask: Ask, target: Target, client: httpx.AsyncClient, *, scored: bool) -> Completion:
    """Raises what httpx raises where nothing answers, and TimeoutError."""
    data, url = b"", f"{target.url}{ask.endpoint.path}"
    body = ask.body(target.model, scored=scored)
    async with (
        asyncio.timeout(_WITHIN_S),
        client.stream("POST", url, headers=dict(target.headers), json=body) as reply,
    ):
        async for chunk in reply.aiter_bytes():
            data += chunk
            if len(data) > _MOST_BYTES:
                return Completion(name=ask.name, error=f"more than {_MOST_BYTES:,} bytes came")
    if reply.status_code != httpx.codes.OK:
        return Completion(name=ask.name, error=f"HTTP {reply.status_code}: {data[:200].decode('utf-8', 'replace')}")
    return _completion(ask.name, sse.said(data))


def _completion(name: str, said: sse.Said) -> Completion:
    return Completion(
        name=name,
        content=said.content,
        reasoning=said.reasoning,
        calls=tuple(said.calls.values()),
        finish_reason=said.finish_reason,
        error=said.error,
        tokens=tuple(said.tokens[:_KEPT]),
    )
