"""vLLM's command line: what it takes, and how it says no."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NoReturn

from tuner.sim.versions import Flag, Kind, Version, flags, others

Value = bool | int | float | str | list[str] | list[int] | dict[str, object]
_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_COMMANDS = "{chat,complete,serve,launch,bench,collect-env,run-batch}"


class UsageError(Exception):
    """The command line was refused, as argparse refuses it.

    Attributes:
        text: All that vLLM prints on standard error; it then exits with code 2.
    """

    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"usage: vllm serve [model_tag] [options]\nvllm serve: error: {message}")


def parse(version: Version, argv: Sequence[str]) -> dict[str, Value]:
    """The settings that a ``vllm serve`` command line gives, by flag name with underscores.

    Args:
        version: Whose flags to know.
        argv: What follows ``vllm serve``.

    Raises:
        UsageError: A flag that this version does not have, or a value of the wrong type.
    """
    parsed, unknown = _parser(version).parse_known_args(_normalized(argv, version))
    if unknown:
        raise UsageError(_unrecognized(version, unknown))
    return {key: value for key, value in vars(parsed).items() if value is not None}


def help_text(version: Version) -> str:
    """What ``vllm serve --help=all`` prints: every flag that the version has."""
    return _parser(version).format_help()


def _unrecognized(version: Version, unknown: Sequence[str]) -> str:
    usage, program = "usage: vllm serve [model_tag] [options]", "vllm serve"
    if version.at_least(0, 20):
        usage, program = f"usage: vllm [-h] [-v]\n            {_COMMANDS}\n            ...", "vllm"
    return f"{usage}\n{program}: error: unrecognized arguments: {' '.join(unknown)}"


@cache
def _parser(version: Version) -> _Parser:
    parser = _Parser(prog="vllm serve", add_help=False, allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    for flag in flags(version):
        _add(parser, flag)
    for name in others(version):
        parser.add_argument(f"--{name}", f"--no-{name}", dest=name.replace("-", "_"), nargs="*")
    return parser


def _add(parser: _Parser, flag: Flag) -> None:
    names = (f"--{flag.name}", *flag.aliases)
    if flag.kind == "bool":
        parser.add_argument(*names, dest=flag.key, action=argparse.BooleanOptionalAction, default=None)
        return
    kind = _TYPES[flag.kind]
    nargs = "+" if flag.kind in ("strs", "ints") else None
    choices = [kind(choice) for choice in flag.choices] or None
    parser.add_argument(*names, dest=flag.key, type=kind, nargs=nargs, choices=choices)


def _size(text: str) -> int:
    scale = _SUFFIXES.get(text[-1:], 1)
    return int(text) if scale == 1 else int(float(text[:-1]) * scale)


def _json(text: str) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict | list):
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to a JSON object.")
    return value if isinstance(value, dict) else {"values": value}


_size.__name__, _json.__name__ = "human_readable_int", "loads"
_TYPES: dict[Kind, Callable[[str], object]] = {
    "int": int,
    "size": _size,
    "float": float,
    "str": str,
    "strs": str,
    "ints": int,
    "json": _json,
}


def _normalized(argv: Sequence[str], version: Version) -> list[str]:
    """Spellings that vLLM's own parser turns into the usual ones: underscores and dotted JSON keys."""
    names = _aliases(version)
    words: list[str] = []
    dotted: dict[str, dict[str, object]] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name.startswith("-") and "." in name and not _is_number(name):
            flag, key = name.split(".", 1)
            _nest(
                dotted.setdefault(names.get(flag, _dashed(flag)), {}),
                key,
                value if equals else rest.pop(0) if rest else "",
            )
        elif word.startswith("--"):
            words.append(_dashed(name) + equals + value)
        else:
            words.append(word)
    return words + [text for flag, tree in dotted.items() for text in (flag, json.dumps(tree))]


@cache
def _aliases(version: Version) -> Mapping[str, str]:
    return {alias: f"--{flag.name}" for flag in flags(version) for alias in flag.aliases}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _nest(tree: dict[str, object], key: str, text: str) -> None:
    head, dot, tail = key.partition(".")
    if dot:
        branch = tree.setdefault(head, {})
        assert isinstance(branch, dict)
        _nest(branch, tail, text)
        return
    try:
        tree[head] = json.loads(text)
    except ValueError:
        tree[head] = text
