"""Mounts a folder of the host in a service of a compose file, read-only and under its own name, in place."""

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from tuner.export.inplace import keys, nodes
from tuner.export.inplace.keys import NewEntry
from tuner.importer.container import Mount

_KEY = "volumes"


def shared(folder: str) -> Mount:
    """The mount of a folder that a container sees under its own name."""
    return Mount(folder, folder, read_only=True)


def added(text: str, service: Node, folder: str) -> str:
    """The text with a mount more; a service that has its mounts by a merge gets them for itself."""
    merged = nodes.get(service, _KEY) if nodes.own(service, _KEY) is None else None
    lines = [_short(folder, None, flow=False)]
    if isinstance(merged, SequenceNode) and merged.value:
        lines = [*_copied(text, merged), _at_margin(_like(merged, folder), merged.value[-1].start_mark.column)]
    entry = NewEntry(
        _KEY,
        lambda node: _like(node, folder),
        "\n".join(f"- {line}" for line in lines),
        f"[{', '.join(lines)}]",  # where one is of several lines, that is no list, and refused
        behind=("environment", "command"),
    )
    return keys.added(text, service, entry)


def _like(node: Node, folder: str) -> str:
    """An entry as the others are written: ``SOURCE:TARGET:ro``, or a mapping."""
    items = node.value if isinstance(node, SequenceNode) else []
    if items and all(isinstance(one, MappingNode) for one in items):
        return _long(items[-1], folder)
    return _short(folder, nodes.usual_style(items), flow=nodes.flow(node))


def _short(folder: str, style: str | None, *, flow: bool) -> str:
    escaped = folder.replace("$", "$$")
    if ":" in folder:
        return f"{{{', '.join(_pairs(folder))}}}"
    return nodes.scalar(f"{escaped}:{escaped}:ro", style, flow=flow)


def _long(like: Node, folder: str) -> str:
    if nodes.flow(like):
        return f"{{{', '.join(_pairs(folder))}}}"
    indent = " " * like.value[0][0].start_mark.column
    return f"\n{indent}".join(_pairs(folder))


def _pairs(folder: str) -> Iterator[str]:
    path = nodes.scalar(folder.replace("$", "$$"), None, flow=True)
    yield from ("type: bind", f"source: {path}", f"target: {path}", "read_only: true")


def _copied(text: str, node: SequenceNode) -> list[str]:
    """The entries as they stand, each to be put behind a dash."""
    return [
        _at_margin(text[one.start_mark.index : nodes.end_of(text, one)], one.start_mark.column) for one in node.value
    ]


def _at_margin(entry: str, column: int) -> str:
    """What is written over several lines, its further ones as deep as the first."""
    first, *others = entry.split("\n")
    return "\n".join([first, *(f"  {line[column:]}" for line in others)])
