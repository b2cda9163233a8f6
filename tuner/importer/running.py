"""A container of this host's Docker engine, as it was created: what no file tells, its real command line does."""

from tuner.errors import InfrastructureError
from tuner.importer import inspected
from tuner.importer.container import Container


def container(name: str) -> Container | None:
    """The container of this name, or of this compose service; ``None`` if there is none, or no engine to ask."""
    from tuner.launchers.docker import daemon, services

    try:
        with daemon.connected() as client:
            found = services.inspected(client, name)
    except InfrastructureError:
        return None
    return inspected.container(*found) if found else None
