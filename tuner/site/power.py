"""A power cap on the GPUs while a server runs, and the limit that they had before, whatever ends the study.

The cap is a variable among a candidate's settings (``TUNER_POWER_CAP_W``, in watts) that no server gets to see. What
the limits were is on disk before the first is changed. Whoever comes first restores them: the launch that ends, the
study, its watchdog when it was killed (``python -m tuner.site.power RECORD``), the next study, or ``tuner clean``.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from tuner.config import Config
from tuner.errors import ConfigError, InfrastructureError
from tuner.host import nvidia
from tuner.host.files import write_whole
from tuner.host.leases import state_dir
from tuner.host.nvidia import POWER_CAP, PowerLimit
from tuner.host.owner import Owner
from tuner.host.watchdog import watchdog
from tuner.launchers.base import Launcher, LaunchSpec, Server
from tuner.reading import bytes_of
from tuner.schema import Schema, Stored
from tuner.space import Range

Say = Callable[[str], None]
_NEAR_W = 1.0
"""The driver rounds."""


class LimitBefore(Schema):
    """A GPU's power limit as it was found."""

    gpu: int
    """Its index, in PCI bus order."""
    watts: float


class PowerRecord(Stored):
    """The limits to go back to, and whose study changed them: one file each in tuner's state folder."""

    schema_version: Literal[1] = 1
    owner: str
    study: str
    limits: tuple[LimitBefore, ...]

    @property
    def path(self) -> Path:
        """Its file."""
        owner = Owner.parse(self.owner)
        return _folder() / f"{self.study}-{owner.pid if owner else 0}.json"

    @property
    def abandoned(self) -> bool:
        """Whether whoever changed them is gone."""
        owner = Owner.parse(self.owner)
        return owner is None or not owner.lives

    @property
    def spoken(self) -> str:
        """The limits, for a person."""
        return ", ".join(f"GPU {each.gpu} at {each.watts:g} W" for each in self.limits)

    def write(self) -> None:
        """On the disk when this returns, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.model_dump_json(indent=1))


def _folder() -> Path:
    return state_dir() / "power"


def owed() -> list[PowerRecord]:
    """The limits on disk whose owner is gone."""
    found = (_read(path) for path in sorted(_folder().glob("*.json")))
    return [record for record in found if record and record.abandoned]


def _read(path: Path) -> PowerRecord | None:
    try:
        return PowerRecord.model_validate_json(bytes_of(path))
    except FileNotFoundError:  # restored in the meantime
        return None
    except (OSError, ValidationError) as error:
        fix = "set the GPUs' limits yourself (nvidia-smi -q -d POWER shows the default), then remove the file"
        raise ConfigError(f"{path} says which power limits to restore, but cannot be read", fix=fix) from error


def restore(record: PowerRecord) -> None:
    """Set what was found, and forget it; nothing happens if somebody else has done it already.

    Raises:
        InfrastructureError: The driver refuses; the record stays.
    """
    if record.path.exists():
        _set_all(record.limits)
        record.path.unlink(missing_ok=True)


def caps_power(config: Config) -> bool:
    """Whether any configuration of a study may ask for a cap."""
    return bool(_caps(config))


def check_power(config: Config) -> Iterator[str]:
    """Make sure that the caps of a study are within what its GPUs take; yields what only the start can tell.

    Raises:
        ConfigError: The driver has no limit to set, forgets it between two servers, or does not take one of the caps.
    """
    caps = [(place, _watts(place, value)) for place, value in _caps(config)]
    if not caps:
        return
    for limit in _limits(config):
        for place, watts in caps:
            if not limit.least_w <= watts <= limit.most_w:
                said = f"GPU {limit.index} takes from {limit.least_w:g} to {limit.most_w:g} W, not {watts:g}"
                raise ConfigError(said, place=place, fix="choose caps within these limits")
    yield "whether this user may set the GPUs' power limit is tried at the start"


def _limits(config: Config) -> tuple[PowerLimit, ...]:
    limits = () if config.hardware.simulated else nvidia.power_limits(config.gpus)
    fix = f"take {POWER_CAP} out of the space (null)"
    if not limits or len(limits) < len(config.gpus):
        raise ConfigError("these GPUs have no power limit that could be set", place="space.params", fix=fix)
    if not all(limit.persistent for limit in limits):
        said = "without persistence mode the driver forgets a power limit before the server starts"
        raise ConfigError(said, place="space.params", fix=f"`sudo nvidia-smi -pm 1`, or {fix}")
    return limits


def _caps(config: Config) -> list[tuple[str, JsonValue]]:
    """Every cap that may be set, with the key that says so; of a range its ends."""
    deployed = config.model.env.get(POWER_CAP)
    found: list[tuple[str, JsonValue]] = [(f"model.env.{POWER_CAP}", deployed)] if deployed else []
    for name, parameter in config.space.params.items():
        if config.space.target(name) == ("env", POWER_CAP):
            values = (parameter.low, parameter.high) if isinstance(parameter, Range) else parameter.choices
            found += [(f"space.params.{name}", value) for value in values if value is not None]
    return found


def _watts(place: str, value: JsonValue) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise ConfigError(f"{value!r} is no power in watts", place=place, fix="say watts, such as 300") from None


@contextmanager
def power_kept(config: Config, launcher: Launcher) -> Iterator[Launcher]:
    """The launcher, which caps the power of each server that asks for it; the limits are as before when it is left.

    Raises:
        ConfigError: As ``check_power``, or this user may not set a limit.
        InfrastructureError: The driver does not let a limit be restored; its record stays.
    """
    if not caps_power(config):
        yield launcher
        return
    list(check_power(config))
    before = tuple(LimitBefore(gpu=limit.index, watts=limit.now_w) for limit in _limits(config))
    _check_permitted(before)
    record = PowerRecord(owner=str(Owner.me()), study=config.study.name, limits=before)
    record.write()
    with watchdog(("-m", "tuner.site.power", str(record.path))) as dog:
        try:
            yield Capped(launcher, before)
        finally:
            restore(record)
            dog.dismiss()


def _check_permitted(limits: Sequence[LimitBefore]) -> None:
    """Setting what is set already changes nothing, and is refused where any change would be."""
    for limit in limits:
        if refused := nvidia.set_power(limit.gpu, limit.watts):
            fix = f"run tuner as a user who may (root), or take {POWER_CAP} out of the space (null)"
            raise ConfigError(f"the power limit of GPU {limit.gpu} cannot be set: {refused}", place="space", fix=fix)


@dataclass(frozen=True)
class Capped:
    """A launcher whose servers run under the power cap that their settings name.

    Attributes:
        launcher: Starts the servers.
        before: The limits without a cap.
    """

    launcher: Launcher
    before: tuple[LimitBefore, ...]

    @contextmanager
    def launch(self, spec: LaunchSpec) -> Iterator[Server]:
        """See ``Launcher.launch``.

        Raises:
            InfrastructureError: The driver does not set the cap.
        """
        cap, own = spec.env.get(POWER_CAP), {name: value for name, value in spec.env.items() if name != POWER_CAP}
        with self._capped(cap), self.launcher.launch(replace(spec, env=own)) as server:
            yield server

    @contextmanager
    def _capped(self, cap: str | None) -> Iterator[None]:
        if cap is None:
            yield
            return
        try:
            _set_all([LimitBefore(gpu=limit.gpu, watts=_watts(POWER_CAP, cap)) for limit in self.before])
            yield
        finally:
            _set_all(self.before)


def _set_all(limits: Sequence[LimitBefore]) -> None:
    """Set each of them, the others as well where one is refused."""
    refused = [(limit, said) for limit in limits if (said := _set(limit))]
    if refused:
        limit, said = refused[0]
        fix = f"`sudo nvidia-smi -i {limit.gpu} -pl {limit.watts:g}`; `tuner clean` restores what a study left"
        raise InfrastructureError(f"the power limit of GPU {limit.gpu} is not {limit.watts:g} W: {said}", fix=fix)


def _set(limit: LimitBefore) -> str | None:
    if refused := nvidia.set_power(limit.gpu, limit.watts):
        return refused
    now = [each.now_w for each in nvidia.power_limits([limit.gpu])]
    return None if now and abs(now[0] - limit.watts) <= _NEAR_W else f"the driver says {now[0] if now else 'nothing'}"


def main(path: Path) -> None:
    """Restore what the study that wrote this record cannot any more."""
    if record := _read(path):
        restore(record)
        sys.stdout.write(f"power limits restored: {record.spoken}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
