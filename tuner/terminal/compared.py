"""Deployments of several studies as one table: text, Markdown, HTML, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from tuner.errors import ConfigError
from tuner.export.deployments import deployments, numbers, remarks, table

Lines = Sequence[Sequence[str]]
"""A table: its head, then its rows."""


def compared(places: Sequence[Path], to: str, price: float | None) -> tuple[str, list[str]]:
    """The table, and what makes its rows differ in more than their configuration.

    Args:
        places: Folders of studies, and profiles.
        to: One of text, markdown, html (for people) or csv, json (for programs).
        price: What a GPU costs an hour; ``None`` leaves the cost out.

    Raises:
        ConfigError: Another format, or a place that is neither, or nothing measured.
    """
    forms = (*_FOR_PEOPLE, *_FOR_PROGRAMS)
    if to not in forms:
        raise ConfigError(f"there is no form {to!r}", place="--format", fix=", ".join(forms))
    rows = [each for place in places for each in deployments(place)]
    if not rows:
        raise ConfigError("nothing has been measured in any of these yet", place="study compare")
    if to in _FOR_PROGRAMS:
        return _FOR_PROGRAMS[to](numbers(rows, price)), list(remarks(rows))
    lines = table(rows, price)
    return shown([list(lines[0]), *(list(row.values()) for row in lines)], to), list(remarks(rows))


def shown(lines: Lines, to: str) -> str:
    """A table for people: ``text``, ``markdown`` or ``html``."""
    return _FOR_PEOPLE[to](lines)


def _text(lines: Lines) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _markdown(lines: Lines) -> str:
    head, *rows = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def _html(lines: Lines) -> str:
    head, *rows = lines
    marked = [_html_row("th", head), *(_html_row("td", row) for row in rows)]
    return "\n".join(["<table>", *marked, "</table>"])


def _html_row(tag: str, line: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in line)}</tr>"


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().rstrip("\n")


def _json(rows: Sequence[Mapping[str, object]]) -> str:
    return json.dumps(rows, indent=1)


_FOR_PEOPLE: Mapping[str, Callable[[Lines], str]] = {"text": _text, "markdown": _markdown, "html": _html}
_FOR_PROGRAMS: Mapping[str, Callable[[Sequence[Mapping[str, object]]], str]] = {"csv": _csv, "json": _json}
