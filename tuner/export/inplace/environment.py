"""Changes one variable of a service's ``environment``, a list or a mapping, in place."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from tuner.export.inplace import keys, nodes
from tuner.export.inplace.command import Value
from tuner.export.inplace.keys import NewEntry
from tuner.export.inplace.letters import body, filled, of_scalar
from tuner.export.inplace.splice import replaced
from tuner.export.inplace.words import Scalar, Word


@dataclass(frozen=True, slots=True)
class Entry:
    """A variable where it stands.

    Attributes:
        holder: The list or mapping.
        index: Which entry of it.
        value: Its value; ``None`` where it is passed through by its name alone.
    """

    holder: Node
    index: int
    value: Value | None


def entries(path: Path, text: str, node: Node | None, name: str, values: Mapping[str, str]) -> Iterator[Entry]:
    """Where a variable stands in an environment: in itself, then in what is merged into it."""
    if isinstance(node, SequenceNode):
        for at, one in enumerate(node.value):
            if isinstance(one, ScalarNode) and str(one.value).partition("=")[0] == name:
                yield Entry(node, at, _value(path, text, one, values, len(name) + 1, flow=nodes.flow(node), items=node))
    for at, (key, one) in enumerate(nodes.pairs(node)):
        if node is not None and key.value == name:
            empty = isinstance(one, ScalarNode) and one.value in ("", "~", "null") and one.style is None
            yield Entry(node, at, None if empty else _value(path, text, one, values, 0, flow=nodes.flow(node)))
    merged = nodes.own(node, "<<")
    for one in merged.value if isinstance(merged, SequenceNode) else [merged] if merged else []:
        yield from entries(path, text, one, name, values)


def _value(
    path: Path,
    text: str,
    node: Node,
    values: Mapping[str, str],
    begin: int,
    *,
    flow: bool,
    items: SequenceNode | None = None,
) -> Value | None:
    if not isinstance(node, ScalarNode) or (begin and "=" not in str(node.value)):
        return None
    scalar = Scalar(path, node, *body(text, node), items, 0, flow)
    letters = of_scalar(text, node)
    if letters is None:
        return None
    word = Word(tuple(filled(letters, values)), scalar.begin, scalar.end, scalar)
    return Value(word, begin, len(word.letters))


def changed(text: str, entry: Entry, name: str, value: str) -> str:
    """The text with another value of a variable."""
    if entry.value is not None:
        return replaced(text, entry.value.word, entry.value.begin, entry.value.end, value)
    first = entry.holder.value[entry.index]
    begin = int((first[0] if isinstance(first, tuple) else first).start_mark.index)
    found = _ALONE.match(text, begin)
    end = found.end() if found else begin
    return text[:begin] + _rendered(entry.holder, name, value) + text[end:]


_ALONE = re.compile(r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s:,\]}]*)(?:[ \t]*:(?:[ \t]+(?:~|null))?(?![^\s,}]))?""")
"""A name without a value: an item of a list, or a key."""


def removed(text: str, entry: Entry) -> str:
    """The text without a variable."""
    return nodes.without(text, entry.holder, entry.index)


def added(text: str, service: Node, name: str, value: str) -> str:
    """The text with a variable more in a service, which may have no environment yet."""
    alone = f"{name}: {_plain(value, False)}"
    flow = f"{{{name}: {_plain(value, True)}}}"
    return keys.added(text, service, NewEntry("environment", lambda node: _rendered(node, name, value), alone, flow))


def _rendered(holder: Node, name: str, value: str) -> str:
    """An entry as the others are written."""
    escaped = value.replace("$", "$$")
    if isinstance(holder, SequenceNode):
        style = nodes.usual_style(holder.value)
        return nodes.scalar(f"{name}={escaped}", style, flow=nodes.flow(holder))
    values: Sequence[Node] = [one for _, one in nodes.pairs(holder)]
    style = nodes.usual_style(values)
    if style is None or not values:
        return f"{name}: {_plain(value, nodes.flow(holder))}"
    return f"{name}: {nodes.scalar(escaped, style, flow=nodes.flow(holder))}"


def _plain(value: str, flow: bool) -> str:
    """A value without quotes where YAML takes it for a text or a number, as Compose allows both."""
    try:
        number = str(json.loads(value)) == value and value not in ("True", "False", "None")
    except ValueError:
        number = False
    return value if number else nodes.scalar(value.replace("$", "$$"), None, flow=flow)
