"""What a deployment runs, in one form whatever it was written as."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, JsonValue

from tuner.engines.base import Flag, ServeCommand, starts_nothing
from tuner.engines.registry import ENGINES
from tuner.errors import ConfigError
from tuner.importer import gpus, settings_file, shell
from tuner.importer.container import Container, Mount
from tuner.importer.shell import Script, ShellCommand
from tuner.schema import Schema
from tuner.secrets import MASK_IN_FILES, has_shape, is_secret, redact, redacted

DEFAULT_PORT = 8000
_LARGEST_SCRIPT = 1 << 18


class Secret(Schema):
    """A secret, by name only."""

    name: str
    where: str


class Understood(Schema):
    """A deployment as ``tuner profile import --json`` shows it; no secret's value is in it."""

    service: str | None = None
    image: str | None = None
    argv: tuple[str, ...] = ()
    """The model, then the flags by their long names with dashes; without host, port and keys."""
    env: dict[str, str | None] = Field(default_factory=dict)
    """Variables; null for a secret, and for one whose value is not known."""
    secrets: tuple[Secret, ...] = ()
    host_port: int | None = None
    gpus: JsonValue = None
    """A list of indices, a count, ``all``, ``{"hip": [...]}``, ``{"devices": [...]}``, or null."""
    mounts: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    """What could not be read, or is read otherwise than it is written, a sentence each."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The file that ``--config`` names, if there is one and it can be read.

    Attributes:
        command: Its settings, as a command line would have them.
        said: Why they could not be read.
    """

    command: ServeCommand | None = None
    said: tuple[str, ...] = ()

    def model_of(self, command: ServeCommand | None) -> str | None:
        """The model: the command line's own, else the file's."""
        own = command.model if command else None
        return own if own is not None or self.command is None else self.command.model


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment with what its trials need to know besides.

    Attributes:
        understood: What is shown.
        engine: The kind of engine.
        command: Its command line; ``None`` where it cannot be read, though an engine is there.
        container: How it is run.
        where: Says where something stands in its source.
        wrapper: What runs in front of the program in its container.
        before: Commands that a shell runs before it, and that may matter to it.
        settings: What ``--config`` names.
        env: Its variables with their values; secrets are among them.
    """

    understood: Understood
    engine: str
    command: ServeCommand | None
    container: Container
    where: "Where" = field(repr=False)
    wrapper: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    settings: SettingsFile = SettingsFile()
    env: Mapping[str, str | None] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """A command that starts an engine, and what was learnt on the way to it."""

    command: ServeCommand | None
    env: Mapping[str, str]
    said: tuple[str, ...] = ()
    wrapper: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


Where = Callable[[str], str]
"""Where something stands in the source, by how it is written there."""


def understand(container: Container, where: Where) -> Deployment | None:
    """What a container runs; ``None`` if it is no engine.

    Args:
        container: As its source describes it.
        where: Says where something stands in its source.
    """
    for engine in ENGINES:
        if found := _engine_in(container, engine):
            return _deployment(container, engine, found, where)
    return None


def _engine_in(container: Container, engine: str) -> _Found | None:
    words = (*(container.entrypoint or ()), *container.command)
    image = None if container.entrypoint else container.image or container.base
    if not words:
        return _in_the_image(container, engine)
    if script := shell.script_of(words):
        return _in_script(*script, container, engine)
    serving = ENGINES[engine].conventions.serving
    if command := serving(words, image):
        return _Found(command, {})
    return _wrapped(words, container, engine)


def _in_the_image(container: Container, engine: str) -> _Found | None:
    """A container without a command of its own: its names must say what it is."""
    named = [container.image, container.base, container.service if container.image is None else None]
    if not any(ENGINES[engine].conventions.serving((), name) for name in named):
        return None
    return _Found(None, {}, ("its command stands in its image: `docker inspect` of the running container shows it",))


def _wrapped(words: Sequence[str], container: Container, engine: str) -> _Found | None:
    """A script that is mounted, or a program that is not known, in front of the engine's arguments."""
    at = next((at for at, word in enumerate(words) if word.endswith(".sh") or word.startswith(("/", "./"))), None)
    if at is None or (container.entrypoint is None and at > 1):
        return None
    text = _script_file(words[at], container)
    if text is not None:
        return _in_script(text, tuple(words[at + 1 :]), container, engine, file=words[at])
    command = ENGINES[engine].conventions.serving(words[at + 1 :], container.image or container.base)
    if command is None:
        return None
    said = f"what {words[at]} does is not known: its arguments are read as the engine's"
    return _Found(command, {}, (said,), tuple(words[: at + 1]))


