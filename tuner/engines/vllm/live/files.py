"""The folder that a server with live settings sees: the scheduler, and the file of the settings."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from pydantic import JsonValue

from tuner.engines.live import Live, LiveStatus, NoLive, Setting
from tuner.engines.vllm.live.scheduler import VARIABLE
from tuner.engines.vllm.memory.demand import release

MODULE = "tuner_live_settings"
_FILE = "settings.json"
_SINCE = (0, 15)
"""What the scheduler relies on has been there at least since then; tried on 0.26 and 0.32."""
_PREFILLS_SINCE = (0, 31)
_NONE = re.compile(r"live settings: none: (.+)")
_MOST = re.compile(r"live settings: at most (\{.+\})")
_BROKE = re.compile(rf'File ".*{MODULE}\.py"|No module named .{MODULE}|ValueError: live settings')
_GRAPHS = 512
"""vLLM captures no larger batches of its own accord."""
_SETS_GRAPHS = ("max_cudagraph_capture_size", "cudagraph_capture_sizes")


class VllmLive(Live):
    """Live settings of one version.

    Attributes:
        settings: What can be changed.
    """

    def __init__(self, settings: tuple[str, ...]) -> None:
        self.settings = settings

    @property
    def args(self) -> Mapping[str, JsonValue]:
        """Our scheduler."""
        return {"scheduler_cls": f"{MODULE}.LiveScheduler"}

    def env(self, folder: str) -> Mapping[str, str]:
        """Where it reads its settings."""
        return {VARIABLE: f"{folder}/{_FILE}"}

    def prepare(self, folder: Path) -> None:
        """The scheduler, and no change yet."""
        source = files("tuner.engines.vllm.live").joinpath("scheduler.py").read_text("utf-8")
        (folder / f"{MODULE}.py").write_text(source, "utf-8")
        self.ask(folder, 0, {})

    def ask(self, folder: Path, change: int, setting: Setting) -> None:
        """Replace the file, so that it is never read half written."""
        draft = folder / f"{_FILE}.new"
        draft.write_text(json.dumps({"change": change, "setting": dict(setting)}), "utf-8")
        os.replace(draft, folder / _FILE)

    def status(self, log: Sequence[str], change: int = 0) -> LiveStatus:
        """What the schedulers have said; their lines stand behind vLLM's own prefixes."""
        ours = [line for line in log if "live settings: " in line]
        most = [json.loads(found[1]) for line in ours if (found := _MOST.search(line))]
        confirmed = sum(f"live settings: change {change} in force" in line for line in ours)
        return LiveStatus(most[0] if most else {}, len(most), confirmed, next(_refusals(ours, change), ""))

    def broke(self, log: Sequence[str]) -> bool:
        """Whether our module stands in a traceback, or could not be imported."""
        return any(_BROKE.search(line) for line in log)

    def doubt(self, setting: Setting, started: Mapping[str, JsonValue]) -> str:
        """Whether steps would replay a CUDA graph here that a server started with the setting does not have."""
        seqs, tokens = _number(setting, started, "max_num_seqs"), _number(setting, started, "max_num_batched_tokens")
        if seqs is None or tokens is None or _sets_graphs(started):
            return ""
        largest = min(2 * (_number(started, started, "max_num_seqs") or seqs), _GRAPHS)
        if not 2 * seqs < tokens <= largest:
            return ""
        return f"its steps of up to {tokens} tokens replay CUDA graphs that end at {2 * seqs} in a launch of its own"


def live_of(version: str | None, args: Mapping[str, JsonValue]) -> Live | NoLive:
    """What can be changed in servers of this version.

    Args:
        version: The engine's; ``None`` if nobody has named it yet.
        args: The deployment's flags.
    """
    numbers = release(version)
    if numbers is None:
        return NoLive("the engine has not said which version it is")
    if numbers < _SINCE:
        return NoLive(f"vLLM {version} is older than {'.'.join(map(str, _SINCE))}")
    if args.get("scheduler_cls") is not None:
        return NoLive(f"the deployment has a scheduler of its own ({args['scheduler_cls']})")
    threshold = ("long_prefill_token_threshold",) if numbers >= _PREFILLS_SINCE else ()
    return VllmLive(("max_num_seqs", "max_num_batched_tokens", *threshold))


def _refusals(lines: Sequence[str], change: int) -> Iterator[str]:
    for line in lines:
        if found := _NONE.search(line):
            yield found[1]
        _, said, reason = line.partition(f"live settings: change {change} refused: ")
        if said:
            yield reason


def _number(first: Setting, then: Setting, name: str) -> int | None:
    value = first.get(name, then.get(name))
    return value if isinstance(value, int) else None


def _sets_graphs(started: Mapping[str, JsonValue]) -> bool:
    """Whether the launch says itself which graphs there are, the setting's own launch would have the same."""
    named = {name.removeprefix("compilation_config.") for name, value in started.items() if value is not None}
    inside = started.get("compilation_config")
    named |= set(inside) if isinstance(inside, dict) else set()
    return bool(started.get("enforce_eager")) or not named.isdisjoint(_SETS_GRAPHS)
