"""llama.cpp's server as tuner's engine: its command line, and the reading of its log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from tuner.engines.base import Command, Engine, LogReader, Phase, StartupFacts
from tuner.engines.effective import EffectiveSetting, Witness
from tuner.engines.llamacpp import effective
from tuner.engines.llamacpp.commandline import canonical, model_words, words
from tuner.engines.llamacpp.log import facts, phases, signs
from tuner.engines.llamacpp.log.telling import sieve
from tuner.engines.log.shapes import Shapes
from tuner.space import Settings

_OURS = ("host", "port", "alias", "model", "hf_repo")
_PHASES = Shapes(lambda lines: phases.phase_of(lines))


@dataclass(frozen=True)
class LlamaCppEngine(Engine):
    """A llama.cpp server of one model.

    Attributes:
        executable: What is started, ``("llama-server",)``.
        model: A GGUF file, or a repository of the Hub with its quantization, ``org/model-GGUF:Q4_K_M``.
    """

    info_path = "/props"

    def command(self, args: Mapping[str, JsonValue], env: Mapping[str, str], alias: str | None) -> Command:
        """The command line for these settings; ``host`` and ``port`` are the launcher's.

        Args:
            args: Settings by flag name with underscores; a boolean switches a flag on or off, in the form that
                llama.cpp has for it, ``None`` leaves it out, a list repeats the flag.
            env: Environment variables that are part of the configuration.
            alias: The one name that the server then lists: it has but one, and answers to any.
        """
        settings = canonical(args)
        own = {"alias": alias or settings.get("alias")}
        flags = words({**{name: value for name, value in settings.items() if name not in _OURS}, **own})
        argv = (*self.executable, *model_words(self.model), *flags, "--host", "{host}", "--port", "{port}")
        return Command(argv=argv, env={**env})

    def phase(self, line: str) -> Phase | None:
        """The start-up phase that this log line announces, or ``None`` if it announces none."""
        return _PHASES.of(line)

    def telling(self, lines: Sequence[str]) -> Sequence[int]:
        """The places of the lines that may say anything."""
        return sieve().among(lines)

    def reader(self) -> LogReader:
        """Reads the log of one server as it grows."""
        return signs.reader()

    def effective(self, requested: Settings, witness: Witness) -> tuple[EffectiveSetting, ...]:
        """What became of each requested setting."""
        return effective.effective(requested, witness)

    def context_tokens(self, witness: Witness) -> int | None:
        """What one slot holds."""
        return effective.slot_tokens(witness)

    def facts(self, log: Sequence[str]) -> StartupFacts:
        """What the start-up lines say of the server."""
        return facts.facts(log)
