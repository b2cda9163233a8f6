"""vLLM as tuner's engine: its command line, and the reading of its log."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from tuner.engines.base import Command, Engine, LogReader, Phase, StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.effective import EffectiveSetting, Witness
from tuner.engines.log.shapes import Shapes
from tuner.engines.vllm import effective
from tuner.engines.vllm.commandline import switch
from tuner.engines.vllm.log import facts, jit, phases, signs
from tuner.engines.vllm.log.degradations import V0_ENGINE
from tuner.engines.vllm.log.telling import sieve
from tuner.errors import ConfigError
from tuner.space import Settings

QUIET: Mapping[str, str] = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""A trial reports to nobody: neither vLLM's usage statistics nor those of its libraries. A user's own values win."""

_OURS = ("host", "port")
_MODULES = ("api_server", "api_server.py")
"""Programs that take the model behind a flag only."""
_PHASES = Shapes(lambda lines: phases.phase_of(lines))


@dataclass(frozen=True)
class VllmEngine(Engine):
    """A vLLM server of one model.

    Attributes:
        executable: What is started, ``("vllm", "serve")``; the model follows it as the first argument.
        model: A repository id or a folder.
    """

    info_path = "/server_info?config_format=json"

    @property
    def fallbacks(self) -> Mapping[Cause, str]:
        """The V0 engine still serves."""
        return {Cause.V0_FALLBACK: V0_ENGINE}

    def launch_args(self, flags: Collection[str]) -> Mapping[str, JsonValue]:
        """The server is to say when a kernel is compiled just in time."""
        return jit.monitoring(flags)

    def launch_env(self, start_s: float) -> Mapping[str, str]:
        """What keeps the server from giving up on its start before we do."""
        return {"VLLM_ENGINE_READY_TIMEOUT_S": str(round(start_s))}

    def command(self, args: Mapping[str, JsonValue], env: Mapping[str, str], alias: str | None) -> Command:
        """The command line for these settings.

        Flags stand in the order in which ``args`` gives them; objects are JSON with sorted keys; a dotted name
        (``compilation_config.compile_sizes``) sets one key of that flag's object, and ``None`` removes it. ``host`` and
        ``port`` are the launcher's. So the same settings always give the same words.

        Args:
            args: Settings by flag name with underscores; ``True`` gives ``--flag``, ``False`` ``--no-flag``, ``None``
                leaves the flag out, a list repeats values behind one flag.
            env: Environment variables that are part of the configuration; ``QUIET`` is added.
            alias: A name that the server answers to besides its own.

        Raises:
            ConfigError: A dotted name reaches into something that is no object.
        """
        settings = _merge_dotted(args)
        settings["served_model_name"] = self._names(settings.get("served_model_name"), alias)
        flags = (word for name, value in settings.items() if name not in _OURS for word in _flag(name, value))
        named = ("--model",) if self.executable[-1].endswith(_MODULES) else ()
        argv = (*self.executable, *named, self.model, *flags, "--host", "{host}", "--port", "{port}")
        return Command(argv=argv, env={**QUIET, **env})

    def phase(self, line: str) -> Phase | None:
        """The start-up phase that this log line announces, or ``None`` if it announces none."""
        return _PHASES.of(line)

    def telling(self, lines: Sequence[str]) -> Sequence[int]:
        """The places of the lines that may say anything."""
        return sieve().among(lines)

    def reader(self) -> LogReader:
        """Reads the log of one server as it grows."""
        return signs.reader()

    def disturbs(self, line: str) -> bool:
        """Whether this line says that a kernel was compiled in the middle of a load."""
        return jit.disturbs(line)

    def effective(self, requested: Settings, witness: Witness) -> tuple[EffectiveSetting, ...]:
        """What became of each requested setting."""
        return effective.effective(requested, witness)

    def facts(self, log: Sequence[str]) -> StartupFacts:
        """What the start-up lines say of the server."""
        return facts.facts(log)

    def _names(self, own: JsonValue, alias: str | None) -> JsonValue:
        """The user's names, or the model's id if there are none, and then the alias."""
        if alias is None:
            return own
        names = own if isinstance(own, list) else [own]
        return [*([name for name in names if name is not None] or [self.model]), alias]


def _merge_dotted(args: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    merged: dict[str, JsonValue] = {name: value for name, value in args.items() if "." not in name}
    for dotted, value in args.items():
        if "." in dotted:
            name, *path = dotted.split(".")
            merged[name] = _set(dotted, merged.get(name), path, value)
    return merged


def _set(dotted: str, owner: JsonValue, path: Sequence[str], value: JsonValue) -> JsonValue:
    """``owner`` with the value at ``path``, without it where that is ``None``; an empty object becomes ``None``."""
    key, *rest = path
    changed = dict(_object(dotted, owner))
    changed[key] = _set(dotted, changed.get(key), rest, value) if rest else value
    return {name: item for name, item in changed.items() if item is not None} or None


def _object(dotted: str, owner: JsonValue) -> Mapping[str, JsonValue]:
    """A flag's value as an object; users also write it as JSON in a string."""
    if isinstance(owner, str):
        owner = _from_json(dotted, owner)
    if owner is None:
        return {}
    if not isinstance(owner, dict):
        name = dotted.split(".")[0]
        raise ConfigError(f"{name} is {owner!r}, not an object", place=dotted, fix=f"write {name} as a mapping")
    return owner


def _from_json(dotted: str, text: str) -> JsonValue:
    try:
        return cast(JsonValue, json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{text!r} is not JSON: {error}", place=dotted, fix="write a mapping") from error


def _flag(name: str, value: JsonValue) -> Iterator[str]:
    if value is None or value == []:
        return
    if isinstance(value, bool):
        yield switch(name, value)
        return
    yield f"--{name.replace('_', '-')}"
    for item in value if isinstance(value, list) else [value]:
        yield _word(item)


def _word(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
