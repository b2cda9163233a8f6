"""The contract between tuner and a program that serves a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from pydantic import JsonValue

from tuner.engines.causes import Cause, Diagnosis, Evidence, Fate
from tuner.engines.effective import EffectiveSetting, Status, Witness
from tuner.space import Settings


class Phase(StrEnum):
    """What a trial is doing, in the order in which it normally happens."""

    STARTING = "starting"
    LOADING_WEIGHTS = "loading weights"
    COMPILING = "compiling"
    PROFILING = "profiling memory"
    CAPTURING_GRAPHS = "capturing graphs"
    OPENING = "opening the API"
    WARMING_UP = "warming up"
    MEASURING = "measuring"
    SCREENING = "screening settings"
    """Others are measured in the running server."""
    ASKING = "asking questions"
    """Whether its answers are right."""
    SOAKING = "soaking"
    """Load after load, until its KV cache has been filled several times."""
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server.

    Attributes:
        argv: The command line; ``{host}`` and ``{port}`` stand for what the launcher chooses.
        env: Environment variables to add to the launcher's own.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a server was started with, read back.

    Attributes:
        model: The model, as the command line names it; ``None`` if it does not.
        args: Values by flag name with underscores, each key of a JSON object on its own (``compilation_config.level``);
            what only repeats the default (``auto``, null) is left out.
    """

    model: str | None
    args: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of a command line.

    Attributes:
        name: Its long name, with two dashes in front and dashes in it.
        values: The words behind it, as they stand there.
        written: How the name stands there.
    """

    name: str
    values: tuple[str, ...]
    written: str


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """A command that starts a server, taken apart.

    Attributes:
        program: The words in front of the model; none where the image's own entrypoint is meant.
        model: The model, if the command names one.
        flags: The flags, in their order.
        remarks: What is read otherwise than it is written, a sentence each.
        repeats: Whether the program stands again what the image's entrypoint is already.
    """

    program: tuple[str, ...]
    model: str | None
    flags: tuple[Flag, ...]
    remarks: tuple[str, ...] = ()
    repeats: bool = False


def starts_nothing(words: Sequence[str], image: str | None) -> ServeCommand | None:
    """What an engine makes of a command whose deployments are not read."""
    return None


@dataclass(frozen=True, slots=True)
class Conventions:
    """How command lines and environments of an engine are written, by tuner and by anybody else.

    Attributes:
        switch: How a boolean flag of this name is switched on or off; empty where leaving it out does that.
        read: What a command line with its environment says; ``None`` if it starts no server of this engine.
        trials_own: Flags, with underscores, that each launch has for itself, so that they are not compared.
        variables: How the names of the variables begin that the engine reads.
        launchers_own: How the names of those begin that a launcher sets, so that they are not compared.
        discloses: What a user sets so that a running server tells more of its settings; empty where nothing does.
        serving: Takes a command apart, given its image as well; ``None`` if it starts no server of this engine.
        from_file: The flags that stand in a file of settings of this engine, as a command line would have them.
        gone: Which of these flags the version does not have that an image is of, a sentence each.
        settings: Flags as values by name with underscores, as ``model.args`` has them.
        health: What asks a server for its health in its own container; ``{port}`` stands for its port.
    """

    switch: Callable[[str, bool], str]
    read: Callable[[Sequence[str], Mapping[str, str]], CommandLine | None]
    trials_own: frozenset[str] = frozenset({"host", "port"})
    variables: tuple[str, ...] = ()
    launchers_own: tuple[str, ...] = ()
    discloses: str = ""
    serving: Callable[[Sequence[str], str | None], ServeCommand | None] = starts_nothing
    from_file: Callable[[Mapping[str, JsonValue]], tuple[str, ...]] = lambda settings: ()
    gone: Callable[[Sequence[Flag], str | None], Iterable[str]] = lambda flags, image: ()
    settings: Callable[[Sequence[Flag]], dict[str, JsonValue]] = lambda flags: {}
    health: tuple[str, ...] = (
        "python3",
        "-c",
        "import urllib.request as http; http.urlopen('http://127.0.0.1:{port}/health', timeout=5)",
    )


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known of an engine's settings before any launch; launches overrule it.

    Attributes:
        weights: What a setting is expected to change of the speed, over what one usually does; 1 if not named.
        slow: Values that are known to be several times slower, by setting.
        lossy: Settings that may change what is answered.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    slow: Mapping[str, JsonValue] = field(default_factory=dict)
    lossy: frozenset[str] = frozenset()


NO_HINTS = Hints()


@dataclass(frozen=True, slots=True)
class Degradation:
    """One thing that the server does slower than it could.

    Attributes:
        name: What, in one word.
        line: The line that says so, as it stands in the log.
        line_number: Its place in the log, counted from 1.
        severe: Whether it alone makes a measurement worthless. Eager mode that was asked for is not.
        asked: Whether the configuration asks for it, so that it is not silent.
    """

    name: str
    line: str
    line_number: int
    severe: bool
    asked: bool = False


@dataclass(frozen=True, slots=True)
class StartupFacts:
    """What a server's start-up lines say of it; ``None`` where they do not.

    Memory is per GPU. Where every rank says its own, weights, activations, graphs and times are the largest rank's, and
    the KV cache's size and tokens the smallest's, which is what all of them get.

    Attributes:
        engine_version: As the engine names it, ``0.15.0``.
        weights_gib: GPU memory of the weights.
        kv_cache_gib: GPU memory of the KV cache.
        kv_tokens: How many tokens the KV cache holds.
        max_model_len: The context length served, in tokens.
        compile_s: Time in torch.compile.
        graph_capture_s: Time to capture CUDA graphs.
        compile_cache_hit: Whether the compiled graphs came from the cache: a warm start.
        init_s: Time from a loaded model to a working engine: profiling, KV cache, warm-up; compilation included.
        peak_activation_gib: The most that the profiling run needed on top of the weights.
        non_torch_gib: What CUDA, NCCL and other libraries hold outside torch.
        consumed_gib: Weights and ``non_torch_gib`` together, where the engine (0.33) tells only their sum.
        graph_gib: GPU memory of the CUDA graphs.
        free_gib: GPU memory that was free when the server started.
        total_gib: GPU memory in all, as torch sees it.
        utilization: The fraction of it that the server may use.
        requested_gib: That fraction in GiB.
        suggested_kv_bytes: The size of the KV cache that would just fill ``requested_gib``, in bytes.
        attention_backend: As the engine names it, ``FLASH_ATTN_MLA``.
        layers: How many layers the model has, the output's included, where GPU and host divide them.
        offloaded_layers: How many of them the GPUs hold.
        eager: Whether it runs without torch.compile and CUDA graphs.
        cudagraph_mode: ``FULL_AND_PIECEWISE`` and the like.
        degradations: What it silently does slower than it could.
    """

    engine_version: str | None = None
    weights_gib: float | None = None
    kv_cache_gib: float | None = None
    kv_tokens: int | None = None
    max_model_len: int | None = None
    compile_s: float | None = None
    graph_capture_s: float | None = None
    compile_cache_hit: bool | None = None
    init_s: float | None = None
    peak_activation_gib: float | None = None
    non_torch_gib: float | None = None
    consumed_gib: float | None = None
    graph_gib: float | None = None
    free_gib: float | None = None
    total_gib: float | None = None
    utilization: float | None = None
    requested_gib: float | None = None
    suggested_kv_bytes: int | None = None
    attention_backend: str | None = None
    layers: int | None = None
    offloaded_layers: int | None = None
    eager: bool | None = None
    cudagraph_mode: str | None = None
    degradations: tuple[Degradation, ...] = ()


class LogReader(Protocol):
    """Reads a log line by line; what it keeps does not grow with the log.

    Attributes:
        idle: Whether the last line changed nothing, and no other of its shape would as things stand.
        turns: How often things have changed since: so often other lines matter than before.
    """

    idle: bool
    turns: int

    def read(self, line: str) -> None:
        """Take the next line, without its line end."""
        ...

    def skip(self, lines: Sequence[str]) -> None:
        """Take lines that hold none of the words that the engine's ``telling`` looks for."""
        ...

    def diagnose(self, fate: Fate) -> Diagnosis:
        """What the log so far says of a server of this fate: what ``Engine.diagnose`` says of the same evidence."""
        ...


