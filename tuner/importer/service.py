"""A service of a compose file as a container."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.importer import carried, dockerfile, gpus, notation
from tuner.importer.compose import Project, env_files, environment
from tuner.importer.container import Container, Gpus, Mount, Port
from tuner.importer.dockerfile import Built


def container(project: Project, name: str) -> Container:
    """What a service says of its container."""
    service = project.services[name]
    env, built = environment(project, name), _built(project, service)
    own = words(service.get("entrypoint"))
    return Container(
        service=name,
        image=service.get("image") or None,
        base=built.base,
        entrypoint=built.entrypoint if own is None else own,
        command=words(service.get("command")) or (built.command if own is None else None) or (),
        env=env,
        secrets={_named(one): "a Docker secret" for one in service.get("secrets") or []},
        ports=tuple(ports(service.get("ports") or [])),
        host_network=service.get("network_mode") == "host",
        gpus=_gpus(service, env),
        mounts=tuple(_mounts(project, service)),
        options=carried.options(service),
        files=tuple(file.path for file in env_files(project, service) if file.path.is_file()),
        unread=tuple(_unread(project, name)),
        left_out=tuple(carried.left_out(service)),
    )


def words(raw: Any) -> tuple[str, ...] | None:
    """A command as a list of words; ``None`` where there is none."""
    if raw is None:
        return None
    if isinstance(raw, list):
        return tuple("" if word is None else str(word) for word in raw)
    return split(str(raw))


def split(text: str) -> tuple[str, ...]:
    """A command in one text as its words; a line that ends with a backslash is continued."""
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ").replace("\\ --", " --")
    try:
        return tuple(shlex.split(joined))
    except ValueError:  # a quotation that does not end
        return tuple(joined.split())


def _built(project: Project, service: Mapping[str, Any]) -> Built:
    """What the image that is built for a service runs by itself."""
    build = service.get("build")
    if not build:
        return Built()
    named: Mapping[str, Any] = build if isinstance(build, Mapping) else {"context": build}
    context = project.folder / str(named.get("context") or ".")
    return dockerfile.read(context / str(named.get("dockerfile") or "Dockerfile"))


def _unread(project: Project, name: str) -> Iterator[str]:
    service = project.services[name]
    yield from project.variables.of(name)
    if service.get("build") and not service.get("image"):
        yield "the image is built from a Dockerfile and has no name of its own"
    yield from (said for one in _configs(project, service) if isinstance(said := _config(project, *one), str))


def _named(secret: Any) -> str:
    return str(secret.get("source") if isinstance(secret, Mapping) else secret)


def ports(raw: list[Any]) -> Iterator[Port]:
    """What is published."""
    for one in raw:
        if isinstance(one, Mapping):
            published = str(one.get("published") or "").partition("-")[0]
            if published.isdigit():
                yield Port(int(published), int(str(one.get("target"))))
        elif found := notation.port(str(one)):
            yield found


def _gpus(service: Mapping[str, Any], env: Mapping[str, str | None]) -> Gpus:
    given: Gpus = None
    reserved = _at(service, "deploy", "resources", "reservations", "devices")
    if isinstance(reserved, list):
        given = gpus.of_requests(one for one in reserved if isinstance(one, Mapping))
    if given is None and (asked := service.get("gpus")) is not None:
        requests = [one for one in asked if isinstance(one, Mapping)] if isinstance(asked, list) else []
        given = gpus.of_requests(requests) if requests else gpus.of_text(str(asked))
    if given is None:
        named = "nvidia" if env.get("NVIDIA_VISIBLE_DEVICES") else service.get("runtime")  # the default may be nvidia's
        given = gpus.of_runtime(named, env)
    return gpus.visible(given, env, carried.devices(service))


def _at(tree: Any, *path: str) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _mounts(project: Project, service: Mapping[str, Any]) -> Iterator[Mount]:
    home = project.variables.values.get("HOME", str(Path.home()))
    names = {name: _volume(project, name, volume) for name, volume in project.volumes.items()}
    for one in service.get("volumes") or []:
        if isinstance(one, Mapping):
            yield from _long(one, project.folder, home, names)
        elif found := notation.mount(str(one), project.folder, home, names):
            yield found
    made = (_config(project, *one) for one in _configs(project, service))
    yield from (one for one in made if isinstance(one, Mount))


def _configs(project: Project, service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The project's configs that a service sees as files: their names, and where."""
    for one in service.get("configs") or []:
        said = one if isinstance(one, Mapping) else {"source": one}
        name = str(said.get("source"))
        yield name, str(said.get("target") or f"/{name}")


def _config(project: Project, name: str, target: str) -> Mount | str:
    """A config that is a file of this host is mounted, as Compose does it; of any other, that no trial has it."""
    config = project.configs.get(name)
    file = config.get("file") if isinstance(config, Mapping) else None
    if file is None:
        return f"the config {name} is no file of this host: no trial has it (at {target})"
    home = project.variables.values.get("HOME", str(Path.home()))
    return Mount(notation.host_path(str(file), project.folder, home), target, read_only=True)


def _volume(project: Project, name: str, volume: Any) -> str:
    """A named volume's name in Docker."""
    own = volume if isinstance(volume, Mapping) else {}
    if own.get("name"):
        return str(own["name"])
    external = own.get("external")
    if isinstance(external, Mapping) and external.get("name"):
        return str(external["name"])
    return name if external in ("true", True) else f"{project.name}_{name}"


def _long(one: Mapping[str, Any], folder: Path, home: str, names: Mapping[str, str]) -> Iterator[Mount]:
    source, target = str(one.get("source") or ""), str(one.get("target"))
    read_only = one.get("read_only") in ("true", True)
    if one.get("type") == "bind" and source:
        yield Mount(notation.host_path(source, folder, home), target, read_only)
    elif one.get("type") == "volume" and source:
        yield Mount(source, target, read_only, names.get(source, source))
