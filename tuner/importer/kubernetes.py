"""Kubernetes manifests: the containers of whatever has a pod's template in it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuner.importer import carried, gpus, notation
from tuner.importer.container import Container, Gpus, Mount, Options, Port

_GPU = re.compile(r"(?:nvidia|amd|habana)\.(?:com|ai)/(?:gpu|gaudi|mig-.*)|gpu\.intel\.com/.*|intel\.com/gpu")
_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")


def is_manifest(tree: Any) -> bool:
    """Whether a YAML document is a Kubernetes object."""
    return isinstance(tree, Mapping) and "apiVersion" in tree and "kind" in tree


def containers(documents: Sequence[Any]) -> list[Container]:
    """Each container of each workload, named after its workload; after itself, where that has several."""
    objects = [one for tree in documents for one in _objects(tree)]
    config = {str(_at(one, "metadata", "name")): one for one in objects if one.get("kind") == "ConfigMap"}
    return [found for one in objects for found in _of_workload(one, objects, config)]


def _objects(tree: Any) -> Iterator[Mapping[str, Any]]:
    if is_manifest(tree):
        items = tree.get("items")
        yield from items if isinstance(items, list) else [tree]


def _at(tree: Any, *path: str) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _of_workload(workload: Mapping[str, Any], objects: Sequence[Any], config: Mapping[str, Any]) -> Iterator[Container]:
    name = str(_at(workload, "metadata", "name"))
    for pod, labels in _pods(workload, {}):
        several = len(pod["containers"]) > 1
        for one in pod["containers"]:
            known_as = str(one.get("name")) if several and one.get("name") else name
            yield _container(known_as, one, pod, _node_port(objects, labels), config)


def _pods(tree: Any, labels: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Wherever a pod's specification is in an object."""
    if isinstance(tree, list):
        for one in tree:
            yield from _pods(one, labels)
    elif isinstance(tree, Mapping):
        labels = _at(tree, "metadata", "labels") or labels
        if isinstance(tree.get("containers"), list):
            yield tree, labels
        else:
            for one in tree.values():
                yield from _pods(one, labels)


def _container(
    name: str, one: Mapping[str, Any], pod: Mapping[str, Any], node: Port | None, config: Mapping[str, Any]
) -> Container:
    unread: list[str] = []
    secrets: dict[str, str] = {}
    env = dict(_environment(one, config, secrets, unread))
    claims = [mount.source for mount in _mounts(one, pod) if not mount.is_path]
    before = ", ".join(str(each.get("name")) for each in pod.get("initContainers") or [])
    unread += [f"what runs before it is not run for a trial (initContainers: {before})"] if before else []
    unread += [f"the volume {claim} is the cluster's: this host does not have it" for claim in claims]
    host = next((_port(port) for port in one.get("ports") or [] if port.get("hostPort")), None)
    entrypoint = one.get("command")
    return Container(
        service=name,
        image=one.get("image"),
        entrypoint=tuple(_expanded(str(word), env) for word in entrypoint) if entrypoint else None,
        command=tuple(_expanded(str(word), env) for word in one.get("args") or []),
        env=env,
        secrets=secrets,
        ports=tuple(port for port in (host, node) if port),
        host_network=pod.get("hostNetwork") in ("true", True),
        gpus=gpus.visible(_gpus(one), env),
        mounts=tuple(_mounts(one, pod)),
        options=_options(one, pod),
        unread=tuple(unread),
    )


def _port(port: Mapping[str, Any]) -> Port:
    return Port(int(str(port["hostPort"])), int(str(port["containerPort"])))


def _node_port(objects: Sequence[Mapping[str, Any]], labels: Any) -> Port | None:
    """The port of each node that a Service of the same file opens for these pods."""
    for one in objects:
        selector = _at(one, "spec", "selector")
        if one.get("kind") != "Service" or not isinstance(selector, Mapping) or not isinstance(labels, Mapping):
            continue
        if all(labels.get(key) == value for key, value in selector.items()):
            for port in _at(one, "spec", "ports") or []:
                if str(port.get("nodePort") or "").isdigit():
                    target = str(port.get("targetPort") or port.get("port"))
                    return Port(int(str(port["nodePort"])), int(target) if target.isdigit() else None)
    return None


