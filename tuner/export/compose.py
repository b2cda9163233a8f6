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
from tuner.engines.registry import kind_of
from tuner.export.power import power_notes
from tuner.export.profile import recommended, settings_of
from tuner.launchers.export import Export, plain
from tuner.premises import make_engine
from tuner.records.outcome import Outcome
from tuner.space import Settings

NOT_SHOWN = "limit-not-shown"
"""The Compose profile of a winner of which something is not shown: without it Compose does not start the service."""


def compose_of(outcome: Outcome) -> str | None:
    """The compose file of what a study recommends; ``None`` where it did not run in containers, or says nothing."""
    trial, chosen, config = recommended(outcome), outcome.chosen, outcome.config
    if trial is None or chosen is None:
        return None
    settings = settings_of(outcome, chosen)
    if (export := config.launcher.sharing(config.engine.kernels).export(config, settings)) is None:
        return None
    origin = f"trial {trial.number} of study {config.study.name}. {outcome.sentence}"
    return compose_text(config, export, settings, origin, () if outcome.proven else (NOT_SHOWN,))


def compose_text(config: Config, export: Export, settings: Settings, origin: str, profiles: Sequence[str] = ()) -> str:
    """A compose file with one service.

    Args:
        config: The study.
        export: What its launcher contributes.
        settings: The flags and variables of the configuration.
        origin: Where it comes from, for the comment at its top.
        profiles: Compose starts the service only if one of these is asked for; always, if there are none.
    """
    name = service_name(config)
    service = _service(config, export, settings) | ({"profiles": list(profiles)} if profiles else {})
    file: dict[str, Any] = {"services": {name: service}}
    if export.volumes:
        file["volumes"] = dict(export.volumes)
    text: str = yaml.safe_dump(file, sort_keys=False, width=120, allow_unicode=True)
    return f"{_comment(name, export, origin, profiles, config.hardware.gpus)}\n{text}"


def service_name(config: Config) -> str:
    """The deployment's own name."""
    return config.model.service.name or re.sub(r"[^A-Za-z0-9_.-]", "-", config.model.served_name)


def _comment(name: str, export: Export, origin: str, profiles: Sequence[str], gpus: Sequence[int]) -> str:
    asked = "".join(f" --profile {profile}" for profile in profiles)
    lines = [
        f"{name}: {origin}",
        f"Image: {export.origin}",
        *power_notes(export.environment, gpus),
        f"Remove the container of the same name, then: docker compose -f THIS_FILE --env-file .env{asked} up -d --wait",
    ]
    return "\n".join(f"# {line}" for line in lines)


def _service(config: Config, export: Export, settings: Settings) -> dict[str, Any]:
    argv = _argv(config, export, settings)
    entrypoint, command = ([], argv) if export.wrapped else (argv[:1], argv[1:])
    own = config.model.service
    return {
        "image": export.image,
        "container_name": service_name(config),
        **({"entrypoint": [plain(word) for word in entrypoint]} if entrypoint else {}),
        "command": [plain(word) for word in command],
        "environment": _environment(config, export),
        "ports": [f"{own.listen}:{own.port}:{export.port}"],
        **export.service,
        "init": True,
        "restart": "unless-stopped",
        "healthcheck": {
            "test": ["CMD", *(word.format(port=export.port) for word in kind_of(config.engine).conventions.health)],
            "interval": "10s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "20m",
        },
    }


def _argv(config: Config, export: Export, settings: Settings) -> list[str]:
    words = make_engine(config).command(settings.args, {}, None).argv
    return [word.replace("{host}", "0.0.0.0").replace("{port}", str(export.port)) for word in words]


def _environment(config: Config, export: Export) -> Mapping[str, str]:
    needed = {**{name: name for name in config.secrets.trial}, **config.secrets.deployment}
    return {
        **{name: plain(value) for name, value in export.environment.items()},
        **{name: f"${{{secret}}}" for name, secret in needed.items()},
    }
