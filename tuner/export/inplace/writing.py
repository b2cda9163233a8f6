"""A deployment's own files with a winner in them: setting by setting, each checked by reading the new text back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from tuner.engines.base import Flag
from tuner.errors import ConfigError
from tuner.export.inplace import saving, steps, volumes
from tuner.export.inplace.command import CannotEdit
from tuner.export.inplace.splice import leaves
from tuner.export.inplace.steps import Way
from tuner.export.inplace.view import DeploymentView
from tuner.export.inplace.winner import Winner
from tuner.importer import settings_file
from tuner.importer.container import Container, Mount
from tuner.importer.understood import on_host
from tuner.secrets import is_secret

Leaves = Mapping[tuple[str, ...], JsonValue]


@dataclass(frozen=True, slots=True)
class Written:
    """What the files become.

    Attributes:
        texts: The new text of each file that changes.
        old: Its text until then.
        said: What a person should know, a sentence each.
        secrets: Values that are never shown.
    """

    texts: Mapping[Path, str]
    old: Mapping[Path, str]
    said: tuple[str, ...]
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def diff(self) -> str:
        """What changes, as a unified diff."""
        return saving.diff(self.old, self.texts, self.secrets)


@dataclass(frozen=True, slots=True)
class _Says:
    """What a deployment says, in a form that can be compared."""

    args: Leaves
    env: Mapping[str, str]


def written(view: DeploymentView, winner: Winner) -> Written:
    """The deployment's files with the winner in them; nothing is written.

    Raises:
        ConfigError: Something cannot be changed in place, or serves another model.
    """
    _check(view, winner)
    first, said = view, list[str]()
    for name, ways, goal in _changes(view, winner):
        view, note = _made(view, name, ways, goal)
        said += [note] if note else []
    for folder in winner.folders:
        view = _sees(view, folder)
    if changed := {path: text for path, text in view.texts.items() if text != first.text(path)}:
        _check_by_compose(view)
    old = {path: first.text(path) for path in changed}
    return Written(changed, old, tuple(said), tuple(_secrets(first)))


def _check(view: DeploymentView, winner: Winner) -> None:
    if view.project is None and not view.is_settings:
        said = "only a compose file and vLLM's config.yml are changed in place"
        raise ConfigError(said, place=str(view.files[0]), fix=_ANEW)
    if view.deployment.command is None:
        said = "; ".join(view.deployment.understood.unread)
        raise ConfigError(f"its command line cannot be read: {said}", place=str(view.files[0]), fix=_ANEW)
    if view.served.model != winner.model:
        said = f"it serves {view.served.model}, and the winner is of {winner.model}"
        raise ConfigError(said, place=str(view.files[0]), fix="name the service with --service, or another file")


_ANEW = "write a new file with --as"


def _changes(view: DeploymentView, winner: Winner) -> Iterator[tuple[str, "Ways", "_Says"]]:
    """Each setting that differs, with the ways to change it and what the files say then; what goes is the last."""
    now, wanted = _says(view), _Says(leaves(view.meaning(winner.flags)), winner.env)
    heads = dict.fromkeys(path[0] for path in (*wanted.args, *now.args))
    for head in heads:
        new = _of_head(wanted.args, head)
        if new != _of_head(now.args, head):
            flags = [flag for flag in winner.flags if steps.head_of(flag) == head]
            now = _Says({**{path: value for path, value in now.args.items() if path[0] != head}, **new}, now.env)
            yield f"--{head.replace('_', '-')}", _FlagWays(head, flags), now
    for name in dict.fromkeys((*wanted.env, *now.env)):
        value = wanted.env.get(name)
        if value != now.env.get(name):
            rest = {key: one for key, one in now.env.items() if key != name}
            now = _Says(now.args, {**rest, **({name: value} if value is not None else {})})
            yield name, _VariableWays(name, value), now


def _of_head(args: Leaves, head: str) -> Leaves:
    return {path: value for path, value in args.items() if path[0] == head}


@dataclass(frozen=True, slots=True)
class _FlagWays:
    head: str
    flags: Sequence[Flag]

    def of(self, view: DeploymentView) -> Iterator[Way]:
        return steps.of_flag(view, self.head, self.flags)


@dataclass(frozen=True, slots=True)
class _VariableWays:
    name: str
    value: str | None

    def of(self, view: DeploymentView) -> Iterator[Way]:
        return steps.of_variable(view, self.name, self.value)


Ways = _FlagWays | _VariableWays


def _made(view: DeploymentView, name: str, ways: Ways, goal: _Says) -> tuple[DeploymentView, str]:
    """The files after one change: made the first way that changes this and nothing else."""
    refused = "it is not found there as it is read"
    try:
        for way in ways.of(view):
            after = way.make(view)
            wrong = _wrong(view, after, goal)
            if wrong is None:
                return after, way.said
            refused = wrong
    except CannotEdit as error:
        refused = str(error) or (refused if view.placed or not view.flags else view.elsewhere)
    place = view.deployment.where(_spelling(view, name))
    raise ConfigError(
        f"{name} cannot be changed in place at {place}: {refused}", fix=f"change it there yourself, or {_ANEW}"
    )


def _sees(view: DeploymentView, folder: str) -> DeploymentView:
    """The files with a folder of the host mounted under its own name, unless the container sees something there."""
    container = view.deployment.container
    if view.project is None or on_host(folder, container.mounts) is not None:
        return view
    try:
        path, service = view.own_service()
        after = view.changed(path, volumes.added(view.text(path), service, folder))
        wrong = _wrong(view, after, _says(view), (*container.mounts, volumes.shared(folder)))
    except CannotEdit as error:
        path, wrong = view.files[0], str(error) or "its service is none of this file's own"
    if wrong is None:
        return after
    fix = f"mount it there yourself, read-only and under the same name, or {_ANEW}"
    raise ConfigError(f"{folder} cannot be mounted in place: {wrong}", place=str(path), fix=fix)


def _spelling(view: DeploymentView, name: str) -> str:
    return next((flag.written for flag in view.flags if flag.name == name), name)


def _wrong(
    before: DeploymentView, after: DeploymentView, goal: _Says, mounts: Sequence[Mount] | None = None
) -> str | None:
    """What is wrong with a change; ``None`` if it does what it is for, and nothing else."""
    foreign = [path for path in after.texts if path not in before.texts and path not in _own_files(before)]
    if foreign:
        return f"it stands in {foreign[0]}, which other deployments may use as well"
    try:
        found = _says(after)
    except ConfigError as error:
        return f"the new text could not be read: {error.message}"
    others = [one.service for one in _changed_others(before, after)]
    if others:
        return f"the service {others[0]} uses the same text"
    kept = before.deployment.container
    meant = kept if mounts is None else replace(kept, mounts=tuple(mounts))
    if found != goal or not _is_same(meant, after.deployment.container):
        return "the new text would be read otherwise than it is meant"
    return None


def _own_files(view: DeploymentView) -> list[Path]:
    files = [view.dotenv, *view.deployment.container.files, *(view.project.files if view.project else ())]
    beside = settings_file.env_sh(view.files[0]) if view.project is None else None
    return [*files, *filter(None, (view.settings_file, beside))]


def _says(view: DeploymentView) -> _Says:
    return _Says(leaves(view.served.args), view.served.env)


def _changed_others(before: DeploymentView, after: DeploymentView) -> Iterator[Container]:
    mine = before.deployment.container.service
    now = {one.service: one for one in after.source.containers}
    yield from (one for one in before.source.containers if one.service != mine and now.get(one.service) != one)


_KEPT = ("service", "image", "ports", "host_network", "gpus", "mounts", "options", "secrets")


def _is_same(before: Container, after: Container) -> bool:
    """Whether all but its command and variables is as it was."""
    return all(getattr(before, name) == getattr(after, name) for name in _KEPT)


def _secrets(view: DeploymentView) -> Iterator[str]:
    """The values of keys and tokens that the files name."""
    env = view.deployment.env
    yield from (value for name, value in env.items() if value and is_secret(name))
    yield from (value for flag in view.flags if is_secret(flag.name.lstrip("-")) for value in flag.values)


def _check_by_compose(view: DeploymentView) -> None:
    """Where Compose is installed, it reads the new text as well; files of variables it would read from the disk.

    Raises:
        ConfigError: It reads it otherwise.
    """
    if view.project is None or set(view.texts) & set(view.deployment.container.files):
        return
    own = view.deployment.container
    theirs = next(one for one in view.read(ask=True).containers if one.service == own.service)
    refused = [sentence for sentence in theirs.unread if sentence not in own.unread]
    if refused or (theirs.entrypoint, theirs.command, theirs.env) != (own.entrypoint, own.command, own.env):
        said = "; ".join(refused) or "docker compose config reads the new text otherwise than it is meant"
        raise ConfigError(said, place=str(view.files[0]), fix=_ANEW)
