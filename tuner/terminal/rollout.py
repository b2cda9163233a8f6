"""``tuner profile apply``, ``verify`` and ``rollback`` on a terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tuner.bench.view import ProgressListener, view
from tuner.engines.base import Phase
from tuner.errors import ConfigError
from tuner.export.profile import read_profile
from tuner.load.progress import Progress
from tuner.rollout import returning
from tuner.rollout.applying import ProvenWinner, apply
from tuner.rollout.deploying import PutBack
from tuner.rollout.holding import Held
from tuner.rollout.journal import Backup
from tuner.rollout.relaunching import Relaunch, relaunched
from tuner.rollout.say import Say
from tuner.rollout.sentences import readings
from tuner.rollout.verifying import DOES_NOT_HOLD, Verified, verify
from tuner.schema import Schema


@dataclass(frozen=True, slots=True)
class _Telling:
    """What is said stays on the terminal; phases and progress are the inner follower's."""

    console: Console
    inner: ProgressListener

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase(self, phase: Phase) -> None:
        self.inner.phase(phase)

    def progress(self, progress: Progress) -> None:
        self.inner.progress(progress)


@contextmanager
def _followed(*, as_json: bool) -> Iterator[ProgressListener]:
    console = Console(stderr=True)
    with view(console, as_json=as_json) as follower:
        yield follower if as_json else _Telling(console, follower)


def winner_of(files: Sequence[Path], service: str | None, source: Path) -> ProvenWinner:
    """What the command line names."""
    return ProvenWinner(files, service, read_profile(source), source)


def relaunch_of(source: Path, stop: Sequence[str]) -> Relaunch:
    """What the command line names, to be launched again."""
    return Relaunch(read_profile(source), source, tuple(stop))


class Applied(Schema):
    """What came of ``tuner profile apply --json``."""

    kept: bool
    """Whether the winner runs now; if not, what ran before is back."""
    changed: bool
    """Whether the file had to be changed for it."""
    measured: tuple[Held, ...] = ()
    why: str | None = None
    """Why it was not kept."""


def applied(winner: ProvenWinner, print_: Say, *, limit_not_shown: bool, as_json: bool) -> None:
    """Apply it, and say what came of it."""
    try:
        with _followed(as_json=as_json) as follower:
            found = apply(winner, follower, limit_not_shown=limit_not_shown)
    except PutBack as error:
        if as_json:
            print_(Applied(kept=False, changed=True, why=error.message).model_dump_json(indent=1))
        raise
    if as_json:
        return print_(Applied(kept=True, changed=bool(found), measured=found).model_dump_json(indent=1))
    if not found:
        return print_("nothing to change: the file says what the winner says; `tuner profile verify` measures it")
    for line in readings(found):
        print_(line)
    print_(f"kept; `tuner profile rollback {winner.file}` lists what you can go back to")
    return None


def verified(winner: ProvenWinner, print_: Say, *, as_json: bool) -> int:
    """Verify it, and say what came of it; returns the exit code."""
    with _followed(as_json=as_json) as follower:
        found = verify(winner, follower)
    return _told(found, print_, as_json=as_json)


def verified_anew(winner: Relaunch, print_: Say, *, as_json: bool) -> int:
    """The same of a launch of its own."""
    with _followed(as_json=as_json) as follower:
        found = relaunched(winner, follower)
    return _told(found, print_, as_json=as_json)


def _told(found: Verified, print_: Say, *, as_json: bool) -> int:
    print_(found.model_dump_json(indent=1) if as_json else _text(found))
    return 0 if found.holds else DOES_NOT_HOLD


def _text(found: Verified) -> str:
    lines = [*readings(found.measured), *(f"changed: {each}" for each in found.changed)]
    verdict = "the proof holds" if found.holds else "the proof does not hold any more"
    since = "" if found.changed else "; nothing that is compared has changed since"
    how = f"{found.container}, launched again" if found.relaunched else found.container
    return "\n".join([*lines, f"{found.service} ({how}): {verdict}{since}"])


def rolled_back(file: Path, service: str | None, to: int | None, say: Say, print_: Say) -> None:
    """Go back, or list what can be gone back to."""
    if to is not None:
        return returning.rollback(file, service, to, say)
    found = returning.backups(file, service, say)
    for one in found:
        print_(_line(one))
    if not found:
        raise ConfigError(f"nothing was rolled out from {file}", fix="`tuner profile apply` makes a backup")
    return say("`--to N` deploys what is there in N")


def _line(backup: Backup) -> str:
    return f"{backup.number:>4}  {backup.saved_at}  {backup.project.service}, as it was before {backup.before}"
