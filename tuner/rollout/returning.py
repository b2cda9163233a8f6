"""``tuner profile rollback``: back to any earlier deployment; and what a killed command left, finished."""

from functools import partial
from pathlib import Path

from tuner.errors import ConfigError
from tuner.export.power import power_changes
from tuner.importer import sources
from tuner.importer.gpus import numbered
from tuner.rollout import saved, service
from tuner.rollout.deploying import Rollout, await_answer, recover
from tuner.rollout.journal import Backup, RolloutFolder, places, places_of
from tuner.rollout.say import Say
from tuner.rollout.service import LiveService
from tuner.site.clean import LeftOver


def backups(file: Path, named: str | None, say: Say) -> list[Backup]:
    """What can be gone back to, the oldest first; what a killed command had begun is finished first.

    Args:
        file: The compose file.
        named: Which service, where several were rolled out from it.
        say: Told of what is finished.

    Raises:
        ConfigError: Several services were, and none is named.
    """
    place = _place(sources.file_of(file), named)
    if place is None:
        return []
    with place.alone() as lock:
        recover(place, lock, say)
    return place.backups()


def rollback(file: Path, named: str | None, number: int, say: Say) -> None:
    """Deploy what was there before rollout N; what is there now is saved first, so that this can be undone as well.

    What is there now may have ended or be none of its files' making: that is often why somebody goes back.

    Args:
        file: The compose file.
        named: Which service, where several were rolled out from it.
        number: N.
        say: Told of each step.

    Raises:
        ConfigError: There is no such backup, or no container of the service.
        PutBack: It does not start; what was there is back.
    """
    found = {one.number: one for one in backups(file, named, say)}
    if number not in found:
        there = ", ".join(map(str, found)) or "none"
        raise ConfigError(f"there is no backup {number} of it (there: {there})", place=str(file))
    backup = found[number]
    place = RolloutFolder.of(backup.project)
    with place.alone() as lock:
        old = service.running(backup.project.service, sources.file_of(file), ended=True)
        contents = {path: text for path, text in saved.contents(place, backup).items() if path.read_bytes() != text}
        if not contents:
            return say("nothing to change: the files say what they said then")
        rollout = Rollout(place, lock, old, contents, f"the rollback to {number}", say, strict=False)
        rollout.run(lambda new: _answers(old, new, say))
    return None


def _answers(old: LiveService, new: LiveService, say: Say) -> None:
    """It is back; of a power cap, which no file sets, a person is told."""
    await_answer(new.project, say)
    for sentence in power_changes(old.container.env, new.container.env, numbered(new.deployment.understood.gpus)):
        say(f"! {sentence}")


def _place(file: Path, named: str | None) -> RolloutFolder | None:
    found = places_of(file, named)
    if len(found) > 1:
        names = ", ".join(place.path.name for place in found)
        raise ConfigError(f"several services were rolled out from it: {names}", fix="name one with --service")
    return found[0] if found else None


def left_overs(say: Say) -> list[LeftOver]:
    """Rollouts whose command was killed: to be finished, or put back."""
    open_ones = ((place, journal) for place in places() if (journal := place.journal()))
    return [
        LeftOver(
            f"rollout of {journal.backup.before} to {journal.backup.project.service}",
            f"{journal.step}, its tuner is gone",
            partial(_finish, place, say),
        )
        for place, journal in open_ones
        if journal.abandoned
    ]


def _finish(place: RolloutFolder, say: Say) -> None:
    with place.alone() as lock:
        recover(place, lock, say)
