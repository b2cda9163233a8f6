"""Cuts shell text into simple commands, one at a time, with its variables filled in as far as they are known.

It is no shell: it runs nothing. What only a run could tell (``$(…)``, ``<(…)``) stays as it is written, and is noted.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tuner.importer.interpolation import Variables

_OPERATOR = re.compile(r"&&|\|\||;;|\|&?|&(?!>)|;|\n|\(|\)")
_REDIRECTION = re.compile(r"(?:\d+|&)?(?:<<<|>>|>&|<&|>|<(?!<))\s*")
_HEREDOC = re.compile(r"<<(-?)\s*(['\"]?)(\w+)\2")
_ARRAY = re.compile(r"\$\{([A-Za-z_]\w*)\[[@*]\]\}")
_POSITIONAL = re.compile(r"\$(?:[@*#]|\d|\{[@*](?::\d+)?\}|\{\d+(?::?[-?+][^}]*)?\})")
_ALL = re.compile(r'"\$(?:@|\{@[^}]*\}|\{\w+\[@\]\})"')
"""Of nothing it makes no word, not an empty one."""
_RUN = re.compile(r"[$<>]\(|`")
_PROCESS = re.compile(r"[<>]\(")


@dataclass(slots=True)
class Simple:
    """One command with its operator.

    Attributes:
        words: Its words.
        before: The operator in front of it; empty at the start of a line.
        arrays: Words of the arrays that it assigns, by name.
    """

    words: list[str]
    before: str
    arrays: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Scope:
    """What is known while a script is read.

    Attributes:
        values: Variables.
        arrays: Arrays.
        arguments: What ``"$@"`` stands for.
        noted: What could not be read, a sentence each.
    """

    values: dict[str, str]
    arrays: dict[str, list[str]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    noted: dict[str, None] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """A variable's text."""
        variables = Variables(self.values, literal=False)
        filled = variables.fill(text)
        self.noted.update(dict.fromkeys(sentence for _, sentence in variables.noted))
        return filled


