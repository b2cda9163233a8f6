"""Which commands a shell would run, read off its text: in a straight line; branches are not followed, and named."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuner.importer.lexer import Lexer, Scope, Simple, known

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
_OPENING, _CLOSING = frozenset({"if", "for", "while", "until", "case"}), frozenset({"fi", "done", "esac"})
_LEADING = frozenset({"then", "else", "elif", "do", "{", "}", "!", "time", "exec", "nohup", "sudo", "command", "eval"})
_DETACHING = frozenset({"tmux", "screen", "setsid", "nohup", "timeout", "flock", "numactl", "taskset"})
"""Programs that run what stands behind their options."""
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_TESTS = frozenset({"[", "[[", "test"})
_QUIET = frozenset(
    {
        "cd",
        "source",
        ".",
        "set",
        "export",
        "echo",
        "printf",
        "sleep",
        "trap",
        "ulimit",
        "umask",
        "mkdir",
        "exit",
        "wait",
    }
    | {
        "true",
        ":",
        "ls",
        "pwd",
        "whoami",
        "which",
        "nvidia-smi",
        "rocm-smi",
        "printenv",
        "hostname",
        "shift",
        "unset",
        "tee",
        "local",
        "readonly",
        "declare",
        "cat",
        "date",
        "tail",
        "return",
    }
)
"""What changes nothing of how a server runs that is started later on."""
_SPOKEN = _QUIET - {"cd", "source", ".", "ulimit", "umask", "mkdir", "true", ":"}


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """A command that would be run.

    Attributes:
        words: Its words.
        env: Variables that are set by then, in addition to those outside.
        branch: Whether that depends on a condition.
    """

    words: tuple[str, ...]
    env: Mapping[str, str]
    branch: bool = False


@dataclass(slots=True)
class Script:
    """What was read of a script.

    Attributes:
        commands: In their order.
        noted: What could not be read, a sentence each.
    """

    commands: list[ShellCommand] = field(default_factory=list)
    noted: dict[str, None] = field(default_factory=dict)

    def others(self, chosen: ShellCommand) -> list[str]:
        """Commands in front of one that may matter to it."""
        return [" ".join(one.words) for one in self._in_front(chosen) if one.words[0] not in _QUIET | _TESTS]

    def preparations(self, chosen: ShellCommand) -> list[str]:
        """Commands in front of one that have to be run again wherever it is started, as a shell reads them."""
        kept = [one for one in self._in_front(chosen) if not one.branch and one.words[0] not in _SPOKEN | _TESTS]
        return [shlex.join(one.words) for one in kept]

    def _in_front(self, chosen: ShellCommand) -> list[ShellCommand]:
        return self.commands[: self.commands.index(chosen)]


def script_of(words: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """The text that ``sh -c TEXT NAME ARGUMENT…`` runs, and its arguments; ``None`` if it is no such command."""
    detached = os.path.basename(words[0]) in _DETACHING if words else False
    at = next((at for at, word in enumerate(words) if os.path.basename(word) in _SHELLS), None)
    if detached and at is None and re.search(r"\s", words[-1]):
        return words[-1], ()
    if at is None or not (detached or all(word in _LEADING or "env" in word or "=" in word for word in words[:at])):
        return None
    option = next((one for one in range(at + 1, len(words)) if re.fullmatch(r"-[a-z]*c[a-z]*", words[one])), None)
    if option is None or option + 1 >= len(words):
        return None
    text, rest = words[option + 1], tuple(words[option + 2 :])
    if rest and not re.search(r"\s", text):  # an entrypoint of `sh -c` before a command that Compose has cut into words
        return shlex.join([text, *rest]), ()
    return text, rest[1:]


def read(text: str, env: Mapping[str, str | None], arguments: Sequence[str] = ()) -> Script:
    """What a script would run.

    Args:
        text: The script.
        env: The variables that it finds.
        arguments: What ``"$@"`` stands for.
    """
    scope, script = Scope(known(env), arguments=tuple(arguments)), Script()
    reader = _WordReader(scope, script)
    for simple in Lexer(text, scope).commands():
        reader.take(simple)
    script.noted.update(scope.noted)
    return script


@dataclass(slots=True)
class _WordReader:
    scope: Scope
    script: Script
    depth: int = 0
    tested: bool = False
    exported: dict[str, str] = field(default_factory=dict)

    def take(self, simple: Simple) -> None:
        """One command: it is kept, or what it assigns is."""
        self.tested = self.tested and simple.before in ("&&", "||")
        words = list(self._without_keywords(simple.words))
        branch = self.depth > 0 or self.tested
        for name, held in simple.arrays.items():
            self._set_array(name, held, branch)
        if words[:1] in (["export"], ["declare"], ["local"], ["readonly"]):
            self._assign(words[1:], branch, exported=words[0] == "export")
        elif words and all(_ASSIGNMENT.fullmatch(word) for word in words):
            self._assign(words, branch, exported=False)
        elif words:
            self._keep(words, branch)

    def _without_keywords(self, words: Sequence[str]) -> Iterator[str]:
        leading = True
        for word in words:
            if leading and word in _OPENING:
                self.depth += 1
            elif leading and word in _CLOSING:
                self.depth = max(0, self.depth - 1)
            elif not (leading and word in _LEADING):
                leading = False
                yield word

    def _assign(self, words: Sequence[str], branch: bool, *, exported: bool) -> None:
        for found in filter(None, map(_ASSIGNMENT.fullmatch, words)):
            name, value = found[1], self.scope.values.get(found[1], "") * bool(found[2]) + found[3]
            if branch:
                self.script.noted[f"{name} is set in a branch, to {value!r}: it is read as if it were not"] = None
                continue
            self.scope.values[name] = value
            if exported or name in self.exported:
                self.exported[name] = value
        if exported and not branch:
            self.exported |= {name: self.scope.values[name] for name in words if name in self.scope.values}

    def _set_array(self, name: str, held: list[str], branch: bool) -> None:
        if branch:
            added = " ".join(held[len(self.scope.arrays.get(name, [])) :])
            self.script.noted[f"{name} gets {added!r} in a branch: it is read as if it did not"] = None
        else:
            self.scope.arrays[name] = held

    def _keep(self, words: list[str], branch: bool) -> None:
        self.tested = words[0] in _TESTS
        own = []
        while words and (found := _ASSIGNMENT.fullmatch(words[0])):
            own.append((found[1], found[3]))
            words = words[1:]
        if words:
            self.script.commands.append(ShellCommand(tuple(words), {**self.exported, **dict(own)}, branch))
