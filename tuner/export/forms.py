"""A winner in a new file: the ``vllm serve`` line, vLLM's own ``config.yml`` with ``env.sh``, a Kubernetes Deployment.

Secrets stand in all of them as references, never as values.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import JsonValue

from tuner.errors import ConfigError
from tuner.export.inplace.winner import winner_of
from tuner.export.power import power_notes
from tuner.export.profile import Profile

PORT = 8000
"""Where the server listens in a pod."""


def serve(profile: Profile) -> str:
    """The command line with its variables, as a script."""
    words = ["vllm", "serve", profile.model]
    flags = [shlex.join([flag.name, *flag.values]) for flag in winner_of(profile).flags]
    lines = [*_assignments(profile), shlex.join(words), *flags, f"--port {profile.service.port}"]
    return f"#!/bin/sh\n{_origin(profile)}" + " \\\n  ".join(lines) + "\n"


def config(profile: Profile) -> str:
    """VLLM's ``config.yml``."""
    tree = {"model": profile.model, **_settings(profile), "port": profile.service.port}
    return _origin(profile) + _yaml(tree)


def env_sh(profile: Profile) -> str:
    """The variables that go with it, for a shell to read first."""
    return _origin(profile) + "".join(f"export {line}\n" for line in _assignments(profile))


def kubernetes(profile: Profile) -> str:
    """A Deployment and its Service.

    Raises:
        ConfigError: Nothing tells the image.
    """
    name = re.sub(r"[^a-z0-9-]+", "-", (profile.service.name or profile.model.rpartition("/")[2]).lower()).strip("-")
    labels = {"app.kubernetes.io/name": name}
    pod = {"containers": [_container(profile, name)], "volumes": [_SHARED_MEMORY, *_kernels(profile)]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # its GPUs are not there twice
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": labels, "ports": [{"port": profile.service.port, "targetPort": PORT}]},
    }
    return _origin(profile) + _yaml(deployment) + "---\n" + _yaml(service)


_SHARED_MEMORY = {"name": "shm", "emptyDir": {"medium": "Memory"}}


def _kernels(profile: Profile) -> Iterator[Mapping[str, Any]]:
    """The folder of tuned kernels, which each node has to have."""
    if profile.kernels:
        yield {"name": "kernels", "hostPath": {"path": profile.kernels, "type": "Directory"}}


def _container(profile: Profile, name: str) -> Mapping[str, Any]:
    words = [word for flag in winner_of(profile).flags for word in (flag.name, *flag.values)]
    health = {"httpGet": {"path": "/health", "port": PORT}}
    gpus = len(_gpus(profile))
    return {
        "name": name,
        "image": _image(profile),
        "command": ["vllm", "serve"],
        "args": [_literal(word) for word in (profile.model, *words, "--host", "0.0.0.0", "--port", str(PORT))],
        "env": list(_variables(profile, name)),
        "ports": [{"containerPort": PORT}],
        **({"resources": {"limits": {"nvidia.com/gpu": gpus}}} if gpus else {}),
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": 120},
        "readinessProbe": {**health, "periodSeconds": 10},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            *({"name": "kernels", "mountPath": profile.kernels, "readOnly": True} for _ in _kernels(profile)),
        ],
    }


def _variables(profile: Profile, secret: str) -> Iterator[Mapping[str, Any]]:
    yield from ({"name": name, "value": _literal(value)} for name, value in profile.env.items())
    for name, key in profile.service.secrets.items():
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _literal(text: str) -> str:
    """A text in which Kubernetes fills in nothing."""
    return text.replace("$", "$$")


def _image(profile: Profile) -> str:
    if profile.image is not None:
        return profile.image.digest or profile.image.reference
    if profile.engine.version is None:
        raise ConfigError("it ran in no container, and its version is not known", fix="write another form with --as")
    return f"vllm/vllm-openai:v{profile.engine.version}"


def _settings(profile: Profile) -> Mapping[str, JsonValue]:
    """Flags as vLLM reads them of a file, where it passes over what is false."""
    named = ((name.replace("_", "-"), value) for name, value in profile.args.items() if value is not None)
    return dict((f"no-{name}", True) if value is False else (name, _items(value)) for name, value in named)


def _items(value: JsonValue) -> JsonValue:
    """A list's items as words."""
    return (
        [json.dumps(one) if isinstance(one, dict | list) else one for one in value]
        if isinstance(value, list)
        else value
    )


def _assignments(profile: Profile) -> Iterator[str]:
    """Each variable as a shell sets it."""
    if gpus := _gpus(profile):
        yield f"CUDA_VISIBLE_DEVICES={','.join(map(str, gpus))}"
    yield from (f"{name}={shlex.quote(value)}" for name, value in profile.env.items())
    yield from (f'{name}="${{{secret}}}"' for name, secret in profile.service.secrets.items())


def _gpus(profile: Profile) -> tuple[int, ...]:
    return profile.machine.indices if profile.machine else ()


def _origin(profile: Profile) -> str:
    """Where it comes from, as a comment."""
    sentence = " ".join(profile.verdict.sentence.split())
    lines = [
        f"trial {profile.trial} of study {profile.study.name}. {sentence}",
        *power_notes(profile.env, _gpus(profile)),
    ]
    return "".join(f"# {line}\n" for line in lines)


class _Whole(yaml.SafeDumper):
    """Writes what stands in two places twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(tree: Mapping[str, Any]) -> str:
    text: str = yaml.dump(tree, Dumper=_Whole, sort_keys=False, width=120, allow_unicode=True)
    return text
