"""What interrupted runs left on this machine: found by its labels and records, and removed.

What belongs to a tuner that still runs is never touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tuner.errors import EngineUnavailable
from tuner.launchers.process import traces
from tuner.launchers.process.strays import strays
from tuner.site import power, takeover

if TYPE_CHECKING:
    from tuner.launchers.docker.containers import StrayContainer
    from tuner.launchers.docker.volumes import CacheVolume


@dataclass(frozen=True, slots=True)
class LeftOver:
    """One thing that is left.

    Attributes:
        what: Its kind and name, for a person.
        why: Whose it was, or what it is for.
        remove: Removes it, or gives back what it stands for.
    """

    what: str
    why: str
    remove: Callable[[], object] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.what} ({self.why})"


def _unheard(text: str) -> None:
    """Nobody listens."""


def left_overs(say: Callable[[str], None] = _unheard) -> list[LeftOver]:
    """What nobody looks after any more: servers first, then services that were stopped and GPUs whose power was capped.

    Args:
        say: Told what is done when a service is given back.
    """
    orphans = [trace.launch_id for trace in traces.orphans()]
    servers = [
        LeftOver(f"server {launch_id}", "its tuner is gone", partial(traces.end_orphans, only=launch_id))
        for launch_id in orphans
    ]
    unrecorded = [
        LeftOver(f"server {one.launch_id}", f"{_listed(one.pids)}; its tuner is gone, and its trace", one.end)
        for one in strays()
        if one.launch_id not in orphans
    ]
    containers = [
        LeftOver(f"{_kind(one)} {one.name}", _whose(one), partial(_end, one.launch_id))
        for one in _containers()
        if one.orphaned
    ]
    owed = [
        LeftOver(
            f"{record.names} stopped",
            f"for study {record.study}, whose tuner is gone",
            partial(_give_back, record, say),
        )
        for record in takeover.pending()
    ]
    capped = [
        LeftOver(f"power limits to restore: {record.spoken}", f"study {record.study}", partial(power.restore, record))
        for record in power.owed()
    ]
    return [*servers, *unrecorded, *containers, *owed, *capped]


def give_back_all(say: Callable[[str], None]) -> None:
    """Remove and give back what interrupted runs left, before anything of one's own is begun."""
    for left in left_overs():
        say(f"an interrupted run had left {left}")
        left.remove()


def under_way() -> list[str]:
    """Containers of tuners that still run, for a person."""
    return [f"{_kind(one)} {one.name} ({_whose(one)})" for one in _containers() if not one.orphaned]


def caches() -> list[LeftOver]:
    """Declared caches and the images that tuner built, which stay until they are removed on purpose.

    Raises:
        EngineUnavailable: No Docker engine answers.
    """
    from tuner.launchers.docker import daemon, images, volumes

    with daemon.connected() as client:
        kept, built = volumes.listed(client), images.built(client)
    return [
        *(LeftOver(f"cache {cache.name}", _size(cache.size_bytes), partial(_remove_cache, cache)) for cache in kept),
        *(LeftOver(f"image {name}", _size(size), partial(_remove_image, name)) for name, size in built.items()),
    ]


def _containers() -> "list[StrayContainer]":
    """Tuner's containers; none where no engine answers, since then none runs."""
    from tuner.launchers.docker import containers, daemon

    if not daemon.seems_there():
        return []
    try:
        with daemon.connected() as client:
            return containers.ours(client)
    except EngineUnavailable:
        return []


def _listed(pids: Sequence[int]) -> str:
    return f"process {', '.join(map(str, pids))}"


def _kind(one: "StrayContainer") -> str:
    return "network" if one.state == "network" else "container"


def _whose(container: "StrayContainer") -> str:
    owner = container.owner.spoken if container.owner else "nobody knows whose"
    return f"{container.state}, study {container.study}, {owner}"


def _end(launch_id: str) -> None:
    from tuner.launchers.docker import containers, daemon

    with daemon.connected() as client:
        containers.end(client, launch_id)


def _give_back(record: takeover.TakeOver, say: Callable[[str], None]) -> None:
    takeover.await_health(record, takeover.give_back(record, say), say)


def _remove_cache(cache: "CacheVolume") -> None:
    from tuner.launchers.docker import daemon, volumes

    with daemon.connected() as client:
        volumes.remove(client, cache)


def _remove_image(name: str) -> None:
    from tuner.launchers.docker import daemon, images

    with daemon.connected() as client:
        images.remove(client, name)


def _size(size_bytes: int | None) -> str:
    return "of unknown size" if size_bytes is None else f"{size_bytes / 1e9:.2f} GB"
