"""What a launcher contributes to the deployment that a winner is written as: parts of a Compose service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Export:
    """A launcher's part of a Compose service.

    Attributes:
        image: The image, as Compose finds it.
        origin: The image, for a person.
        port: Where the server listens in the container.
        environment: All variables of the server; Compose's escapes are still to be made.
        service: Further keys of the service, as they stand in the file.
        volumes: The file's named volumes, likewise.
        wrapped: Whether the image's own entrypoint stays in front of the command line.
    """

    image: str
    origin: str
    port: int
    environment: Mapping[str, str]
    service: Mapping[str, Any] = field(default_factory=dict)
    volumes: Mapping[str, Any] = field(default_factory=dict)
    wrapped: bool = False


def plain(text: str) -> str:
    """The text as Compose reads it: there ``$`` begins a variable."""
    return text.replace("$", "$$")
