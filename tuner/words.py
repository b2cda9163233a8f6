"""How tuner says things to people: metrics in the field's words with their units, causes in plain ones, three digits.

Live view, closing table, report, notes and notebooks all speak through this module, so that a number reads the same
everywhere. Names as they stand in records and configurations are for machines.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10

from pydantic import JsonValue

from tuner.engines.causes import Cause
from tuner.engines.log.lines import parse_line
from tuner.errors import RequestsRefused, Unmeasurable
from tuner.load.naming import CONCURRENT, SINGLE_USER, MetricName, meaning
from tuner.space import SearchSpace, Settings

_ROOM = 9
"""Characters of a brief value."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a measurement, as people know it.

    Attributes:
        label: What it is.
        unit: What it is counted in.
        short: What it is where there is little room, as over a column.
    """

    label: str
    unit: str
    short: str

    def said(self, value: float | None) -> str:
        """The value with its unit: ``190 tokens/s``."""
        return "not measured" if value is None else f"{digits(value)} {self.unit}".rstrip()

    @property
    def axis(self) -> str:
        """The label of a figure's axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_METRICS: Mapping[str, Metric] = {
    "output_tokens_per_s": Metric("Output throughput, all users", "tokens/s", "throughput"),
    "ramped_output_tokens_per_s": Metric("Output throughput, ramps included", "tokens/s", "throughput with ramps"),
    "requests_per_s": Metric("Requests answered, all users", "/s", "requests"),
    "ttft_p50_ms": Metric("Time to first token, all users, median", "ms", "TTFT p50"),
    "ttft_p95_ms": Metric("Time to first token, all users, 95th percentile", "ms", "TTFT p95"),
    "itl_p50_ms": Metric("Gap between tokens, all users, median", "ms", "ITL p50"),
    "itl_p99_ms": Metric("Gap between tokens, all users, 99th percentile", "ms", "ITL p99"),
    "concurrent_tpot_p50_ms": Metric("Time per output token, all users, median", "ms", "TPOT p50 at concurrency"),
    "e2e_p50_ms": Metric("Whole answer, all users, median", "ms", "E2E p50"),
    "tpot_p50_ms": Metric("Time per output token, one user, median", "ms", "TPOT p50"),
    "tpot_p95_ms": Metric("Time per output token, one user, 95th percentile", "ms", "TPOT p95"),
    "single_user_ttft_p50_ms": Metric("Time to first token, one user, median", "ms", "TTFT p50 of one user"),
    "tool_call_ms": Metric("Tool call, one user", "ms", "tool call"),
    "kv_tokens": Metric("Room in the KV cache", "tokens", "KV cache"),
    "startup_s": Metric("From launch to first answer", "s", "start-up"),
}

_CAUSES: Mapping[str, str] = {
    Cause.CUDA_OOM: "GPU memory ran out",
    Cause.INSUFFICIENT_FREE_MEMORY: "asks for more GPU memory than is free",
    Cause.NO_KV_CACHE: "no GPU memory is left for the KV cache",
    Cause.CONTEXT_EXCEEDS_KV_CACHE: "one request of full length does not fit in the KV cache",
    Cause.HOST_OOM: "the host ran out of memory",
    Cause.BAD_FLAG: "the engine rejects a flag or its value",
    Cause.UNSUPPORTED: "model, hardware or combination is not supported",
    Cause.MODEL_NOT_FOUND: "the model was not found",
    Cause.DISTRIBUTED: "the GPUs could not work together",
    Cause.PORT_IN_USE: "the port was taken",
    Cause.DRIVER: "the GPU or its driver failed",
    Cause.DISK_FULL: "the disk is full",
    Cause.ENGINE_DIED: "the engine died",
    Cause.STALLED: "the start-up made no progress",
    Cause.V0_FALLBACK: "fell back to the old V0 engine",
    Cause.DEGRADED: "ran with something slower than asked",
    Cause.UNKNOWN: "no known cause",
    "rule": "a rule forbids it",
    RequestsRefused.CAUSE: "the server refuses the workload's requests",
    Unmeasurable.CAUSE: "what it streams cannot be measured",
    "lesson": "at least as demanding as one that failed",
}

_UNITS: Mapping[str, str] = {
    "_per_s": "/s",
    "_ms": "ms",
    "_s": "s",
    "_gib": "GiB",
    "_tokens": "tokens",
    "_bytes": "bytes",
    "_share": "share",
}


def metric(name: str) -> Metric:
    """How to say a metric; one that is not known by a better name keeps its own, without the unit in it."""
    if known := _METRICS.get(name):
        return known
    if named := meaning(name):
        return _named(named)
    ending = next((ending for ending in _UNITS if name.endswith(ending)), "")
    plain = name.removesuffix(ending).replace("_", " ")
    return Metric(plain, _UNITS.get(ending, ""), plain)


def _named(name: MetricName) -> Metric:
    """A metric by the parts of its name: "Time to first token, class chat, 95th percentile"."""
    quantity, where, short = name.quantity, *_where(name)
    whole = name.percent is None or (name.sending is not None and name.percent == 50)  # mostly of one prompt
    label = ", ".join(part for part in (quantity.label, where, "" if whole else _percentile(name.percent)) if part)
    percent = "" if whole else f" p{name.percent:g}"
    return Metric(label, quantity.unit, f"{quantity.short}{percent}{short}")


