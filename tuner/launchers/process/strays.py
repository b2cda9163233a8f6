"""Servers without a guard and without a trace, found by what their environment says.

Whatever became of the state folder, a process of a launch carries two marks: the launch's name and the guard that
looks after it. A process whose guard is gone is a stray. A guard in another process namespace counts as alive.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tuner.host.leases import SCOPE
from tuner.host.owner import Owner
from tuner.launchers.process.traces import LAUNCH_MARK, Marked, in_sessions, kill_until_gone, marked, scratch_name

GUARD_MARK = "TUNER_GUARD"
"""The environment variable by which every process of a launch says who guards it."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A launch whose guard is gone, and what is left of it.

    Attributes:
        launch_id: Its unique name.
        sessions: The sessions that its processes lead; a process may lose its marks, but not its session.
        scratch: Its folder for temporary files, or none.
    """

    launch_id: str
    sessions: frozenset[int]
    scratch: frozenset[Path]

    @property
    def pids(self) -> list[int]:
        """Its processes, as of now."""
        mine = {one.pid for one in marked() if one.environ[LAUNCH_MARK] == self.launch_id}
        return sorted(mine.union(in_sessions(self.sessions)))

    def end(self) -> bool:
        """Kill what is left of it and remove its temporary files; ``False`` if something resists."""
        gone = kill_until_gone(lambda: self.pids)
        for folder in self.scratch if gone else ():
            shutil.rmtree(folder, ignore_errors=True)
        return gone


def strays() -> list[Stray]:
    """Every launch that still has processes and no guard, by name."""
    scope = os.environ.get(SCOPE, "")
    unguarded = [one for one in marked() if one.environ.get(SCOPE, "") == scope and _unguarded(one)]
    names = sorted({one.environ[LAUNCH_MARK] for one in unguarded})
    return [_stray(name, [one for one in unguarded if one.environ[LAUNCH_MARK] == name]) for name in names]


def _unguarded(process: Marked) -> bool:
    guard = Owner.parse(process.environ.get(GUARD_MARK, ""))
    return guard is not None and not guard.lives


def _stray(launch_id: str, processes: list[Marked]) -> Stray:
    led = frozenset(one.pid for one in processes if one.session == one.pid)
    folders = frozenset(Path(one.environ.get("TMPDIR", "")) for one in processes)
    return Stray(launch_id, led, frozenset(path for path in folders if path.name == scratch_name(launch_id)))
