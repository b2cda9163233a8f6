"""What a running vLLM does in addition to its work, so that a load in the same seconds measures that as well."""

import re
from collections.abc import Collection, Mapping

PATTERN = re.compile(r"JIT compilation during inference: ")


def disturbs(line: str) -> bool:
    """Whether a kernel was compiled in the middle of a load (``jit_monitor.py``): 22 to 37 % were lost on an H100."""
    return PATTERN.search(line) is not None


def monitoring(flags: Collection[str]) -> Mapping[str, bool]:
    """The setting by which a vLLM of these flags tells of every kernel that it compiles, and not of each only once."""
    return {"jit_monitor_verbose": True} if "--jit-monitor-verbose" in flags else {}
