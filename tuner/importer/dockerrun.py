"""``docker run …`` as a container: also podman's and nerdctl's, and ``docker create``."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.importer import carried, dotenv, gpus, notation
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
_LISTS: Mapping[str, str] = {
    "add-host": "extra_hosts",
    "cap-add": "cap_add",
    "cap-drop": "cap_drop",
    "device": "devices",
    "device-cgroup-rule": "device_cgroup_rules",
    "dns": "dns",
    "dns-opt": "dns_opt",
    "dns-option": "dns_opt",
    "dns-search": "dns_search",
    "group-add": "group_add",
    "security-opt": "security_opt",
    "sysctl": "sysctls",
    "tmpfs": "tmpfs",
}
"""Options that may stand several times, as a compose service has them."""
_TEXTS: Mapping[str, str] = {
    "cgroup-parent": "cgroup_parent",
    "cgroupns": "cgroup",
    "cpu-period": "cpu_period",
    "cpu-quota": "cpu_quota",
    "cpu-shares": "cpu_shares",
    "cpus": "cpus",
    "cpuset-cpus": "cpuset",
    "ipc": "ipc",
    "memory": "mem_limit",
    "memory-swap": "memswap_limit",
    "pid": "pid",
    "pids-limit": "pids_limit",
    "privileged": "privileged",
    "read-only": "read_only",
    "runtime": "runtime",
    "shm-size": "shm_size",
    "user": "user",
    "userns": "userns_mode",
    "workdir": "working_dir",
}
"""Options of which the last counts, likewise."""
_READ = frozenset(
    {"detach", "entrypoint", "env", "env-file", "gpus", "init", "interactive", "mount", "name", "publish"}
)
_READ |= {"attach", "disable-content-trust", "publish-all", "quiet", "replace", "rm", "rmi", "sig-proxy", "tls-verify"}
_READ |= {"tty", "ulimit", "volume"}
_STAYS: Mapping[str, str] = {
    **{"net": "network_mode", "network": "network_mode", "network-alias": "network_mode", "ip": "network_mode"},
    **{"health-cmd": "healthcheck", "health-interval": "healthcheck", "health-retries": "healthcheck"},
    **{"health-timeout": "healthcheck", "health-start-period": "healthcheck", "no-healthcheck": "healthcheck"},
    **{"label": "labels", "label-file": "labels", "log-driver": "logging", "log-opt": "logging"},
    **{"annotation": "annotations", "pull": "pull_policy", "stop-timeout": "stop_grace_period"},
}
"""Options that are about more than the server, as a compose service has them."""


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
        options=_options(given),
        files=tuple(file for file in _env_files(given, outside, folder) if file.is_file()),
        unread=tuple(unread),
        left_out=tuple(_left_out(given)),
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
            yield from ((name, text or outside.get(name)) for name, text in dotenv.raw(file).items())
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


def _options(given: Mapping[str, list[str]]) -> Options:
    limits = (re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", one) for one in given.get("ulimit", []))
    as_compose: dict[str, Any] = {key: given[name] for name, key in _LISTS.items() if name in given}
    as_compose |= {key: given[name][-1] for name, key in _TEXTS.items() if name in given}
    as_compose["ulimits"] = {one[1]: {"soft": one[2], "hard": one[3] or one[2]} for one in limits if one}
    return carried.options(as_compose)


def _left_out(given: Mapping[str, list[str]]) -> Iterator[str]:
    """Options that no trial's container has, as the same keys of a compose service."""
    others = [name for name in given if name not in _READ | _LISTS.keys() | _TEXTS.keys()]
    as_compose: dict[str, Any] = {_STAYS.get(name, name.replace("-", "_")): given[name] for name in others}
    as_compose |= {key: given[name][-1] for name, key in _TEXTS.items() if name in given}
    return carried.left_out(as_compose)
