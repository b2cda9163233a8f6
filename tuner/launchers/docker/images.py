"""The image of a study: pulled or built before trial 0, and the same one to its end."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.models.images import Image
from docker.utils import parse_repository_tag

from tuner.errors import ImageMissing
from tuner.launchers.docker.context import build_context
from tuner.launchers.docker.daemon import connected, pull_failed, translated
from tuner.launchers.docker.image import StudyImage
from tuner.launchers.docker.options import Build, DockerLauncherConfig

Progress = Callable[[str], None]
"""Told in a few words how far something has come; each replaces the last."""

BUILT = "tuner.built"
"""Labels an image that tuner has built."""

_SAY_EVERY_S = 1.0


def resolve(
    client: DockerClient, options: DockerLauncherConfig, known: StudyImage | None, progress: Progress
) -> StudyImage:
    """The image to run, present on this engine.

    Args:
        client: The engine.
        options: What the user asks for.
        known: The image of the study's earlier trials; it stays, wherever its tag has moved.
        progress: Told how far it is.

    Raises:
        ImageMissing: It is not here and cannot be pulled or built.
    """
    if known is not None:
        return _again(client, known, progress)
    if options.build:
        return _described(options.image, build(client, options.image, options.build, progress))
    if options.pull == "always" or (options.pull == "missing" and find(client, options.image) is None):
        pull(client, options.image, progress)
    image = find(client, options.image)
    if image is None:
        fix = f"`docker pull {options.image}`, or let tuner pull (launcher.pull=missing) or build (launcher.build)"
        raise ImageMissing(f"there is no image {options.image} on this engine", fix=fix)
    return _described(options.image, image)


def missing(options: DockerLauncherConfig) -> str:
    """How the image would be had, ``pulled`` or ``built``; empty where it is on this engine already.

    Raises:
        ImageMissing: It is not here, and is neither to be pulled nor built.
    """
    with connected() as client:
        here = find(client, options.image) is not None
    if options.build:
        return "built"
    if here and options.pull != "always":
        return ""
    if options.pull == "never":
        fix = f"`docker pull {options.image}`, or launcher.pull=missing"
        raise ImageMissing(f"there is no image {options.image} on this engine", fix=fix)
    return "pulled"


def _again(client: DockerClient, known: StudyImage, progress: Progress) -> StudyImage:
    if find(client, known.id):
        return known
    for digest in known.digests:
        pull(client, digest, progress)
        if find(client, known.id):
            return known
    raise ImageMissing(
        f"the image that this study's earlier trials ran in is gone: {known.reference}, {known.id[:19]}",
        fix="load that image again, or choose another study.name for a new study",
    )


def _described(reference: str, image: Image) -> StudyImage:
    return StudyImage(reference=reference, id=str(image.id), digests=tuple(image.attrs.get("RepoDigests") or ()))


def find(client: DockerClient, reference: str) -> Image | None:
    """The image of that name or id on this engine."""
    with translated():
        try:
            return client.images.get(reference)
        except ImageNotFound:
            return None


def pull(client: DockerClient, reference: str, progress: Progress) -> None:
    """Fetch an image.

    Raises:
        PullFailed: It cannot be had; the message tells a wrong name from a registry that does not answer.
    """
    repository, tag = parse_repository_tag(reference)
    meter = _Meter(f"pulling {reference}", progress)
    with translated("pulling the image"):
        try:
            for step in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                if "error" in step:
                    raise pull_failed(reference, str(step["error"]))
                meter.saw(step)
        except APIError as error:
            raise pull_failed(reference, str(error.explanation)) from error


class _Meter:
    """Adds up the layers of a pull."""

    def __init__(self, what: str, progress: Progress) -> None:
        self._what = what
        self._progress = progress
        self._layers: dict[str, tuple[int, int]] = {}
        self._next_s = 0.0

    def saw(self, step: Mapping[str, Any]) -> None:
        detail = step.get("progressDetail") or {}
        if step.get("status") == "Downloading" and detail.get("total"):
            self._layers[str(step.get("id"))] = (int(detail["current"]), int(detail["total"]))
        elif str(step.get("id")) in self._layers and step.get("status") == "Download complete":
            _, total = self._layers[str(step["id"])]
            self._layers[str(step["id"])] = (total, total)
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _SAY_EVERY_S
            self._progress(f"{self._what}: {self._text or step.get('status', '')}")

    @property
    def _text(self) -> str:
        done, total = (sum(sizes) for sizes in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        return f"{done / 1e9:.2f} of {total / 1e9:.2f} GB" if total else ""


def build(client: DockerClient, reference: str, wanted: Build, progress: Progress) -> Image:
    """Build an image, with the engine's own build cache.

    Raises:
        ImageMissing: The build failed; the message ends in its last lines.
    """
    with build_context(wanted.dockerfile) as (folder, dockerfile), translated("building the image"):
        steps = client.api.build(
            path=str(folder),
            dockerfile=dockerfile,
            tag=reference,
            buildargs=wanted.args,
            labels={BUILT: wanted.dockerfile},
            rm=True,
            forcerm=True,
            decode=True,
        )
        said = list(_said(steps, reference, progress))
    image = find(client, reference)
    if image is None:
        raise ImageMissing(f"building {reference} gave no image: {' '.join(said[-3:])}")
    return image


def _said(steps: Iterable[Mapping[str, Any]], reference: str, progress: Progress) -> Iterator[str]:
    tail: list[str] = []
    for step in steps:
        if "error" in step:
            shown = "\n    ".join([*tail[-8:], str(step["error"])])
            fix = "correct the Dockerfile, or launcher.build.args"
            raise ImageMissing(f"building {reference} failed:\n    {shown}", fix=fix)
        for line in str(step.get("stream", "")).splitlines():
            if line.strip():
                tail.append(line.strip())
                progress(f"building {reference}: {line.strip()[:100]}")
                yield line.strip()


def built(client: DockerClient) -> dict[str, int]:
    """The images that tuner has built, by name, and their sizes in bytes."""
    with translated():
        found = client.images.list(filters={"label": BUILT})
    return {name: int(image.attrs["Size"]) for image in found for name in image.tags or [str(image.id)]}


def remove(client: DockerClient, name: str) -> None:
    """Remove an image.

    Raises:
        InfrastructureError: A container uses it.
    """
    with translated("removing an image"):
        client.images.remove(name)
