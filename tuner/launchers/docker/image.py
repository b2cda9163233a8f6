"""Which image a study runs in: as its folder keeps it, and readable without the SDK."""

from typing import Literal

from pydantic import Field

from tuner.schema import Stored


class StudyImage(Stored):
    """The one image of a study, as its folder keeps it."""

    schema_version: Literal[1] = 1
    reference: str
    """What the user called it."""
    id: str
    """What it is."""
    digests: tuple[str, ...] = ()
    """By which a registry gives the very same one: ``vllm/vllm-openai@sha256:…``; none for one that was built here."""
    wsl: bool = False
    """Whether the engine runs on WSL2, where GPUs are chosen otherwise."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that every container of the study gets besides those of its configuration; no secrets."""
