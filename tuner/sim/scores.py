"""Log probabilities of simulated tokens: made of the prompt alone, but for rounding, and for a drift on request."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from tuner.sim import tokens
from tuner.sim.replies import BadRequest, Kind, Reply
from tuner.sim.sinks import Envelope, event

MOST = 20
"""vLLM's default of ``--max-logprobs``."""
_ROUNDING_NATS = 0.004
_LEAST_NATS = 1e-4
_LIKELY, _UNLIKELY = 0.02, 1.5
"""Most tokens are nearly certain, and some are not: nats at either end."""


def asked(body: Mapping[str, Any], most: int) -> int | None:
    """How many alternatives a request wants the log probabilities of; ``None`` if it wants none at all.

    Raises:
        BadRequest: More than the server gives, or alternatives without the rest.
    """
    if "messages" in body:
        wanted = int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
        if wanted is None and body.get("top_logprobs"):
            raise BadRequest("when using `top_logprobs`, `logprobs` must be set to true.", parameter="top_logprobs")
    else:
        wanted = None if body.get("logprobs") is None else int(body["logprobs"])
    if wanted is not None and wanted > most:
        raise BadRequest(f"Requested sample logprobs of {wanted}, which is greater than max allowed: {most}")
    return wanted


@dataclass(frozen=True, slots=True)
class Score:
    """One token's.

    Attributes:
        token: Its text.
        logprob: Of it.
        next: The likeliest other.
        next_logprob: Of that.
    """

    token: str
    logprob: float
    next: str
    next_logprob: float

    def top(self, count: int) -> list[tuple[str, float]]:
        """The likeliest ones, this one first."""
        return [(self.token, self.logprob), (self.next, self.next_logprob)][:count]


class Scorer:
    """Scores the tokens of one answer, in order.

    Args:
        reply: The answer.
        drift_nats: By how much every one is off, up or down.
    """

    def __init__(self, reply: Reply, drift_nats: float) -> None:
        self._certain = random.Random(tokens.seed_of(reply.prompt))
        self._chance = random.Random()
        self._drift_nats = drift_nats

    def scored(self, text: str) -> Iterator[Score]:
        """The tokens of a piece of text."""
        for token in tokens.split(text):
            sound = -(_LIKELY + _UNLIKELY * self._certain.random() ** 4)
            other = tokens.WORDS[self._certain.randrange(len(tokens.WORDS))].decode()
            off = self._certain.choice((-1, 1)) * self._drift_nats + self._chance.gauss(0, _ROUNDING_NATS)
            logprob = min(-_LEAST_NATS, sound + off)
            rest = log(max(1e-6, 1 - exp(logprob))) - 0.5
            yield Score(token, logprob, other, min(logprob - _LEAST_NATS, rest))


class ScoredEnvelope(Envelope):
    """One that tells log probabilities: each chunk is made anew, which is why others do without.

    Args:
        model: As ``Envelope`` has it; likewise the next two.
        is_chat: Likewise.
        reasoning_fields: Likewise.
        scorer: Of the answer.
        top: How many alternatives are told.
    """

    def __init__(self, model: str, is_chat: bool, reasoning_fields: tuple[str, ...], scorer: Scorer, top: int) -> None:
        super().__init__(model, is_chat, reasoning_fields)
        self._scorer = scorer
        self._top = top

    def token(self, kind: Kind, text: str) -> bytes:
        """A chunk with more text."""
        return self._scored(kind, text, None)

    def last(self, kind: Kind, text: str, reason: str) -> bytes:
        """The chunk with the last text and the reason why it is the last."""
        return self._scored(kind, text, reason)

    def whole(self, reply: Reply, counts: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        body = super().whole(reply, counts)
        body["choices"][0]["logprobs"] = self._listed([text for _, text in reply.pieces()])
        return body

    def _scored(self, kind: Kind, text: str, reason: str | None) -> bytes:
        choice = self._choice(self._delta(kind, text), reason)
        return event(self._chunk([{**choice, "logprobs": self._listed([text])}]))

    def _listed(self, texts: Sequence[str]) -> dict[str, Any]:
        scores = [score for text in texts for score in self._scorer.scored(text)]
        if self.is_chat:
            return {"content": [self._of_chat(score) for score in scores]}
        return {
            "text_offset": list(range(0, tokens.CHARACTERS * len(scores), tokens.CHARACTERS)),
            "token_logprobs": [score.logprob for score in scores],
            "tokens": [score.token for score in scores],
            "top_logprobs": [dict(score.top(max(1, self._top))) for score in scores],
        }

    def _of_chat(self, score: Score) -> dict[str, Any]:
        top = [_named(token, logprob) for token, logprob in score.top(self._top)]
        return {**_named(score.token, score.logprob), "top_logprobs": top}


def _named(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