def _script_file(word: str, container: Container) -> str | None:
    """The text of a script of the host, mounted where a container runs it."""
    path = on_host(word, container.mounts) if container.container else Path(word)
    if path is None or not path.is_file() or path.stat().st_size > _LARGEST_SCRIPT:
        return None
    return path.read_text("utf-8", "replace")


def on_host(inside: str, mounts: Sequence[Mount]) -> Path | None:
    """Where a file of the container is on this host; ``None`` if no mount says."""
    for mount in sorted(mounts, key=lambda one: len(one.target), reverse=True):
        if mount.is_path and Path(inside).is_relative_to(mount.target):
            return Path(mount.source) / Path(inside).relative_to(mount.target)
    return None


def _in_script(
    text: str, arguments: Sequence[str], container: Container, engine: str, file: str | None = None
) -> _Found | None:
    """The one command in a script that starts the engine."""
    script = shell.read(text, container.env, arguments)
    serving = ENGINES[engine].conventions.serving
    inner = [(one, _opened(one, container, engine)) for one in script.commands]
    found = [(one, command) for one, command in inner if command]
    name = file or "the shell's command"
    if not found:
        if "vllm" in text and serving(("vllm", "serve", "x"), None):  # it is there, but not as a command
            return _Found(None, {}, (*script.noted, f"{name} starts the engine in a way that cannot be read"))
        return None
    if len(found) > 1:
        listed = "; ".join(" ".join(one.words) for one, _ in found)
        return _Found(None, {}, (*script.noted, f"{name} starts an engine in {len(found)} places: {listed}"))
    ((one, command),) = found
    return _Found(command, one.env, tuple(_said(script, one, name)), before=tuple(script.preparations(one)))


def _opened(one: ShellCommand, container: Container, engine: str) -> ServeCommand | None:
    """A command of a script, a shell within it opened as well."""
    serving = ENGINES[engine].conventions.serving
    if nested := shell.script_of(one.words):
        inner = shell.read(nested[0], {**container.env, **one.env}, nested[1])
        return next((command for each in inner.commands if (command := serving(each.words, None))), None)
    return serving(one.words, None)


def _said(script: Script, chosen: ShellCommand, name: str) -> Iterator[str]:
    yield from script.noted
    if chosen.branch:
        yield f"{name} starts the engine in a branch: whether it does depends on what is known only there"
    for other in script.others(chosen):
        yield f"before the engine, {name} runs: {other}"


def _deployment(container: Container, engine: str, found: _Found, where: Where) -> Deployment:
    env = {**container.env, **found.env}
    flags = found.command.flags if found.command else ()
    shown = [flag for flag in flags if not hidden(flag, engine)]
    settings = _settings(container, engine, flags)
    model = settings.model_of(found.command)
    said = [*container.unread, *found.said, *settings.said, *_weakened(container)]
    if found.command:
        gone = ENGINES[engine].conventions.gone(flags, container.image or container.base)
        said += [*found.command.remarks, *gone, *([] if model else ["no model is named"])]
    said += container.left_out
    understood = Understood(
        service=container.service,
        image=container.image,
        argv=tuple(_argv(model, shown)),
        env={
            name: None if name in container.secrets or _is_secret(name, value) else value for name, value in env.items()
        },
        secrets=tuple(_secrets(container, env, flags, where)),
        host_port=_host_port(container, flags),
        gpus=gpus.visible(container.gpus, found.env) if found.env else container.gpus,
        mounts=tuple(map(str, container.mounts)),
        unread=tuple(dict.fromkeys(_without_secrets(said, env))),
    )
    return Deployment(
        understood,
        engine,
        found.command,
        container,
        where,
        found.wrapper,
        (*container.before, *found.before),
        settings,
        env,
    )


