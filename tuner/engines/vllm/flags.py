"""Which flags ``vllm serve`` takes, by version.

The best answer comes from the image itself: ``parse_help`` reads ``vllm serve --help=all``. Where the image cannot be
asked, ``known_flags`` answers from a table that ships with tuner. It was made by parsing, with ``ast``, the published
wheels of the versions that it names: every literal ``add_argument`` of ``vllm/engine/arg_utils.py``, of the frontend's
``cli_args.py`` and of ``cli/serve.py``, and the fields of the dataclass ``FrontendArgs``. It agrees with the help text
of 0.32.0, but for what 0.33.0 added since.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from pydantic import Field

from tuner.schema import Schema

REPLACED: Mapping[str, str] = {
    "--disable-log-requests": "--enable-log-requests, which is off unless it is given",
    "--cuda-graph-sizes": "--cudagraph-capture-sizes",
    "--max-seq-len-to-capture": "--max-cudagraph-capture-size",
    "--num-scheduler-steps": "nothing: it belonged to the V0 engine",
    "--swap-space": "nothing: the V1 engine does not swap to the host",
    "--preemption-mode": "nothing: the V1 engine always recomputes",
    "--scheduler-delay-factor": "nothing: it belonged to the V0 engine",
    "--disable-async-output-proc": "nothing: it belonged to the V0 engine",
    "--num-lookahead-slots": "nothing: it belonged to the V0 engine",
    "--max-num-partial-prefills": "nothing: it belonged to the V0 engine",
    "--calculate-kv-scales": "scales in the checkpoint",
    "--guided-decoding-backend": "--structured-outputs-config.backend",
    "--task": "--runner and --convert",
    "--override-pooler-config": "--pooler-config",
    "--rope-scaling": "--hf-overrides '{\"rope_parameters\": {...}}'",
    "--rope-theta": "--hf-overrides '{\"rope_parameters\": {...}}'",
    "--worker-use-ray": "--distributed-executor-backend ray",
    "--use-v2-block-manager": "nothing: it is the only one",
    "--enable-reasoning": "--reasoning-parser",
    "--speculative-model": "--speculative-config",
    "--device": "nothing: the platform is found by itself",
}
"""What took the place of a flag that is gone."""

_HELP_ENTRY = re.compile(r"^  (?P<names>-\S.*?)(?: {2,}|$)", re.MULTILINE)
_LONG_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_RELEASE = re.compile(r"\d+")
_TAG = re.compile(r"vllm[^:]*:v?(\d+\.\d+\.\d+\S*)")


class _FlagEntry(Schema):
    """One flag in the table: in which runs of versions it is, and from which version on it has which choices."""

    present: list[tuple[str, str]]
    choices: dict[str, list[str] | None] = Field(default_factory=dict)


class _FlagTable(Schema):
    """The table on disk."""

    versions: list[str]
    flags: dict[str, _FlagEntry]


@dataclass(frozen=True, slots=True)
class UnknownFlag:
    """A flag that this version does not take.

    Attributes:
        flag: As it was written.
        instead: What took its place or was probably meant; empty where nothing is known.
    """

    flag: str
    instead: str


def known_flags(version: str) -> frozenset[str]:
    """The long flags of ``vllm serve``, without their ``--no-`` forms.

    The answer is that of the nearest version in the table at or below this one; of the oldest where all are above.
    """
    at = _shipped(version)
    return frozenset(name for name, entry in _table().flags.items() if _has(entry, at))


def all_flags() -> frozenset[str]:
    """The long flags that any version in the table takes, or took."""
    return frozenset(_table().flags)


def common_flags() -> frozenset[str]:
    """The long flags that every version in the table has since the first engine that tuner launches (0.9)."""
    recent = [version for version in _table().versions if _release(version) >= (0, 9)]
    return frozenset.intersection(*map(known_flags, recent))


def tagged(image: str) -> str | None:
    """The version that an image's name tells, ``vllm/vllm-openai:v0.20.0``."""
    found = _TAG.search(image)
    return found[1] if found else None


def known_choices(version: str) -> Mapping[str, tuple[str, ...]]:
    """The values that a flag is limited to, of the same version as ``known_flags``.

    Where a flag is missing, any value may be right: the table does not know every list.
    """
    at = _shipped(version)
    limited = ((name, _choices_at(entry, at)) for name, entry in _table().flags.items() if _has(entry, at))
    return {name: tuple(values) for name, values in limited if values}


def parse_help(text: str) -> frozenset[str]:
    """The long flags in the output of ``vllm serve --help=all``, ``--no-`` forms included."""
    entries = (entry["names"] for entry in _HELP_ENTRY.finditer(text))
    return frozenset(name for names in entries for name in _LONG_FLAG.findall(names))


def unknown_flags(argv: Sequence[str], known: frozenset[str]) -> tuple[UnknownFlag, ...]:
    """The flags in a command line that ``known`` does not have, in order.

    As vLLM's own parser does, it takes underscores for dashes, ``--flag=value``, ``--flag.key value``, ``--no-flag``.
    """
    return tuple(UnknownFlag(flag, _instead(flag, known)) for flag in _flags_of(argv) if not _is_known(flag, known))


def _flags_of(argv: Sequence[str]) -> Iterator[str]:
    for word in argv:
        if word == "--":
            return
        if word.startswith("--"):
            yield re.split(r"[=.]", word, maxsplit=1)[0].replace("_", "-")


def _is_known(flag: str, known: frozenset[str]) -> bool:
    return flag in known or flag.replace("--no-", "--", 1) in known or flag == "--help"


def _instead(flag: str, known: frozenset[str]) -> str:
    if flag in REPLACED:
        return REPLACED[flag]
    return next(iter(get_close_matches(flag, known, n=1, cutoff=0.85)), "")


@cache
def _table() -> _FlagTable:
    text = files("tuner.engines.vllm").joinpath("flags.json").read_text("utf-8")
    return _FlagTable.model_validate(json.loads(text))


def _release(version: str) -> tuple[int, ...]:
    """``0.8.5.post1`` as numbers that can be compared: the first three."""
    return tuple(int(part) for part in _RELEASE.findall(version)[:3])


def _shipped(version: str) -> str:
    versions = _table().versions
    wanted = _release(version)
    return max((each for each in versions if _release(each) <= wanted), key=_release, default=versions[0])


def _has(entry: _FlagEntry, version: str) -> bool:
    at = _release(version)
    return any(_release(first) <= at <= _release(last) for first, last in entry.present)


def _choices_at(entry: _FlagEntry, version: str) -> Sequence[str] | None:
    since = [each for each in entry.choices if _release(each) <= _release(version)]
    return entry.choices[max(since, key=_release)] if since else None
