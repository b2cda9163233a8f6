"""One rule for the names of everything that is measured: ``ttft_ms.p95.prompt_30000.cold`` (docs/metrics.md).

A name is a quantity and, after dots and in any order, the percentile, the stage and the class of requests that it is
of. The names of earlier versions (``ttft_p50_ms``) are short for some of them, and it is they that records hold.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from math import ceil
from typing import Literal

from tuner.load.quantities import QUANTITIES, Quantity

Sending = Literal["cold", "cached"]

CONCURRENT = "concurrent"
SINGLE_USER = "single_user"
TOOL_CALL = "tool_call"
SATURATION = "saturation_requests_per_s"
START = "start"
"""No stage: what is read off the server's start."""

_BEYOND = 5
"""A sample carries a percentile if so many of its values lie beyond it: 100 for p95, 500 for p99. Medians need none."""


@dataclass(frozen=True, slots=True)
class MetricName:
    """A name, understood.

    Attributes:
        quantity: What is measured.
        percent: Which percentile.
        stage: The stage that measures it; ``START`` for none.
        sending: Of a long prompt: with nothing of it in the prefix cache, or all of it.
        traffic: Class of requests; ``None`` for all.
    """

    quantity: Quantity
    percent: float | None = None
    stage: str = CONCURRENT
    sending: Sending | None = None
    traffic: str | None = None

    @property
    def per_step(self) -> bool:
        """Whether its sample counts steps of the engine instead of requests."""
        return self.quantity.name == "itl_ms"

    @property
    def support(self) -> int:
        """The smallest sample that carries it."""
        return 1 if self.percent is None else support_of(self.percent)

    @property
    def prompt_tokens(self) -> int | None:
        """Length of the long prompt that it is of; ``None`` if it is of none."""
        return int(self.stage.removeprefix("ttft_")) if self.sending else None

    @property
    def rung(self) -> str | None:
        """The stage of a ladder, in front of the concurrent one, that it is of; ``None`` if of none."""
        return self.stage if _RUNG.fullmatch(self.stage) else None

    @property
    def median(self) -> str:
        """The name of the median in its place."""
        return replace(self, percent=50.0).text

    @property
    def text(self) -> str:
        """The one name of it: the short one where it has one, else its parts in order."""
        if self.sending and self.percent == 50 and self.quantity.name == "ttft_ms":
            return f"ttft_{self.prompt_tokens}_{self.sending}_ms"
        return _SHORT.get(self) or ".".join(self._parts())

    def _parts(self) -> Iterator[str]:
        yield self.quantity.name
        if self.percent is not None:
            yield f"p{self.percent:g}".replace(".", "_")
        if self.sending:
            yield from (f"prompt_{self.prompt_tokens}", self.sending)
        elif self.stage == SINGLE_USER and self.quantity.stages:
            yield "alone"
        elif self.rung:
            yield self.stage.replace(".", "_")
        if self.traffic is not None:
            yield f"class_{self.traffic}"

    def __str__(self) -> str:
        return self.text


_RUNG = re.compile(r"(users|agents|rate)_\d+(\.\d+)?")
_PERCENT = re.compile(r"p(\d{1,2})(?:_(\d+))?")
_LONG_PROMPT = re.compile(r"ttft_(\d+)_(cold|cached)_ms")
_OF_OLD = re.compile(r"(ttft|tpot|itl|e2e)_p(\d+)_ms")


def _of(quantity: str, percent: float | None = None, stage: str = CONCURRENT) -> MetricName:
    return MetricName(QUANTITIES[quantity], percent, stage)


SOURCES: Mapping[str, MetricName] = {
    "output_tokens_per_s": _of("output_tokens_per_s"),
    "requests_per_s": _of("requests_per_s"),
    "ttft_p50_ms": _of("ttft_ms", 50),
    "ttft_p95_ms": _of("ttft_ms", 95),
    "itl_p50_ms": _of("itl_ms", 50),
    "itl_p99_ms": _of("itl_ms", 99),
    "concurrent_tpot_p50_ms": _of("tpot_ms", 50),
    "e2e_p50_ms": _of("e2e_ms", 50),
    "tpot_p50_ms": _of("tpot_ms", 50, SINGLE_USER),
    "tpot_p95_ms": _of("tpot_ms", 95, SINGLE_USER),
    "single_user_ttft_p50_ms": _of("ttft_ms", 50, SINGLE_USER),
}
"""The numbers of the stages that last which every measurement has, by their short names."""
_SHORT = {name: short for short, name in SOURCES.items()}
_PLAIN = {
    "tool_call_ms": _of("tool_call_ms", None, TOOL_CALL),
    "kv_tokens": _of("kv_tokens", None, START),
    "startup_s": _of("startup_s", None, START),
    "kv_requests": _of("kv_requests", None, START),
    SATURATION: _of(SATURATION),
    "energy_per_token_j": _of("energy_per_token_j"),
    "cost_per_million_tokens": _of("cost_per_million_tokens"),
}


def support_of(percent: float) -> int:
    """The smallest sample that carries a percentile."""
    beyond = min(percent, 100 - percent)
    return 1 if percent == 50 else ceil(round(100 * _BEYOND / beyond, 6))


@lru_cache(maxsize=1024)
def meaning(name: str) -> MetricName | None:
    """What a name means; ``None`` if nothing."""
    try:
        return parse(name)
    except ValueError:
        return None


def comparable(name: str, value: float) -> float:
    """A value as ratios take it: of what may be nothing, less than its floor counts as that; counts are one more."""
    if (found := meaning(name)) is None:
        return value
    return value + 1 if found.quantity.counted else max(value, found.quantity.floor)