def _environment(
    one: Mapping[str, Any], config: Mapping[str, Any], secrets: dict[str, str], unread: list[str]
) -> Iterator[tuple[str, str | None]]:
    for source in one.get("envFrom") or []:
        if (name := _at(source, "configMapRef", "name")) in config:
            yield from ((key, str(value)) for key, value in (_at(config[name], "data") or {}).items())
        elif secret := _at(source, "secretRef", "name"):
            secrets[str(secret)] = "a Secret, every key of which becomes a variable"
        else:
            unread.append(f"the variables of the ConfigMap {name} are not in this file")
    known: dict[str, str | None] = {}
    for variable in one.get("env") or []:
        name = str(variable.get("name"))
        known[name] = _value(name, variable, config, secrets, unread)
        text = known[name]
        yield name, None if text is None else _expanded(text, known)


def _value(
    name: str, variable: Mapping[str, Any], config: Mapping[str, Any], secrets: dict[str, str], unread: list[str]
) -> str | None:
    source = variable.get("valueFrom")
    if source is None:
        return str(variable.get("value") or "")
    if (secret := _at(source, "secretKeyRef")) is not None:
        secrets[name] = f"the Secret {secret.get('name')}"
        return None
    reference = _at(source, "configMapKeyRef") or {}
    data = _at(config.get(str(reference.get("name"))), "data") or {}
    if reference.get("key") in data:
        return str(data[reference["key"]])
    unread.append(f"{name} gets its value from {', '.join(map(str, source))}, which is not in this file")
    return None


def _expanded(text: str, env: Mapping[str, str | None]) -> str:
    """``$(NAME)`` stands for a variable of the container, where there is one."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        known = env.get(found[1])
        return found[0] if known is None else known

    return _REFERENCE.sub(value, text)


def _gpus(one: Mapping[str, Any]) -> Gpus:
    for kind in ("limits", "requests"):
        for name, count in (_at(one, "resources", kind) or {}).items():
            if _GPU.fullmatch(str(name)) and str(count).isdigit() and int(str(count)):
                return int(str(count))
    return None


def _mounts(one: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[Mount]:
    volumes = {volume.get("name"): volume for volume in pod.get("volumes") or []}
    for mount in one.get("volumeMounts") or []:
        volume, target = volumes.get(mount.get("name"), {}), str(mount.get("mountPath"))
        read_only = mount.get("readOnly") in ("true", True)
        if path := _at(volume, "hostPath", "path"):
            yield Mount(str(path), target, read_only)
        elif claim := _at(volume, "persistentVolumeClaim", "claimName"):
            yield Mount(str(claim), target, read_only)


def _options(one: Mapping[str, Any], pod: Mapping[str, Any]) -> Options:
    shm = [
        notation.size(str(_at(volume, "emptyDir", "sizeLimit") or ""))
        for volume in pod.get("volumes") or []
        if _at(volume, "emptyDir", "medium") == "Memory"
    ]
    context = {**(pod.get("securityContext") or {}), **(one.get("securityContext") or {})}
    as_compose = {
        "cap_add": _at(context, "capabilities", "add"),
        "cap_drop": _at(context, "capabilities", "drop"),
        "privileged": context.get("privileged"),
        "read_only": context.get("readOnlyRootFilesystem"),
        "ipc": "host" if pod.get("hostIPC") in ("true", True) else None,
        "pid": "host" if pod.get("hostPID") in ("true", True) else None,
        "working_dir": one.get("workingDir"),
        "cpus": _processors(str(_at(one, "resources", "limits", "cpu") or "")),
        "mem_limit": _at(one, "resources", "limits", "memory"),
    }
    made = carried.options({key: value for key, value in as_compose.items() if value})
    user = context.get("runAsUser")
    return replace(made, user=str(user) if user else None, shm_bytes=next(iter(shm), None))


def _processors(text: str) -> float | None:
    """``8`` or ``7500m``; ``None`` for anything else, such as a template's placeholder."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    return (float(found[1]) / (1000 if found[2] else 1) or None) if found else None
