"""Which flags a vLLM takes: asked of itself (``vllm serve --help=all``), else from the table that ships with tuner."""

from tuner.engines.foresight import KnownFlags
from tuner.engines.help import Help
from tuner.engines.vllm.flags import known_choices, known_flags, parse_help
from tuner.engines.vllm.memory.demand import release

HELP = Help("--help=all", parse_help)


def of_version(version: str) -> KnownFlags:
    """The flags of a version, from the table that ships with tuner; ``0.15`` means its newest patch."""
    numbers = ".".join(map(str, release(version) or ())) or version
    return KnownFlags(known_flags(numbers), known_choices(numbers), f"tuner's table of vLLM {version}'s flags")
