"""Puts one more entry under a key of a service, which may not have that key yet."""

from collections.abc import Callable
from dataclasses import dataclass

from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode

from tuner.export.inplace import nodes
from tuner.export.inplace.command import CannotEdit


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What is added.

    Attributes:
        key: The service's key, whose value is a list or a mapping.
        like: The entry as the others of a list or mapping are written.
        line: The entry as the only one, on a line of its own.
        flow: All of the key's value between brackets, with the entry as the only one.
        behind: The keys that a new one stands behind, the best first; the last key where there is none of them.
    """

    key: str
    like: Callable[[Node], str]
    line: str
    flow: str
    behind: tuple[str, ...] = ("command",)


def added(text: str, service: Node, new: NewEntry) -> str:
    """The text with an entry more.

    Raises:
        CannotEdit: The key is there to take away what another file says.
    """
    node = nodes.own(service, new.key)
    if node is not None and node.tag == "!reset":
        raise CannotEdit(f"its {new.key} is reset in line {nodes.line_of(text, node.start_mark.index)} (!reset)")
    if isinstance(node, MappingNode | SequenceNode) and node.value:
        return nodes.added(text, node, len(node.value) - 1, [new.like(node)])
    if isinstance(node, MappingNode | SequenceNode):  # it is empty: {} or []
        opening, closing = ("{", "}") if isinstance(node, MappingNode) else ("[", "]")
        return f"{text[: node.start_mark.index]}{opening}{new.like(node)}{closing}{text[nodes.end_of(text, node) :]}"
    if node is not None:  # nothing stands behind the key
        key = next(key for key, _ in nodes.pairs(service) if key.value == new.key)
        end = nodes.line_end(text, key.start_mark.index)
        return text[:end] + _block(text, service, new) + text[end:]
    return _with_key(text, service, new)


def _with_key(text: str, service: Node, new: NewEntry) -> str:
    if nodes.flow(service):
        return nodes.added(text, service, len(service.value) - 1, [f"{new.key}: {new.flow}"])
    keys = [key.value for key, _ in service.value]
    at = next((keys.index(name) for name in new.behind if name in keys), len(keys) - 1)
    end = nodes.line_end(text, nodes.end_of(text, service.value[at][1]))
    return f"{text[:end]}\n{' ' * _indent(text, service)}{new.key}:{_block(text, service, new)}{text[end:]}"


def _block(text: str, service: Node, new: NewEntry) -> str:
    kind = SequenceNode if new.line.startswith("- ") else MappingNode
    begin = " " * (_indent(text, service) + _step(text, service, kind))
    return "".join(f"\n{begin}{line}" for line in new.line.splitlines())


def _indent(text: str, service: Node) -> int:
    return nodes.column(text, service.value[0][0].start_mark.index)


def _step(text: str, service: Node, kind: type[CollectionNode]) -> int:
    """How far lists or mappings within the service are indented; what an alias names stands elsewhere."""
    begin = service.start_mark.index
    inner = (one for _, one in nodes.pairs(service) if isinstance(one, kind) and one.start_mark.index >= begin)
    firsts = (
        one.value[0][0] if isinstance(one, MappingNode) else one.value[0]
        for one in inner
        if one.value and not nodes.flow(one)
    )
    first = next(firsts, None)
    if first is None:
        return 2
    line = text[nodes.line_begin(text, first.start_mark.index) :]
    return len(line) - len(line.lstrip(" ")) - _indent(text, service)
