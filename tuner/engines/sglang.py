"""What tuner reads in the log of an SGLang server: the common causes only."""

import re
from collections.abc import Sequence
from functools import cache

from tuner.engines.causes import Cause, Diagnosis, Evidence
from tuner.engines.kind import EngineLog
from tuner.engines.log import diagnosis, frames, platform
from tuner.engines.log.degradations import DegradationReader, slower, telling
from tuner.engines.log.diagnosis import DiagnosticReader
from tuner.engines.log.lines import Level, LogLine
from tuner.engines.log.literals import Index, words_of
from tuner.engines.log.reader import LogGrammar
from tuner.engines.log.shapes import Shapes
from tuner.engines.log.sieve import Sieve
from tuner.engines.log.signs import Rank, Sign

_MORE_STATIC = "Raise --mem-fraction-static, lower --chunked-prefill-size, or spread over more GPUs (--tp)."
_LESS_STATIC = "Lower --mem-fraction-static, --cuda-graph-max-bs or --chunked-prefill-size."

WROTE = re.compile(
    r"\bsglang\b|\bsgl[-_]kernel\b|server_args=ServerArgs|The server is fired up|mem[-_]fraction[-_]static"
    r"|^(?:(?:DP|TP|EP|PP)\d+ ?)+\] |\b(?:Decode|Prefill) batch\b.*#|Scheduler hit an exception|--max-running-requests"
    r"|\bpre_model_load_memory="
    r"|\btoken_to_kv_pool|\bserver_args\.py:\d+|\bSGLANG_|Overlap schedule\w* is disabled|Cuda graph is disabled"
)
"""A line that only SGLang writes."""

_OWN_FILES = r"/sglang/(?!.*(?:site|dist)-packages/)"

_SIGNS = (
    Sign(
        Cause.NO_KV_CACHE,
        Rank.EXACT,
        (
            r"Not enough memory\. Please try to (?:in|de)crease --mem-fraction-static",
            r"Not enough memory to allocate KV cache|leaves? no GPU memory for the KV cache",
            r"larger than the profiled value (?P<profiled_tokens>-\d+)",
        ),
        _MORE_STATIC,
    ),
    Sign(
        Cause.CUDA_OOM,
        Rank.EXACT,
        (r"Capture cuda graph failed: .*out of memory",),
        _LESS_STATIC,
    ),
    Sign(
        Cause.INSUFFICIENT_FREE_MEMORY,
        Rank.EXACT,
        (r"The memory capacity is unbalanced",),
        platform.FREE_THE_GPU,
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (r"\berror: (?:unrecognized arguments|argument \S|the following arguments are required|ambiguous option)",),
        "Correct or drop the flag; `python -m sglang.launch_server --help` lists what this version takes.",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.EXACT,
        (r"Model architectures? .*\b(?:are|is) not supported|is not supported for the current GPU",),
        platform.OTHER_IMAGE,
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.FAMILY,
        (
            r"^\s*NotImplementedError\b|^\s*KeyError: '[\w.]*\b(?:layers?|blocks)\.\d+\.[\w.]+'",
            r"(?:Error|Exception): .*(?:not (?:yet )?supported|does not support|only supports?)",
            r"(?:Error|Exception): .*(?:[Uu]n-?supported|requires? sm)",
        ),
        platform.OTHER_HARDWARE,
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.RAISED,
        (rf"^\s*(?:ValueError|NotImplementedError|AssertionError)\b{platform.NOT_THE_MACHINES}",),
        "SGLang's own check refuses this combination: change the setting that the line is about.",
        raised_in=rf"^$|{_OWN_FILES}",
    ),
    Sign(
        Cause.UNSUPPORTED,
        Rank.BROKEN,
        (rf"^\s*{platform.BROKEN}{platform.NOT_THE_MACHINES}",),
        platform.REFUSED_THERE,
        raised_in=rf"{_OWN_FILES}|{platform.BROKEN_IN}",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.KNOWN,
        (r"(?:must be|not|is not) divisible by (?:the )?(?:number of |tensor|tp|ep|dp|pp|attention|\d+$)",),
        platform.FEWER_RANKS,
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.FAMILY,
        (r"^\s*(?:ValueError|AssertionError|TypeError)\b",),
        "Give the setting a value that the message allows.",
        raised_in=r"sglang/srt/(?:server_args|configs/\w+)\.py|sglang/launch_server\.py",
    ),
    Sign(
        Cause.ENGINE_DIED,
        Rank.AFTERMATH,
        (
            r"run_event_loop|scheduler\.event_loop_\w+\(\)|[Ww]atchdog timeout|scheduler is dead",
            r"self\.(?:forward_step|forward_thread_func_|run_batch)\(|alloc_\w+ runs out of memory",
            r"(?:Prefill|Decode) out of memory\. ",
        ),
        platform.LOOK_ABOVE,
        serving=True,
    ),
    Sign(
        Cause.UNKNOWN,
        Rank.WRAPPER,
        (
            r"(?:Scheduler|Detokenizer|TokenizerManager) hit an exception|Received sigquit from a child process",
            r"Exception in \w*(?:Worker|Runner|RpcClient)",
        ),
        platform.LOOK_ABOVE,
        serving=True,
        level=Level.WARNING,
    ),
    *frames.SIGNS,
    *platform.SIGNS,
)

