"""The forms in which traffic is recorded, each read as the fields of a trace's line.

JSON lines may be a trace's, requests as they were sent (also in a ``body``), or an access log's with the answer's
``usage``. Other lines are those of a server's or gateway's access log, which tell when a request came and no more.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from tuner.load.endpoints.messages import heard

_ASKED = ("body", "request", "request_body")
_ANSWERED = ("response", "response_body")
_WHEN = ("timestamp", "time", "ts", "start_time", "startTime", "created")
_PATHS = ("/chat/completions", "/completions", "/messages", "/responses")
_FAILED = 400
_EPOCH_S = 1e9
"""From here on (2001) a moment is counted since 1970, in seconds; smaller ones are a trace's own milliseconds."""
_EPOCH_MS = 1e11

_REQUEST = re.compile(r'"POST (?P<path>[^ "?]+)[^"]*" (?P<status>\d{3})')
_CLF = re.compile(r"\[(\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\]")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?")
_FRACTION = re.compile(r"[.,](\d{1,6})\d*")


def of_json(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """A JSON line; ``None`` for what is no request for an answer, or was refused."""
    asked, answered = _part(raw, _ASKED), _part(raw, _ANSWERED)
    where = next((str(raw[key]) for key in ("path", "url", "endpoint") if raw.get(key)), _PATHS[0])
    status = next((raw[key] for key in ("status", "status_code") if key in raw), answered.get("status_code", 200))
    if not where.partition("?")[0].endswith(_PATHS) or (str(status).isdigit() and int(status) >= _FAILED):
        return None
    found = {**raw, **asked}
    usage = _part(raw, ("usage",)) or _part(answered, ("usage",)) or raw
    when = next((each[key] for each in (raw, answered) for key in _WHEN if each.get(key) is not None), None)
    known = {
        "timestamp": _ms(when),
        "input_length": _first(found, "input_length") or _first(usage, "prompt_tokens", "input_tokens"),
        "output_length": _first(found, "output_length") or _first(usage, "completion_tokens", "output_tokens"),
        "max_tokens": _first(found, "max_tokens", "max_completion_tokens"),
        **{key: found.get(key) for key in ("hash_ids", "prompt")},
        "messages": _messages(found),
    }
    return {key: value for key, value in known.items() if value is not None}


def _messages(found: Mapping[str, Any]) -> Any:
    """In the form of chat completions, also those of a request to Anthropic's endpoint; what is none stays."""
    said = found.get("messages")
    if isinstance(said, list) and all(isinstance(each, dict) for each in said):
        return heard(found.get("system"), said)
    return said


def of_log(text: str) -> Iterator[dict[str, Any]]:
    """The requests of an access log: nginx's and Apache's, or uvicorn's (vLLM) behind the moment that a logger wrote.

    Moments of whole seconds are spread over them.
    """
    moments = sorted(at_ms for line in text.split("\n") if (at_ms := _came(line)) is not None)
    for second, group in groupby(moments, key=lambda at_ms: int(at_ms // 1000)):
        together = list(group)
        whole = all(at_ms % 1000 == 0 for at_ms in together)
        for place, at_ms in enumerate(together):
            spread = second * 1000 + (place + 0.5) / len(together) * 1000
            yield {"timestamp": spread if whole else at_ms, "lengthless": True}


def _came(line: str) -> float | None:
    """The moment of a request that was answered, in milliseconds."""
    request = _REQUEST.search(line)
    if not request or not request["path"].endswith(_PATHS) or int(request["status"]) >= _FAILED:
        return None
    if common := _CLF.search(line):
        return datetime.strptime(common[1], "%d/%b/%Y:%H:%M:%S %z").timestamp() * 1000
    iso = _ISO.search(line)
    return float(_ms(iso[0])) if iso else None


def _ms(when: Any) -> Any:
    """A moment in milliseconds; what is none stays, to be refused by its name."""
    if isinstance(when, str) and _ISO.fullmatch(when):
        return datetime.fromisoformat(_FRACTION.sub(r".\1", when)).timestamp() * 1000
    if isinstance(when, int | float) and _EPOCH_S <= when < _EPOCH_MS:
        return when * 1000
    return when


def _part(raw: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    """An object within, which some gateways write as text."""
    for found in (raw[name] for name in names if name in raw):
        try:
            part = json.loads(found) if isinstance(found, str) else found
        except ValueError:
            continue
        if isinstance(part, dict):
            return part
    return {}


def _first(raw: Mapping[str, Any], *names: str) -> Any:
    return next((raw[name] for name in names if raw.get(name) is not None), None)