class Lexer:
    """Reads one text.

    Args:
        text: The script.
        scope: What is known; whoever reads adds to it between two commands.
    """

    def __init__(self, text: str, scope: Scope) -> None:
        self._text = re.sub(r"\\\r?\n", " ", text.replace("\r\n", "\n"))
        self._at = 0
        self._scope = scope

    def commands(self) -> Iterator[Simple]:
        """Each simple command; assignments of the last must be in the scope before the next is asked for."""
        before = ""
        while self._at < len(self._text):
            command = Simple([], before)
            before = self._command(command)
            if command.words or command.arrays:
                yield command

    def _command(self, command: Simple) -> str:
        """Read up to an operator, and give it back."""
        while self._at < len(self._text):
            rest = self._text[self._at :]
            if blank := re.match(r"[ \t]+|#[^\n]*", rest):
                self._at += blank.end()
            elif _PROCESS.match(rest):
                command.words.extend(self._word(command))
            elif heredoc := _HEREDOC.match(rest):
                self._skip_heredoc(heredoc)
            elif redirection := _REDIRECTION.match(rest):
                self._at += redirection.end()
                list(self._word(command))
            elif operator := _OPERATOR.match(rest):
                self._at += operator.end()
                return operator[0]
            else:
                command.words.extend(self._word(command))
        return ""

    def _skip_heredoc(self, begin: re.Match[str]) -> None:
        self._at += begin.end()
        end = re.compile(rf"^\t*{begin[3]}[ \t]*$", re.MULTILINE).search(self._text, self._at)
        line = self._text.find("\n", self._at)
        if end and line >= 0:
            self._text = self._text[: line + 1] + self._text[end.end() :]

    def _word(self, command: Simple) -> list[str]:
        """The words that stand here up to a blank: none or several, where a variable is not quoted."""
        words, quoted, begun = [""], False, self._at
        while self._at < len(self._text):
            letter = self._text[self._at]
            is_run = _PROCESS.match(self._text, self._at)
            if letter in " \t\n;|&()<>" and not is_run and not self._array(words[-1], command, letter):
                break
            if command.arrays and letter == "(":
                return []
            quoted |= letter in "'\""
            self._piece(letter, words)
        if self._at == begun:
            self._at += 1
        if words == [""] and _ALL.fullmatch(self._text[begun : self._at]):
            return []
        return words if quoted else [word for word in words if word]

    def _array(self, name: str, command: Simple, letter: str) -> bool:
        """Read ``NAME=(…)`` or ``NAME+=(…)``, if it is one."""
        found = re.fullmatch(r"([A-Za-z_]\w*)(\+?)=", name)
        if letter != "(" or not found:
            return False
        self._at += 1
        held = list(self._scope.arrays.get(found[1], [])) if found[2] else []
        while self._at < len(self._text) and self._text[self._at] != ")":
            if blank := re.match(r"\s+|#[^\n]*", self._text[self._at :]):
                self._at += blank.end()
            else:
                held.extend(self._word(Simple([], "")))
        command.arrays[found[1]] = held
        return True

    def _piece(self, letter: str, words: list[str]) -> None:
        """One quotation, variable or letter."""
        if letter == "'":
            end = self._end(lambda at: self._text[at] == "'")
            words[-1] += self._text[self._at + 1 : end]
            self._at = end + 1
        elif letter == '"':
            self._double(words)
        elif letter == "\\":
            words[-1] += self._text[self._at + 1 : self._at + 2]
            self._at += 2
        elif letter in "$`<>":
            self._expansion(words, split=True)
        else:
            words[-1] += letter
            self._at += 1

    def _end(self, is_end: Callable[[int], bool]) -> int:
        return next((at for at in range(self._at + 1, len(self._text)) if is_end(at)), len(self._text))

    def _double(self, words: list[str]) -> None:
        self._at += 1
        while self._at < len(self._text) and self._text[self._at] != '"':
            letter, following = self._text[self._at], self._text[self._at + 1 : self._at + 2]
            if letter == "\\" and following in ("$", "`", '"', "\\"):
                words[-1] += following
                self._at += 2
            elif letter in "$`":
                self._expansion(words, split=False)
            else:
                words[-1] += letter
                self._at += 1
        self._at += 1

    def _expansion(self, words: list[str], *, split: bool) -> None:
        """A variable; of several words each becomes one."""
        rest = self._text[self._at :]
        if _RUN.match(rest):
            words[-1] += self._run(rest)
        elif found := (_ARRAY.match(rest) or _POSITIONAL.match(rest)):
            self._at += found.end()
            _append(words, self._several(found))
        else:
            text = self._variable(rest)
            _append(words, text.split() if split else [text])

    def _run(self, rest: str) -> str:
        """``$(…)``, ``<(…)`` or what stands between two backquotes, as it is written."""
        depth = 0
        for end, letter in enumerate(rest):
            depth += (letter == "(") - (letter == ")")
            if (rest[0] == "`" and end and letter == "`") or (rest[0] != "`" and end > 1 and depth == 0):
                break
        whole = rest[: end + 1]
        self._at += len(whole)
        if re.fullmatch(r"\$\(\s*pwd\s*\)|`\s*pwd\s*`", whole) and "PWD" in self._scope.values:
            return self._scope.values["PWD"]
        self._scope.noted[f"what {whole} gives is known only when it runs"] = None
        return whole

    def _several(self, found: re.Match[str]) -> list[str]:
        if found.re is _ARRAY:
            return self._scope.arrays.get(found[1], [])
        digits = re.search(r"\d+", found[0])
        if "@" in found[0] or "*" in found[0]:
            return list(self._scope.arguments[int(digits[0]) - 1 if digits else 0 :])
        index = int(digits[0]) - 1 if digits else -1
        if 0 <= index < len(self._scope.arguments):
            return [self._scope.arguments[index]]
        default = re.search(r":?-([^}]*)\}", found[0])
        return [self._scope.fill(default[1])] if default else []

    def _variable(self, rest: str) -> str:
        end = _variable_end(rest)
        self._at += end
        return self._scope.fill(rest[:end])


def _append(words: list[str], several: list[str]) -> None:
    if several:
        words[-1] += several[0]
        words.extend(several[1:])


def _variable_end(rest: str) -> int:
    if not rest.startswith("${"):
        found = re.match(r"\$[A-Za-z_]\w*|\$.?", rest, re.DOTALL)
        return found.end() if found else 1
    depth = 0
    for at, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if at > 1 and depth == 0:
            return at + 1
    return len(rest)


def known(env: Mapping[str, str | None]) -> dict[str, str]:
    """Those variables whose values are known."""
    return {name: value for name, value in env.items() if value is not None}
