"""Stopping services for their GPUs, and starting them again in the end, whatever happens in between.

What is to be restored is on disk before anything is stopped. Whoever comes first restores it: the study that stopped
it, its watchdog when it was killed (``python -m tuner.site.takeover RECORD``), the next study, or ``tuner clean``.
After a reboot Docker itself starts the service again, since it was stopped under the policy ``always``.
"""

import fcntl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
from pydantic import ValidationError

from tuner.config import SiteConfig
from tuner.errors import ConfigError, EngineUnavailable, GpuBusy, InfrastructureError
from tuner.host.files import write_whole
from tuner.host.leases import state_dir
from tuner.host.owner import Owner
from tuner.host.watchdog import watchdog
from tuner.reading import bytes_of
from tuner.schema import Schema, Stored
from tuner.site.gpus import find_services, holders, refuse_if_held, wait_until_free

if TYPE_CHECKING:
    from tuner.launchers.docker.services import Service

Say = Callable[[str], None]
_POLL_S = 0.5
_ENGINE_PATIENCE_S = 120.0


class Stopped(Schema):
    """A service that is to be started again."""

    id: str
    name: str
    known_as: str
    restart: str
    """Its own restart policy."""
    retries: int
    has_health: bool
    """Whether Docker checks its health."""
    ports: tuple[int, ...]


class NotHealthy(InfrastructureError):
    """A service was started again and does not become healthy."""


