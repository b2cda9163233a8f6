"""``.env`` files as Compose reads them: quotes, trailing comments, ``export``, values over several lines, variables."""

import re
from collections.abc import Mapping
from pathlib import Path

from tuner import documents
from tuner.importer.interpolation import Variables

ENTRY = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*
    (?:[=:][ \t]*
        (?: '(?P<single>[^']*)'[^\n]* | "(?P<double>(?:[^"\\]|\\.)*)"[^\n]* | (?P<bare>[^\n]*) )
    )?$""",
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def read(path: Path, outside: Mapping[str, str]) -> dict[str, str | None]:
    """What a file sets; ``None`` for a name alone, which is passed through from outside.

    Args:
        path: The file.
        outside: Variables that its values may name, besides its own.

    Raises:
        ConfigError: It cannot be read.
    """
    return parsed(documents.text_of(path), outside)


def raw(path: Path) -> dict[str, str | None]:
    """The same of a file whose values are taken as they stand, quotes included, as ``docker run --env-file`` does."""
    lines = (line.lstrip() for line in documents.text_of(path).splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value if sign else None for name, sign, value in pairs}


def parsed(text: str, outside: Mapping[str, str]) -> dict[str, str | None]:
    """The same of its text."""
    found: dict[str, str | None] = {}
    for entry in ENTRY.finditer(text.replace("\r\n", "\n")):
        known = {**{name: value for name, value in found.items() if value is not None}, **outside}
        found[entry["name"]] = _value(entry, known)
    return found


def _value(entry: re.Match[str], known: Mapping[str, str]) -> str | None:
    if entry["single"] is not None:
        return entry["single"]
    if entry["double"] is not None:
        unescaped = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), entry["double"], flags=re.DOTALL)
        return Variables(known).fill(unescaped)
    if entry["bare"] is None:
        return None
    return Variables(known).fill(re.split(r"(?:^|\s)#", entry["bare"], maxsplit=1)[0].strip())
