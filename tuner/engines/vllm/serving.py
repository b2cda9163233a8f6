"""A vLLM server's command line taken apart: which words start it, its model, and its flags by their long names.

Unlike ``commandline.read`` it keeps every value as the word that it is written as: a deployment is carried over with
it, not compared.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from pydantic import JsonValue

from tuner.engines.base import Flag, ServeCommand
from tuner.engines.vllm.flags import all_flags, known_flags, tagged, unknown_flags
from tuner.engines.vllm.sizes import size

SHORT: Mapping[str, str] = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-dpn": "--data-parallel-rank",
    "-dpr": "--data-parallel-start-rank",
    "-dpl": "--data-parallel-size-local",
    "-dpa": "--data-parallel-address",
    "-dpp": "--data-parallel-rpc-port",
    "-dpb": "--data-parallel-backend",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpe": "--data-parallel-external-lb",
    "-dcp": "--decode-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-asc": "--api-server-count",
    "-q": "--quantization",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
    "-sc": "--speculative-config",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-spec-draft-tp": "--speculative-draft-tensor-parallel-size",
}
_FLAG = re.compile(r"--?[A-Za-z][\w.+-]*(?:=.*)?", re.DOTALL)
_OPTIMIZATION = re.compile(r"-O=?(\d|[a-z]+)")
_MODULE = re.compile(r"(?:.*[./])?api_server(?:\.py)?")
_IMAGE = re.compile(r"vllm", re.IGNORECASE)
_SERVES = re.compile(r"vllm-openai|vllm-cpu-release")
"""Images whose entrypoint is the server."""
_NO_SERVER = re.compile(r"litellm|open-webui|bench|router|exporter|proxy|omni-front", re.IGNORECASE)
_SWITCH = re.compile(
    r"--(?:no-|enable-|use-|return-|skip-|trust-|disable-(?!access-log-for)|enforce-eager|async-scheduling|headless"
    r"|language-model-only|calculate-kv-scales|fully-sharded|interleave-|kv-cache-metrics|multi-step-stream|worker-use)"
)
_SEVERAL = frozenset(
    {
        "served-model-name",
        "lora-modules",
        "middleware",
        "cudagraph-capture-sizes",
        "cuda-graph-sizes",
        "ignore-patterns",
    }
    | {
        "logits-processors",
        "prompt-adapters",
        "collect-detailed-traces",
        "lora-target-modules",
        "lora-extra-vocab-size",
    }
    | {"kv-cache-dtype-skip-layers", "device-ids", "allowed-media-domains", "disable-access-log-for-endpoints"}
    | {"long-lora-scaling-factors", "numa-bind-cpus", "numa-bind-nodes", "offload-params", "limit-mm-per-prompt"}
)
"""Flags that take several words."""
_TELLING = frozenset(
    {"tensor-parallel-size", "max-model-len", "gpu-memory-utilization", "served-model-name", "max-num-seqs", "dtype"}
    | {"max-num-batched-tokens", "kv-cache-dtype", "tool-call-parser", "enforce-eager", "trust-remote-code"}
)
"""Flags by which a command of nothing but flags is known to be vLLM's."""


_REPEATED = 4
"""Words in which the program may stand once more."""
_SIZED = re.compile(r"--max-(?:model-len|num-batched-tokens|num-seqs)|--kv-cache-memory-bytes")


def serving(words: Sequence[str], image: str | None) -> ServeCommand | None:
    """A command taken apart; ``None`` if it starts no vLLM server.

    Args:
        words: The whole command; without its program where the image's own entrypoint is meant.
        image: The image, whose name may say what its entrypoint is.
    """
    start = _start(words)
    if start is None and not _by_the_image(words, image):
        return None
    program, own = tuple(words[: start or 0]), list(words[start or 0 :])
    again = _start(own[:_REPEATED])
    remarks: list[str] = []
    if again is not None:
        remarks.append(f"`{' '.join(own[:again])}` stands twice; the second is left out")
        own = own[again:]
    repeats = bool(program) and _SERVES.search(image or "") is not None
    if repeats:
        remarks.append(f"`{' '.join(program)}` stands again what the image's entrypoint is already, and counts once")
    own = list(_items(own, remarks))
    model, flags = _taken_apart(own, remarks)
    remarks += _twice(flags)
    return ServeCommand(program, model, tuple(_of_its_time(flags, image)), tuple(remarks), repeats)


