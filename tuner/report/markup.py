"""HTML out of texts that are not ours: escaped, and with secrets masked, unless they are ``Html`` already."""

from collections.abc import Iterable, Sequence
from html import escape

from tuner.secrets import redacted


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


NOTHING = Html("")


def html(text: str) -> Html:
    """Any text as markup."""
    return text if isinstance(text, Html) else Html(escape(redacted(text)))


def tag(name: str, *inside: str, **attributes: str) -> Html:
    """An element; ``class_`` and the like lose their underscore."""
    given = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{''.join(html(part) for part in inside)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """One after the other."""
    return Html("\n".join(html(part) for part in parts))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> Html:
    """A table that scrolls sideways on a narrow screen."""
    top = tag("tr", *(tag("th", cell) for cell in head))
    body = joined(tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    inner = tag("table", tag("thead", top), tag("tbody", body), class_=kind)
    return tag("div", inner, class_="scroll")


def folded(summary: str, inside: str) -> Html:
    """Something that only some want to see."""
    return tag("details", tag("summary", summary), inside)
