"""What a llama.cpp server really runs with, against what it was asked to.

Two witnesses are heard, the better one first: ``/props``, which tells the slots, the context of each and what every
answer is made with by default, and the start-up lines, which tell batch, cache and threads.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from tuner.engines.effective import EffectiveSetting, Status, Witness
from tuner.engines.llamacpp.commandline import canonical
from tuner.space import Settings

_NOT_A_SETTING = frozenset({"alias", "host", "port", "model", "hf_repo", "metrics", "slots", "seed"})
_LINES: Mapping[str, re.Pattern[str]] = {
    "threads": re.compile(r"\bn_threads = (\d+)"),
    "threads_batch": re.compile(r"\bn_threads_batch = (\d+)"),
    "threads_http": re.compile(r"http threads: (\d+)"),
    "parallel": re.compile(r"llama_context: n_seq_max +(?:= +)?(\d+)"),
    "ctx_size": re.compile(r"llama_context: n_ctx += (\d+)"),
    "batch_size": re.compile(r"llama_context: n_batch += (\d+)"),
    "ubatch_size": re.compile(r"llama_context: n_ubatch += (\d+)"),
    "flash_attn": re.compile(
        r"llama_context: flash_attn += (0|1|enabled|disabled)|Flash Attention was auto, set to (\w+)"
    ),
    "kv_unified": re.compile(r"llama_context: kv_unified += (true|false)"),
    "cache_type_k": re.compile(r"\bK \((\w+)\):"),
    "cache_type_v": re.compile(r"\bV \((\w+)\):"),
    "mmap": re.compile(r"loading model tensors.*\(mmap = (true|false)"),
    "n_gpu_layers": re.compile(r"offloaded (\d+)/\d+ layers to GPU"),
}
_SWITCHES = ("flash_attn", "kv_unified", "mmap")
_DRAFT = re.compile(r"loading draft model")
_SAMPLING = ("temp", "top_k", "top_p", "min_p", "repeat_penalty")
_PROPS = {"temperature": "temp", "speculative.n_max": "draft_max", "speculative.n_min": "draft_min"}
_SPELLINGS: Mapping[str, JsonValue] = {
    **{"1": True, "true": True, "on": True, "enabled": True},
    **{"0": False, "false": False, "off": False, "disabled": False},
}
_WHATEVER: Mapping[str, tuple[JsonValue, ...]] = {
    "ctx_size": (0,),
    "flash_attn": ("auto",),
    "parallel": (-1,),
    "threads": (-1,),
    "threads_batch": (-1,),
    "threads_http": (-1,),
    "n_gpu_layers": ("auto", "all", -1),
}
"""Values by which a server is left to choose."""


def effective(requested: Settings, witness: Witness) -> tuple[EffectiveSetting, ...]:
    """What became of each requested setting, in the order of the request.

    Args:
        requested: The configuration's flags and variables.
        witness: What the running server says of itself.
    """
    known = _known(witness)
    flags = [_flag(name, value, known) for name, value in requested.args.items() if value is not None]
    unread = [
        EffectiveSetting(name=name, requested=value, effective=None, status=Status.UNKNOWN)
        for name, value in requested.env.items()
        if value is not None
    ]
    return (*(each for each in flags if each.name not in _NOT_A_SETTING), *unread)


def slot_tokens(witness: Witness) -> int | None:
    """The context of each slot: that of the server is divided among them."""
    tokens = _generation(witness).get("n_ctx")
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def _known(witness: Witness) -> dict[str, JsonValue]:
    """Everything the witnesses say, by name; the better witness is heard later and wins."""
    return {**dict(_of_log(witness.log)), **dict(_of_props(witness))}


def _of_log(log: Sequence[str]) -> Iterator[tuple[str, JsonValue]]:
    """What the lines say of the model itself: those of a draft model come after it."""
    for line in log:
        if _DRAFT.search(line):
            return
        for name, shape in _LINES.items():
            if found := shape.search(line):
                yield name, _read(name, next(filter(None, found.groups())))


def _of_props(witness: Witness) -> Iterator[tuple[str, JsonValue]]:
    slots, tokens = _object(witness.server_info).get("total_slots"), slot_tokens(witness)
    if isinstance(slots, int):
        yield "parallel", slots
    params = _generation(witness).get("params")
    for name, value in params.items() if isinstance(params, dict) and tokens else ():
        name = _PROPS.get(name, name)
        if name in (*_SAMPLING, *_PROPS.values()):
            yield name, value


def _generation(witness: Witness) -> Mapping[str, JsonValue]:
    settings = _object(witness.server_info).get("default_generation_settings")
    return settings if isinstance(settings, dict) else {}


def _object(text: str | None) -> Mapping[str, JsonValue]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _flag(name: str, value: JsonValue, known: Mapping[str, JsonValue]) -> EffectiveSetting:
    ((plain, asked),) = canonical({name: value}).items()
    if plain not in known:
        return EffectiveSetting(name=name, requested=value, effective=None, status=Status.UNKNOWN)
    found = known[plain]
    honoured = _same(asked, found) or asked in _WHATEVER.get(plain, ()) or _more_than_all(plain, asked, found)
    status = Status.HONOURED if honoured else Status.OVERRIDDEN
    return EffectiveSetting(name=name, requested=value, effective=found, status=status)


def _more_than_all(name: str, asked: JsonValue, found: JsonValue) -> bool:
    """``-ngl 99`` means all layers."""
    return name == "n_gpu_layers" and isinstance(asked, int) and isinstance(found, int) and asked > found > 0


def _same(asked: JsonValue, found: JsonValue) -> bool:
    if isinstance(found, bool):
        return _SPELLINGS.get(str(asked).lower(), asked) is found
    if isinstance(asked, int | float) and isinstance(found, int | float):
        return abs(asked - found) < 1e-5 * max(1.0, abs(found))
    return str(asked) == str(found)


def _read(name: str, text: str) -> JsonValue:
    if name in _SWITCHES:
        return _SPELLINGS.get(text, text)
    return int(text) if text.isdigit() else text
