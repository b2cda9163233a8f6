"""Fuzzed files: one random place of what is stored, or of what a user wrote, is damaged.

Whatever reads it ends in words that name it, in time, and shows no number that cannot be.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.faults import damage
from tests.faults.world import REPOSITORY, Ended, World, expect

LIVE = (
    "search.live=auto",
    "space=none",
    "+space.params.max_num_seqs={choices: [1, 2, 4]}",
    "+space.params.max_num_batched_tokens={choices: [2048, 32768]}",
    "model.args.max_num_seqs=1",
)
"""A study whose second launch measures settings in its running server."""
WITHIN_S = 60.0
"""On a busy machine; a second on a free one."""
_NO_NUMBER = re.compile(r"(?<![\w.-])(?<!is )-?(?:nan|inf|NaN|Infinity)(?![\w/])")
_NOT = float("nan")
_WORSE: tuple[object, ...] = (
    None,
    _NOT,
    float("inf"),
    -float("inf"),
    1e308,
    10**400,
    -1,
    0,
    "",
    "x" * 100_000,
    "\ud800",
    "\x1b[31m",
    [],
    {},
)
_STRANGE: tuple[object, ...] = (
    *_WORSE,
    True,
    "1",
    "nan",
    [[]],
    {"a": {"b": 1}},
    2**63,
    "${oc.env:HOME}",
    "[/]",
    [0] * 1000,
)


def record(folder: Path, chance: random.Random) -> None:
    """A trial's record, with what was screened in its server."""
    _stored(chance, "trials/0001/record.json", names_it=True)


def configuration(folder: Path, chance: random.Random) -> None:
    _stored(chance, "config.yaml", names_it=True)


def requests_and_runs(folder: Path, chance: random.Random) -> None:
    _stored(chance, chance.choice(("trials/0001/requests.jsonl", "runs.jsonl")), names_it=True)


def profile(folder: Path, chance: random.Random) -> None:
    """A profile of today, and those of earlier versions."""
    world = World(folder, chance)
    found = chance.choice(sorted((REPOSITORY / "tests" / "data" / "recorded").glob("*/demo/profile.yaml")))
    victim = _fuzzed(found.read_bytes(), world.folder / "profile.yaml", chance)
    for command in (["show"], ["show", "--json"]):
        _judged(world.tuner("profile", *command, str(victim), within_s=WITHIN_S), command, victim)


def users_own(folder: Path, chance: random.Random) -> None:
    """A file of any group under ``--config-dir``."""
    world = World(folder, chance)
    found = chance.choice(sorted((REPOSITORY / "conf").glob("*/*.yaml")))
    group = found.parent.name
    victim = _fuzzed(found.read_bytes(), world.folder / "mine" / group / "own.yaml", chance)
    asked = [*(["experiment=demo"] if group != "experiment" else []), f"{group}=own"]
    command = ["study", "start", "--config-dir", str(victim.parents[1]), *asked, f"study.folder={world.studies}"]
    for how in ("--cfg", "--dry-run"):
        _judged(world.tuner(*command, how, within_s=WITHIN_S), command, None)


def recorded_traffic(folder: Path, chance: random.Random) -> None:
    """A trace to be replayed."""
    world = World(folder, chance)
    whole = (REPOSITORY / "tests" / "data" / "mooncake-sample.jsonl").read_bytes()
    victim = _fuzzed(whole[:20_000], world.folder / "trace.jsonl", chance)
    command = ["workload", "show", "workload=replay", f"workload.trace.file={victim}"]
    _judged(world.tuner(*command, within_s=WITHIN_S), command, None)


@cache
def _prepared() -> World:
    """The study of ``damage`` next to one with screened settings."""
    world = damage.prepared()
    live = World(world.folder, random.Random(0), overrides=(*world.overrides, *LIVE), name="live")
    live.end(live.start()).well()
    shutil.copytree(live.study, world.folder / "as made" / live.name)
    return live


