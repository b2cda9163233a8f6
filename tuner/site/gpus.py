"""This machine's GPUs: who holds them, and making sure that a trial finds them free.

Two witnesses are asked. The driver knows how much memory is used, which is what counts, and on native Linux by which
process. The Docker engine knows which containers were given which GPUs; its word decides where no driver answers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.config import SiteConfig
from tuner.errors import ConfigError, ContextExceedsKvCache, EngineUnavailable, GpuBusy, OutOfMemory
from tuner.host import nvidia
from tuner.launchers.base import Launcher, LaunchSpec, Server

if TYPE_CHECKING:
    from tuner.launchers.docker.services import Service

_POLL_S = 0.5
_AFTERMATH_S = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who holds a GPU of the study's.

    Attributes:
        gpu: The GPU.
        who: For a person.
        service: The container, if it is one.
    """

    gpu: int
    who: str
    service: "Service | None" = None


def holders(
    gpus: Sequence[int], services: "Sequence[Service]", seen: Sequence[nvidia.Gpu], idle_gib: float
) -> list[Holder]:
    """Who holds these GPUs.

    A container that was given all GPUs may be monitoring: it counts only where memory is used, or no driver can tell,
    and nobody was given that GPU by name.

    Args:
        gpus: The study's.
        services: Containers that run.
        seen: What the driver says.
        idle_gib: Memory up to which a GPU counts as free.
    """
    found: list[Holder] = []
    for gpu in gpus:
        state = next((one for one in seen if one.index == gpu), None)
        used = state is None or state.used_gib > idle_gib
        named = [service for service in services if _given(service, gpu, state)]
        given = named or [service for service in services if used and service.all_gpus]
        found += [Holder(gpu, f"container {service.known_as}", service) for service in given]
        if state and state.used_gib > idle_gib and not given:
            found.append(Holder(gpu, _processes(state)))
    return found


def _given(service: "Service", gpu: int, state: nvidia.Gpu | None) -> bool:
    names = {str(gpu)} | ({state.uuid} if state else set())
    return any(name in names for name in service.gpus)


def _processes(state: nvidia.Gpu) -> str:
    held = f"{state.used_gib:.1f} of {state.total_gib:.1f} GiB in use"
    return f"{', '.join(state.processes)}: {held}" if state.processes else held


def find_services(
    names: Sequence[str], services: "Sequence[Service]", exists: Callable[[str], bool]
) -> "list[Service]":
    """The running services of these names; one that is down is left out.

    Args:
        names: Containers or compose services.
        services: All that run.
        exists: Whether there is one of that name at all.

    Raises:
        ConfigError: There is none of that name, or it would not survive being stopped.
    """
    found: list[Service] = []
    for name in names:
        matching = [service for service in services if name in (service.name, service.service)]
        if not matching and not exists(name):
            listed = ", ".join(service.known_as for service in services) or "none"
            raise ConfigError(
                f"there is no service {name!r} (running: {listed})", place="site.stop", fix="correct its name"
            )
        found += [service for service in matching if service not in found]
    for service in found:
        if service.vanishes:
            fix = "start it without --rm, or stop it and start it again yourself"
            raise ConfigError(f"{service.name} would be removed when stopped (--rm)", place="site.stop", fix=fix)
    return found


def check_there(gpus: Sequence[int]) -> bool:
    """Make sure that this machine has these GPUs; ``False`` if no driver can tell.

    Raises:
        EngineUnavailable: It has others.
    """
    there = [gpu.index for gpu in nvidia.read()] if gpus else []
    if there and (absent := [gpu for gpu in gpus if gpu not in there]):
        known = ", ".join(map(str, sorted(there)))
        raise EngineUnavailable(f"there is no GPU {absent[0]} (there are: {known})", fix="correct hardware.gpus")
    return bool(there)


def refuse_if_held(found: Sequence[Holder], to_be_stopped: "Sequence[Service]", beside: Sequence[str]) -> None:
    """Make sure that nobody holds the GPUs but those that will be stopped.

    Raises:
        GpuBusy: Somebody does; the message says who, and what can be done.
    """
    allowed = {service.id for service in to_be_stopped}
    others = [holder for holder in found if not (holder.service and _allowed(holder.service, allowed, beside))]
    if not others:
        return
    named = sorted({holder.service.known_as for holder in others if holder.service})
    stop = f"site.stop=[{','.join(named)}] stops it for the study and starts it again in the end" if named else ""
    free = "end what holds them" if not named else ""
    held = "; ".join(f"GPU {holder.gpu} is held by {holder.who}" for holder in others)
    raise GpuBusy(held, fix=f"{stop or free}; or give the study other hardware.gpus")


def _allowed(service: "Service", stopped: set[str], beside: Sequence[str]) -> bool:
    return service.id in stopped or service.name in beside or service.service in beside


def wait_until_free(gpus: Sequence[int], site: SiteConfig) -> None:
    """Return when these GPUs' memory is free; at once where no driver can tell.

    Raises:
        GpuBusy: It was not in time; the message says who holds it.
    """
    deadline = time.monotonic() + site.free_timeout_s
    while held := _held(gpus, site.idle_gib):
        if time.monotonic() > deadline:
            said = "; ".join(f"GPU {one.index}: {_processes(one)}" for one in held)
            fix = "end what holds it, or raise site.idle_gib if it always does"
            raise GpuBusy(
                f"the memory of this study's GPUs did not become free in {site.free_timeout_s:.0f} s: {said}", fix=fix
            )
        time.sleep(_POLL_S)


def _held(gpus: Sequence[int], idle_gib: float) -> list[nvidia.Gpu]:
    return [one for one in nvidia.read() if one.index in gpus and one.used_gib > idle_gib] if gpus else []


@dataclass(frozen=True)
class SoleUser:
    """A launcher whose servers find their GPUs free, and are not blamed for memory that others hold.

    Attributes:
        launcher: Starts the servers.
        site: What counts as free, and how long to wait for it.
        hold: Called before each launch: keeps down what a restarted engine has brought back.
    """

    launcher: Launcher
    site: SiteConfig
    hold: Callable[[], None]

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[Server]:
        """See ``Launcher.launch``.

        Raises:
            GpuBusy: Others hold the memory of its GPUs, before the launch or when the server ran out of it.
        """
        self.hold()
        wait_until_free(spec.gpus, self.site)
        try:
            with self.launcher.launch(spec) as server:
                yield server
        except (OutOfMemory, ContextExceedsKvCache) as error:
            if held := self._held_by_others(spec.gpus):
                said = "; ".join(f"GPU {one.index}: {_processes(one)}" for one in held)
                raise GpuBusy(f"the server ran out of memory that others hold: {said}", line=error.line) from error
            raise

    def _held_by_others(self, gpus: Sequence[int]) -> list[nvidia.Gpu]:
        """What is held after our own server has ended, whose memory comes back within moments."""
        deadline = time.monotonic() + min(_AFTERMATH_S, self.site.free_timeout_s)
        while (held := _held(gpus, self.site.idle_gib)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return held
