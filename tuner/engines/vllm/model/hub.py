"""A model's ``config.json`` from the hub that the engine would load it from, where nothing on this disk has it.

It is asked for only where a study leaves open what is tried, without any token, and kept in tuner's state folder: all
that is known later comes from there. ``HF_HUB_OFFLINE=1`` asks nobody.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import httpx

from tuner.engines.vllm.model.architecture import Architecture, read
from tuner.fetch import fetch
from tuner.host.files import write_whole

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_HUB = "https://huggingface.co"
_WITHIN_S = 10.0
_MOST_BYTES = 1 << 20
_NAMES = ("config.json", "hf_quant_config.json")
"""The second is ModelOpt's; few models have it."""


def kept(model: str, folder: Path) -> Architecture | None:
    """What an earlier answer of the hub says."""
    return read(model, _place(model, folder))


def asked(model: str, env: Mapping[str, str], folder: Path) -> Architecture | None:
    """The hub's answer, kept from now on; ``None`` where it cannot or must not be asked.

    Args:
        model: The model, as the command line names it.
        env: The environment of the servers.
        folder: Where answers are kept.
    """
    if not _REPOSITORY.fullmatch(model) or env.get("HF_HUB_OFFLINE", "0") not in ("", "0") or Path(model).exists():
        return None
    place = _place(model, folder)
    for name in _NAMES:
        text = _page(f"{env.get('HF_ENDPOINT', _HUB).rstrip('/')}/{model}/raw/main/{name}")
        if text is None:
            break
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / name, text)
    return kept(model, folder)


def _page(url: str) -> str | None:
    try:
        answer = fetch(url, {}, within_s=_WITHIN_S, most_bytes=_MOST_BYTES)
        return answer.text if answer.status == httpx.codes.OK and isinstance(json.loads(answer.text), dict) else None
    except (httpx.HTTPError, ValueError):
        return None


def _place(model: str, folder: Path) -> Path:
    return folder / "models" / model.replace("/", "--")