def counted(name: str) -> bool:
    """Whether a name is of a count that may be 0."""
    found = meaning(name)
    return found is not None and found.quantity.counted


def symptom(name: str) -> bool:
    """Whether a name is of nothing that users feel."""
    found = meaning(name)
    return found is not None and found.quantity.symptom


def canonical(name: str) -> str:
    """The one name of what a name means; the name itself where it means nothing."""
    found = meaning(name)
    return found.text if found else name


def parse(name: str) -> MetricName:
    """A name's meaning.

    Raises:
        ValueError: It means nothing; the text says what to write instead.
    """
    if short := SOURCES.get(name) or _PLAIN.get(name):
        return short
    if long := _LONG_PROMPT.fullmatch(name):
        return _sent(MetricName(QUANTITIES["ttft_ms"]), int(long[1]), "cold" if long[2] == "cold" else "cached")
    first, *parts = name.split(".")
    if first in _PLAIN and parts:
        raise ValueError(f"{name}: {first} is one number, and nothing follows it")
    if first not in QUANTITIES:
        raise ValueError(f"no such metric: {name}{_instead(name)}")
    return _whole(name, _Reading.of(name, parts))


@dataclass(frozen=True, slots=True)
class _Reading:
    """The parts of a name by what they say."""

    quantity: Quantity
    percent: float | None
    where: tuple[str, ...]
    prompt: int | None
    sending: Sending | None
    traffic: str | None

    @classmethod
    def of(cls, name: str, parts: list[str]) -> "_Reading":
        """Each part says one thing, and none is said twice."""
        said: dict[str, list[str]] = {}
        for part in parts:
            said.setdefault(_kind(name, part), []).append(part)
        if twice := next((kind for kind, each in said.items() if len(each) > 1), None):
            raise ValueError(f"{name} names two of one kind: {' and '.join(said[twice])}; name one of them")
        percent, prompt, sending = (said.get(kind, [""])[0] for kind in ("percent", "prompt", "sending"))
        return cls(
            quantity=QUANTITIES[name.partition(".")[0]],
            percent=float(percent[1:].replace("_", ".")) if percent else None,
            where=tuple(said.get("where", ())),
            prompt=int(prompt.removeprefix("prompt_")) if prompt else None,
            sending=("cold" if sending == "cold" else "cached") if sending else None,
            traffic=said["class"][0].removeprefix("class_") if "class" in said else None,
        )


def _kind(name: str, part: str) -> str:
    """What a part says."""
    if _PERCENT.fullmatch(part) and float(part[1:].replace("_", ".")) > 0:
        return "percent"
    if part == "alone" or _RUNG.fullmatch(_undotted(part)):
        return "where"
    if re.fullmatch(r"prompt_[1-9]\d*", part):
        return "prompt"
    if part in ("cold", "cached"):
        return "sending"
    if part.startswith("class_") and len(part) > len("class_"):
        return "class"
    examples = ("p50", "p95", "p99", "alone", "cold", "cached", "users_5", "rate_4", "prompt_30000", "class_chat")
    near = get_close_matches(part, examples, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{name}: {part!r} says nothing{hint} (a percentile such as p95, alone, users_5, agents_5, rate_4, "
        "prompt_30000 with cold or cached, class_NAME)"
    )


def _undotted(part: str) -> str:
    """The stage of a part: the dot of ``rate_0.5`` cannot stand in a name, which says ``rate_0_5``."""
    return re.sub(r"(rate_\d+)_(\d+)", r"\1.\2", part)


def _whole(name: str, read: _Reading) -> MetricName:
    """The parts together, where they can be."""
    quantity = read.quantity
    if quantity.distributed and read.percent is None:
        raise ValueError(f"{name} names no percentile: write {quantity.name}.p50, {quantity.name}.p95 …")
    if read.percent is not None and not quantity.distributed:
        raise ValueError(f"{name}: {quantity.name} is one number of a stage, and has no percentiles")
    if read.traffic is not None and not quantity.classes:
        raise ValueError(f"{name}: the server counts {quantity.name} for all requests, not by class")
    if read.traffic is not None and (read.where or read.prompt):
        raise ValueError(f"{name}: classes are told apart in the concurrent stage only")
    found = MetricName(quantity, read.percent, traffic=read.traffic)
    if read.prompt or read.sending:
        return _of_prompt(name, found, read)
    where = _undotted(read.where[0]) if read.where else CONCURRENT
    return replace(found, stage=SINGLE_USER if where == "alone" else where)


def _of_prompt(name: str, found: MetricName, read: _Reading) -> MetricName:
    if not found.quantity.distributed:
        instead = f"write {found.quantity.name}"
        raise ValueError(f"{name}: of a long prompt ttft_ms, tpot_ms, itl_ms and e2e_ms are measured; {instead}")
    if read.where:
        instead = ".".join(part for part in name.split(".") if part not in read.where)
        raise ValueError(f"{name}: long prompts are sent one at a time, by one user; write {instead}")
    if not read.prompt or not read.sending:
        raise ValueError(f"{name}: a long prompt is named with both, such as prompt_30000.cold or prompt_30000.cached")
    return _sent(found, read.prompt, read.sending)


def _sent(found: MetricName, tokens: int, sending: Sending) -> MetricName:
    return replace(found, percent=found.percent or 50.0, stage=f"ttft_{tokens}", sending=sending)


def _instead(name: str) -> str:
    """What was probably meant."""
    if old := _OF_OLD.fullmatch(name):
        return f"; did you mean '{old[1]}_ms.p{old[2]}'?"
    first, dot, rest = name.partition(".")
    near = get_close_matches(first, (*QUANTITIES, *SOURCES), n=1)
    return f"; did you mean {near[0] + dot + rest!r}?" if near else ""
