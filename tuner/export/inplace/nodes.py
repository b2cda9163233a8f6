"""Where things stand in a YAML text, and the few changes of it that keep every other letter.

ruamel.yaml says where each node begins and ends; the text around it is never written anew, so that comments, order,
anchors, quotes and folds survive whatever they are.
"""

import json
import re
from collections.abc import Iterator, Sequence

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from tuner.errors import ConfigError

Pair = tuple[Node, Node]


def compose(text: str, place: str) -> Node:
    """The nodes of a YAML text.

    Raises:
        ConfigError: It is not YAML.
    """
    try:
        node: Node | None = YAML(typ="rt", pure=True).compose(text)
    except YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}", place=place) from error
    if node is None:
        raise ConfigError("there is nothing in it", place=place)
    return node


def pairs(node: Node | None) -> list[Pair]:
    """What a mapping holds itself; nothing for anything else."""
    return list(node.value) if isinstance(node, MappingNode) else []


def own(node: Node | None, key: str) -> Node | None:
    """A mapping's own value of a key, not what it merges."""
    return next((value for name, value in pairs(node) if name.value == key), None)


def get(node: Node | None, key: str) -> Node | None:
    """A mapping's value of a key, its own or one that is merged into it."""
    found = own(node, key)
    merged = own(node, "<<") if found is None else None
    below = merged.value if isinstance(merged, SequenceNode) else [merged] if merged else []
    return found or next((value for one in below if (value := get(one, key))), None)


def end_of(text: str, node: Node) -> int:
    """Where a node's own text ends, without the comments and blank lines behind it."""
    children = (
        [one for pair in node.value for one in (pair if isinstance(pair, tuple) else (pair,))]
        if not isinstance(node, ScalarNode)
        else []
    )
    inside = [child for child in children if node.start_mark.index <= child.start_mark.index < node.end_mark.index]
    if inside and not flow(node):
        last = end_of(text, inside[-1])
        return max(last, _alias_end(text, node, last))
    begin, end = int(node.start_mark.index), int(node.end_mark.index)
    return begin + len(text[begin:end].rstrip())


def _alias_end(text: str, node: Node, last: int) -> int:
    """An alias at the end of a collection has no node of its own there."""
    rest = re.match(r"(?:[ \t]*:)?(?:\s|#[^\n]*)*(?:[\w.\"'-]+:|-)?[ \t]*\*\S+", text[last : node.end_mark.index])
    return last + rest.end() if rest else last


def line_begin(text: str, index: int) -> int:
    """Where the line of a place begins."""
    return text.rfind("\n", 0, index) + 1


def line_end(text: str, index: int) -> int:
    """Where the line of a place ends, in front of its line break."""
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def column(text: str, index: int) -> int:
    """How far a place is from the begin of its line."""
    return index - line_begin(text, index)


def line_of(text: str, index: int) -> int:
    """The number of a place's line, from 1."""
    return text.count("\n", 0, index) + 1


def _entries(node: Node) -> list[tuple[Node, Node]]:
    """First and last node of each entry of a collection."""
    return [one if isinstance(one, tuple) else (one, one) for one in node.value]


def without(text: str, node: Node, first: int, count: int = 1) -> str:
    """The text without some entries of a list or mapping; comments on lines of their own stay.

    What is empty then stays one: Compose takes nothing at all for neither.
    """
    entries = _entries(node)
    begin, end = entries[first][0].start_mark.index, end_of(text, entries[first + count - 1][1])
    if flow(node):
        following = entries[first + count :]
        if following:
            return text[:begin] + text[following[0][0].start_mark.index :]
        begin = end_of(text, entries[first - 1][1]) if first else begin
        return text[:begin] + text[end:]
    if count == len(entries):
        empty = "[]" if isinstance(node, SequenceNode) else "{}"
        above, indent = text[: line_begin(text, begin)], " " * column(text, begin)
        kept = f"{above.rstrip()} " if above.rstrip().endswith(":") else above + indent
        return kept + empty + text[line_end(text, end) :]
    return text[: line_begin(text, begin)] + text[min(len(text), line_end(text, end) + 1) :]


def added(text: str, node: Node, after: int, entries: Sequence[str]) -> str:
    """The text with entries behind one of a list or mapping, as that is written."""
    first, last = int(_entries(node)[after][0].start_mark.index), end_of(text, _entries(node)[after][1])
    if flow(node):
        return _between_brackets(text, node, last, ", ".join(entries))
    dash = re.match(r"[ \t]*-[ \t]+", text[line_begin(text, first) :]) if isinstance(node, SequenceNode) else None
    indent, end = dash[0] if dash else " " * column(text, first), line_end(text, last)
    return text[:end] + "".join(f"\n{indent}{entry}" for entry in entries) + text[end:]


def _between_brackets(text: str, node: Node, last: int, entries: str) -> str:
    """Entries on a line of their own, where the list or mapping is written over several; a comma may end it already."""
    begin = int(_entries(node)[-1][0].start_mark.index)
    line = text[line_begin(text, begin) : begin]
    indent = line[: len(line) - len(line.lstrip())]
    if comma := re.match(r",[ \t]*(?:#[^\n]*)?(?=\n)", text[last:]):
        end = last + comma.end()
        return f"{text[:end]}\n{indent}{entries},{text[end:]}"
    several = "\n" in text[node.start_mark.index : begin]
    return text[:last] + (f",\n{indent}" if several else ", ") + entries + text[last:]


def flow(node: Node) -> bool:
    """Whether a collection is written with brackets."""
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def item(value: str, usual: str | None, quote: str, *, flow: bool, escaped: bool) -> str:
    """A value as an item of a list.

    Args:
        value: The value.
        usual: How most items are quoted.
        quote: How those are that are quoted.
        flow: Whether the list stands between brackets.
        escaped: Whether quotes within quotes are escaped in it.
    """
    if usual is None and reads_as(value, flow=flow) == value:
        return value
    mixed = quote == '"' and '"' in value and "'" not in value and not escaped
    return scalar(value, "'" if mixed else quote, flow=flow)


_YAML_1_1 = yaml.SafeLoader


def reads_as(raw: str, *, flow: bool) -> str | None:
    """What a plain scalar of this text means; ``None`` if it is none, or no text but a number or the like."""
    wrapped = f"[{raw}]" if flow else f"- {raw}"
    try:
        node = yaml.compose(wrapped, Loader=_YAML_1_1)
    except yaml.YAMLError:
        return None
    (one, *others) = node.value if isinstance(node, yaml.SequenceNode) and node.value else (None,)
    if others or not isinstance(one, yaml.ScalarNode) or one.style is not None:
        return None
    if one.end_mark.index < len(wrapped.rstrip()) - flow or one.tag != "tag:yaml.org,2002:str":
        return None
    return str(one.value)


def scalar(value: str, style: str | None, *, flow: bool) -> str:
    """A value as a scalar of a style, if it can be one; else quoted."""
    if style is None and reads_as(value, flow=flow) == value:
        return value
    if style == "'" or (style is None and "'" not in value):
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value, ensure_ascii=False)


def usual_style(nodes: Iterator[Node] | Sequence[Node]) -> str | None:
    """How most scalars of a list or mapping are quoted."""
    styles = [one.style for one in nodes if isinstance(one, ScalarNode) and one.style not in ("|", ">")]
    return max(dict.fromkeys(styles), key=styles.count) if styles else None
