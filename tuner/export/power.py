"""What a deployment has to be told of its GPUs' power: a server cannot set that itself."""

from collections.abc import Iterator, Mapping

from tuner.host.nvidia import POWER_CAP


def power_notes(env: Mapping[str, object]) -> Iterator[str]:
    """The sentence for a configuration that was measured under a power cap; nothing for any other."""
    if (watts := env.get(POWER_CAP)) is not None:
        yield f"Measured with each GPU's power capped at {watts} W, which no server sets: sudo nvidia-smi -pl {watts}"