def _stored(chance: random.Random, name: str, *, names_it: bool) -> None:
    world = _prepared()
    shutil.rmtree(world.studies)
    shutil.copytree(world.folder / "as made", world.studies)
    victim = world.study / name
    _fuzzed(victim.read_bytes(), victim, chance)
    at = ("--folder", str(world.studies))
    listed = world.tuner("study", "list", *at, within_s=WITHIN_S).said()
    expect(damage.HEALTHY in listed.text, f"the healthy study is not listed: {listed.text[-500:]}")
    table = chance.choice(("trials", "requests", "phases", "failures"))
    for command in (
        ["study", "status", world.name, *at],
        ["study", "status", world.name, "--json", *at],
        ["study", "report", world.name, *at],
        ["study", "export", world.name, "--table", table, *at],
        ["study", "compare", world.name, damage.HEALTHY, *at],
        ["explain", str(victim)],
    ):
        ended = world.tuner(*command, within_s=WITHIN_S)
        _judged(ended, command, victim if names_it else None)
    if chance.random() < 0.2:
        world.end(world.start()).said()
        world.nothing_runs()
    world.tuner("study", "rm", world.name, "--yes", *at).well()


def _judged(ended: Ended, command: list[str], victim: Path | None) -> None:
    """In words; what failed names the file and what to do; and no number is none."""
    shown = " ".join(command)
    expect(ended.code in (0, 1, 2, 3), f"{shown}: exit status {ended.code}: {ended.text[-800:]}")
    ended.said()
    said = re.sub(r"tuner: .*", "", ended.text, flags=re.DOTALL)
    expect(not (found := _NO_NUMBER.search(said)), f"{shown}: {found and found[0]} is shown: {said[-800:]}")
    if ended.code != 0:
        expect("fix:" in ended.text, f"{shown}: nothing says what to do: {ended.text[-800:]}")
        expect(victim is None or victim.name in ended.text, f"{shown}: {victim} is not named: {ended.text[-800:]}")


def _fuzzed(content: bytes, path: Path, chance: random.Random) -> Path:
    """Write it, damaged: as bytes, or as values of another kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    change = _values if chance.random() < 0.6 else _bytes
    path.write_bytes(change(content, path.suffix, chance))
    return path


def _bytes(content: bytes, suffix: str, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content) + 1)
    end = begin + chance.randrange(1, 200)
    flipped = bytearray(content)
    for _ in range(chance.choice((1, 3, 20))):
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return chance.choice(
        (
            bytes(flipped),
            content[:begin],
            content[:begin] + content[end:],
            content[:end] + content[begin:],
            content[:begin] + chance.randbytes(100) + content[begin:],
            chance.choice((b"", b"null", b"[]", b"{}", b"1", b"NaN", b"[" * 100_000, b'{"a":' * 100_000)),
            content.replace(b"\n", b"\r\n"),
        )
    )


def _values(content: bytes, suffix: str, chance: random.Random) -> bytes:
    """One value, key or line is another; lines of JSON are taken one by one."""
    if suffix == ".jsonl":
        lines = content.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = _values(lines[at], ".json", chance)
        return b"\n".join(lines)
    tree = json.loads(content) if suffix == ".json" else yaml.safe_load(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _strange(tree, chance)
    text = json.dumps(tree, indent=1) if suffix == ".json" else _as_yaml(tree)
    return text.encode("utf-8", "surrogatepass")


def _as_yaml(tree: object) -> str:
    """As JSON, which is YAML but for the names of what is no number."""
    return json.dumps(tree).replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")


def _strange(tree: Any, chance: random.Random) -> None:
    places = list(_places(tree))
    if not places:
        return
    inside, key = chance.choice(places)
    changes: tuple[Callable[[], object], ...] = (
        lambda: inside.__setitem__(key, chance.choice(_STRANGE)),
        lambda: inside.__setitem__(key, _deep(chance.choice((100, 900)))),
        lambda: inside.__delitem__(key),
        lambda: inside.__setitem__("strange", 1) if isinstance(inside, dict) else inside.append({}),
    )
    chance.choice(changes)()


def _places(tree: Any, depth: int = 0) -> "Iterator[tuple[Any, Any]]":
    """Every place that a value is in: its collection and its key."""
    if depth > 20:
        return
    keys = list(tree) if isinstance(tree, dict) else range(min(len(tree), 50)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key], depth + 1)


def _deep(levels: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(levels):
        tree = [tree]
    return tree
