"""What a server really runs with, against what it was asked to.

vLLM overrides settings without failing: on a backend that wants another block size, without chunked prefill, for a
model that cannot use a flag. Three witnesses are heard, the best first: ``/server_info`` (which
``VLLM_SERVER_DEV_MODE`` opens), the labels of ``vllm:cache_config_info`` in ``/metrics``, and the start-up lines.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from tuner.engines.effective import EffectiveSetting, Status, Witness
from tuner.engines.vllm import backends, kernels
from tuner.engines.vllm.log.degradations import attention_backend
from tuner.space import Settings

_RENAMED: Mapping[str, str] = {"kv_cache_dtype": "cache_dtype", "max_seq_len": "max_model_len"}
"""Where the configuration names a flag otherwise."""
_SPELLINGS: Mapping[str, str] = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16"}
_GRAPH_MODES = {
    "0": "NONE",
    "1": "PIECEWISE",
    "2": "FULL",
    "[2, 0]": "FULL_DECODE_ONLY",
    "[2, 1]": "FULL_AND_PIECEWISE",
}
_BACKENDS = (backends.FLAG, "attention_config.backend", backends.VARIABLE)
_NOT_A_SETTING = frozenset({"served_model_name", "load_format", "seed", "host", "port", "model"})
_INDUCTOR = ("VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE", "VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING")
_LABELS = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_OLD_REPR = re.compile(r"\b(\w+)=('[^']*'|\[[^\]]*\]|[^,\s()]+)")
_LINES: Mapping[str, re.Pattern[str]] = {
    "max_model_len": re.compile(r"Using max model len (?P<value>\d+)"),
    "max_num_batched_tokens": re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(?P<value>\d+)"),
}


def effective(requested: Settings, witness: Witness) -> tuple[EffectiveSetting, ...]:
    """What became of each requested setting, in the order of the request.

    Args:
        requested: The configuration's flags and variables.
        witness: What the running server says of itself.
    """
    known = _known(requested, witness)
    flags = (_flag(name, value, known, witness.log) for name, value in _leaves(requested.args))
    given = [(name, value) for name, value in requested.env.items() if value is not None]
    variables = (_variable(*each, known, requested, witness.log) for each in given)
    return (*(each for each in flags if each.name not in _NOT_A_SETTING), *variables)


def _known(requested: Settings, witness: Witness) -> dict[str, JsonValue]:
    """Everything the witnesses say, by name; a better witness is heard later and wins."""
    known: dict[str, JsonValue] = {}
    for line in witness.log:
        known |= {name: int(found["value"]) for name, shape in _LINES.items() if (found := shape.search(line))}
    labels = _LABELS.search(witness.metrics or "")
    known |= {name: _read(value) for name, value in _LABEL.findall(labels[1])} if labels else {}
    known |= dict(_of_server_info(witness.server_info))
    return known | dict.fromkeys(_BACKENDS, running) if (running := _backend(requested, witness.log)) else known


def _backend(requested: Settings, log: Sequence[str]) -> str | None:
    """The attention backend that the log says was taken: the configuration holds only what was asked for."""
    said = filter(None, map(attention_backend, log))
    return backends.running(backends.asked(requested), said)


def _of_server_info(text: str | None) -> Iterator[tuple[str, JsonValue]]:
    """The leaves of each ``*_config``, nested ones by their dotted names, and the environment."""
    try:
        info = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return
    if not isinstance(info, dict):
        return
    config = info.get("vllm_config")
    if isinstance(config, str):  # before config_format=json there was only a text
        yield from ((name, _read(value.strip("'"))) for name, value in _OLD_REPR.findall(config))
    elif isinstance(config, dict):
        for section, values in config.items():
            yield from _section(section, values)
    environment = info.get("vllm_env")
    yield from environment.items() if isinstance(environment, dict) else ()


def _section(section: str, values: Any) -> Iterator[tuple[str, JsonValue]]:
    if not isinstance(values, dict):
        yield section, values
        return
    for name, value in values.items():
        shown = _graph_mode(value) if name == "cudagraph_mode" else value
        yield name, shown
        yield f"{section}.{name}", shown


def _graph_mode(value: Any) -> Any:
    """The name of a mode that JSON shows as a number, or as the pair of those for decoding and for the rest."""
    return _GRAPH_MODES.get(json.dumps(value), value)


def _leaves(args: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Flags with values; each key of a flag that takes JSON on its own."""
    for name, value in args.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        elif value is not None:
            yield name, value


