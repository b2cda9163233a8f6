"""A network for each launch: on the engine's default bridge every other container of the host could reach its server.

A network is known by the labels of its launch and is removed with it. The port on the loopback interface is published
all the same, and the container reaches the world as from any other bridge.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from docker import DockerClient
from docker.errors import NotFound

from tuner.launchers.docker.daemon import translated


def create(client: DockerClient, launch_id: str, labels: Mapping[str, str]) -> str:
    """A bridge network that nobody else is in; returns its name.

    Raises:
        InfrastructureError: The engine refuses: it has no address range left.
    """
    name = f"tuner-{launch_id}"
    with translated("making the trial's network"):
        client.networks.create(name, driver="bridge", labels=dict(labels))
    return name


def remove(client: DockerClient, label: str) -> None:
    """Remove the networks with this label, whose containers are gone."""
    with translated("removing the trial's network"):
        for network in client.networks.list(filters={"label": label}):
            with suppress(NotFound):
                network.remove()


def listed(client: DockerClient, label: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Name and labels of the networks with this label."""
    with translated():
        for network in client.networks.list(filters={"label": label}):
            yield str(network.name), network.attrs.get("Labels") or {}