class TakeOver(Stored):
    """What was taken, from whom, and by whom: one file each in tuner's state folder."""

    schema_version: Literal[1] = 1
    owner: str
    study: str
    engine: str
    """Where the Docker engine listens."""
    health_timeout_s: float
    services: tuple[Stopped, ...]

    @property
    def path(self) -> Path:
        """Its file."""
        owner = Owner.parse(self.owner)
        return folder() / f"{self.study}-{owner.pid if owner else 0}.json"

    @property
    def abandoned(self) -> bool:
        """Whether whoever took it is gone."""
        owner = Owner.parse(self.owner)
        return owner is None or not owner.lives

    @property
    def names(self) -> str:
        """The services, for a person."""
        return ", ".join(service.known_as for service in self.services)

    def write(self) -> None:
        """On the disk when this returns, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.model_dump_json(indent=1))


def folder() -> Path:
    """Where take-overs are recorded."""
    return state_dir() / "takeovers"


def pending() -> list[TakeOver]:
    """The take-overs on disk whose owner is gone: their services are owed."""
    return [record for record in _all() if record.abandoned]


def _all() -> list[TakeOver]:
    found = (_read(path) for path in sorted(folder().glob("*.json")))
    return [record for record in found if record]


def _read(path: Path) -> TakeOver | None:
    try:
        return TakeOver.model_validate_json(bytes_of(path))
    except FileNotFoundError:  # given back in the meantime
        return None
    except (OSError, ValidationError) as error:
        fix = "start those services yourself, then remove the file"
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise ConfigError(f"{path} says what to start again, but cannot be read: {said}", fix=fix) from error


def in_the_way(site: SiteConfig, gpus: tuple[int, ...]) -> "list[Service]":
    """The services that a study on these GPUs will stop; running ones only.

    Raises:
        ConfigError: ``site.stop`` names something that is not there.
        GpuBusy: Somebody else holds one of the GPUs, or has stopped one of the services.
        EngineUnavailable: ``site.stop`` names services, and no Docker engine answers.
    """
    from tuner.host import nvidia

    if not site.stop and not gpus:
        return []
    _refuse_if_taken(site.stop)
    running, exists = _services(needed=bool(site.stop))
    wanted = find_services(site.stop, running, exists)
    refuse_if_held(holders(gpus, running, nvidia.read(), site.idle_gib), wanted, site.beside)
    return wanted


def _refuse_if_taken(names: Iterable[str]) -> None:
    """A service that another study has stopped would come back in the middle of this one."""
    for record in _all():
        taken = [one.known_as for one in record.services if {one.name, one.known_as} & set(names)]
        if taken and not record.abandoned:
            said = f"{taken[0]} is stopped for study {record.study}, which starts it again in the end"
            raise GpuBusy(said, fix="wait for that study's end")


def _services(*, needed: bool) -> "tuple[list[Service], Callable[[str], bool]]":
    """What runs in containers; nothing, where there is no engine and nobody needs one."""
    from tuner.launchers.docker import daemon, services

    if not needed and not daemon.seems_there():
        return [], lambda name: False
    try:
        with daemon.connected() as client:
            known = services.names(client)
            return services.running(client), lambda name: name in known
    except EngineUnavailable:
        if needed:
            raise
        return [], lambda name: False


@dataclass(frozen=True)
class Taken:
    """Services that are stopped for a study."""

    record: TakeOver | None
    grace_s: int
    say: Say

    def hold(self) -> None:
        """Stop again what a restarted Docker engine has started.

        Raises:
            GpuBusy: Somebody has deployed one of them anew.
        """
        from tuner.launchers.docker import daemon, services

        if self.record is None:
            return
        with daemon.connected(self.record.engine, daemon.RESTART_S) as client:
            for service in self.record.services:
                if back := services.find(client, service.id, service.name):
                    if back.id != service.id:
                        raise GpuBusy(
                            f"{service.known_as} was deployed anew in the middle of the study",
                            fix="take it down again, or end the study",
                        )
                    self.say(f"{service.known_as} was started in the middle of the study: stopping it again")
                    services.stop(client, back, self.grace_s)


@contextmanager
def taken_over(site: SiteConfig, gpus: tuple[int, ...], study: str, say: Say) -> Iterator[Taken]:
    """Have the GPUs alone while the block runs: services in ``site.stop`` are stopped, and back when it is left.

    Args:
        site: Which services, and how patient to be.
        gpus: The study's GPUs.
        study: Its name.
        say: Told of what is done.

    Raises:
        ConfigError: ``site.stop`` names something that is not there.
        GpuBusy: Somebody else holds one of the GPUs.
        NotHealthy: A service was started again, but does not become healthy.
    """
    services = in_the_way(site, gpus)
    if not services:
        yield Taken(None, site.stop_grace_s, say)
        return
    record = _recorded(services, site, study)
    with watchdog(("-m", "tuner.site.takeover", str(record.path))) as dog:
        try:
            _stop_all(record, services, site, say)
            wait_until_free(gpus, site)
            yield Taken(record, site.stop_grace_s, say)
        finally:
            started = give_back(record, say)
            dog.dismiss()
            await_health(record, started, say)


def _recorded(services: "list[Service]", site: SiteConfig, study: str) -> TakeOver:
    from tuner.launchers.docker.daemon import engine_url

    record = TakeOver(
        owner=str(Owner.me()),
        study=study,
        engine=engine_url(),
        health_timeout_s=site.health_timeout_s,
        services=tuple(
            Stopped(
                id=one.id,
                name=one.name,
                known_as=one.known_as,
                restart=one.restart,
                retries=one.retries,
                has_health=one.health is not None,
                ports=one.ports,
            )
            for one in services
        ),
    )
    record.write()
    return record


def _stop_all(record: TakeOver, running: "list[Service]", site: SiteConfig, say: Say) -> None:
    from tuner.launchers.docker import daemon, services

    with daemon.connected(record.engine) as client:
        for service in running:
            say(f"stopping {service.known_as} for the time of the study")
            services.stop(client, service, site.stop_grace_s)


def give_back(record: TakeOver, say: Say) -> list[Stopped]:
    """Start what was stopped, the last first, and forget it; returns what was started.

    Nothing happens if somebody else has done it already.

    Raises:
        InfrastructureError: The Docker engine does not let us; the record stays.
    """
    with _alone(record):
        if not record.path.exists():
            return []
        started = _start_all(record, say)
        record.path.unlink()
        return started


def _start_all(record: TakeOver, say: Say) -> list[Stopped]:
    from tuner.launchers.docker import daemon, services

    started = []
    with daemon.connected(record.engine) as client:
        for service in reversed(record.services):
            say(f"starting {service.known_as} again")
            if services.start(client, service.id, service.name, service.restart, service.retries):
                started.append(service)
            else:
                say(f"{service.known_as} was removed while it was stopped: it cannot be started again")
    return started


@contextmanager
def _alone(record: TakeOver) -> Iterator[None]:
    """The study, its watchdog and a `tuner clean` may all want to give back at once."""
    lock = record.path.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    lock.unlink(missing_ok=True)


def await_health(record: TakeOver, started: list[Stopped], say: Say) -> None:
    """Wait until the services that were started are healthy.

    Raises:
        NotHealthy: One of them is not in time; it runs, under its own restart policy.
    """
    began = time.monotonic()
    for service in started:
        while not _is_healthy(record.engine, service):
            if time.monotonic() - began > record.health_timeout_s:
                fix = f"`docker logs {service.name}`"
                raise NotHealthy(
                    f"{service.known_as} was started again but is not healthy after {record.health_timeout_s:.0f} s",
                    fix=fix,
                )
            time.sleep(_POLL_S)
        say(f"{service.known_as} is healthy again, {time.monotonic() - began:.0f} s after its start")


def _is_healthy(engine: str, service: Stopped) -> bool:
    """By Docker's health check; without one, it answers on a port of its own; without any, it runs."""
    from tuner.launchers.docker import daemon, services

    with daemon.connected(engine) as client:
        found = services.find(client, service.id, service.name)
    if found is None:
        return False
    if found.health is not None:
        return found.health == "healthy"
    return not found.ports or any(_answers(port) for port in found.ports)


def _answers(port: int) -> bool:
    """Whether an HTTP server answers there, and is not still loading (503, or no answer at all)."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code < 500
    return False


def main(path: Path) -> None:
    """Give back what the study that wrote this record cannot any more, once its containers are gone."""
    from tuner.launchers.docker import containers, daemon

    record = _read(path)
    if record is None:
        return
    deadline = time.monotonic() + _ENGINE_PATIENCE_S
    while True:
        try:
            with daemon.connected(record.engine) as client:
                containers.end_of(client, record.owner)
            return await_health(record, give_back(record, _log), _log)
        except EngineUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _log(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
