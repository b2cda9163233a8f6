"""The contract of what an engine knows of a launch before it.

An engine of which nothing can be known uses ``Foresight`` as it is: it refuses nothing, and predicts nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from tuner.engines.base import Engine, StartupFacts
from tuner.engines.ceilings import Ceilings
from tuner.engines.forecast import Forecast
from tuner.engines.hardware import Hardware
from tuner.errors import InfeasibleConfig, LaunchRejected, PredictedOutOfMemory
from tuner.host.inside import Inside
from tuner.load.workload import Workload
from tuner.space import SearchSpace, Settings


@dataclass(frozen=True, slots=True)
class KnownFlags:
    """The flags of one engine's version.

    Attributes:
        flags: Long flags, with their dashes.
        choices: The values that a flag is limited to, where that is known.
        source: Who says so, for a person.
    """

    flags: frozenset[str]
    choices: Mapping[str, tuple[str, ...]]
    source: str


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that will be refused every time.

    Attributes:
        message: The sentence, with the values.
        place: The key of the workload that asks for it.
        fix: What to change.
        settings: The flags, with underscores, that decide about it.
    """

    message: str
    place: str
    fix: str
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """The settings by which an engine's GPU memory grows or shrinks, as the engine names them.

    ``None`` where the engine has no such setting. From an engine that names none, no failure of memory teaches
    anything.

    Attributes:
        share: The share of each GPU that the server takes; what is not needed otherwise is KV cache.
        cache_bytes: A KV cache of fixed size, which counts instead of the share.
        sequences: Sequences in a batch.
        tokens: Tokens in a batch.
        length: The context length.
        block: Tokens in a block of the KV cache.
        eager: A switch that goes without CUDA graphs.
        unrelated: Settings that do not change how much memory a warm server takes.
    """

    share: str | None = None
    cache_bytes: str | None = None
    sequences: str | None = None
    tokens: str | None = None
    length: str | None = None
    block: str | None = None
    eager: str | None = None
    unrelated: frozenset[str] = frozenset()

    @property
    def ordered(self) -> tuple[str, ...]:
        """Those of which more never needs less memory."""
        return tuple(name for name in (self.share, self.sequences, self.tokens, self.length) if name)


@dataclass(frozen=True, slots=True)
class ServerStart:
    """One start of a server, also one that failed, and what its log says.

    Attributes:
        settings: The whole configuration.
        facts: What the log says.
        out_of_memory: Whether it ended by running out of GPU memory that nobody else held.
    """

    settings: Settings
    facts: StartupFacts
    out_of_memory: bool = False


class MemoryModel:
    """Predicts GPU memory, as the starts so far have corrected it. This one predicts nothing."""

    def after(self, starts: Sequence[ServerStart]) -> "MemoryModel":
        """The same after some more starts; this one stays as it is."""
        return self

    def forecast(self, settings: Settings) -> Forecast | None:
        """The best guess, as it is kept with the trial; ``None`` if none can be made."""
        return None

    def shortage(self, settings: Settings) -> PredictedOutOfMemory | None:
        """Why these settings cannot start, beyond all that predictions have ever been wrong by."""
        return None

    def fits(self, settings: Settings) -> bool:
        """Whether the best guess has room for them, as far as one can be made."""
        return True


@dataclass(frozen=True, slots=True)
class Question:
    """What an engine is asked where nobody says what may be tried.

    Attributes:
        deployed: The deployment's settings; empty where there is none.
        hardware: The GPUs.
        version: The engine's; ``None`` until somebody names it.
        workload: What will be sent.
        answers_checked: Whether a winner's answers are compared with the deployment's before it is exported.
        kernels: A folder with kernels that were tuned for these cards; ``None`` where none is named.
    """

    deployed: Settings
    hardware: Hardware
    version: str | None
    workload: Workload
    answers_checked: bool = False
    kernels: Path | None = None


@dataclass(frozen=True, slots=True)
class SpaceProposal:
    """What an engine would try of one model on one machine.

    Attributes:
        space: Each parameter with its reason.
        args: Flags that the deployment does not set, and without which it would not start, or leave GPUs idle.
    """

    space: SearchSpace
    args: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to lay a model out on GPUs.

    Attributes:
        name: For a person: ``TP 2``.
        gpus: How many it takes.
        args: The flags that ask for it.
        refused: Why it cannot be, or is predicted not to start; empty if nothing speaks against it.
        weights_gib: Weights on the fullest GPU; ``None`` where nothing can be predicted, here and below.
        kv_tokens: What the KV caches of all replicas hold.
        requests: Requests of full length that they hold at once.
        length: That length, in tokens.
        alone_tokens_per_s: What one user can get at the most, were memory read at its full speed and nothing else done.
    """

    name: str
    gpus: int
    args: Mapping[str, JsonValue]
    refused: str = ""
    weights_gib: float | None = None
    kv_tokens: int | None = None
    requests: float | None = None
    length: int | None = None
    alone_tokens_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What is known of an engine's launches on one machine before the first.

    Attributes:
        flags: What its command line takes; ``None`` where nobody knows.
        names: The settings that lessons of memory are about.
    """

    flags: KnownFlags | None = None
    names: MemorySettings = MemorySettings()

    def refused_flag(self, args: Mapping[str, JsonValue]) -> LaunchRejected | None:
        """The first of these flags that the engine does not have, or whose value it does not take."""
        return None

    def refused(self, settings: Settings, version: str | None, hardware: Hardware) -> InfeasibleConfig | None:
        """Why the engine refuses a whole configuration whose flags it takes one by one.

        Args:
            settings: The configuration.
            version: The engine's; ``None`` until somebody names it.
            hardware: The GPUs, with what starts have said of them.
        """
        return None

    def refused_requests(self, workload: Workload, settings: Settings, version: str | None) -> Iterable[RefusedRequest]:
        """Which of the workload's requests a server of these settings and this version refuses every time."""
        return ()

    def memory(self, version: str | None, hardware: Hardware) -> MemoryModel:
        """Predictions for this version on these GPUs, before any start."""
        return MemoryModel()

    def ceilings(self, settings: Settings, version: str | None, hardware: Hardware, workload: Workload) -> Ceilings:
        """What these settings allow of the workload at most, as far as the engine can tell."""
        return Ceilings()

    def proposed(self, question: Question) -> SpaceProposal:
        """What may be tried where nobody says: only what exists in this version and can act here."""
        return SpaceProposal(SearchSpace(params={}, remarks=("this engine proposes nothing: name a space",)))

    def placements(self, question: Question) -> Iterable[Placement]:
        """Every way to lay the model out on these GPUs, as far as the engine can tell."""
        return ()


@dataclass(frozen=True)
class Premises:
    """What an engine's foresight is made of.

    Attributes:
        engine: As the launcher starts it.
        model: The model as this host knows it: a repository id or a folder.
        hardware: The GPUs.
        answers: The folder in which an engine's answers are remembered.
        env: The variables that say where this host keeps models.
        version: Of the engine, where the configuration names it.
        inside: The image that the engine is in, if it can be asked there.
        image: That image's name, which may tell a version.
        on_this_host: Whether the engine's program is one of this host's.
        may_ask: Whether a model that is not on this disk may be asked for where it is published.
    """

    engine: Engine
    model: str
    hardware: Hardware
    answers: Path
    env: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    inside: Inside | None = None
    image: str | None = None
    on_this_host: bool = False
    may_ask: bool = False
