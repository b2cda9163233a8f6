"""``docker run …`` as a container: also podman's and nerdctl's, and ``docker create``."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuner.importer import dotenv, gpus, notation
from tuner.importer.container import Container, Mount, Options, Port

_PROGRAMS = frozenset({"docker", "podman", "nerdctl"})
_ALONE = frozenset(
    {"detach", "rm", "interactive", "tty", "privileged", "init", "read-only", "publish-all", "no-healthcheck", "quiet"}
    | {"oom-kill-disable", "sig-proxy", "disable-content-trust", "replace", "no-hosts", "tls-verify", "rmi", "env-host"}
)
"""Options without a word behind them."""
_SHORT: Mapping[str, str] = {
    "e": "env",
    "p": "publish",
    "v": "volume",
    "u": "user",
    "w": "workdir",
    "m": "memory",
    "c": "cpu-shares",
    "h": "hostname",
    "l": "label",
    "a": "attach",
    "d": "detach",
    "i": "interactive",
    "t": "tty",
    "P": "publish-all",
    "q": "quiet",
}


def arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """What follows ``docker run``; ``None`` if it is no such command."""
    for at, word in enumerate(words[:6]):
        if os.path.basename(word) in _PROGRAMS:
            rest = [*words[at + 1 :]]
            rest = rest[1:] if rest[:1] == ["container"] else rest
            return tuple(rest[1:]) if rest[:1] in (["run"], ["create"]) else None
    return None


def container(words: Sequence[str], outside: Mapping[str, str], folder: Path) -> Container:
    """The container that these words behind ``docker run`` make.

    Args:
        words: Options, image and command.
        outside: Variables that ``-e NAME`` passes through.
        folder: Relative paths start here.
    """
    given, rest = _parsed(words)
    image, command = (rest[0], tuple(rest[1:])) if rest else (None, ())
    unread: list[str] = []
    env = dict(_environment(given, outside, folder, unread))
    devices = given.get("device", [])
    asked = given.get("gpus", [])
    granted = gpus.of_text(asked[-1]) if asked else gpus.of_runtime(_last(given, "runtime"), env)
    networks = [*given.get("network", []), *given.get("net", [])]
    return Container(
        service=_last(given, "name"),
        image=image,
        entrypoint=tuple(given["entrypoint"][-1].split()) if given.get("entrypoint") else None,
        command=command,
        env=env,
        ports=tuple(_ports(given)),
        host_network="host" in networks,
        gpus=gpus.visible(granted, env, devices),
        mounts=tuple(_mounts(given, outside, folder)),
        options=_options(given, devices),
        files=tuple(file for file in _env_files(given, outside, folder) if file.is_file()),
        unread=tuple(unread),
    )


def _last(given: Mapping[str, list[str]], name: str) -> str | None:
    return next(iter(given.get(name, [])[-1:]), None)


def _parsed(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options by long name, and what follows them."""
    given: dict[str, list[str]] = {}
    at = 0
    while at < len(words) and words[at].startswith("-"):
        word, at = words[at], at + 1
        if word == "--":
            break
        name, sign, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            name, sign, value = _short(word)
        if name in _ALONE:
            given.setdefault(name, []).append(value or "true")
            continue
        if not sign:
            value, at = (words[at] if at < len(words) else ""), at + 1
        given.setdefault(name, []).append(value)
    return given, list(words[at:])


def _short(word: str) -> tuple[str, str, str]:
    """``-p8000:8000``, ``-itd``, ``-e A=1``: the last letter of a cluster may take a word."""
    letters = word[1:]
    while letters and _SHORT.get(letters[0], letters[0]) in _ALONE and len(letters) > 1 and letters[1] != "=":
        letters = letters[1:]
    name = _SHORT.get(letters[:1], letters[:1])
    rest = letters[1:].removeprefix("=")
    return name, "=" if rest else "", rest


def _environment(
    given: Mapping[str, list[str]], outside: Mapping[str, str], folder: Path, unread: list[str]
) -> Iterator[tuple[str, str | None]]:
    for file in _env_files(given, outside, folder):
        if file.is_file():
            yield from ((name, text or outside.get(name)) for name, text in dotenv.read(file, {}).items())
        else:
            unread.append(f"the env-file {file} is not there")
    for one in given.get("env", []):
        name, sign, value = one.partition("=")
        if not sign and name not in outside:
            unread.append(f"{name} is passed through, and is not set here")
        yield name, value if sign else outside.get(name)


def _env_files(given: Mapping[str, list[str]], outside: Mapping[str, str], folder: Path) -> list[Path]:
    home = outside.get("HOME", "~")
    return [Path(notation.host_path(path, folder, home)) for path in given.get("env-file", [])]


def _ports(given: Mapping[str, list[str]]) -> Iterator[Port]:
    for one in given.get("publish", []):
        if found := notation.port(one):
            yield found


def _mounts(given: Mapping[str, list[str]], outside: Mapping[str, str], folder: Path) -> Iterator[Mount]:
    home = outside.get("HOME", str(Path.home()))
    for one in given.get("volume", []):
        if found := notation.mount(one, folder, home):
            yield found
    for one in given.get("mount", []):
        fields = dict(part.partition("=")[::2] for part in one.split(","))
        source, target = fields.get("source", fields.get("src")), fields.get("target", fields.get("dst"))
        target = target or fields.get("destination")
        if source and target:
            bind = fields.get("type") == "bind"
            read_only = bool({"readonly", "ro"} & set(fields)) and fields.get("readonly") != "false"
            path = notation.host_path(source, folder, home) if bind else source
            yield Mount(path, target, read_only, None if bind else source)


def _options(given: Mapping[str, list[str]], devices: Sequence[str]) -> Options:
    last = {name: values[-1] for name, values in given.items()}
    limits = (re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", one) for one in given.get("ulimit", []))
    return Options(
        devices=notation.devices(devices),
        group_add=tuple(given.get("group-add", [])),
        security_opt=tuple(given.get("security-opt", [])),
        cap_add=tuple(given.get("cap-add", [])),
        privileged=last.get("privileged") == "true",
        user=last.get("user"),
        ulimits={found[1]: (int(found[2]), int(found[3] or found[2])) for found in limits if found},
        extra_hosts=tuple(given.get("add-host", [])),
        shm_bytes=notation.size(last["shm-size"]) if "shm-size" in last else None,
        ipc=last.get("ipc"),
    )
