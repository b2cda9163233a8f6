"""What was understood of a deployment as a table: setting, value, where it stood."""

import json
from collections.abc import Iterator

from tuner.importer.understood import Deployment, masked

Row = tuple[str, str, str]


def rows(deployment: Deployment) -> list[Row]:
    """Each setting with its value and where it stood."""
    return [*_service(deployment), *_flags(deployment), *_variables(deployment), *_mounts(deployment)]


def text(deployment: Deployment) -> str:
    """The table, and below it what could not be read."""
    found = rows(deployment)
    widths = [max(len(row[column]) for row in found) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {value:<{min(widths[1], 60)}}  {where}".rstrip() for name, value, where in found]
    unread = [f"! {sentence}" for sentence in deployment.understood.unread]
    return "\n".join([*lines, *([""] if unread else []), *unread])


def _service(deployment: Deployment) -> Iterator[Row]:
    understood, where = deployment.understood, deployment.where
    for name, value in (("service", understood.service), ("image", understood.image)):
        if value:
            yield name, value, where(value)
    if understood.gpus is not None:
        yield "GPUs", json.dumps(understood.gpus).strip('"'), ""
    if understood.host_port is not None:
        yield "port", str(understood.host_port), where(str(understood.host_port))


def _flags(deployment: Deployment) -> Iterator[Row]:
    command, shown = deployment.command, deployment.understood.argv
    if command is None:
        return
    if command.model is not None:
        yield "model", command.model, deployment.where(command.model)
    for flag in command.flags:
        if flag.name in shown:
            yield flag.name, " ".join(map(masked, flag.values)) or "on", deployment.where(flag.written)


def _variables(deployment: Deployment) -> Iterator[Row]:
    secrets = {secret.name: secret.where for secret in deployment.understood.secrets}
    for name, value in deployment.understood.env.items():
        shown = "a secret" if name in secrets else "not known" if value is None else value
        yield name, shown, secrets.get(name) or deployment.where(name)
    for secret, where in secrets.items():
        if secret not in deployment.understood.env:
            yield secret, "a secret", where


def _mounts(deployment: Deployment) -> Iterator[Row]:
    yield from (("mount", mount, "") for mount in deployment.understood.mounts)