def from_file(settings: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The flags of a ``--config`` file, as vLLM itself makes words of it; none where its keys are not vLLM's flags."""
    names = {name.replace("_", "-") for name in settings}
    known = {name for name in names if f"--{name}" in all_flags()}
    if not known & {"model", *_TELLING} or 2 * len(known) < len(names):
        return ()
    return tuple(word for name, value in settings.items() for word in _setting(f"--{name}", value))


def _setting(flag: str, value: JsonValue) -> Iterator[str]:
    if isinstance(value, bool):
        yield flag if value else flag.replace("--", "--no-", 1)
    elif isinstance(value, dict):
        yield from (flag, json.dumps(value))
    elif value is not None and value != []:
        yield flag
        yield from map(str, value if isinstance(value, list) else [value])


def settings(flags: Sequence[Flag]) -> dict[str, JsonValue]:
    """Flags as values by name, as a configuration has them; of a flag that stands twice, the last counts."""
    found: dict[str, JsonValue] = {}
    for flag in flags:
        head, dot, key = flag.name.removeprefix("--").partition(".")
        name = f"{head.replace('-', '_')}{dot}{key}"
        if not flag.values:
            found[name.removeprefix("no_")] = not name.startswith("no_")
        else:
            read = [_value(flag.name, text) for text in flag.values]
            found[name] = read[0] if len(read) == 1 else read
    return found


def _value(flag: str, text: str) -> JsonValue:
    if _SIZED.fullmatch(flag) and (number := size(text)) is not None:
        return number
    if _SWITCH.match(flag) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return text
    return found if found is not None else text


def _twice(flags: Sequence[Flag]) -> Iterator[str]:
    """Of a flag that stands several times, the last counts; some add to what stands before them."""
    names = [flag.name for flag in flags if flag.name.removeprefix("--") not in _SEVERAL]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name} stands {names.count(name)} times: the last counts"


def _of_its_time(flags: Sequence[Flag], image: str | None) -> Iterator[Flag]:
    """``-O3`` was a compilation config before it became a level of its own."""
    version = tagged(image or "")
    early = version is not None and "--optimization-level" not in known_flags(version)
    for flag in flags:
        if early and flag.name == "--optimization-level" and flag.written.startswith("-O"):
            yield Flag("--compilation-config", flag.values, flag.written)
        else:
            yield flag


def gone(flags: Sequence[Flag], image: str | None) -> Iterator[str]:
    """Flags that the image's version does not have, with what took their place."""
    version = tagged(image or "")
    if not version:
        return
    for one in unknown_flags([flag.name for flag in flags], known_flags(version)):
        instead = f"; instead: {one.instead}" if one.instead else ""
        yield f"vLLM {version} has no {one.flag}{instead}"


def _start(words: Sequence[str]) -> int | None:
    """Where the program's own words end."""
    for at, word in enumerate(words):
        if (
            (os.path.basename(word) == "vllm" or word == "vllm.entrypoints.cli.main")
            and at + 1 < len(words)
            and words[at + 1] == "serve"
        ):
            return at + 2
        if _MODULE.fullmatch(word) and ("vllm" in word or "/" in word or at == 0 or words[at - 1] == "-m"):
            return at + 1
    return 1 if list(words[:1]) == ["serve"] else None


def _by_the_image(words: Sequence[str], image: str | None) -> bool:
    """Whether an image that serves is given nothing but arguments."""
    named = (re.split(r"[=\s]", word.strip(), maxsplit=1)[0] for word in words)
    flags = {_long(word).removeprefix("--") for word in named if _FLAG.fullmatch(word)}
    first = words[0] if words else ""
    if image and _IMAGE.search(image) and not _NO_SERVER.search(image):
        return (
            not words or first.startswith("-") or (bool(flags) and "/" in first) or (len(words) == 1 and "/" in first)
        )
    return "model" in flags and bool(flags & _TELLING) and first.startswith("-")