ANNOUNCES = re.compile(
    r"server_args=ServerArgs|Init torch distributed|Load weight (?:begin|end)|Memory pool end|apture cuda graph begin"
)
"""Said on the way to a server that serves."""

READING = LogGrammar(
    signs=_SIGNS,
    traps=re.compile(r"can be ignored|\[Autotuner\]|for benchmark choice"),
    version=re.compile(r"\bsglang(?:==|[ :]v?| [Vv]ersion:? v?)(\d+\.\d+\.\d+[\w.]*)"),
    start=re.compile(r"server_args=ServerArgs"),
    ready=re.compile(r"The server is fired up and ready to roll|Application startup complete|Uvicorn running on"),
    serving=re.compile(
        r"The server is fired up and ready to roll|Uvicorn running on|(?:Decode|Prefill) batch\b"
        r'| - "(?:GET|POST) /\S* HTTP/1\.[01]" (?!503)\d{3}'
    ),
    started=re.compile(r"The server is fired up"),
    told_to_stop=re.compile(r"KeyboardInterrupt|[Gg]racefully exit|SIGTERM received"),
    not_the_root=re.compile(r"CalledProcessError|HTTPException"),
)
"""How an SGLang server's log is read."""


_DEGRADATIONS = (
    slower(
        "cuda_graph_off",
        r"(?i:cuda graphs? (?:is|are|will be) disabled|disabl(?:e|ed|ing) (?:the )?cuda graphs?\b(?!=))",
        severe=True,
    ),
    slower(
        "attention_backend",
        r"(?i:fall(?:s|ing)? ?back to (?:the )?[\w/ -]*?(?:backend|attention|triton|flashinfer|torch[_ ]native))",
        r"(?i:attention backend .{0,80}(?:not (?:available|supported|compatible)|unavailable))",
        r"(?i:switch(?:ing|ed)? to [\w ]+ attention)",
    ),
    slower(
        "overlap_schedule_off",
        r"(?i:overlap schedule(?:r)?(?: and [\w ]+)? (?:is|are|will be) (?:disabled|turned off))",
        r"(?i:disabl(?:e|ed|ing) (?:the )?overlap schedule|(?:not |in)compatible with (?:the )?overlap schedule)",
    ),
)


_MENTIONS = tuple(each.pattern for each in _DEGRADATIONS)
_TELLING = telling(_MENTIONS)


def degradations() -> DegradationReader:
    """Keeps what SGLang says that it does slower: each forced by another setting, the model or the GPU."""
    return DegradationReader(_DEGRADATIONS, _TELLING)


def reader() -> DiagnosticReader:
    """Reads an SGLang log as it grows."""
    return DiagnosticReader(READING)


def diagnose(evidence: Evidence) -> Diagnosis:
    """What the evidence says of an SGLang server: a pure function, the same for every launcher."""
    return diagnosis.diagnose(evidence, READING)


def _announces(lines: Sequence[LogLine]) -> bool:
    return any(ANNOUNCES.search(line.text) for line in lines)


@cache
def _sieve() -> Sieve:
    return Sieve(words_of((*READING.patterns, *_MENTIONS, ANNOUNCES)))


LOG = EngineLog(reader, Index([(WROTE, True)]), degradations, Shapes(_announces), _sieve)
"""How its logs are recognised and read."""