def _flag(name: str, value: JsonValue, known: Mapping[str, JsonValue], log: Sequence[str]) -> EffectiveSetting:
    found = next((known[key] for key in (name, _RENAMED.get(name, "")) if key in known), None)
    if found is None or _says_auto(value):
        status = Status.HONOURED if _says_auto(value) else Status.UNKNOWN
        return EffectiveSetting(name=name, requested=value, effective=found, status=status)
    if _same(value, found):
        return EffectiveSetting(name=name, requested=value, effective=found, status=Status.HONOURED)
    by = _mention(name, log)
    return EffectiveSetting(name=name, requested=value, effective=found, status=Status.OVERRIDDEN, by=by)


def _variable(
    name: str, value: str, known: Mapping[str, JsonValue], requested: Settings, log: Sequence[str]
) -> EffectiveSetting:
    if name == kernels.VARIABLE and (said := kernels.effective_kernels(value, log)):
        return said
    if name in _INDUCTOR and not _compile_sizes(requested, known):
        by = "acts only on the shapes that compile_sizes names, and it names none"
        return EffectiveSetting(name=name, requested=value, effective=None, status=Status.NO_EFFECT, by=by)
    if name not in known:
        return EffectiveSetting(name=name, requested=value, effective=None, status=Status.UNKNOWN)
    status = Status.HONOURED if _same(_read(value), known[name]) else Status.OVERRIDDEN
    return EffectiveSetting(name=name, requested=value, effective=known[name], status=status)


def _compile_sizes(requested: Settings, known: Mapping[str, JsonValue]) -> bool:
    if "compilation_config.compile_sizes" in known:
        return bool(known["compilation_config.compile_sizes"])
    return bool(dict(_leaves(requested.args)).get("compilation_config.compile_sizes"))


def _says_auto(value: JsonValue) -> bool:
    return value in ("auto", None)


def _same(requested: JsonValue, found: JsonValue) -> bool:
    """Whether both say the same; lists in any order, since vLLM sorts sizes as it likes (``[8, 1, 2, 4]`` in 0.26)."""
    if isinstance(requested, list) and isinstance(found, list):
        return sorted(map(_plain, requested)) == sorted(map(_plain, found))
    return _plain(requested) == _plain(found)


def _plain(value: JsonValue) -> str:
    """A spelling that vLLM's command line, its configuration and its environment share."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return f"{value:g}"
    text = str(value).removeprefix("torch.").removeprefix("CUDAGraphMode.").lower()
    return {"true": "1", "false": "0"}.get(text, _SPELLINGS.get(text, text))


def _read(text: str) -> JsonValue:
    """A label's or a variable's text as the value it stands for."""
    words: Mapping[str, JsonValue] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        number: JsonValue = json.loads(text)
    except ValueError:
        return text
    return number


_OVERRULES = re.compile(r"overrid|forc(?:e|ing)|requires|instead|disabl|reset|not support", re.IGNORECASE)


def _mention(name: str, log: Sequence[str]) -> str | None:
    """The start-up line that overrules the setting, if one does in its name."""
    bare = name.removeprefix("enable_")
    words = (bare, bare.replace("_", "-"), bare.replace("_", " "))
    told = (line for line in log if _OVERRULES.search(line) and "non-default args" not in line)
    return next((line.strip() for line in told if any(word in line for word in words) and "config:" not in line), None)
