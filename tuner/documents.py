"""Reads YAML and text that somebody else wrote, within limits: whatever is wrong ends in one sentence, within seconds.

The limits are far beyond any configuration of ours: they are there for a file that is no configuration at all, or one
that is made to exhaust memory (aliases of aliases, thousands of levels).
"""

import errno
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tuner.errors import ConfigError

_MOST_BYTES = 1 << 20
_MOST_LEVELS = 50
_MOST_VALUES = 100_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_INSTEAD: ContextVar[Mapping[str, str]] = ContextVar("instead")


@contextmanager
def instead(texts: Mapping[Path, str]) -> Iterator[None]:
    """In this block these files read as they are to become: what is written can be checked before it is."""
    token = _INSTEAD.set({os.path.abspath(path): text for path, text in texts.items()})
    try:
        yield
    finally:
        _INSTEAD.reset(token)


def changed(path: Path) -> str | None:
    """The text that stands for a file in such a block; ``None`` for every other file."""
    return _INSTEAD.get({}).get(os.path.abspath(path))


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: It cannot be read, is larger than a megabyte, or is no text.
    """
    if (text := changed(path)) is not None:
        return text
    try:
        if stat.S_ISFIFO(path.lstat().st_mode):  # what a shell puts in place of <(…) is a link to one, and is read
            raise OSError(errno.EINVAL, "not a regular file")
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)  # a device says that it has no size
        if len(raw) > _MOST_BYTES:
            size = f"{path.stat().st_size / 1e6:.1f} MB are" if path.is_file() else "what has no end is"
            raise ConfigError(f"{size} no configuration", place=str(path), fix="name another file")
        text = io.StringIO(raw.decode("utf-8"), newline=None).read()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", place=str(path), fix="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError("binary data, not text", place=str(path), fix=_REPAIR) from error
    if "\0" in text:
        raise ConfigError("holds NUL bytes, so it is not text", place=str(path), fix=_REPAIR)
    return text


def yaml_of(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        ConfigError: As ``text_of`` does, or it is not YAML, too deep, or expands to too much.
    """
    return parsed(text_of(path), str(path))


def parsed(text: str, place: str) -> Any:
    """What a YAML text says.

    Args:
        text: The text.
        place: Where it comes from, for the error.

    Raises:
        ConfigError: It is not YAML, nests more than 50 levels, or stands for more than 100,000 values.
    """
    try:
        _check_size(text, place)
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"not YAML: {said}", place=place, fix=_REPAIR) from error


_REPAIR = "fix the file, or restore it from a copy"


def _check_size(text: str, place: str) -> None:
    """Count what a text stands for, aliases expanded, without building any of it."""
    anchors: dict[str, int] = {}
    open_collections: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=_Loader):
        match event:
            case yaml.CollectionStartEvent():
                open_collections.append((event.anchor, size))
                size += 1
            case yaml.CollectionEndEvent():
                anchor, before = open_collections.pop()
                if anchor:
                    anchors[anchor] = size - before
            case yaml.AliasEvent():
                size += anchors.get(event.anchor or "", 1)
            case yaml.ScalarEvent():
                size += 1
        if len(open_collections) > _MOST_LEVELS:
            raise ConfigError(f"more than {_MOST_LEVELS} levels deep", place=place, fix=_REPAIR)
        if size > _MOST_VALUES:
            raise ConfigError(f"stands for more than {_MOST_VALUES:,} values", place=place, fix=_REPAIR)


class _Texts(_Loader):  # type: ignore[valid-type, misc]
    """A YAML loader that leaves every scalar the text that it is written as, except null."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _tag, _pattern, _first in (("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]), ("merge", r"<<", ["<"])):
    _Texts.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


class WholeMapping(dict[Any, Any]):
    """A mapping that takes another's place instead of adding to it: ``!override`` of Compose's."""


class WholeList(list[Any]):
    """A list of that kind."""


def _tagged(loader: Any, suffix: str, node: yaml.Node) -> Any:
    """What stands behind a tag of somebody's own; ``!reset`` takes it away."""
    if suffix == "reset":
        return None
    if isinstance(node, yaml.MappingNode):
        mapping = loader.construct_mapping(node, deep=True)
        return WholeMapping(mapping) if suffix == "override" else mapping
    if isinstance(node, yaml.SequenceNode):
        items = loader.construct_sequence(node, deep=True)
        return WholeList(items) if suffix == "override" else items
    return loader.construct_scalar(node)


_Texts.add_multi_constructor("!", _tagged)


def texts(text: str, place: str) -> list[Any]:
    """What each document in a YAML text says, with numbers, switches and dates as they are written.

    Another program's configuration is read so: ``yes`` or ``8000:22`` mean something to YAML that they do not to it.

    Raises:
        ConfigError: As ``parsed`` does.
    """
    try:
        _check_size(text, place)
        return list(yaml.load_all(text, Loader=_Texts))  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"not YAML: {said}", place=place, fix=_REPAIR) from error
