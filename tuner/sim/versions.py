"""Which command-line flags each vLLM version has, and what a version is.

The table holds the flags that do something here, and the usual serving ones, by the versions in which the published
wheels have them; all others that a version has are known by name (``engines/vllm/flags.json``). One line a flag: name,
kind, other spellings, ``>=`` and ``<`` the versions that have it, ``=`` the values it takes.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["bool", "int", "size", "float", "str", "strs", "ints", "json"]
Family = Literal["0.10", "0.15", "0.26"]

_WHEELS = Path(__file__).parent.parent / "engines" / "vllm" / "flags.json"
_DEFAULTS = {"0.10": "0.10.2", "0.15": "0.15.0", "0.26": "0.26.0"}

_TABLE = """
model str
host str
port int
uds str >=0.10
api-key strs
served-model-name strs
tokenizer str
tokenizer-mode str
trust-remote-code bool
download-dir str
load-format str
config-format str
revision str
hf-overrides json
generation-config str
override-generation-config json
chat-template str
chat-template-content-format str
response-role str
seed int
dtype str =auto|half|float16|bfloat16|float|float32
quantization str -q
max-model-len size
max-logprobs int
enforce-eager bool
disable-sliding-window bool
disable-cascade-attn bool
task str <0.15
runner str >=0.10
convert str >=0.10
rope-scaling json <0.11
rope-theta float <0.11
max-seq-len-to-capture int <0.11
tensor-parallel-size int -tp
pipeline-parallel-size int -pp
data-parallel-size int -dp
decode-context-parallel-size int -dcp >=0.10
enable-expert-parallel bool
enable-eplb bool >=0.9
all2all-backend str >=0.11
distributed-executor-backend str
disable-custom-all-reduce bool
max-parallel-loading-workers int
block-size int >=0.20
block-size int <0.11 =1|8|16|32|64|128
block-size int >=0.11 <0.20 =1|8|16|32|64|128|256
gpu-memory-utilization float
kv-cache-memory-bytes size >=0.10
kv-cache-dtype str <0.11 =auto|fp8|fp8_e4m3|fp8_e5m2|fp8_inc
kv-cache-dtype str >=0.11 <0.20 =auto|bfloat16|fp8|fp8_e4m3|fp8_e5m2|fp8_inc|fp8_ds_mla
kv-cache-dtype str >=0.20
swap-space float <0.20
calculate-kv-scales bool <0.33
num-gpu-blocks-override int
enable-prefix-caching bool
prefix-caching-hash-algo str
cpu-offload-gb float
max-num-batched-tokens size
max-num-seqs int
max-num-partial-prefills int <0.33
max-long-partial-prefills int <0.33
long-prefill-token-threshold size
num-scheduler-steps int <0.10
num-lookahead-slots int <0.15
scheduler-delay-factor float <0.11
preemption-mode str <0.11 =recompute|swap
disable-async-output-proc bool <0.11
enable-chunked-prefill bool
scheduling-policy str =fcfs|priority
scheduler-cls str
async-scheduling bool >=0.10
stream-interval int >=0.11
max-num-scheduled-tokens int >=0.26
max-num-active-seqs int >=0.33
watermark float >=0.26
cuda-graph-sizes ints >=0.9 <0.15
cudagraph-capture-sizes ints >=0.11
max-cudagraph-capture-size int >=0.11
compilation-config json -cc
optimization-level str -O
performance-mode str >=0.20 =balanced|interactivity|throughput
attention-backend str >=0.15
attention-config json -ac >=0.15
moe-backend str >=0.20
kernel-config json >=0.20
enable-flashinfer-autotune bool >=0.20
speculative-config json -sc
guided-decoding-backend str <0.11
structured-outputs-config json >=0.11
additional-config json
limit-mm-per-prompt json
language-model-only bool >=0.20
enable-lora bool
max-loras int
max-lora-rank int
enable-sleep-mode bool
enable-prompt-embeds bool >=0.9
enable-auto-tool-choice bool
exclude-tools-when-tool-choice-none bool >=0.10
tool-call-parser str
tool-parser-plugin str
reasoning-parser str
enable-reasoning bool <0.10
enable-prompt-tokens-details bool
enable-force-include-usage bool >=0.9
enable-server-load-tracking bool
return-tokens-as-token-ids bool
disable-log-stats bool
disable-log-requests bool <0.20
enable-log-requests bool >=0.10
enable-log-outputs bool >=0.10
max-log-len int
uvicorn-log-level str
disable-uvicorn-access-log bool
disable-fastapi-docs bool
enable-request-id-headers bool
enable-ssl-refresh bool
ssl-keyfile str
ssl-certfile str
root-path str
middleware strs
allowed-origins json
api-server-count int -asc >=0.9
headless bool >=0.9
otlp-traces-endpoint str
collect-detailed-traces str
enable-mfu-metrics bool >=0.15
jit-monitor-mode str >=0.26
jit-monitor-verbose bool >=0.26
shutdown-timeout int >=0.20
"""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A vLLM version: numbers to compare by, text to print."""

    numbers: tuple[int, ...]
    text: str

    def at_least(self, *numbers: int) -> bool:
        """Whether this version is not older than ``numbers``."""
        return self.numbers >= numbers

    @property
    def family(self) -> Family:
        """The generation of start-up lines and behaviour that it follows."""
        if self.at_least(0, 20):
            return "0.26"
        return "0.15" if self.at_least(0, 11) else "0.10"


