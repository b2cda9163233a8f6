"""How a llama.cpp server's command line is written and read.

One setting has one name here, whatever is written: ``ctx_size`` for ``-c``, ``n_gpu_layers`` for ``-ngl`` and
``--gpu-layers``, ``mmap: false`` for ``--no-mmap``.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from tuner.engines.base import CommandLine, Conventions
from tuner.engines.shell import without_shell

_NAMES: Mapping[str, str] = {
    **{"a": "alias", "b": "batch_size", "c": "ctx_size", "cb": "cont_batching", "cmoe": "cpu_moe", "hf": "hf_repo"},
    **{"hfr": "hf_repo", "hff": "hf_file", "m": "model", "mg": "main_gpu", "n": "n_predict", "predict": "n_predict"},
    **{"np": "parallel", "ncmoe": "n_cpu_moe", "sm": "split_mode", "t": "threads", "tb": "threads_batch"},
    **{"ts": "tensor_split", "ub": "ubatch_size", "fa": "flash_attn", "ctk": "cache_type_k", "ctv": "cache_type_v"},
    **{"dt": "defrag_thold", "kvu": "kv_unified", "dev": "device", "ot": "override_tensor", "s": "seed"},
    **{"ngl": "n_gpu_layers", "gpu_layers": "n_gpu_layers", "md": "model_draft", "cd": "ctx_size_draft"},
    **{"td": "threads_draft", "tbd": "threads_batch_draft", "devd": "device_draft", "hfd": "hf_repo_draft"},
    **{"ngld": "n_gpu_layers_draft", "gpu_layers_draft": "n_gpu_layers_draft", "draft": "draft_max"},
    **{"draft_n": "draft_max", "draft_n_min": "draft_min", "ctkd": "cache_type_k_draft", "ctvd": "cache_type_v_draft"},
    **{"to": "timeout", "sps": "slot_prompt_similarity", "nkvo": "no_kv_offload", "nocb": "no_cont_batching"},
    **{"nr": "no_repack", "lv": "verbosity", "log_verbosity": "verbosity", "v": "verbose", "log_verbose": "verbose"},
}
"""Other ways to write a name, dashes taken for underscores."""

_ONLY_OFF = frozenset(
    {
        *("context_shift", "kv_offload", "mmap", "mmproj", "mmproj_offload", "op_offload", "perf"),
        *("prefill_assistant", "repack", "warmup", "webui"),
    }
)
"""On unless it is switched off: their one form that every version knows is ``--no-…``."""
_BOTH = frozenset({"cont_batching", "escape", "slots"})
"""They have a form for each; no other switch has one for off."""

_PROGRAMS = re.compile(r"(?:llama-server|server)(?:\.exe)?")
_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)(?:=(?P<value>.*))?", re.DOTALL)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def canonical(args: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Settings by the one name that each has here."""
    named = ((_NAMES.get(name, name), value) for name, value in args.items())
    return dict(_positive(name, value) for name, value in named)


def _positive(name: str, value: JsonValue) -> tuple[str, JsonValue]:
    bare = name.removeprefix("no_")
    if bare != name and bare in _ONLY_OFF | _BOTH and isinstance(value, bool):
        return bare, not value
    return name, value


def switch(name: str, on: bool) -> str:
    """A boolean flag on a command line; empty where leaving it out says the same."""
    flag = name.replace("_", "-")
    if name in _ONLY_OFF:
        return "" if on else f"--no-{flag}"
    if on:
        return f"--{flag}"
    return f"--no-{flag}" if name in _BOTH else ""


def words(args: Mapping[str, JsonValue]) -> Iterator[str]:
    """Settings on a command line, in their order."""
    for name, value in args.items():
        if isinstance(value, bool):
            yield from switch(name, value).split()
        elif value is not None:
            for each in value if isinstance(value, list) else [value]:
                yield from (f"--{name.replace('_', '-')}", _word(each))


def _word(value: JsonValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def model_words(model: str) -> tuple[str, str]:
    """A model as a file of this host, or as a repository of the Hub with its quantization behind a colon."""
    return ("--hf-repo" if _REPOSITORY.fullmatch(model) and not model.endswith(".gguf") else "--model"), model


def read(argv: Sequence[str], env: Mapping[str, str]) -> CommandLine | None:
    """What a command line says; ``None`` if it starts no llama.cpp server.

    Args:
        argv: The whole command, its program included.
        env: Its environment, for variables that a shell would fill in.
    """
    flags = _own_words(without_shell(argv, env))
    if flags is None:
        return None
    args = canonical(dict(_settings(flags)))
    model = args.pop("model", None) or args.pop("hf_repo", None)
    return CommandLine(str(model) if model else None, args)


def _own_words(argv: Sequence[str]) -> Sequence[str] | None:
    """What follows the program; of an image whose entry point it is, all."""
    for at, word in enumerate(argv):
        if _PROGRAMS.fullmatch(os.path.basename(word)):
            return argv[at + 1 :]
    first = next((at for at, word in enumerate(argv) if _FLAG.fullmatch(word)), None)
    named = {"-m", "--model", "-hf", "--hf-repo"} & {word.partition("=")[0] for word in argv}
    return argv[first:] if named and first is not None else None


def _settings(argv: Sequence[str]) -> Iterator[tuple[str, JsonValue]]:
    at = 0
    while at < len(argv):
        flag, at = _FLAG.fullmatch(argv[at]), at + 1
        if flag is None:
            continue
        name = flag["name"].replace("-", "_")
        if flag["value"] is None and (at == len(argv) or _FLAG.fullmatch(argv[at])):
            yield name, True
        else:
            text, at = (flag["value"], at) if flag["value"] is not None else (argv[at], at + 1)
            yield name, _value(text)


def _value(text: str) -> JsonValue:
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


CONVENTIONS = Conventions(
    switch,
    read,
    trials_own=frozenset({"host", "port", "alias", "api_key", "metrics", "slots"}),
    variables=("LLAMA_", "GGML_", "CUDA_", "OMP_"),
    launchers_own=("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    health=("curl", "-fsS", "http://127.0.0.1:{port}/health"),  # its images have no Python
)
"""How llama.cpp's command lines and environments are written."""
