"""Changes one variable in the text of an ``.env`` file; quotes, comments and ``export`` stay."""

import re

from tuner.importer.dotenv import ENTRY


def changed(text: str, name: str, value: str) -> str | None:
    """The text with another value of a variable; ``None`` if it is not set there, or the value cannot stand there."""
    entry = next((one for one in reversed(list(ENTRY.finditer(text))) if one["name"] == name), None)
    if entry is None or "\n" in value:
        return None
    if entry["single"] is not None:
        return None if "'" in value else _put(text, entry.span("single"), value)
    if entry["double"] is not None:
        return _put(text, entry.span("double"), re.sub(r'(["\\$])', r"\\\1", value))
    if entry["bare"] is None:
        return _put(text, (entry.end("name"), entry.end("name")), f"={_bare(value)}")
    begin = entry.start("bare")
    old = re.split(r"(?:^|\s)#", entry["bare"], maxsplit=1)[0].rstrip()
    return _put(text, (begin, begin + len(old)), _bare(value))


def _put(text: str, span: tuple[int, int], value: str) -> str:
    return text[: span[0]] + value + text[span[1] :]


def _bare(value: str) -> str:
    if re.fullmatch(r"[\w.:/@%+=,-]*", value):
        return value
    return f"'{value}'" if "'" not in value else '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'
