"""Which start-up phase a line of llama.cpp's log announces.

A phase is announced by the first line that belongs to it. The HTTP server listens before the model is loaded.
"""

import re
from collections.abc import Sequence

from tuner.engines.base import Phase
from tuner.engines.log.lines import LogLine

_ANNOUNCED: tuple[tuple[Phase, re.Pattern[str]], ...] = (
    (Phase.OPENING, re.compile(r"\b(?:init|load_model): initializing slots|\bmodel loaded\b|all slots are idle")),
    (Phase.CAPTURING_GRAPHS, re.compile(r"warming up the model with an empty run")),
    (Phase.PROFILING, re.compile(r"llama_(?:context: constructing|new_context_with_model: n_ctx)|params_fit")),
    (Phase.LOADING_WEIGHTS, re.compile(r"\bload_model: loading (?:draft )?model\b|loading model tensors")),
)

PATTERNS = tuple(pattern for _, pattern in _ANNOUNCED)
"""One of these is in every line that announces a phase."""


def phase_of(lines: Sequence[LogLine]) -> Phase | None:
    """The phase that a physical line, split into its logical lines, announces; the last where several do."""
    for line in reversed(lines):
        for phase, pattern in _ANNOUNCED:
            if pattern.search(line.text):
                return phase
    return None
