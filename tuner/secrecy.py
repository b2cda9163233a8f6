"""The last net before something is shown: keys, tokens and passwords that a text of ours may still quote.

``tuner.secrets`` cuts the secrets that it knows where they are taken in. But a log repeats a command line, a command
line may hold a key, and a report is made to be passed on: here they are known by their surroundings and their shape. A
mask too many costs a word; a key that got out costs all of them. Numbers pass: ``bytes_per_token=54144`` is no secret.
"""

import os
import re
from functools import cache

from tuner.secrets import is_secret

_MASK = "***"
_NAME = r"(?:api[_-]?key|access[_-]key|password|passwd|secret|[_-]token(?!s))(?:[_-]\w+)?"
_VALUE = r"(?![\d.,]+\b)[^\s\"'\],}){]{4,}"
_ASSIGNED = re.compile(rf"([\w-]*{_NAME}[\"']?\s*[=:]\s*[\[\"'(]*)({_VALUE})", re.IGNORECASE)
_FLAG = re.compile(rf"(--[\w-]*?{_NAME}[\"',\s]+)({_VALUE})", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+)([\w.~+/=-]{6,})", re.IGNORECASE)
_IN_URL = re.compile(r"(\w://[^\s/:@]*:)([^\s/@]+)(?=@)")
_KNOWN_SHAPE = re.compile(r"()(\b(?:hf_|sk-|gh[opsu]_)[\w-]{16,})")
_SHORTEST = 8


def redacted(text: str) -> str:
    """The text with every secret masked: by its name, by its shape, or because our own environment holds it."""
    for value in _held():
        text = text.replace(value, _MASK)
    for shape in (_ASSIGNED, _FLAG, _BEARER, _IN_URL, _KNOWN_SHAPE):
        text = shape.sub(rf"\g<1>{_MASK}", text)
    return text


_is_secret = cache(is_secret)


def _held() -> list[str]:
    """Values of environment variables whose names say that they are secret."""
    named = (value for name, value in os.environ.items() if _is_secret(name))
    return [value for value in named if len(value) >= _SHORTEST]