def _where(name: MetricName) -> tuple[str, str]:
    """Of which stage or class, in full and in short."""
    if name.sending:
        how = "nothing cached" if name.sending == "cold" else "cached"
        return f"prompt of {name.prompt_tokens:,} tokens, {how}", f" of {name.prompt_tokens:,} tokens {name.sending}"
    if name.traffic is not None:
        return f"class {name.traffic}", f" of {name.traffic}"
    if name.rung:
        what, _, count = name.rung.partition("_")
        said = f"{count} requests a second sent" if what == "rate" else f"{count} {what}"
        return said, f" at {said}"
    if name.stage == SINGLE_USER:
        return "one user", " of one user"
    return ("all users", "") if name.stage == CONCURRENT and name.quantity.stages else ("", "")


def _percentile(percent: float | None) -> str:
    return "median" if percent == 50 else f"{percent:g}th percentile"


def unit(name: str) -> str:
    """The unit that a name ends in, empty if it has none."""
    return metric(name).unit


def cause(name: str) -> str:
    """A cause in plain words."""
    return _CAUSES.get(name, name.replace("_", " "))


def misses(violations: Mapping[str, float]) -> list[str]:
    """The limits that are missed, and by how much."""
    missed = {name: violation for name, violation in violations.items() if violation > 0}
    return [f"{metric(name).short} misses its limit by {percent(violation)}" for name, violation in missed.items()]


def digits(value: float) -> str:
    """Three significant digits, thousands apart: ``0.0123``, ``18.3``, ``179,000``."""
    if not value:
        return "0"
    places = 2 - floor(log10(abs(value)))
    rounded = round(value, places)
    places = 2 - floor(log10(abs(rounded)))  # 9.999 is 10.0
    return f"{rounded:,.{max(0, places)}f}"


def percent(share: float, *, sign: bool = False) -> str:
    """A share as a percentage: ``27.4%``; with ``sign`` also ``+27.4%``."""
    text = f"{abs(share):.1%}"
    if sign and float(text[:-1]):
        return ("+" if share > 0 else "−") + text
    return text


def duration(seconds: float) -> str:
    """A length of time: ``0.42 s``, ``45 s``, ``2 min 43 s``, ``1 h 12 min``."""
    if seconds < 9.95:
        return f"{digits(seconds)} s" if seconds >= 0.005 else "0 s"
    minutes, rest_s = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest_s} s"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min {rest_s} s"


def rough(seconds: float) -> str:
    """A length of time that is only expected: whole seconds, ``7 s``."""
    return duration(seconds) if seconds >= 10 else f"{max(1, round(seconds))} s"


def unprefixed(line: str) -> str:
    """A log's line as the program said it, without time, place and process."""
    said = [part.text.strip() for part in parse_line(line)]
    return next((text for text in said if text), line.strip())


def cut(text: str, length: int) -> str:
    """A text with its end left out where it is too long."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def value(given: JsonValue) -> str:
    """A setting's value."""
    if given is None:
        return "unset"
    if isinstance(given, bool):
        return "on" if given else "off"
    return given if isinstance(given, str) else json.dumps(given)


def brief(given: JsonValue) -> str:
    """A setting's value where there is little room: of a list the first and the last."""
    if isinstance(given, list) and len(given) > 2:
        return f"{value(given[0])}…{value(given[-1])}"
    return cut(value(given), _ROOM)


def setting(space: SearchSpace, name: str) -> str:
    """What a parameter sets, as a command line or an environment spells it."""
    kind, target = space.target(name)
    if kind == "env":
        return target
    flag, _, path = target.partition(".")
    return f"--{flag.replace('_', '-')} {path}".rstrip()


def command(argv: Sequence[str]) -> str:
    """A command line, each flag on a line of its own, ready for a shell."""
    quoted = [shlex.quote(arg) for arg in argv]
    return " ".join(f"\\\n  {text}" if arg.startswith("--") else text for arg, text in zip(argv, quoted, strict=True))


def lines(settings: Settings, switch: Callable[[str, bool], str]) -> dict[str, str]:
    """Flags and variables as one types them, by what they set; what is left to the engine is missing.

    Args:
        settings: The flags and variables.
        switch: How the engine's boolean flags are written (``Conventions.switch``).
    """
    flags = {name: _flag(name, given, switch) for name, given in settings.args.items() if given is not None}
    written = {name: text for name, text in flags.items() if text}
    return written | {name: f"{name}={text}" for name, text in settings.env.items() if text is not None}


def _flag(name: str, given: JsonValue, switch: Callable[[str, bool], str]) -> str:
    flag, _, path = name.partition(".")
    if isinstance(given, bool) and not path:
        return switch(name, given)
    for key in reversed(path.split(".") if path else []):
        given = {key: given}
    return f"--{flag.replace('_', '-')} {given if isinstance(given, str) else json.dumps(given)}"
