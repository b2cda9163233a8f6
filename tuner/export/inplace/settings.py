"""Changes one setting of vLLM's own ``config.yml``, in place."""

import json

from pydantic import JsonValue
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from tuner.export.inplace import nodes
from tuner.export.inplace.letters import body


def holds(text: str, place: str, head: str) -> bool:
    """Whether a flag, with underscores, has a key in it."""
    return _index(nodes.compose(text, place), head) is not None


def changed(text: str, place: str, head: str, value: JsonValue) -> str:
    """The text with another value of a flag; without it, where that is ``None``.

    What is switched off stands as ``no-flag: true``: vLLM passes over a ``flag: false`` of its file.
    """
    root = nodes.compose(text, place)
    at = _index(root, head)
    if at is None:
        key = head.replace("_", "-") if _dashed(root) else head
        return nodes.added(text, root, len(root.value) - 1, [_entry(key, value)])
    if value is None:
        return nodes.without(text, root, at)
    key, node = root.value[at]
    if value is False or _is_negated(key):
        begin = int(key.start_mark.index)
        return text[:begin] + _entry(_plain_name(key), value) + text[nodes.end_of(text, node) :]
    return _changed(text, node, value)


def _entry(key: str, value: JsonValue) -> str:
    return f"no{'_' if '_' in key else '-'}{key}: true" if value is False else f"{key}: {_flow(value)}"


def _is_negated(key: Node) -> bool:
    return str(key.value).startswith(("no-", "no_"))


def _plain_name(key: Node) -> str:
    return str(key.value)[3:] if _is_negated(key) else str(key.value)


def _index(root: Node, head: str) -> int | None:
    names = [_plain_name(key).replace("-", "_") for key, _ in nodes.pairs(root)]
    return names.index(head) if head in names else None


def _dashed(root: Node) -> bool:
    names = [str(key.value) for key, _ in nodes.pairs(root)]
    return sum("-" in name for name in names) >= sum("_" in name for name in names)


def _changed(text: str, node: Node, value: JsonValue) -> str:
    """One value; of an object only the keys that differ, from the last to the first."""
    if not isinstance(node, MappingNode) or not isinstance(value, dict) or not _common(node, value):
        return _replaced(text, node, value)
    if more := {key: one for key, one in value.items() if key not in [name.value for name, _ in node.value]}:
        written = [f"{json.dumps(key) if nodes.flow(node) else key}: {_flow(one)}" for key, one in more.items()]
        text = nodes.added(text, node, len(node.value) - 1, written)
    for at, (key, one) in reversed(list(enumerate(node.value))):
        text = _changed(text, one, value[key.value]) if key.value in value else nodes.without(text, node, at)
    return text


def _common(node: Node, value: dict[str, JsonValue]) -> bool:
    return any(key.value in value for key, _ in nodes.pairs(node))


def _replaced(text: str, node: Node, value: JsonValue) -> str:
    begin, end = node.start_mark.index, nodes.end_of(text, node)
    if isinstance(node, ScalarNode):
        begin, end = body(text, node)[0], nodes.end_of(text, node)
        if json.loads(_json(node)) == value:
            return text
        quoted = isinstance(value, str) and node.style in ("'", '"')
        written = nodes.scalar(str(value), node.style, flow=False) if quoted else _flow(value)
        return text[:begin] + written + text[end:]
    return text[:begin] + _flow(value) + text[end:]


def _json(node: ScalarNode) -> str:
    import yaml

    loaded = yaml.safe_load(str(node.value)) if node.style is None else node.value
    return json.dumps(loaded, default=str)


def _flow(value: JsonValue) -> str:
    """A value as YAML in one line."""
    if isinstance(value, str):
        return nodes.scalar(value, None, flow=True)
    return json.dumps(value)
