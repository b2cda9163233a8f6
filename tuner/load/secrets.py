"""Header values that no text of ours may show; a server may quote the token that it refuses."""

from collections.abc import Mapping

_SHORTEST = 6


def secrets(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Every header value, whole and without its scheme (``Bearer``), unless too short to be a secret."""
    whole = [value.strip() for value in headers.values()]
    bare = [value.split()[-1] for value in whole if value]
    return tuple(value for value in whole + bare if len(value) >= _SHORTEST)


def redact(text: str, hidden: tuple[str, ...]) -> str:
    """The text with every secret replaced."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return text
