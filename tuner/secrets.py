"""Secrets: read from where they lie, handed to what needs them, and cut out of everything that is written.

Nothing of tuner's that is written holds a secret's value: configurations name secrets, and whatever comes from outside
(a server's log, its answers, the container engine's complaints) is cut where it is taken in. Light, since the load
worker imports it as well.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SHORTEST = 6
_CUT = "***"
_SECRET_NAME = re.compile(
    r"(?:(?:^|_)(?:TOKEN|SECRETS?|CREDENTIALS?)|PASSWORD|PASSWD|PASSPHRASE|(?:ACCESS|PRIVATE)_?KEY)$"
    r"|(?:^|_)API_?KEY(?:_|$)"
)
_API_KEY = re.compile(r"(?:^|_)API_?KEY(?:_|$)")
_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$")


def is_secret(name: str) -> bool:
    """Whether a variable or flag of this name holds a secret: ``HF_TOKEN``, ``VLLM_API_KEY_GLM``, ``api_key``."""
    return _SECRET_NAME.search(name.upper()) is not None


def is_api_key(name: str) -> bool:
    """Whether it is a key that clients must show; vLLM has printed its own, and written it into its compile cache."""
    return _API_KEY.search(name.upper()) is not None


def redact(text: str, hidden: Iterable[str]) -> str:
    """The text with every secret replaced."""
    for secret in hidden:
        text = text.replace(secret, _CUT)
    return text


def of_headers(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Every header value, whole and without its scheme (``Bearer``): a server may quote the token that it refuses."""
    whole = [value.strip() for value in headers.values()]
    bare = [value.split()[-1] for value in whole if value]
    return _worth_hiding([*whole, *bare])


@dataclass(frozen=True)
class Secrets:
    """The secrets that are known here: of the environment and of a ``.env`` file, which wins.

    Attributes:
        values: All variables by name, secret or not; never shown.
        source: The file, for messages.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: Path = Path(".env")

    @classmethod
    def of(cls, file: Path, environ: Mapping[str, str] | None = None) -> "Secrets":
        """Those of a file, if it is there, and of the environment."""
        given = dict(os.environ if environ is None else environ)
        return cls({**given, **_read(file)}, file)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The values to cut out of texts, the longest first, so that one inside another is cut whole."""
        values = [value for name, value in self.values.items() if is_secret(name)]
        return tuple(sorted(_worth_hiding(values), key=len, reverse=True))

    def get(self, name: str) -> str | None:
        """A variable's value; ``None`` where it is not set, or empty."""
        return self.values.get(name) or None

    def named(self, names: Iterable[str]) -> dict[str, str]:
        """Those of these variables that are set."""
        return {name: value for name in names if (value := self.get(name))}


def _worth_hiding(values: Iterable[str]) -> tuple[str, ...]:
    """Without those too short to be a secret, which would be cut out of innocent words."""
    return tuple(dict.fromkeys(value for value in values if len(value) >= _SHORTEST))


def _read(file: Path) -> dict[str, str]:
    """A ``.env`` file as Docker Compose reads it: quotes, comments, ``export``; nothing is interpolated."""
    try:
        lines = file.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = (_LINE.match(line) for line in lines)
    return {match[1]: _value(match[2].strip()) for match in found if match}


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and text.rfind(text[0]) > 0:
        return text[1 : text.rfind(text[0])]
    return re.split(r"\s#", text, maxsplit=1)[0].strip()
