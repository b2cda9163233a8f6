"""The letters that a YAML scalar stands for, each with its place in the file's text.

A flag's value may be escaped, folded over lines, filled in from a variable or its default; from its letters follows
what has to be replaced in the text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ruamel.yaml.nodes import ScalarNode

from tuner.importer.interpolation import NAME, closing

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter of a value.

    Attributes:
        text: The letter.
        begin: Where what stands for it begins in the file.
        end: Where that ends.
        variable: The variable whose value it is of.
        whole: Where the ``${…}`` stands that it is of, by its value or its default.
        quotes: How it is quoted in each shell text around it, the innermost first; empty text for not at all.
    """

    text: str
    begin: int
    end: int
    variable: str | None = None
    whole: Span | None = None
    quotes: tuple[str, ...] = ()


def said(letters: Sequence[Letter]) -> str:
    """The text that the letters are."""
    return "".join(letter.text for letter in letters)


Piece = Callable[[str, int], tuple[str, int]]
"""The letter at a place of a quotation, and how much of the text it takes."""
_PROPERTIES = re.compile(r"(?:[&!][^\s]*\s+)*")


def body(text: str, node: ScalarNode) -> Span:
    """Where a scalar stands, without its anchor and tag."""
    found = _PROPERTIES.match(text, node.start_mark.index, node.end_mark.index)
    begin = found.end() if found else node.start_mark.index
    return begin, node.end_mark.index


def of_scalar(text: str, node: ScalarNode) -> list[Letter] | None:
    """The letters of a scalar; ``None`` if its text is not understood."""
    begin, end = body(text, node)
    match node.style:
        case "'":
            letters = list(_flow(text, begin + 1, end - 1, _single))
        case '"':
            letters = list(_flow(text, begin + 1, end - 1, _double))
        case "|" | ">":
            letters = list(_block(text, begin, end, folded=node.style == ">"))
        case _:
            letters = list(_flow(text, begin, end, _plain))
    same = said(letters).strip() == str(node.value).replace("\a", "").strip()
    return letters if same else None


_BREAK = re.compile(r"[ \t]*\n\s*")


def _flow(text: str, at: int, end: int, piece: Piece) -> Iterator[Letter]:
    """Letters of a scalar whose lines are folded."""
    while at < end:
        if found := _BREAK.match(text, at, end):
            lines = found[0].count("\n")
            yield from (Letter(letter, at, found.end()) for letter in (" " if lines == 1 else "\n" * (lines - 1)))
            at = found.end()
            continue
        letter, length = piece(text, at)
        if letter:
            yield Letter(letter, at, at + length)
        at += length


def _plain(text: str, at: int) -> tuple[str, int]:
    return text[at], 1


def _single(text: str, at: int) -> tuple[str, int]:
    return (text[at], 2) if text.startswith("''", at) else (text[at], 1)


_SHORT = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "e": "\x1b", "a": "\a", "b": "\b", "_": "\xa0"}
_CODE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))")
_CONTINUED = re.compile(r"\\\n\s*")


def _double(text: str, at: int) -> tuple[str, int]:
    if text[at] != "\\":
        return text[at], 1
    if found := _CONTINUED.match(text, at):
        return "", found.end() - at
    if found := _CODE.match(text, at):
        return chr(int(found[1] or found[2] or found[3], 16)), found.end() - at
    return _SHORT.get(text[at + 1], text[at + 1]), 2


def _block(text: str, begin: int, end: int, *, folded: bool) -> Iterator[Letter]:
    """Letters of a literal or folded scalar."""
    header = text.index("\n", begin)
    given = re.search(r"\d", text[begin:header].partition("#")[0])
    lines = list(_lines(text, header + 1, end))
    indent = _indent(text, begin, given[0]) if given else _first_indent(text, lines)
    blank, before, was_more = 0, False, False
    broken = header
    for at, stop in lines:
        if not text[at:stop].strip(" "):
            blank += 1
            continue
        more = text[at + indent] in " \t"
        joins = folded and before and not (more or was_more)
        breaks = "\n" * blank if not before or (joins and blank) else " " if joins else "\n" * (blank + 1)
        yield from (Letter(letter, broken, at + indent) for letter in breaks)
        yield from (Letter(text[one], one, one + 1) for one in range(at + indent, stop))
        blank, before, was_more, broken = 0, True, more, stop


def _lines(text: str, at: int, end: int) -> Iterator[Span]:
    while at < end:
        stop = text.find("\n", at, end)
        stop = end if stop < 0 else stop
        yield at, stop
        at = stop + 1


def _first_indent(text: str, lines: Sequence[Span]) -> int:
    first = next((text[at:stop] for at, stop in lines if text[at:stop].strip(" ")), "")
    return len(first) - len(first.lstrip(" "))


def _indent(text: str, begin: int, digit: str) -> int:
    """An indentation that is said is counted from the line of its key."""
    line = text[text.rfind("\n", 0, begin) + 1 : begin]
    return len(line) - len(line.lstrip(" -")) + int(digit)


def filled(letters: Sequence[Letter], values: Mapping[str, str], whole: Span | None = None) -> list[Letter]:
    """The letters with Compose's variables filled in, as ``interpolation`` does it."""
    text, found, at = said(letters), list[Letter](), 0
    while at < len(text):
        if text[at] != "$":
            found.append(replace(letters[at], whole=whole))
            at += 1
        elif text.startswith("$$", at):
            found.append(Letter("$", letters[at].begin, letters[at + 1].end, whole=whole))
            at += 2
        elif text.startswith("{", at + 1) and (end := closing(text, at + 1)) is not None:
            found += _braced(letters[at : end + 1], values, whole)
            at = end + 1
        elif name := NAME.match(text, at + 1):
            found += _value(name[0], letters[at : name.end()], values, whole)
            at = name.end()
        else:
            found.append(letters[at])
            at += 1
    return found


def _braced(letters: Sequence[Letter], values: Mapping[str, str], whole: Span | None) -> list[Letter]:
    inside = said(letters)[2:-1]
    form = re.match(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?)([-?+]))?", inside)
    if form is None:
        return list(letters)
    name, empty_counts, operator = form[1], not form[2], form[3]
    is_there = name in values and (bool(values[name]) or empty_counts)
    span = whole or (letters[0].begin, letters[-1].end)
    rest = letters[2 + form.end() : -1]
    if operator == "+":
        return filled(rest, values, span) if is_there else []
    if operator == "-" and not is_there:
        return filled(rest, values, span)
    return _value(name, letters, values, whole)


def _value(name: str, letters: Sequence[Letter], values: Mapping[str, str], whole: Span | None) -> list[Letter]:
    begin, end = letters[0].begin, letters[-1].end
    return [Letter(letter, begin, end, name, whole or (begin, end)) for letter in values.get(name, "")]
