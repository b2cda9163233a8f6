"""Which flags a ``llama-server`` takes, as its ``--help`` lists them, and in which form: builds differ.

``--flash-attn`` was a switch and is now followed by ``on``, ``off`` or ``auto``.
"""

import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from tuner.engines.causes import Cause
from tuner.engines.foresight import KnownFlags
from tuner.engines.help import Help
from tuner.engines.llamacpp.commandline import canonical, switch
from tuner.errors import LaunchRejected

_ENTRY = re.compile(
    r"^(?P<names>--?[\w-]+(?:, +--?[\w-]+)*)(?: (?P<value>\S.*?))?(?: {2,}.*)?$(?P<rest>(?:\n +.*)*)", re.MULTILINE
)
_LISTED = re.compile(r"[{\[<](\w+(?:[,|]\w+)+)[}\]>]")
_ALLOWED = re.compile(r"allowed values: ([\w., \n]+?)(?=\n *\(|$)")


def parse_flags(text: str) -> frozenset[str]:
    """The long flags in the output of ``llama-server --help``."""
    return frozenset(name for entry in _ENTRY.finditer(text) for name in _long(entry))


def parse_choices(text: str) -> Mapping[str, tuple[str, ...]]:
    """The values to which a flag is limited; none of a switch."""
    limited = ((entry, _values(entry)) for entry in _ENTRY.finditer(text))
    return {name: values for entry, values in limited if values is not None for name in _long(entry)}


def _long(entry: re.Match[str]) -> Iterator[str]:
    return (name for name in re.split(r", +", entry["names"]) if name.startswith("--"))


def _values(entry: re.Match[str]) -> tuple[str, ...] | None:
    if entry["value"] is None:
        return ()
    listed, allowed = _LISTED.fullmatch(entry["value"]), _ALLOWED.search(entry["rest"])
    said = (listed or allowed or [None, ""])[1]
    return tuple(re.split(r"[,|]\s*", said.strip())) if said else None


HELP = Help("--help", parse_flags, parse_choices)


def refused(args: Mapping[str, JsonValue], known: KnownFlags) -> LaunchRejected | None:
    """The first of these settings that the engine does not have, or does not take in this form."""
    return next(filter(None, (_refused(name, value, known) for name, value in canonical(args).items())), None)


def _refused(name: str, value: JsonValue, known: KnownFlags) -> LaunchRejected | None:
    flag = switch(name, value) if isinstance(value, bool) else f"--{name.replace('_', '-')}"
    if value is None or not flag:
        return None
    if flag not in known.flags:
        return _error(f"{flag} is not known to this llama.cpp ({known.source})", flag, f"drop {flag}")
    values = known.choices.get(flag)
    if isinstance(value, bool):
        fix = f"write one of: {', '.join(values)}" if values else "write its value"
        return None if values == () else _error(f"{flag} is no switch ({known.source})", flag, fix)
    if values == ():
        return _error(f"{flag} is a switch and takes no value ({known.source})", flag, "write true or false")
    if values is None or str(value) in values:
        return None
    message = f"{flag} {value} is not among the values that this llama.cpp takes ({known.source})"
    return _error(message, flag, f"choose one of: {', '.join(values)}")


def _error(message: str, flag: str, fix: str) -> LaunchRejected:
    return LaunchRejected(message, cause=Cause.BAD_FLAG.value, line=f"error: invalid argument: {flag}", fix=fix)
