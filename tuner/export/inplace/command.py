"""Changes one flag of a command in a compose file, where it stands and as its author writes flags."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from tuner.engines.base import Flag
from tuner.export.inplace import nodes
from tuner.export.inplace.letters import Letter, body, filled, of_scalar
from tuner.export.inplace.splice import encoded, json_cuts, replaced, spliced
from tuner.export.inplace.words import Scalar, Word, item, split

_LINE = 100
"""Letters of a line of a folded text; what would be longer begins a new one."""
Meaning = Callable[[Sequence[Flag]], dict[str, JsonValue]]


class CannotEdit(Exception):
    """What stands there is not understood well enough to be changed."""


def words_of(path: Path, text: str, node: Node | None, values: Mapping[str, str]) -> list[Word]:
    """The words of an entrypoint or command.

    Args:
        path: Its file.
        text: The file's text.
        node: Where it stands.
        values: The variables that Compose fills in.

    Raises:
        CannotEdit: Its text is not understood.
    """
    if isinstance(node, SequenceNode):
        scalars = [
            Scalar(path, one, *body(text, one), node, at, nodes.flow(node))
            for at, one in enumerate(node.value)
            if isinstance(one, ScalarNode)
        ]
        return [word for scalar in scalars for word in item(_letters(text, scalar, values), scalar)]
    if not isinstance(node, ScalarNode):
        return []
    scalar = Scalar(path, node, *body(text, node))
    return split(_letters(text, scalar, values), scalar)


def _letters(text: str, scalar: Scalar, values: Mapping[str, str]) -> list[Letter]:
    letters = of_scalar(text, scalar.node)
    if letters is None:
        raise CannotEdit
    return filled(letters, values)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a flag where it stands: some letters of a word."""

    word: Word
    begin: int
    end: int

    @property
    def text(self) -> str:
        """What it says."""
        return self.word.text[self.begin : self.end]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables whose values are in it."""
        letters = self.word.letters[self.begin : self.end]
        return tuple(dict.fromkeys(letter.variable for letter in letters if letter.variable))

    @property
    def variable(self) -> str | None:
        """The variable that it is all of the value of."""
        letters = self.word.letters[self.begin : self.end]
        names = {letter.variable for letter in letters}
        spans = {(letter.begin, letter.end) for letter in letters}
        return names.pop() if len(names) == len(spans) == 1 else None


@dataclass(frozen=True, slots=True)
class Placed:
    """A flag where it stands.

    Attributes:
        flag: As the importer reads it.
        name: The word of its name.
        values: Its values; the first may be of the same word.
    """

    flag: Flag
    name: Word
    values: tuple[Value, ...]

    @property
    def inline(self) -> bool:
        """Whether it is written ``--flag=value``."""
        return any(value.word is self.name for value in self.values)

    @property
    def words(self) -> list[Word]:
        """All of its words, in order."""
        return [self.name, *(value.word for value in self.values if value.word is not self.name)]

    @property
    def last(self) -> Word:
        """Its last word."""
        return self.words[-1]


def placed(words: Sequence[Word], flags: Sequence[Flag]) -> list[Placed]:
    """The flags that are found among the words, in order."""
    found, at = [], 0
    for flag in flags:
        matches = ((one, place) for one in range(at, len(words)) if (place := _match(words, one, flag)))
        first = next(matches, None)
        if first:
            at = first[0] + len(first[1].words)
            found.append(first[1])
    return found


def _match(words: Sequence[Word], at: int, flag: Flag) -> Placed | None:
    """The flag, if it stands here."""
    word, values = words[at], flag.values
    text = word.text.strip()
    if word.operator:
        return None
    if values and (text.startswith(f"{flag.written}=") or text == flag.written == f"-O{values[0]}"):
        begin = word.text.index("=") + 1 if "=" in text else len(word.text) - len(values[0])
        first = [Value(word, begin, len(word.text))]
        return _with_values(words, at, flag, first)
    return _with_values(words, at, flag, []) if text == flag.written else None


def _with_values(words: Sequence[Word], at: int, flag: Flag, inline: list[Value]) -> Placed | None:
    rest = words[at + 1 : at + 1 + len(flag.values) - len(inline)]
    values = [*inline, *(Value(word, 0, len(word.letters)) for word in rest)]
    if len(values) < len(flag.values) or any(value.word.operator for value in values):
        return None
    same = all("$" in value.text or value.text == known for value, known in zip(values, flag.values, strict=True))
    return Placed(flag, words[at], tuple(values)) if same else None


# one flag that changes


def replaced_flag(text: str, place: Placed, new: Flag, meaning: Meaning) -> str:
    """The text with another value of a flag, or with the flag switched the other way."""
    if (switched := _switched(place, new)) is not None:
        return replaced(text, place.values[0].word, place.values[0].begin, place.values[0].end, switched)
    old_values, new_values = place.values, new.values
    for value in reversed(old_values[len(new_values) :]):
        text = _without_words(text, [value.word])
    more = new_values[len(old_values) :]
    if more:
        text = _more_words(text, place.last, more)
    for value, wanted in reversed(list(zip(old_values, new_values, strict=False))):
        if not _same(place.flag, value.text, wanted, meaning):
            text = _replaced_value(text, value, wanted)
    if new.name != place.flag.name:
        name = _spelled(new.name, [place])
        text = replaced(text, place.name, 0, len(place.name.text.partition("=")[0]), name)
    return text


def _switched(place: Placed, new: Flag) -> str | None:
    """What stands for a switch's new state where its state is written out, ``--flag=true``; ``None`` where not."""
    old = place.values[0].text if len(place.values) == 1 else ""
    if new.values or old.lower() not in ("true", "false"):
        return None
    wanted = "false" if new.name.startswith("--no-") else "true"
    return wanted.capitalize() if old[0].isupper() else wanted


