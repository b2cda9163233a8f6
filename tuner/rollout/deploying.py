"""One rollout: save, write, deploy, have it judged, keep it; or put everything back, now or with the next command.

Before each step the journal on disk says what is about to be done. From any step there is one way back: the files,
which are replaced whole, and ``docker compose up`` on them, which changes nothing where the old container still runs.
So nothing depends on what a killed tuner had got done of its step.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import ConfigError, InfrastructureError, TunerError
from tuner.export.inplace import saving
from tuner.host.owner import Owner
from tuner.importer.container import Container
from tuner.launchers.docker import composed, daemon
from tuner.rollout import canary, saved, service
from tuner.rollout.journal import Backup, Journal, Ran, RolloutFolder, Step, places_of
from tuner.rollout.project import ComposeProject
from tuner.rollout.say import Say
from tuner.rollout.service import LiveService

_POLL_S = 0.5
_READY_S = 1800.0
"""How long a service may take to answer: that of a large model loads for many minutes."""
_STARTS = 3
"""A service that its restart policy has started so often since will not serve."""
_SETTLED_S = 3.0
"""A container that has been down for so long is not between two starts of its restart policy."""

Judge = Callable[[LiveService], None]
"""Returns if the new service is to be kept; raises what is wrong with it."""


class PutBack(TunerError):
    """The new service was not kept, and the old one is back."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is to be deployed in the place of what runs.

    Attributes:
        place: The service's folder; whoever rolls out holds its lock.
        lock: That lock.
        old: What runs.
        contents: What each file is to hold.
        what: What that is, for a person.
        say: Told of each step.
        strict: Whether what runs has to answer, and to be what its files say; else that it does not is only said.
    """

    place: RolloutFolder
    lock: int
    old: LiveService
    contents: Mapping[Path, bytes]
    what: str
    say: Say
    strict: bool = True

    def run(self, judge: Judge) -> None:
        """Deploy it, and keep it only if the judge does.

        Raises:
            ConfigError: What runs could not be brought back; nothing was touched.
            PutBack: It is not kept; the old service is there again.
            InfrastructureError: It is not kept, and the old service could not be brought back.
        """
        ran = self._canary()
        seen = is_mounted(self.old.deployment.container, set(self.contents) - set(self.old.project.files))
        backup = saved.save(self.place, self.old.project, ran, self.contents, self.what, mounted=seen)
        self.say(f"backup {backup.number} is what runs now: {ran.name} ({ran.image})")
        journal = Journal(owner=str(Owner.me()), step=Step.SAVED, backup=backup)
        self.place.write(journal)
        with self._put_back_on_failure():
            self._deploy(journal, judge)
            self.place.write(journal.at(Step.KEEPING))
        self.place.close()

    def _canary(self) -> Ran:
        """What runs, once it is shown that it can be brought back."""
        container, answers = self.old.container, self.old.answers
        try:
            if not answers:
                raise ConfigError(f"{container.name} does not answer now, so that nobody could tell when it is back")
            canary.check(self.old.project, container, self.say)
        except ConfigError as error:
            if self.strict:
                raise
            self.say(f"! {error.message}")
        return Ran(
            id=container.id,
            name=container.name,
            image=container.image,
            image_id=container.image_id,
            answered=answers,
        )

    def _deploy(self, journal: Journal, judge: Judge) -> None:
        project = self.old.project
        self.place.write(journal.at(Step.WRITING))
        for path, content in self.contents.items():
            saving.replace(Path(os.path.realpath(path)), content)
        self.place.write(journal.at(Step.DEPLOYING))
        self.say(f"docker compose up -d {project.service}: {self.what}")
        project.up(self.lock, anew=journal.backup.mounted)
        self.place.write(journal.at(Step.MEASURING))
        judge(_made(project))

    @contextmanager
    def _put_back_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            said = error.message if isinstance(error, TunerError) else str(error) or "interrupted"
            self.say(f"not kept: {said}")
            put_back(self.place, self.lock, self.say)
            if not isinstance(error, TunerError):
                raise
            files = ", ".join(map(str, self.contents))
            raise PutBack(f"{said}\n  the old service is back, and {files} as before", fix=error.fix) from error


def is_mounted(container: Container, paths: Iterable[Path]) -> bool:
    """Whether the container sees one of these files of the host, such as the one that ``--config`` names."""
    sources = [Path(os.path.realpath(mount.source)) for mount in container.mounts if mount.is_path]
    return any(Path(os.path.realpath(path)).is_relative_to(source) for path in paths for source in sources)


def _made(project: ComposeProject) -> LiveService:
    """What Compose has made, running or ended already."""
    found = service.found(project.service, project.files[0], ended=True)
    if found is None:
        raise InfrastructureError(f"docker compose made no container of {project.service}")
    return found


def put_back(place: RolloutFolder, lock: int, say: Say) -> None:
    """The old files and the old service, from the step that the journal names; it is closed when both are there.

    Raises:
        InfrastructureError: The old service does not come back; the journal stays, and the next command tries again.
    """
    journal = place.journal()
    assert journal is not None
    backup = journal.backup
    with suppress(OSError):  # a full disk: the step that is on it leads here as well
        place.write(journal.at(Step.RESTORING))
    saved.put_back(place, backup, say)
    if journal.step not in (Step.SAVED, Step.WRITING):  # nobody has touched the service yet
        _same_image(backup, say)
        backup.project.up(lock, anew=backup.mounted)
        if backup.ran.answered:
            await_answer(backup.project, say)
    place.close()
    place.forget(backup.number)


def _same_image(backup: Backup, say: Say) -> None:
    """Somebody may have pulled another image under the same name since the canary."""
    ran = backup.ran
    if "@" in ran.image:
        return
    with daemon.connected() as client:
        if composed.image_id(client, ran.image) != ran.image_id:
            say(f"{ran.image} was another image in the meantime: it is {ran.image_id[:19]} again")
            composed.tag(client, ran.image_id, ran.image)


def await_answer(project: ComposeProject, say: Say) -> None:
    """Wait until the service answers.

    Raises:
        InfrastructureError: It ends, or is not in time.
    """
    say(f"waiting for {project.service} to answer")
    begun = seen = time.monotonic()
    starts = set[tuple[str, int]]()
    while time.monotonic() - begun < _READY_S and time.monotonic() - seen < _SETTLED_S and len(starts) <= _STARTS:
        if found := service.found(project.service, project.files[0]):
            starts.add(found.restarts)
            seen = time.monotonic()
            if found.answers:
                return say(f"{project.service} answers, after {time.monotonic() - begun:.0f} s")
        time.sleep(_POLL_S)
    fix = f"`docker compose logs {project.service}`, then `tuner profile rollback {project.files[0]}`"
    raise InfrastructureError(f"{project.service} was started and does not answer", fix=fix)


def recover(place: RolloutFolder, lock: int, say: Say) -> bool:
    """Finish what a killed tuner has begun: keep what it had decided to keep, else put back what was there.

    Returns:
        Whether there was anything to finish.
    """
    journal = place.journal()
    if journal is None:
        return False
    backup = journal.backup
    if journal.step is Step.KEEPING:
        say(f"the rollout of {backup.before} was interrupted at its end: it is kept")
        place.close()
        return True
    say(f"the rollout of {backup.before} was interrupted ({journal.step}): putting back what was there")
    put_back(place, lock, say)
    return True


def recover_all(file: Path, named: str | None, say: Say) -> None:
    """The same for whatever was begun with this compose file."""
    for place in places_of(file, named):
        with place.alone() as lock:
            recover(place, lock, say)