def _settings(container: Container, engine: str, flags: Sequence[Flag]) -> SettingsFile:
    """What ``--config`` names."""
    named = next((flag.values[0] for flag in flags if flag.name == "--config" and flag.values), None)
    if named is None:
        return SettingsFile()
    path = on_host(named, container.mounts) if container.container else Path(named)
    if path is None or not path.is_file():
        return SettingsFile(said=(f"the settings in {named} are not read: no mount says where that file is",))
    try:
        words = settings_file.words(path, engine)
    except ConfigError as error:
        return SettingsFile(said=(f"the settings in {named} are not read: {error}",))
    command = ENGINES[engine].conventions.serving(("vllm", "serve", *words), None)
    return SettingsFile(command, settings_file.doubts(path))


def _weakened(container: Container) -> Iterator[str]:
    """What overrides the hardening of each trial's container."""
    options = container.options
    given = [f"security_opt {one}" for one in options.security_opt] + [f"cap_add {one}" for one in options.cap_add]
    given += [f"device_cgroup_rules {one}" for one in options.device_cgroup_rules]
    shared = {"pid": options.pid, "userns_mode": options.userns, "cgroup": options.cgroup}
    given += [f"{name}: host" for name, value in shared.items() if value == "host"]
    given += ["no limit of processes"] if options.pids == -1 else []
    for one in [*(["privileged"] if options.privileged else []), *given]:
        yield f"{one} is carried into each trial's container, and overrides its hardening"


def _argv(model: str | None, flags: Sequence[Flag]) -> Iterator[str]:
    if model is not None:
        yield model
    for flag in flags:
        yield flag.name
        yield from map(masked, flag.values)


def masked(value: str) -> str:
    """A flag's value, unless it looks like a key."""
    return MASK_IN_FILES if has_shape(value) else value


def _without_secrets(sentences: Iterable[str], env: Mapping[str, str | None]) -> Iterator[str]:
    """A sentence may quote a command, and a command may hold a key."""
    known = [value for name, value in env.items() if value and _is_secret(name, value)]
    yield from (redacted(redact(sentence, known)) for sentence in sentences)


def hidden(flag: Flag, engine: str) -> bool:
    """Whether each launch has it for itself, or it is a secret."""
    name = flag.name.removeprefix("--").replace("-", "_")
    return name in ENGINES[engine].conventions.trials_own - {"served_model_name"} or is_secret(name)


def _is_secret(name: str, value: str | None) -> bool:
    return is_secret(name) or (value is not None and has_shape(value))


def _secrets(
    container: Container, env: Mapping[str, str | None], flags: Sequence[Flag], where: Where
) -> Iterator[Secret]:
    named = [name for name, value in env.items() if name not in container.secrets and _is_secret(name, value)]
    yield from (Secret(name=name, where=where(name)) for name in named)
    yield from (Secret(name=one.name, where=where(one.written)) for one in flags if is_secret(one.name.lstrip("-")))
    yield from (Secret(name=name, where=f"{where(name)}, {origin}") for name, origin in container.secrets.items())


def _host_port(container: Container, flags: Sequence[Flag]) -> int | None:
    given = next((flag.values[0] for flag in reversed(flags) if flag.name == "--port" and flag.values), "")
    inside = int(given) if given.isdigit() else DEFAULT_PORT
    if container.host_network or not container.container:
        return inside
    matching = [port.host for port in container.ports if port.container == inside]
    only = [port.host for port in container.ports] if len(container.ports) == 1 else []
    return next(iter(matching or only), None)


_READ = [name for name, kind in ENGINES.items() if kind.conventions.serving is not starts_nothing]
NO_ENGINE = f"there is no engine in it whose deployments tuner reads ({', '.join(_READ)})"
