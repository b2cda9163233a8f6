"""The canary: before anything is stopped, it is shown that what is saved starts the very service that runs.

Compose makes a container from its files and an image. So the saved files are read by Compose, and what they say has to
be what the running container was created with: the same image, which has to be here still, the same entrypoint and
command, and the same variables. What differs is named, and nothing is touched.
"""

from collections.abc import Iterator, Mapping

from tuner.errors import ConfigError
from tuner.launchers.docker import composed, daemon
from tuner.launchers.docker.composed import Composed
from tuner.rollout.project import ComposeProject, Described
from tuner.rollout.say import Say

_MUCH_BYTES = 1 << 29


def check(project: ComposeProject, container: Composed, say: Say) -> None:
    """Show that the files would start the service that runs.

    Args:
        project: Its files, of which exact copies are saved.
        container: What runs.
        say: Told of what would be lost with the container.

    Raises:
        ConfigError: They would start another one.
        InfrastructureError: Compose or the engine cannot be asked.
    """
    described = project.described()
    with daemon.connected() as client:
        here = composed.image_id(client, described.image)
        written = composed.written_bytes(client, container.id)
    if wrong := list(_differences(described, here, container)):
        said = f"it could not be brought back as it is: {'; '.join(wrong)}"
        fix = f"bring {project.service} up from its file first: `docker compose up -d {project.service}`"
        raise ConfigError(said, place=str(project.files[0]), fix=fix)
    if written > _MUCH_BYTES:
        lost = f"{written / 1e9:.1f} GB that {container.name} has written outside its volumes go with it"
        say(f"! {lost}: give a model or a cache a volume, else it is loaded anew")


def _differences(described: Described, here: str | None, container: Composed) -> Iterator[str]:
    if here is None:
        yield f"the image {described.image} is not on this machine"
    elif here != container.image_id:
        yield f"{described.image} is {_short(here)} now, and the container runs {_short(container.image_id)}"
    config, image = container.attrs["Config"], container.image_attrs["Config"]
    if _entrypoint(described, image) != (config.get("Entrypoint") or []):
        yield "the file has another entrypoint than the container"
    if _command(described, image) != (config.get("Cmd") or []):
        yield "the file has another command than the container"
    wanted = {**_variables(image), **described.environment}
    runs = _variables(config)
    names = [name for name in dict.fromkeys((*wanted, *runs)) if wanted.get(name) != runs.get(name)]
    if names:
        yield f"these variables are others in the file than in the container: {', '.join(names)}"


def _entrypoint(described: Described, image: Mapping[str, list[str] | None]) -> list[str]:
    return (image.get("Entrypoint") or []) if described.entrypoint is None else described.entrypoint


def _command(described: Described, image: Mapping[str, list[str] | None]) -> list[str]:
    """An entrypoint of the file's own leaves nothing of the image's command."""
    if described.command is not None:
        return described.command
    return [] if described.entrypoint is not None else image.get("Cmd") or []


def _variables(config: Mapping[str, list[str] | None]) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in config.get("Env") or [])


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:12]
