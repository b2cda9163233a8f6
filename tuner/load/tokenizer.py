"""The server's own tokenizer, asked what each piece of the corpus counts: once for a model, before any clock starts.

vLLM and SGLang take ``{"model", "prompt"}`` at ``/tokenize`` and answer with a ``count``, llama.cpp takes
``{"content"}`` and answers with the tokens. A piece is counted eight times over behind another one: what a tokenizer
puts in front of a text, and what it rounds, is then not the piece's.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import httpx

from tuner.fetch import client_for, fetch
from tuner.load.prose import texts
from tuner.load.target import Target

_PATH = "/tokenize"
_REPEATS = 8
_EACH = 32
_WITHIN_S = 10.0
_PATIENCE_S = 60.0
_counted: dict[tuple[str, int], tuple[float, ...]] = {}
"""What was learnt of a model's tokenizer: the launches of a study have the same. The second part of the key is the
count of a part of the corpus, by which another tokenizer of that name is told apart; the whole is longer than some
contexts."""


class Wording(NamedTuple):
    """What prompts are made of.

    Attributes:
        counts: As ``Target`` has them.
        prompts: In words, with the reason where they are not what was asked for.
    """

    counts: tuple[float, ...]
    prompts: str


def wording(asked: Literal["text", "words"], target: Target, watch: Callable[[], None]) -> Wording:
    """Natural text if it was asked for and the server tells how it counts, otherwise random words.

    Args:
        asked: As the workload has it.
        target: The server.
        watch: Called every now and then; whatever it raises is passed on.
    """
    if asked == "words":
        return Wording((), "random words")
    try:
        with client_for(target.url) as client:
            return Wording(_counts(_Tokenizer(client, target, watch)), "natural text")
    except (httpx.HTTPError, _Useless) as error:
        return Wording((), f"random words, since {_PATH} {error or type(error).__name__}")


class _Useless(Exception):
    """The server does not say how it counts."""


class _Tokenizer:
    """One server's endpoint.

    Args:
        client: For all that it is asked.
        target: The server.
        watch: As in ``wording``.
    """

    def __init__(self, client: httpx.Client, target: Target, watch: Callable[[], None]) -> None:
        self.target = target
        self._client = client
        self._watch = watch
        self._deadline_s = time.monotonic() + _PATIENCE_S
        self._has_content = "count" not in self._answer({"model": target.model, "prompt": texts()[0]})

    def count(self, text: str) -> int:
        """Tokens of a text, with what the tokenizer puts in front of any."""
        answer = self._answer({"content": text} if self._has_content else {"model": self.target.model, "prompt": text})
        tokens = answer.get("tokens")
        counted = answer.get("count", len(tokens) if isinstance(tokens, list) else 0)
        if not isinstance(counted, int) or counted < 1:
            raise _Useless(f"counts {counted!r} tokens in {len(text)} characters")
        return counted

    def _answer(self, body: Mapping[str, str]) -> Mapping[str, Any]:
        self._watch()
        if time.monotonic() > self._deadline_s:
            raise _Useless(f"takes more than {_PATIENCE_S:g} s for {len(texts())} texts")
        url, headers = f"{self.target.url}{_PATH}", self.target.headers
        reply = fetch(url, headers, within_s=_WITHIN_S, json_body=body, client=self._client)
        if reply.status != httpx.codes.OK:
            raise _Useless(f"answers {reply.status}")
        try:
            answer = reply.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _Useless("answers no JSON object")
        return answer


def _counts(tokenizer: _Tokenizer) -> tuple[float, ...]:
    """Tokens of each of ``texts()``."""
    key = tokenizer.target.model, tokenizer.count("".join(texts()[::_EACH]))
    if key not in _counted:
        front = texts()[0]
        begun = tokenizer.count(front)
        counts = tuple((tokenizer.count(front + text * _REPEATS) - begun) / _REPEATS for text in texts())
        if min(counts) <= 0:
            raise _Useless("counts a longer text as no longer")
        _counted[key] = counts
    return _counted[key]
