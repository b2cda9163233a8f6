"""The words of a command in a compose file, each with its letters: a list's items, or what a shell makes of a text."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml.nodes import ScalarNode, SequenceNode

from tuner.export.inplace.letters import Letter, said
from tuner.importer import shell

_OPERATORS = ";&|()<>\n"
_FLAG_WITH_VALUE = re.compile(r"\s*--?[A-Za-z][\w.+-]*\s")


@dataclass(frozen=True, slots=True)
class Scalar:
    """The YAML scalar that a word is of.

    Attributes:
        path: Its file.
        node: Itself.
        begin: Where its text begins, behind anchor and tag.
        end: Where it ends.
        items: The list that it is an item of.
        index: Which one.
        flow: Whether it stands between brackets.
    """

    path: Path
    node: ScalarNode
    begin: int
    end: int
    items: SequenceNode | None = None
    index: int = 0
    flow: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a command.

    Attributes:
        letters: What it says.
        begin: Where it begins in the file, its quotes included.
        end: Where it ends.
        scalar: What it is of.
        alone: Whether it is all of an item of a list.
        operator: Whether it is no word, but ends a command of a shell.
    """

    letters: tuple[Letter, ...]
    begin: int
    end: int
    scalar: Scalar
    alone: bool = False
    operator: bool = False

    @property
    def text(self) -> str:
        """What it says."""
        return said(self.letters)


def item(letters: Sequence[Letter], scalar: Scalar) -> list[Word]:
    """The words of one item of a list: one; several where a flag stands in it with its value."""
    whole = Word(tuple(letters), scalar.begin, scalar.end, scalar, alone=True)
    found = _FLAG_WITH_VALUE.match(whole.text)
    if not found or "\n" in whole.text.strip() or "=" in found[0]:
        return [whole]
    begin = len(found[0]) - len(found[0].lstrip())
    rest = found.end() + len(whole.text[found.end() :]) - len(whole.text[found.end() :].lstrip())
    flag = _word(letters[begin : found.end() - 1], scalar)
    values = letters[rest:]
    if said(values)[:1] in ("{", "["):
        end = len(said(values).rstrip())
        return [flag, _word(values[:end], scalar)]
    return [flag, *split(values, scalar)]


def _word(letters: Sequence[Letter], scalar: Scalar) -> Word:
    return Word(tuple(letters), letters[0].begin, letters[-1].end, scalar)


def split(letters: Sequence[Letter], scalar: Scalar, *, script: bool = False) -> list[Word]:
    """The words of a shell text; of a script also its operators."""
    return list(_Splitter(letters, scalar, script).words())


class _Splitter:
    def __init__(self, letters: Sequence[Letter], scalar: Scalar, script: bool) -> None:
        self._letters = letters
        self._text = said(letters)
        self._scalar = scalar
        self._script = script
        self._at = 0

    def words(self) -> Iterator[Word]:
        while self._at < len(self._text):
            if blank := self._blank():
                self._at += blank
            elif self._script and self._text[self._at] == "#":
                self._at = (self._text + "\n").index("\n", self._at)
            elif self._script and self._text[self._at] in _OPERATORS:
                letter = self._letters[self._at]
                yield Word((letter,), letter.begin, letter.end, self._scalar, operator=True)
                self._at += 1
            else:
                yield self._word()

    def _blank(self) -> int:
        """How much stands here between words; also a line that is continued."""
        pattern = r"(?:[ \t]|\\\n|\\(?= --))+" if self._script else r"(?:\s|\\\n|\\(?= --))+"
        found = re.match(pattern, self._text[self._at :])
        return found.end() if found else 0

    def _word(self) -> Word:
        first, found, quote = self._at, list[Letter](), ""
        while self._at < len(self._text):
            letter = self._text[self._at]
            if not quote and (self._blank() or (self._script and letter in _OPERATORS)):
                break
            if letter == quote or (not quote and letter in "'\""):
                quote = "" if quote else letter
            elif letter == "\\" and quote != "'" and self._escapes(quote):
                found += self._escaped(quote)
            else:
                found.append(self._quoted(self._at, quote))
            self._at += 1
        begin, end = self._letters[first].begin, self._letters[self._at - 1].end
        return Word(tuple(found), begin, end, self._scalar)

    def _escapes(self, quote: str) -> bool:
        return self._at + 1 < len(self._text) and (not quote or self._text[self._at + 1] in '"\\')

    def _escaped(self, quote: str) -> list[Letter]:
        self._at += 1
        letter = self._quoted(self._at, quote)
        return [replace(letter, begin=self._letters[self._at - 1].begin)]

    def _quoted(self, at: int, quote: str) -> Letter:
        letter = self._letters[at]
        return replace(letter, quotes=(quote, *letter.quotes))


def opened(words: Sequence[Word]) -> list[Word]:
    """The words, with the text of a shell that is called among them taken apart as well."""
    found: list[Word] = []
    for command in _commands(words):
        script = shell.script_of([word.text for word in command])
        at = next((at for at, word in enumerate(command) if script and word.text == script[0]), None)
        if at is None or not re.search(r"\s", command[at].text):
            found += command
            continue
        inner = opened(split(command[at].letters, command[at].scalar, script=True))
        found += [*command[:at], _end(command[at]), *inner, _end(command[at]), *command[at + 1 :]]
    return found


def _end(word: Word) -> Word:
    return Word((), word.begin, word.begin, word.scalar, operator=True)


def _commands(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words up to an operator, and each operator."""
    command: list[Word] = []
    for word in words:
        if word.operator:
            yield from filter(None, (command, [word]))
            command = []
        else:
            command.append(word)
    if command:
        yield command
