"""How one setting of a deployment may be changed: several ways, the one that leaves most as it is first."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from tuner.engines.base import Flag
from tuner.export.inplace import command, dotenv_file, environment, nodes, settings
from tuner.export.inplace.command import CannotEdit, Placed, Value
from tuner.export.inplace.splice import leaves, replaced
from tuner.export.inplace.view import DeploymentView, Place
from tuner.importer import dotenv, settings_file
from tuner.importer.compose import env_files


@dataclass(frozen=True, slots=True)
class Way:
    """One way to change something.

    Attributes:
        make: What the files become.
        said: What a person should know of it.
    """

    make: Callable[[DeploymentView], DeploymentView]
    said: str = ""


# a flag


def of_flag(view: DeploymentView, head: str, new: Sequence[Flag]) -> Iterator[Way]:
    """Ways to give a flag its new values.

    Args:
        view: The files.
        head: The flag, with underscores.
        new: The flag with its values; none where it is to go.
    """
    here = [flag for flag in view.flags if head_of(flag) == head]
    file = view.settings_file
    if view.project is None:
        yield Way(lambda before: _in_settings(before, head, new))
        return
    in_file = file is not None and settings.holds(view.text(file), str(file), head)
    if in_file and (not here or not new):
        yield Way(lambda before: _in_settings(_without(before, head) if here else before, head, new))
    elif here:
        yield from _ways(view, head, here, new)
    elif file is not None and not _has_flags(view):
        yield Way(lambda before: _in_settings(before, head, new))
    else:
        yield Way(lambda before: _appended(before, new))


def head_of(flag: Flag) -> str:
    """A flag's name with underscores, without the key of its object."""
    return flag.name.removeprefix("--").removeprefix("no-").partition(".")[0].replace("-", "_")


def _has_flags(view: DeploymentView) -> bool:
    return any(flag.name != "--config" for flag in view.flags)


def _ways(view: DeploymentView, head: str, here: Sequence[Flag], new: Sequence[Flag]) -> Iterator[Way]:
    if not new:
        yield Way(lambda before: _without(before, head))
        return
    if any("." in flag.name for flag in here):
        yield Way(lambda before: _by_key(before, head, new[0]))
        return
    place = _found(view, here[-1])
    variable = next(iter(value.variable for value in place.values), None) if len(place.values) == 1 else None
    if variable and len(new[0].values) == 1:
        yield from _of_variable(view, variable, new[0].values[0])
    variables = [name for value in place.values for name in value.variables]
    said = _in_place(view, place.name.scalar.path, place.name.begin, variables)
    yield Way(lambda before: _replaced(before, head, new[0]), said)


def _in_place(view: DeploymentView, path: Path, begin: int, variables: Sequence[str]) -> str:
    if not variables:
        return ""
    line, names = nodes.line_of(view.text(path), begin), " and ".join(dict.fromkeys(variables))
    return f"{names} is not of this setting alone, or not of .env: the value stands in its place in {path.name}:{line}"


def _of_variable(view: DeploymentView, variable: str, new: str) -> Iterator[Way]:
    """A value that stands in ``.env`` is changed there, unless somebody else uses it."""
    if not view.dotenv.is_file() or variable in view.environ or used_elsewhere(view, variable):
        return
    text = dotenv_file.changed(view.text(view.dotenv), variable, new)
    if text is not None:
        yield Way(lambda before: before.changed(view.dotenv, text))


def used_elsewhere(view: DeploymentView, variable: str) -> bool:
    """Whether another service names a variable."""
    mine = view.deployment.container.service
    names = re.compile(rf"\$\{{?{re.escape(variable)}\b")
    for path in view.project.files if view.project else ():
        text = view.text(path)
        for key, node in nodes.pairs(view.services(path)):
            if key.value != mine and names.search(text[node.start_mark.index : node.end_mark.index]):
                return True
    return False


def _found(view: DeploymentView, flag: Flag) -> Placed:
    """Where a flag stands.

    Raises:
        CannotEdit: It is not found there.
    """
    found = [place for place in view.placed if place.flag is flag]
    if not found:
        raise CannotEdit
    name = found[0].name.letters
    if name and name[0].variable:
        raise CannotEdit(f"it stands in the variable {name[0].variable} with others")
    return found[0]


def _replaced(view: DeploymentView, head: str, new: Flag) -> DeploymentView:
    place = _found(view, [flag for flag in view.flags if head_of(flag) == head][-1])
    path = place.name.scalar.path
    return view.changed(path, command.replaced_flag(view.text(path), place, new, view.meaning))


def _without(view: DeploymentView, head: str) -> DeploymentView:
    """Without a flag, however often it stands there."""
    while here := [flag for flag in view.flags if head_of(flag) == head]:
        view = _without_one(view, here[-1])
    return view


def _without_one(view: DeploymentView, flag: Flag) -> DeploymentView:
    place = _found(view, flag)
    path, count = place.name.scalar.path, len(view.flags)
    after = view.changed(path, command.removed(view.text(path), place))
    if len(after.flags) != count - 1:
        raise CannotEdit
    return after


def _appended(view: DeploymentView, new: Sequence[Flag]) -> DeploymentView:
    if not view.words:
        raise CannotEdit
    model = view.deployment.command.model if view.deployment.command else None
    after = command.anchor(view.words, view.placed, model)
    path = after.scalar.path
    return view.changed(path, command.appended(view.text(path), view.words, view.placed, model, new))


