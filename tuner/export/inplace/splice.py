"""Puts a value in the place of another in a file's text, escaped as what stands there is."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from tuner.export.inplace import nodes
from tuner.export.inplace.letters import Letter
from tuner.export.inplace.words import Scalar, Word

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SIMPLE = re.compile(r"[\w.:/@%+=,-]+")


def replaced(text: str, word: Word, begin: int, end: int, value: str, *, part: bool = False) -> str:
    """The text with other letters of a word.

    Args:
        text: The file's text.
        word: The word.
        begin: Its first letter that goes.
        end: Its first letter behind that.
        value: What takes their place.
        part: Whether it is no value of its own, but a part of one.
    """
    letters = word.letters[begin:end]
    near = letters or word.letters[max(0, begin - 1) : begin + 1]
    quotes = near[0].quotes if near else ()
    if not near:
        return spliced(text, word.scalar, word.begin, word.end, quoted(value, word.scalar))
    if not letters:
        place = word.letters[begin].begin if begin < len(word.letters) else word.letters[-1].end
        return spliced(text, word.scalar, place, place, encoded(value, quotes, word.scalar, part=part))
    first, last = _span(letters, value)
    return spliced(text, word.scalar, first, last, encoded(value, quotes, word.scalar, part=part))


def _span(letters: Sequence[Letter], value: str) -> tuple[int, int]:
    """Where the letters stand; a variable goes as a whole, and so does a default that cannot hold the value."""
    first, last = letters[0], letters[-1]
    kept = _SIMPLE.fullmatch(value) and first.variable is None and last.variable is None and first.whole == last.whole
    begin = first.begin if kept or not first.whole else first.whole[0]
    return begin, last.end if kept or not last.whole else last.whole[1]


def quoted(value: str, scalar: Scalar) -> str:
    """A value in the place of an empty one, whose quotes go as well."""
    escaped = value.replace("$", "$$")
    return nodes.scalar(escaped, scalar.node.style, flow=scalar.flow) if scalar.items else shlex.quote(escaped)


def encoded(value: str, quotes: Sequence[str], scalar: Scalar, *, part: bool = False) -> str:
    """A value as it is written within these quotes of shells in this scalar of a compose file."""
    for depth, quote in enumerate(quotes):
        value = _in_shell(value, quote, part=part or depth > 0)
    value = value.replace("$", "$$")
    if scalar.node.style == "'":
        return value.replace("'", "''")
    return json.dumps(value, ensure_ascii=False)[1:-1] if scalar.node.style == '"' else value


def _in_shell(value: str, quote: str, *, part: bool) -> str:
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote == '"':
        return re.sub(r'(["\\])', r"\\\1", value)
    return re.sub(r"([^\w.:/@%+=,-])", r"\\\1", value) if part else shlex.quote(value)


def spliced(text: str, scalar: Scalar, begin: int, end: int, fragment: str) -> str:
    """The text with a fragment in a scalar; a plain one that cannot hold it becomes a quoted one."""
    if scalar.node.style in ("'", '"', "|", ">"):
        return text[:begin] + fragment + text[end:]
    before = text[scalar.begin : scalar.end]
    after = text[scalar.begin : begin] + fragment + text[end : scalar.end]
    if not _stays_plain(before, after, scalar):
        after = nodes.scalar(after, "'", flow=scalar.flow)
    return text[: scalar.begin] + after + text[scalar.end :]


def _stays_plain(before: str, after: str, scalar: Scalar) -> bool:
    if nodes.reads_as(after, flow=scalar.flow) is not None:
        return True
    return _NUMBER.fullmatch(before) is not None and _NUMBER.fullmatch(after) is not None


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a JSON text and what takes its place."""

    begin: int
    end: int
    text: str


def json_cuts(text: str, new: JsonValue) -> list[Cut] | None:
    """What is to be changed in a JSON text so that it says something else; ``None`` if it is no JSON object."""
    try:
        old = json.loads(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)  # JSON is YAML, and this says where things stand
    except (ValueError, yaml.YAMLError):
        return None
    if not isinstance(old, dict) or not isinstance(new, dict) or node is None:
        return None
    return list(_cuts(text, node, old, new))


def _cuts(text: str, node: yaml.Node, old: JsonValue, new: JsonValue) -> Iterator[Cut]:
    begin, end = node.start_mark.index, node.end_mark.index
    if old == new:
        return
    if not (isinstance(old, dict) and isinstance(new, dict) and set(old) & set(new)):
        yield Cut(begin, end, dumped(new, text))
        return
    entries = list(node.value)
    kept = max(at for at, (key, _) in enumerate(entries) if key.value in new)
    for at, (key, value) in enumerate(entries[: kept + 1]):
        if key.value in new:
            yield from _cuts(text, value, old[key.value], new[key.value])
        else:
            yield Cut(key.start_mark.index, entries[at + 1][0].start_mark.index, "")
    last, more = entries[kept][1].end_mark.index, {key: value for key, value in new.items() if key not in old}
    added = f"{_comma(text)}{dumped(more, text)[1:-1]}" if more else ""
    if added or kept + 1 < len(entries):
        yield Cut(last, entries[-1][1].end_mark.index, added)


def _comma(text: str) -> str:
    return ", " if re.search(r",\s", text) or "," not in text else ","


def dumped(value: JsonValue, like: str) -> str:
    """A value as JSON, with blanks as another text has them."""
    colon = ": " if re.search(r'":\s', like) or ":" not in like else ":"
    return json.dumps(value, separators=(", " if colon == ": " else ",", colon))


def leaves(settings: Mapping[str, JsonValue]) -> dict[tuple[str, ...], JsonValue]:
    """Settings with each key of an object on its own; a dotted name is a key of its flag's object as well."""
    found: dict[tuple[str, ...], JsonValue] = {}
    for name, value in settings.items():
        found.update(_leaves(tuple(name.split(".")), value))
    return found


def _leaves(path: tuple[str, ...], value: JsonValue) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    else:
        yield path, value[0] if isinstance(value, list) and len(value) == 1 and len(path) == 1 else value
