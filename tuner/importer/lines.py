"""Lines of a shell: ``docker run …``, ``vllm serve …``, from a script, a history or a page."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tuner.importer import composed, dockerrun, gpus, shell
from tuner.importer.container import Container

_PROMPT = re.compile(
    r"^[ \t]*(?:: \d+:\d+;|\d+\*?[ \t]+(?:\d{4}-\d\d-\d\d[ T][\d:]+[ \t]+)?|(?:[\w.@~/:-]+)?[$#>%][ \t]+)"
    r"(?=(?:sudo|env|exec|nohup|docker|podman|nerdctl|vllm|python3?|[A-Z_]+=\S*)\b)",
    re.MULTILINE,
)
"""What a history or a prompt puts in front of a command."""
_ENVIRONMENT = frozenset({"cd", "source", ".", "conda", "mamba", "micromamba", "module", "ulimit", "umask"})
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)


def containers(text: str, folder: Path, outside: Mapping[str, str]) -> list[Container]:
    """A container for each ``docker run``, a process for each other command.

    Args:
        text: The lines.
        folder: Relative paths start here.
        outside: The variables of the shell.
    """
    env: dict[str, str | None] = {**outside, "PWD": str(folder)}
    script = shell.read(_FENCE.sub("", _PROMPT.sub("", text)), env)
    found = [(command, made) for command in script.commands for made in _opened(command, env, folder)]
    return [
        replace(made, unread=_said(script, command, made), before=() if made.container else _before(script, command))
        for command, made in found
    ]


def _before(script: shell.Script, command: shell.ShellCommand) -> tuple[str, ...]:
    """Of a shell's earlier commands, those that make the environment of the later ones."""
    return tuple(each for each in script.preparations(command) if each.split()[0] in _ENVIRONMENT)


def _opened(command: shell.ShellCommand, env: Mapping[str, str | None], folder: Path) -> Iterator[Container]:
    """The container of a command, or those of a shell's commands in it."""
    outside = {name: value for name, value in {**env, **command.env}.items() if value is not None}
    if (behind := dockerrun.arguments(command.words)) is not None:
        yield dockerrun.container(behind, outside, folder)
    elif os.path.basename(command.words[0]) in ("ssh", "git"):
        return
    elif (started := composed.containers(command.words, outside, folder)) is not None:
        yield from started
    else:
        own: dict[str, str | None] = {**_words_env(command.words), **command.env}
        yield Container(None, command=command.words, env=own, gpus=gpus.visible(None, own), container=False)


def _words_env(words: tuple[str, ...]) -> dict[str, str]:
    """What ``env A=1 B=2 program`` sets."""
    if os.path.basename(words[0]) != "env":
        return {}
    pairs = (word.partition("=") for word in words[1:])
    taken: dict[str, str] = {}
    for name, sign, value in pairs:
        if not sign or name.startswith("-"):
            break
        taken[name] = value
    return taken


def _said(script: shell.Script, command: shell.ShellCommand, made: Container) -> tuple[str, ...]:
    branch = ["it stands in a branch: whether it runs depends on what is known only there"] if command.branch else []
    return (*script.noted, *branch, *made.unread)
