r"""Takes a line of a server's log apart: what the program said, at which level, and from which process.

A log reaches us through containers, collectors, terminals and issue trackers, and each adds something: ANSI colours,
``vllm-1  | ``, ``2025-03-10T15:07:20Z``, ``> ``, ``(EngineCore_DP0 pid=17374)``, ``[rank0]:``. All of it is peeled off
from the left until the program's own words are reached. One physical line may hold many logical ones: a progress bar
redrawn with ``\r``, or a whole log pasted without its line ends.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache


class Level(IntEnum):
    """How loudly a line was said; ``NONE`` where it names no level, as tracebacks and crash messages do."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    NONE = 35
    ERROR = 40


@dataclass(frozen=True, slots=True)
class LogLine:
    """One logical line.

    Attributes:
        number: The physical line it came from, counted from 1.
        raw: That physical line, as it stands in the log.
        text: The program's own words, indentation kept.
        level: How loudly they were said.
        process: Who said them (``EngineCore_DP0``, ``VllmWorker rank=1``), or ``""``.
    """

    number: int
    raw: str
    text: str
    level: Level
    process: str


# a lost escape character leaves "[0;36m"
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|(?:\^\[)?\[\d{1,3}(?:;\d{1,3})*m")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


_LOST_COLOUR = re.compile(r"\[\d{1,3}(?:;\d{1,3})*m")


def uncoloured(text: str) -> str:
    """A text of one line or many without colours."""
    return _COLOUR.sub("", text) if "\x1b" in text or _LOST_COLOUR.search(text) else text


def plain(line: str) -> str:
    """A line of a log without colours and control characters: a terminal may be asked to do anything by them."""
    return _CONTROL.sub("", _COLOUR.sub("", line))


_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|UTC| ?[+-]\d\d:?\d\d)?"
_LEVEL = r"(?P<level>DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)"

_WRAPPING = "|".join(
    (
        r"(?:\s*>)+ ?",  # quoted markdown
        r"[\w./-]+ +\| ?",  # docker compose: "vllm-1  | "
        rf"(?:- )?\[?{_STAMP}\]?(?: (?:stdout|stderr) [FP])? ?",  # kubernetes, docker -t, CI
        r" +\| ?",  # a table that a CI log was pasted from
        r"\[pod/[^\]]+\] ",
        rf"(?:DEFAULT|INFO|WARNING|ERROR) {_STAMP} (?:\[resource[^\]]*\] )?",  # Cloud Logging
        r"\[(?:Debug|Info|Warning|Error)\] (?:\(Process\) )?",
        r"[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d [\w.-]+ [\w.@-]+(?:\[\d+\])?: ?",  # syslog and journald
        r"\[(?:default)?\d\]: ?",  # torchrun
        r"\{.{0,200}?\"(?:log|message|msg|textPayload)\": ?\"",  # lines wrapped in JSON
        r"[\w.-]+ >> |vLLM STD(?:OUT|ERR): ",
        r"\[[A-Z]+ *\] \S+ MODEL_LOG - ",  # TorchServe, which calls all of it INFO
    )
)
_PROCESS = (
    r"(?:\((?P<bracketed>raylet|pid=\d+[^()]*|[\w.]+(?:\[[^\]]*\])?[ ,:][^()]*?pid=\d+[^()]*|[\w.]*[Ww]orker\w*)\)"
    r"|\[(?P<rank>rank\d+)\]:) ?"
)
# "11-18 18:07:28 engine.py:366]" up to vLLM 0.7, "09-28 15:47:24 [core.py:718]" since
_VLLM_PLACE = r"\d\d-\d\d \d\d:\d\d(?::\d\d)?(?:\.\d+)? \[?[^\s\]]+:\d+\]"
_HEADERS = (
    rf"{_LEVEL} {_VLLM_PLACE} ?",
    rf"{_LEVEL}: {{2,}}",  # uvicorn
    rf"{_LEVEL}:[\w.]+:",  # logging without a format
    rf"(?:- )?[\w.]+ - {_LEVEL} - ",  # logging's usual format, after its time stamp
    rf"\| {_LEVEL} +\| \S+ \| ?",
    r"(?:\[\d+\] )?\d+(?:\.\d\d)?\.\d\d\.\d{3}\.\d{3} (?P<level>[IWED]) ",  # llama.cpp since 2026
    # torch: "W1122 09:30:59.191000 9303 torch/…] ", "[W1122 09:55:49.74 ProcessGroupNCCL.cpp:1575] "
    r"\[?(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d[^\]]*\] ?",
)
# one pattern for all, since most of a log's time goes here; a group's name is known once
_PREFIX = re.compile(
    "|".join(
        (
            _PROCESS,
            *(header.replace("<level>", f"<level{place}>") for place, header in enumerate(_HEADERS)),
            _WRAPPING,
        )
    )
)
_PYTHON_WARNING = re.compile(r"(?:\S+\.py:\d+: )?\w*Warning: ")
_LEVELS = {
    "DEBUG": Level.DEBUG,
    "INFO": Level.INFO,
    "WARNING": Level.WARNING,
    "WARN": Level.WARNING,
    "ERROR": Level.ERROR,
    "CRITICAL": Level.ERROR,
    "FATAL": Level.ERROR,
    "I": Level.INFO,
    "W": Level.WARNING,
    "E": Level.ERROR,
    "F": Level.ERROR,
    "D": Level.DEBUG,
}
_PASTED_TOGETHER = re.compile(rf"\s(?=(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) {_VLLM_PLACE})")


def parse(log: Sequence[str]) -> list[LogLine]:
    """All logical lines of a log, in order."""
    return [line for number, raw in enumerate(log, start=1) for line in parse_line(raw, number)]


def parse_line(raw: str, number: int = 1) -> list[LogLine]:
    """The logical lines of one physical line of this number."""
    return [LogLine(number, raw, text, level, process) for text, level, process in _logical(raw)]


@lru_cache(maxsize=64)
def _logical(raw: str) -> tuple[tuple[str, Level, str], ...]:
    """Each line is asked for several times in a row: for its shape, its signs, its degradations, as context."""
    steps = uncoloured(raw).rstrip("\r\n").split("\r")
    return tuple(_take_apart(part) for step in steps for part in _unpaste(step))


def _unpaste(text: str) -> Sequence[str]:
    # one header behind its prefixes is the usual case; a header after words tells a pasted log
    first, *rest = _PASTED_TOGETHER.split(text)
    if rest and not _take_apart(first + " ")[0].strip():
        return [f"{first} {rest[0]}", *rest[1:]]
    return [first, *rest]


def _take_apart(text: str) -> tuple[str, Level, str]:
    process, level = "", Level.NONE
    while found := _PREFIX.match(text):
        group = found.lastgroup or ""
        if group.startswith("level"):
            level = _LEVELS[found[group]]
        elif group:
            process = found[group]
        text = text[found.end() :]
    if level is Level.NONE and _PYTHON_WARNING.match(text):
        level = Level.WARNING
    return text, level, process
