"""Which start-up phase a line of vLLM's log announces.

A phase is announced by the first line that belongs to it; a line about its end announces the next. ``Model loading
took`` announces none: what follows is compiling with torch.compile and profiling without, and only a later line tells.
"""

import re
from collections.abc import Sequence

from tuner.engines.base import Phase
from tuner.engines.log.lines import Level, LogLine, parse_line

_ANNOUNCED: tuple[tuple[Phase, re.Pattern[str]], ...] = (
    (
        Phase.OPENING,
        re.compile(
            r"init engine \(profile, create kv cache, warmup model\) took|Starting vLLM (?:API )?server"
            r"|Started server process|Waiting for application startup|Available routes are"
        ),
    ),
    (
        Phase.CAPTURING_GRAPHS,
        re.compile(r"Capturing (?:CUDA graph|cudagraphs for|the model for CUDA graphs|cudagraph)"),
    ),
    (
        Phase.PROFILING,
        re.compile(
            r"torch\.compile (?:takes|took) [\d.]+ s in total|Initial profiling/warmup run took|Memory profiling takes"
            r"|Profiling CUDA graph memory|Estimated CUDA graph memory|Available KV cache memory|KV cache size: "
            r"|Maximum concurrency for|# \w+ blocks: |Encoder cache will be initialized|GiB for KV cache on node"
        ),
    ),
    (
        Phase.COMPILING,
        re.compile(
            r"Using cache directory: .*torch\.compile|Dynamo bytecode transform time|Starting torch\.compile"
            r"|Compiling a graph|Cache the graph|Directly load|saved AOT compiled function"
            r"|Warming up model for the compilation|Compile and warming up model"
        ),
    ),
    (
        Phase.LOADING_WEIGHTS,
        re.compile(
            r"Starting to load model|Loading \w+(?: \w+)? checkpoint shards|Loading model from scratch"
            r"|Using model weights format|Loading weights (?:took|with)|Initializing model took"
            r"|Loading model weights took|Time spent downloading weights"
        ),
    ),
    (
        Phase.STARTING,
        re.compile(
            r"vLLM API server version|(?<![█▀▄ ])[█▀▄ ]{4,}version \d|Initializing an? (?:V\d )?LLM engine"
            r"|non-default args: "
        ),
    ),
)

PATTERNS = tuple(pattern for _, pattern in _ANNOUNCED)
"""One of these is in every line that announces a phase."""


def phase(line: str) -> Phase | None:
    """The phase that this line announces, or ``None``; of several steps of a progress bar, the last one's."""
    return phase_of(parse_line(line))


def phase_of(lines: Sequence[LogLine]) -> Phase | None:
    """The phase that the logical lines of one physical line announce; all lines of one shape announce the same."""
    announced = [_of_text(logical.text) for logical in lines if logical.level < Level.ERROR]
    return next((found for found in reversed(announced) if found), None)


def _of_text(text: str) -> Phase | None:
    return next((announced for announced, pattern in _ANNOUNCED if pattern.search(text)), None)
