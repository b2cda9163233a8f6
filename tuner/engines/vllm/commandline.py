"""Reading a vLLM server's command line, however it is written: what ``VllmEngine.command`` writes, and what people do.

Two command lines that start the same server give equal settings: underscores for dashes, ``--flag=value``,
``--no-flag``, ``--flag.key value`` for JSON, ``131072`` for ``128K``, any order, and with a shell around it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from tuner.engines.base import CommandLine, Conventions
from tuner.engines.shell import without_shell
from tuner.engines.vllm.serving import from_file, gone, serving, settings
from tuner.engines.vllm.sizes import size

_SHORT: Mapping[str, str] = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "dcp": "decode_context_parallel_size",
    "ep": "enable_expert_parallel",
    "q": "quantization",
    "cc": "compilation_config",
}
_SPELLINGS: Mapping[str, JsonValue] = {
    "True": True,
    "False": False,
    "None": None,
    "half": "float16",
    "float": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}
_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w.-]*)(?:=(?P<value>.*))?", re.DOTALL)
_OPTIMIZATION = re.compile(r"-O(?:=)?(\d)")
_OFF_BY_DEFAULT = frozenset(
    {
        "disable_custom_all_reduce",
        "disable_log_requests",
        "disable_log_stats",
        "enable_auto_tool_choice",
        "enable_expert_parallel",
        "enable_lora",
        "enforce_eager",
        "trust_remote_code",
    }
)
"""Flags that every version leaves off unless they are set, so that switching them off says nothing."""


def read(argv: Sequence[str], env: Mapping[str, str]) -> CommandLine | None:
    """What a command line says; ``None`` if it starts no vLLM server.

    Args:
        argv: The whole command, its program included.
        env: Its environment, for variables that a shell would fill in.
    """
    words = _own_words(without_shell(argv, env))
    if words is None:
        return None
    positional = words[0] if words and not _is_flag(words[0]) else None
    raw = dict(_flags(words[1:] if positional else words))
    model = raw.pop("model", None)
    leaves = (leaf for name, value in raw.items() for leaf in _leaves(name, value))
    return CommandLine(positional or (str(model) if model else None), {n: v for n, v in leaves if _says(n, v)})


def _own_words(words: Sequence[str]) -> Sequence[str] | None:
    """What follows ``vllm serve`` or ``-m vllm.entrypoints.openai.api_server``; an image may start with flags only."""
    for at, word in enumerate(words):
        if word == "serve" or word.endswith(("api_server", "api_server.py")):
            return words[at + 1 :]
    first = next((at for at, word in enumerate(words) if _is_flag(word)), None)
    named = any(word.partition("=")[0] == "--model" for word in words)
    return words[first:] if named and first is not None else None


def _is_flag(word: str) -> bool:
    return _FLAG.fullmatch(word) is not None


def _flags(words: Sequence[str]) -> Iterator[tuple[str, JsonValue]]:
    """Each flag with all the words behind it, up to the next one."""
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        values = []
        while at < len(words) and not _is_flag(words[at]):
            values.append(words[at])
            at += 1
        yield from _flag(word, values)


def _flag(word: str, values: Sequence[str]) -> Iterator[tuple[str, JsonValue]]:
    if level := _OPTIMIZATION.fullmatch(word):
        yield "optimization_level", int(level[1])
    elif match := _FLAG.fullmatch(word):
        given = [*([] if match["value"] is None else [match["value"]]), *values]
        head, dot, key = match["name"].replace("-", "_").partition(".")
        name = f"{_SHORT.get(head, head)}{dot}{key}"
        if not given:
            yield name.removeprefix("no_"), not name.startswith("no_")
        else:
            read = [_value(text) for text in given]
            yield name, read[0] if len(read) == 1 else _sorted(read)


def _value(text: str) -> JsonValue:
    """A word as the value that it stands for."""
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    if (number := size(text)) is not None:
        return number
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return text
    return found


def _sorted(values: list[JsonValue]) -> JsonValue:
    """Sizes in any order are the same sizes."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return [*sorted(numbers)] if len(numbers) == len(values) else values


def _leaves(name: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, _sorted(value) if isinstance(value, list) else value


def _says(name: str, value: JsonValue) -> bool:
    return value not in ("auto", None) and not (value is False and name in _OFF_BY_DEFAULT)


def switch(name: str, on: bool) -> str:
    """A boolean flag on a command line."""
    return f"--{'' if on else 'no-'}{name.replace('_', '-')}"


CONVENTIONS = Conventions(
    switch,
    read,
    trials_own=frozenset({"host", "port", "api_key", "served_model_name"}),
    variables=("VLLM_", "OMP_", "MKL_", "NCCL_", "TORCH", "PYTORCH_", "TRITON_", "FLASHINFER_", "CUDA_"),
    launchers_own=("VLLM_HOST_IP", "VLLM_PORT", "VLLM_NO_USAGE_STATS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    discloses="VLLM_SERVER_DEV_MODE=1",
    serving=serving,
    from_file=from_file,
    gone=gone,
    settings=settings,
)
"""How vLLM's command lines and environments are written."""