def _by_key(view: DeploymentView, head: str, new: Flag) -> DeploymentView:
    """A flag of which each key stands on its own, ``--flag.key value``."""
    wanted = leaves(view.meaning([new]))
    for flag in [flag for flag in reversed(view.flags) if head_of(flag) == head and "." in flag.name]:
        (path, old), *_ = leaves(view.meaning([flag])).items()
        now = [one for one in view.flags if one.name == flag.name][-1]
        if path not in wanted:
            view = _without_one(view, now)
        elif wanted[path] != old:
            place, file = _found(view, now), _found(view, now).name.scalar.path
            other = Flag(flag.name, (word_of(wanted[path]),), flag.written)
            view = view.changed(file, command.replaced_flag(view.text(file), place, other, view.meaning))
    there = leaves(view.meaning([flag for flag in view.flags if head_of(flag) == head]))
    rest = [path for path in wanted if path not in there]
    more = [Flag("--" + ".".join([head.replace("_", "-"), *path[1:]]), (word_of(wanted[path]),), "") for path in rest]
    return _appended(view, more) if more else view


def word_of(value: JsonValue) -> str:
    """A value of JSON as a word."""
    return value if isinstance(value, str) else json.dumps(value)


def _in_settings(view: DeploymentView, head: str, new: Sequence[Flag]) -> DeploymentView:
    path = view.settings_file
    assert path is not None
    value = view.meaning(new).get(head) if new else None
    return view.changed(path, settings.changed(view.text(path), str(path), head, value))


# a variable


def of_variable(view: DeploymentView, name: str, new: str | None) -> Iterator[Way]:
    """Ways to give a variable of the server its new value; ``None`` takes it away."""
    if view.project is None:
        yield from _of_env_sh(view, name, new)
        return
    value = command.setting(view.words, name)
    if value is not None:
        yield from _of_script(value, name, new)
        return
    entry = next(_entries(view, name), None)
    if entry is not None:
        yield from _of_entry(view, *entry, name, new)
    elif (file := _env_file(view, name)) is not None and new is not None:
        yield from _of_env_file(view, file, name, new)
    elif new is not None:
        yield Way(lambda before: _added(before, name, new))


def _of_script(value: Value, name: str, new: str | None) -> Iterator[Way]:
    path = value.word.scalar.path
    if new is not None:
        yield Way(lambda before: before.changed(path, _put(before.text(path), value, new)))


def _put(text: str, value: Value, new: str) -> str:
    return replaced(text, value.word, value.begin, value.end, new)


def _entries(view: DeploymentView, name: str) -> Iterator[tuple[Place, environment.Entry]]:
    for place in view.places("environment"):
        for entry in environment.entries(place.path, view.text(place.path), place.node, name, view.values):
            yield place, entry


def _of_entry(
    view: DeploymentView, place: Place, entry: environment.Entry, name: str, new: str | None
) -> Iterator[Way]:
    path, text = place.path, view.text(place.path)
    if new is None:
        yield Way(lambda before: before.changed(path, environment.removed(text, entry)))
        return
    variable = entry.value.variable if entry.value else name
    if variable and (entry.value is None or entry.value.variable):
        yield from _of_variable(view, variable, new)
    variables = entry.value.variables if entry.value else (name,)
    said = _in_place(view, path, _begin(entry), variables)
    if not place.elsewhere:
        yield Way(lambda before: before.changed(path, environment.changed(text, entry, name, new)), said)
    own = f"{name} in {place} is shared: the service gets a value of its own"
    yield Way(lambda before: _added(before, name, new), own)


def _begin(entry: environment.Entry) -> int:
    first = entry.holder.value[entry.index]
    return int((first[0] if isinstance(first, tuple) else first).start_mark.index)


def _env_file(view: DeploymentView, name: str) -> Path | None:
    if view.project is None:
        return None
    service = view.project.services[str(view.deployment.container.service)]
    files = [file.path for file in env_files(view.project, service) if file.path.is_file()]
    return next((path for path in reversed(files) if name in dotenv.parsed(view.text(path), view.values)), None)


def _of_env_file(view: DeploymentView, file: Path, name: str, new: str) -> Iterator[Way]:
    text = dotenv_file.changed(view.text(file), name, new)
    if text is not None:
        yield Way(lambda before: before.changed(file, text))
    said = f"{name} in {file.name} is shared: the service gets a value of its own"
    yield Way(lambda before: _added(before, name, new), said)


def _added(view: DeploymentView, name: str, new: str) -> DeploymentView:
    path, service = view.own_service()
    return view.changed(path, environment.added(view.text(path), service, name, new))


# env.sh next to a config.yml


def _of_env_sh(view: DeploymentView, name: str, new: str | None) -> Iterator[Way]:
    file = settings_file.env_sh(view.files[0])
    text = view.text(file) if file else None
    if file is None or text is None:
        return
    if new is None:
        pattern = rf"^[ \t]*(?:export[ \t]+)?{re.escape(name)}=.*\n?"
        yield Way(lambda before: before.changed(file, re.sub(pattern, "", text, flags=re.MULTILINE)))
    else:
        written = dotenv_file.changed(text, name, new) or f"{text.rstrip()}\nexport {name}={shlex.quote(new)}\n"
        yield Way(lambda before: before.changed(file, written))
