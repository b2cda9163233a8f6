"""What a deployment has to be told of its GPUs' power: a server cannot set that itself, and only root may."""

from collections.abc import Iterator, Mapping, Sequence

from tuner.host.nvidia import POWER_CAP


def power_notes(env: Mapping[str, object], gpus: Sequence[int] = ()) -> Iterator[str]:
    """The sentence for a configuration that was measured under a power cap; nothing for any other.

    Args:
        env: Its variables.
        gpus: The GPUs of this host that it serves on; all of them where nobody says.
    """
    if (watts := env.get(POWER_CAP)) is not None:
        yield f"Measured with each GPU's power capped at {watts} W, which no server sets: {_command(watts, gpus)}"


def power_changes(before: Mapping[str, object], after: Mapping[str, object], gpus: Sequence[int] = ()) -> Iterator[str]:
    """The same for a configuration that takes another's place; also that a cap is not asked for any more."""
    yield from power_notes(after, gpus)
    if (watts := before.get(POWER_CAP)) is not None and after.get(POWER_CAP) is None:
        default = "with the default that `nvidia-smi -q -d POWER` shows"
        yield f"A power cap of {watts} W is no part of it any more; lift it: {_command('DEFAULT', gpus)}, {default}"


def _command(watts: object, gpus: Sequence[int]) -> str:
    named = f" -i {','.join(map(str, gpus))}" if gpus else ""
    return f"sudo nvidia-smi{named} -pl {watts}"