def _items(words: Sequence[str], remarks: list[str]) -> Iterator[str]:
    """The words, where several stand in one item of a list taken apart."""
    for word in words:
        flag, blank, rest = word.partition(" ") if "\n" not in word else _at_blank(word)
        if not blank or not _FLAG.fullmatch(flag.strip()) or "=" in flag:
            yield word.strip() if word.strip().startswith("--") else word
            continue
        remarks.append(f"`{flag}` and its value stand in one item: they are taken apart")
        yield from (flag.strip(), *_values(rest.strip()))


def _at_blank(word: str) -> tuple[str, str, str]:
    found = re.search(r"\s", word.strip())
    stripped = word.strip()
    return (stripped[: found.start()], " ", stripped[found.end() :]) if found else (stripped, "", "")


def _values(text: str) -> list[str]:
    import shlex

    if text[:1] in "{[":
        return [text]
    try:
        return shlex.split(text)
    except ValueError:  # a quotation that does not end
        return text.split()


def _taken_apart(words: Sequence[str], remarks: list[str]) -> tuple[str | None, list[Flag]]:
    model, flags, at = None, [], 0
    if words and not _is_flag(words[0]):
        model, at = words[0], 1
        at = _strays(words, at, remarks)
    while at < len(words):
        flag, at = _flag(words, at)
        if flag.name == "--model" and flag.values:
            model, flag = flag.values[0] or None, Flag(flag.name, flag.values[1:], flag.written)
            if not flag.values:
                continue
            remarks.append(f"{' '.join(flag.values)} stands behind the model, and belongs to no flag")
            continue
        flag, found = _with_model(flag, known=model is not None)
        model = model or found
        flags.append(flag)
    return model, flags


def _strays(words: Sequence[str], at: int, remarks: list[str]) -> int:
    begin = at
    while at < len(words) and not _is_flag(words[at]):
        at += 1
    if at > begin:
        remarks.append(f"{' '.join(words[begin:at])} stands behind the model, and belongs to no flag")
    return at


def _flag(words: Sequence[str], at: int) -> tuple[Flag, int]:
    """The flag that stands here with the words behind it, up to the next one."""
    written, sign, value = words[at].partition("=")
    values, at = ([value] if sign else []), at + 1
    while at < len(words) and not _is_flag(words[at]):
        values.append(words[at])
        at += 1
    if level := _OPTIMIZATION.fullmatch(written if not sign else f"{written}={value}"):
        return Flag("--optimization-level", (level[1],), written), at
    if written == "-O":
        name = "--optimization-level" if values and values[0].isdigit() else "--compilation-config"
        return Flag(name, tuple(values), written), at
    return Flag(_long(written), tuple(values), written), at


def _with_model(flag: Flag, *, known: bool) -> tuple[Flag, str | None]:
    """The model may stand behind a flag that takes no word, or one that takes one."""
    name, values = flag.name.removeprefix("--").partition(".")[0], flag.values
    if known or not values or name in _SEVERAL:
        return flag, None
    takes = 0 if _SWITCH.match(flag.name) and not re.fullmatch(r"true|false|\d+", values[0], re.IGNORECASE) else 1
    if len(values) <= takes:
        return flag, None
    return Flag(flag.name, values[:takes], flag.written), values[takes]


def _is_flag(word: str) -> bool:
    return _FLAG.fullmatch(word) is not None


def _long(written: str) -> str:
    """A flag's long name with dashes."""
    if written in SHORT:
        return SHORT[written]
    head, dot, key = written.partition(".")
    name = SHORT.get(head, head if not head.startswith("--") else f"--{head[2:].replace('_', '-')}")
    return f"{_unabbreviated(name)}{dot}{key}"


@cache
def _unabbreviated(name: str) -> str:
    """A flag may be cut short as long as only one begins so."""
    known = all_flags()
    bare = name.replace("--no-", "--", 1)
    if bare in known or name in known or len(name) < 6 or not name.startswith("--"):
        return name
    meant = [flag for flag in known if flag.startswith(name)]
    return meant[0] if len(meant) == 1 else name
