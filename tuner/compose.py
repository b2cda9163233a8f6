"""A configuration as a Compose service: what ran in a trial, under the deployment's own name and port.

Command line and environment are those of the trial. Left out is what tuner added for itself: the name by which a launch
proves who it is, ``engine.launch_args`` and ``engine.launch_env``, and what keeps a trial from reporting to anybody.
Secrets stand as ``${NAME}``: Compose takes them from ``.env``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tuner.config import Config
from tuner.launchers.docker.options import (
    CONTAINER_PORT,
    HUB_FOLDER,
    DockerLauncherConfig,
    gpu_env,
    volume_name,
)
from tuner.launchers.docker.pinned import StudyImage
from tuner.outcome import Outcome
from tuner.profile import recommended, settings_of
from tuner.space import Settings
from tuner.storage import read_json
from tuner.workbench import make_engine

NOT_SHOWN = "limit-not-shown"
"""The Compose profile of a winner of which something is not shown: without it Compose does not start the service."""
_HEALTH = f"import urllib.request as http; http.urlopen('http://127.0.0.1:{CONTAINER_PORT}/health', timeout=5)"


def compose_of(outcome: Outcome) -> str | None:
    """The compose file of what a study recommends; ``None`` where it did not run in containers, or says nothing."""
    chosen, config = recommended(outcome), outcome.config
    if chosen is None or not isinstance(config.launcher, DockerLauncherConfig) or not outcome.folder.image.exists():
        return None
    image = read_json(outcome.folder.image, StudyImage)
    said = f"trial {chosen.number} of study {config.study.name}. {outcome.sentence}"
    profiles = () if outcome.proven else (NOT_SHOWN,)
    return compose_text(config, config.launcher, image, settings_of(outcome, chosen), said, profiles)


def compose_text(
    config: Config,
    options: DockerLauncherConfig,
    image: StudyImage,
    settings: Settings,
    said: str,
    profiles: Sequence[str] = (),
) -> str:
    """A compose file with one service.

    Args:
        config: The study.
        options: How its containers are made.
        image: Which image they are made of.
        settings: The flags and variables of the configuration.
        said: Where it comes from, for the comment at its top.
        profiles: Compose starts the service only if one of these is asked for; always, if there are none.
    """
    name = service_name(config)
    service = _service(config, options, image, settings) | ({"profiles": list(profiles)} if profiles else {})
    file: dict[str, Any] = {"services": {name: service}}
    if options.caches:
        file["volumes"] = {cache: {"name": volume_name(cache)} for cache in options.caches}
    text: str = yaml.safe_dump(file, sort_keys=False, width=120, allow_unicode=True)
    return f"{_comment(name, image, said, profiles)}\n{text}"


def service_name(config: Config) -> str:
    """The deployment's own name."""
    return config.model.service.name or re.sub(r"[^A-Za-z0-9_.-]", "-", config.model.served_name)


def _comment(name: str, image: StudyImage, said: str, profiles: Sequence[str]) -> str:
    asked = "".join(f" --profile {profile}" for profile in profiles)
    lines = [
        f"{name}: {said}",
        f"Image: {image.reference}, {image.id}",
        f"Remove the container of the same name, then: docker compose -f THIS_FILE --env-file .env{asked} up -d --wait",
    ]
    return "\n".join(f"# {line}" for line in lines)


def _service(config: Config, options: DockerLauncherConfig, image: StudyImage, settings: Settings) -> dict[str, Any]:
    entrypoint, *command = _argv(config, settings)
    own = config.model.service
    return {
        "image": image.digests[0] if image.digests else image.reference,
        "container_name": service_name(config),
        "entrypoint": [_plain(entrypoint)],
        "command": [_plain(word) for word in command],
        "environment": _environment(config, options, image, settings),
        "ports": [f"{own.listen}:{own.port}:{CONTAINER_PORT}"],
        "volumes": _volumes(options),
        **({"ipc": "host"} if options.ipc == "host" else {"shm_size": f"{options.shm_gib:g}gb"}),
        **({"mem_limit": f"{options.memory_gib:g}gb"} if options.memory_gib else {}),
        **({"user": options.user} if options.user else {}),
        **({"devices": list(options.devices)} if options.devices else {}),
        **({"security_opt": list(options.security_opt)} if options.security_opt else {}),
        **_gpus(config.hardware.gpus),
        "init": True,
        "restart": "unless-stopped",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _HEALTH],
            "interval": "10s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "20m",
        },
    }


def _argv(config: Config, settings: Settings) -> list[str]:
    words = make_engine(config).command(settings.args, {}, None).argv
    return [word.replace("{host}", "0.0.0.0").replace("{port}", str(CONTAINER_PORT)) for word in words]


def _environment(
    config: Config, options: DockerLauncherConfig, image: StudyImage, settings: Settings
) -> dict[str, str]:
    own = {name: value for name, value in settings.env.items() if value is not None}
    plain = {**options.environment, **image.env, **own, **gpu_env(config.hardware.gpus, image.wsl)}
    needed = {**{name: name for name in config.secrets.trial}, **config.secrets.deployment}
    return {**{name: _plain(value) for name, value in plain.items()}, **{k: f"${{{v}}}" for k, v in needed.items()}}


def _volumes(options: DockerLauncherConfig) -> list[dict[str, Any]]:
    binds = [_bind(_plain(str(one.source)), one.target, one.read_only) for one in options.binds]
    caches = [{"type": "volume", "source": name, "target": target} for name, target in options.caches.items()]
    return [*binds, *_models(options), *caches]


def _models(options: DockerLauncherConfig) -> list[dict[str, Any]]:
    if options.hf_home is None:
        return []
    home = "${HF_HOME:-~/.cache/huggingface}" if options.hf_home == "auto" else _plain(options.hf_home)
    return [_bind(f"{home}/hub", HUB_FOLDER, False)]


def _bind(source: str, target: str, read_only: bool) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, **({"read_only": True} if read_only else {})}


def _gpus(gpus: tuple[int, ...]) -> Mapping[str, Any]:
    if not gpus:
        return {}
    ids = [str(gpu) for gpu in sorted(gpus)]
    device = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}


def _plain(text: str) -> str:
    """Compose reads ``$`` as the beginning of a variable."""
    return text.replace("$", "$$")