def _same(flag: Flag, old: str, new: str, meaning: Meaning) -> bool:
    one, other = (meaning([Flag(flag.name, (text,), flag.written)]) for text in (old, new))
    return one == other


def _replaced_value(text: str, value: Value, wanted: str) -> str:
    cuts = json_cuts(value.text, _json(wanted)) if value.variable is None else None
    if cuts is None:
        return replaced(text, value.word, value.begin, value.end, wanted)
    for cut in sorted(cuts, key=lambda cut: cut.begin, reverse=True):
        text = replaced(text, value.word, value.begin + cut.begin, value.begin + cut.end, cut.text, part=True)
    return text


def _json(text: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return None
    return found


def removed(text: str, place: Placed) -> str:
    """The text without a flag."""
    return _without_words(text, place.words)


def _without_words(text: str, words: Sequence[Word]) -> str:
    first, last = words[0], words[-1]
    if first.scalar.items is not None and _is_whole(words):
        count = last.scalar.index - first.scalar.index + 1
        return nodes.without(text, first.scalar.items, first.scalar.index, count)
    begin, end = first.begin, last.end
    line, stop = nodes.line_begin(text, begin), nodes.line_end(text, end)
    ends = re.fullmatch(r"[ \t]*(\\?)[ \t]*", text[end:stop])
    if not text[line:begin].strip() and ends and stop < len(text):
        return _without_lines(text, line, stop, continued=bool(ends[1]))
    before = text[:begin].rstrip(" \t")
    if text[line:begin].strip():
        return before + text[end:]
    return text[:begin] + text[end:].lstrip(" \t")


def _without_lines(text: str, begin: int, end: int, *, continued: bool) -> str:
    """Without whole lines; what was continued in front of the last one ends there."""
    before = text[:begin]
    if not continued and (found := re.search(r"[ \t]*\\\n\Z", before)):
        before = before[: found.start()] + "\n"
    return before + text[end + 1 :]


def _is_whole(words: Sequence[Word]) -> bool:
    """Whether the words are all of their items."""
    scalars = {word.scalar.index: word.scalar for word in words}.values()
    kept = [word for word in words if not word.alone]
    if not kept:
        return True
    scalar = kept[0].scalar
    inside = str(scalar.node.value)
    return len(scalars) == 1 and inside.lstrip().startswith(words[0].text) and inside.rstrip().endswith(words[-1].text)


# words that are added


def _more_words(text: str, after: Word, values: Sequence[str]) -> str:
    """Further words behind one."""
    if after.scalar.items is not None and after.alone:
        return nodes.added(text, after.scalar.items, after.scalar.index, _items(after, values))
    return _behind(text, after, " " + _in_text(values, after))


def _items(like: Word, values: Sequence[str]) -> list[str]:
    """Values as items of a list, quoted as the others are."""
    items = like.scalar.items.value if like.scalar.items else []
    escaped = any(one.style == '"' and '"' in one.value for one in items if isinstance(one, ScalarNode))
    usual = nodes.usual_style(items)
    quotes = [one.style for one in items if isinstance(one, ScalarNode) and one.style in ("'", '"')]
    quote = max(dict.fromkeys(quotes), key=quotes.count) if quotes else '"'
    return [
        nodes.item(value.replace("$", "$$"), usual, quote, flow=like.scalar.flow, escaped=escaped) for value in values
    ]


def _in_text(values: Sequence[str], like: Word) -> str:
    outer = like.letters[0].quotes[1:] if like.letters else ()
    written = " ".join(map(_quoted, values))
    return encoded(written, outer, like.scalar, part=True) if outer else encoded(written, (), like.scalar)


def _quoted(word: str) -> str:
    """A word for a shell; of ``--flag=value`` the value alone is quoted."""
    flag = re.match(r"--[\w.-]+=", word)
    return flag[0] + shlex.quote(word[flag.end() :]) if flag else shlex.quote(word)


def appended(text: str, words: Sequence[Word], flags: Sequence[Placed], model: str | None, new: Sequence[Flag]) -> str:
    """The text with further flags at the end of the command."""
    after = anchor(words, flags, model)
    tokens = [_tokens(flag, flags) for flag in new]
    items, parted = after.scalar.items, _parted(flags)
    if items is not None and (after.alone or parted):
        written = [" ".join(one) for one in tokens] if parted else [word for one in tokens for word in one]
        return nodes.added(text, items, after.scalar.index, _items(after, written))
    begin, fragment = _separator(text, flags), ""
    for one in tokens:
        flag = _in_text(one, after)
        wraps = begin == " " and _is_full(text, after, fragment + begin + flag)
        fragment += (f"\n{_indent(text, after)}" if wraps else begin) + flag
    return _behind(text, after, fragment)


def _is_full(text: str, after: Word, fragment: str) -> bool:
    """Whether a line of a folded text gets too long."""
    line = (text[nodes.line_begin(text, after.end) : after.end] + fragment).rpartition("\n")[2]
    return after.scalar.node.style == ">" and len(line) > _LINE


def _indent(text: str, after: Word) -> str:
    line = text[nodes.line_begin(text, after.end) : after.end]
    return line[: len(line) - len(line.lstrip())]


def _behind(text: str, after: Word, fragment: str) -> str:
    last = after.letters[-1] if after.letters else None
    place = last.whole[1] if last and last.whole else after.end
    return spliced(text, after.scalar, place, place, fragment)


def anchor(words: Sequence[Word], flags: Sequence[Placed], model: str | None) -> Word:
    """The word that what is new stands behind: the last one, unless a script continues there."""
    own = [word for word in words if not word.operator]
    if len(own) == len(words):
        return own[-1]
    return flags[-1].last if flags else next((word for word in own if word.text == model), own[-1])


def _tokens(flag: Flag, like: Sequence[Placed]) -> list[str]:
    name = _spelled(flag.name, like)
    valued = [place for place in like if place.values]
    if len(flag.values) == 1 and 2 * sum(place.inline for place in valued) > len(valued):
        return [f"{name}={flag.values[0]}"]
    return [name, *flag.values]


def _parted(like: Sequence[Placed]) -> bool:
    """Whether most flags stand in one item with their value."""
    valued = [place for place in like if place.values and not place.inline]
    together = [place for place in valued if place.name.scalar.items is not None and _is_part(place.name)]
    return bool(together) and 2 * len(together) > len(valued)


def _is_part(word: Word) -> bool:
    """Whether it stands in an item with others, which are no shell's words."""
    return not word.alone and not (word.letters and word.letters[0].quotes)


def _spelled(name: str, like: Sequence[Placed]) -> str:
    """A name with underscores where most of the others have them."""
    several = [place.flag.written for place in like if re.search(r"[\w][-_]", place.flag.written[2:])]
    underscored = [one for one in several if "_" in one]
    if 2 * len(underscored) <= len(several):
        return name
    head, dot, key = name[2:].partition(".")
    return f"--{head.replace('-', '_')}{dot}{key}"


def _separator(text: str, flags: Sequence[Placed]) -> str:
    """What stands between two flags in a text: a blank, or a line of their own."""
    if len(flags) < 2 or flags[-1].name.scalar is not flags[-2].name.scalar:
        return " "
    between = text[flags[-2].last.end : flags[-1].name.begin]
    begin = nodes.line_begin(text, flags[-1].name.begin)
    if "\n" not in between or text[begin : flags[-1].name.begin].strip():
        return " "
    return between if re.fullmatch(r"[ \t]*\\?[ \t]*\n[ \t]*", between) else " "


def setting(words: Sequence[Word], name: str) -> Value | None:
    """Where a script gives a variable its value: ``export NAME=value``."""
    found = [word for word in words if not word.operator and word.text.startswith(f"{name}=")]
    return Value(found[-1], len(name) + 1, len(found[-1].text)) if found else None