@dataclass(frozen=True)
class Engine(ABC):
    """A program that serves a model: how to start it and how to read its log.

    What is not abstract here says nothing; an engine that knows more says more.

    Attributes:
        executable: What is started, up to where the command line of one configuration begins.
        model: The model as the command line names it: a repository id or a folder.
    """

    executable: tuple[str, ...]
    model: str

    info_path: ClassVar[str | None] = None
    """Where a running server tells its configuration; ``None`` if it does not."""

    @abstractmethod
    def command(self, args: Mapping[str, JsonValue], env: Mapping[str, str], alias: str | None) -> Command:
        """The command line for these settings.

        Args:
            args: Settings by flag name with underscores (``max_num_seqs``); a boolean switches a flag on or off,
                ``None`` leaves it out, a mapping is passed as JSON.
            env: Environment variables that are part of the configuration.
            alias: A name that the server must answer to besides its own, by which this launch proves who it is.
        """

    @abstractmethod
    def reader(self) -> LogReader:
        """Reads the log of one server as it grows."""

    def diagnose(self, evidence: Evidence) -> Diagnosis:
        """What the evidence says: a pure function, the same for every launcher."""
        reader = self.reader()
        for line in evidence.log:
            reader.read(line)
        return reader.diagnose(evidence.fate)

    @property
    def fallbacks(self) -> Mapping[Cause, str]:
        """The degradation, by its name, that each of these causes is if a server survives it."""
        return {}

    def launch_args(self, flags: Collection[str]) -> Mapping[str, JsonValue]:
        """What tuner sets for its own launches on GPUs only, as far as the engine has these flags."""
        return {}

    def launch_env(self, start_s: float) -> Mapping[str, str]:
        """Variables for tuner's own launches only.

        Args:
            start_s: The longest that a start may take: the engine must not give up before.
        """
        return {}

    def telling(self, lines: Sequence[str]) -> Sequence[int]:
        """The places of the lines that may say anything to ``reader``, ``phase`` or ``disturbs``, in order."""
        return range(len(lines))

    def phase(self, line: str) -> Phase | None:
        """The start-up phase that this log line announces, or ``None`` if it announces none."""
        return None

    def disturbs(self, line: str) -> bool:
        """Whether this line says that the server was busy with itself, so that a load next to it measures that."""
        return False

    def effective(self, requested: Settings, witness: Witness) -> tuple[EffectiveSetting, ...]:
        """What became of each requested setting: a pure function over what the running server says of itself."""
        settings = {**requested.args, **requested.env}
        return tuple(_unknown(name, value) for name, value in settings.items() if value is not None)

    def context_tokens(self, witness: Witness) -> int | None:
        """What one request may hold, of a server that does not say it with its models; ``None`` if nothing tells."""
        return None

    def facts(self, log: Sequence[str]) -> StartupFacts:
        """What the start-up lines say of the server."""
        return StartupFacts()


def _unknown(name: str, value: JsonValue) -> EffectiveSetting:
    return EffectiveSetting(name=name, requested=value, effective=None, status=Status.UNKNOWN)