def parse(text: str) -> Version:
    """A version from ``0.15`` or ``0.15.0``.

    Raises:
        ValueError: It is not numbers with dots between them.
    """
    text = _DEFAULTS.get(text, text)
    return Version(tuple(int(part) for part in text.split(".")), text)


@dataclass(frozen=True, slots=True)
class Flag:
    """One command-line flag.

    Attributes:
        name: Without dashes in front, with dashes inside.
        kind: What its value is; ``size`` takes ``32k`` as well, ``bool`` has a ``--no-`` form instead of a value.
        aliases: Other spellings, with their dashes.
        choices: The values it takes; empty for any of its kind.
        since: First version that has it.
        until: First version that does not have it any more.
    """

    name: str
    kind: Kind
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = (99,)

    @property
    def key(self) -> str:
        """Its name as a setting, with underscores."""
        return self.name.replace("-", "_")

    def known_to(self, version: Version) -> bool:
        """Whether that version's command line has it."""
        return self.since <= version.numbers < self.until


def _flag(line: str) -> Flag:
    name, kind, *rest = line.split()
    return Flag(
        name=name,
        kind=kind,  # type: ignore[arg-type]  # the table above is the only caller
        aliases=tuple(word for word in rest if word.startswith("-")),
        choices=next((tuple(word[1:].split("|")) for word in rest if word.startswith("=")), ()),
        since=next((_numbers(word[2:]) for word in rest if word.startswith(">=")), ()),
        until=next((_numbers(word[1:]) for word in rest if word.startswith("<")), (99,)),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def others(version: Version) -> list[str]:
    """Flags that the version's wheel has and the simulator only accepts, without dashes in front."""
    table = json.loads(_WHEELS.read_text("utf-8"))
    releases = [_release(text) for text in table["versions"]]
    at = max((release for release in releases if release <= version.numbers), default=releases[0])
    own = {_flag(line).name for line in _TABLE.split("\n")[1:-1]}
    names = (name.removeprefix("--") for name, entry in table["flags"].items() if _present(entry["present"], at))
    return [name for name in names if name not in own]


def _present(runs: Sequence[tuple[str, str]], at: tuple[int, ...]) -> bool:
    return any(_release(first) <= at <= _release(last) for first, last in runs)


def _release(text: str) -> tuple[int, ...]:
    return _numbers(text.partition(".post")[0])


def flags(version: Version) -> Iterator[Flag]:
    """The flags of ``vllm serve`` in that version, in the table's order."""
    return (flag for flag in map(_flag, _TABLE.split("\n")[1:-1]) if flag.known_to(version))
