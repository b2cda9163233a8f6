"""The deployed service against trial 0: a baseline that is not what is deployed proves nothing about the deployment.

A container that ``site.stop`` names is compared by its command line and its environment; a server that the study is
attached to by what it says of itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from pydantic import JsonValue

from tuner.config import Config
from tuner.engines.base import Conventions, Engine
from tuner.engines.effective import EffectiveSetting, Status
from tuner.engines.registry import kind_of
from tuner.errors import InfrastructureError
from tuner.launchers.config import ExistingServer
from tuner.secrets import is_secret, redact, redacted
from tuner.trial.readiness import Probe

if TYPE_CHECKING:
    from tuner.launchers.docker.services import Deployed

_LONGEST = 120


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the study holds to be deployed, and starts as trial 0.

    Attributes:
        model: The model's id.
        argv: Trial 0's command line without what only trials have.
        env: The variables of the configuration.
        conventions: How the engine's command lines are written.
        image: The image, where the study runs in containers.
    """

    model: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    conventions: Conventions
    image: str | None = None

    @classmethod
    def of(cls, config: Config, engine: Engine) -> "Claimed":
        """What a configuration claims."""
        command = engine.command(config.model.args, config.model.env, None)
        conventions = kind_of(config.engine).conventions
        return cls(config.model.id, command.argv, config.model.env, conventions, config.launcher.container_image)


def differences(deployed: "Deployed", claimed: Claimed) -> tuple[str, ...]:
    """In what the deployed service is not what the study claims, a sentence each; no secret's value is in any."""
    who, read = f"the service {deployed.known_as}", claimed.conventions.read
    theirs, ours = read(deployed.argv, deployed.env), read(claimed.argv, claimed.env)
    if theirs is None or ours is None:
        return (f"{who} cannot be compared with trial 0: its command starts no server whose flags are known",)
    if theirs.model and theirs.model != claimed.model:
        return (_hidden(f"{who} serves {theirs.model}; model.id says {claimed.model}: it is not compared", deployed),)
    found = [
        *_images(who, deployed, claimed),
        *_flags(who, theirs.args, ours.args, claimed.conventions),
        *_variables(who, deployed, claimed),
    ]
    return tuple(_hidden(sentence, deployed) for sentence in found)


def _images(who: str, deployed: "Deployed", claimed: Claimed) -> Iterator[str]:
    if claimed.image and deployed.image != claimed.image:
        yield f"{who} runs the image {deployed.image}; launcher.image says {claimed.image}"


def _flags(
    who: str, theirs: Mapping[str, JsonValue], ours: Mapping[str, JsonValue], conventions: Conventions
) -> Iterator[str]:
    if "config" in theirs:
        yield f"{who} reads --config {theirs['config']}, whose settings are not compared"
    for name in dict.fromkeys([*theirs, *ours]):
        if name in conventions.trials_own | {"config"} or is_secret(name) or theirs.get(name) == ours.get(name):
            continue
        flag = f"--{name.replace('_', '-')}" if "." not in name else f"--{name}"
        if name not in ours:
            yield f"{who} runs {_written(flag, name, theirs[name], conventions)}; model.args does not set it"
        elif name not in theirs:
            yield f"{who} does not set {flag}; model.args says {_shown(ours[name])}"
        else:
            yield f"{who} runs {_written(flag, name, theirs[name], conventions)}; model.args says {_shown(ours[name])}"


def _variables(who: str, deployed: "Deployed", claimed: Claimed) -> Iterator[str]:
    conventions = claimed.conventions
    own = [name for name in deployed.env if name.startswith(conventions.variables) and name not in deployed.inherited]
    for name in dict.fromkeys([*claimed.env, *own]):
        theirs, ours = deployed.env.get(name), claimed.env.get(name)
        if is_secret(name) or name.startswith(conventions.launchers_own) or theirs == ours:
            continue
        said = f"has {name}={_shown(theirs)}" if theirs is not None else f"does not set {name}"
        yield f"{who} {said}; model.env {'does not set it' if ours is None else f'says {_shown(ours)}'}"


def _written(flag: str, name: str, value: JsonValue, conventions: Conventions) -> str:
    """As a command line has it."""
    if isinstance(value, bool) and "." not in name:
        return conventions.switch(name, value)
    return f"{flag} {_shown(value)}"


def _shown(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _hidden(sentence: str, deployed: "Deployed") -> str:
    """The sentence without any secret: those that the container holds, and what looks like one."""
    secrets = sorted(
        (value for name, value in deployed.env.items() if is_secret(name) and value), key=len, reverse=True
    )
    return redacted(redact(sentence, secrets))


def compared(config: Config, engine: Engine) -> tuple[str, ...]:
    """In what the deployed service is not trial 0, a sentence each; nothing where no deployed service is at hand.

    Containers are inspected and a server is asked; nothing is changed.
    """
    try:
        found = tuple(_compared(config, engine))
    except InfrastructureError as error:
        found = (f"the deployed service cannot be compared with trial 0: {error.message}",)
    hidden = config.secrets.known().hidden
    return tuple(redacted(redact(sentence, hidden)) for sentence in found)


def _compared(config: Config, engine: Engine) -> Iterable[str]:
    running = config.launcher.running(config.secrets.file) if config.model.args else None
    return _service(config, engine) if running is None else _attached(config, running, engine)


def _service(config: Config, engine: Engine) -> tuple[str, ...]:
    if not config.site.stop:
        return ()
    from tuner.launchers.docker import daemon, services

    with daemon.connected() as client:
        found = services.deployed(client, config.site.stop)
    name = config.model.service.name or config.model.served_name
    named = [one for one in found if name in (one.name, one.service)]
    chosen = named or (found if len(found) == 1 else [])
    return tuple(sentence for one in chosen for sentence in differences(one, Claimed.of(config, engine)))


def _attached(config: Config, running: ExistingServer, engine: Engine) -> Iterator[str]:
    """A server tells of its settings what its endpoints hold."""
    who, url = f"the server at {running.url}", running.url
    listed = _listed(url, running.headers)
    yield from _model(who, config, listed)
    probe = Probe(url, config.model.id, running.headers, info_path=engine.info_path)
    settings = engine.effective(config.model.settings, probe.witness(()))
    told = {"max_model_len"} if any(model.get("max_model_len") for model in listed) else set()
    discloses = kind_of(config.engine).conventions.discloses
    yield from _settings(who, [one for one in settings if one.name not in told], discloses)


def _model(who: str, config: Config, models: Sequence[Mapping[str, JsonValue]]) -> Iterator[str]:
    """What ``/v1/models`` says: the names, the model behind them and the context length."""
    context, asked = next((one.get("max_model_len") for one in models), None), config.model.args.get("max_model_len")
    if None not in (context, asked) and context != asked:
        yield f"{who} runs max_model_len {context}; model.args says {asked}"
    if models and config.model.served_name not in [model.get("id") for model in models]:
        yield f"{who} serves {', '.join(str(model.get('id')) for model in models)}, not {config.model.served_name}"
    for root in {str(model["root"]) for model in models if model.get("root")} - {config.model.id}:
        yield f"{who} serves the model {root}; model.id says {config.model.id}"


def _settings(who: str, settings: Iterable[EffectiveSetting], discloses: str) -> Iterator[str]:
    untold = []
    for each in settings:
        if is_secret(each.name):
            continue
        if each.status is Status.OVERRIDDEN:
            place = "model.env" if each.name.isupper() else "model.args"
            yield f"{who} runs {each.name} {_shown(each.effective)}; {place} says {_shown(each.requested)}"
        elif each.status is Status.UNKNOWN:
            untold.append(each.name)
    if untold:
        more = f"; {discloses} tells more" if discloses else ""
        yield f"{who} does not tell, and is not compared in, {', '.join(untold)}{more}"


def _listed(url: str, headers: Mapping[str, str]) -> list[Mapping[str, JsonValue]]:
    """The models that a server lists.

    Raises:
        InfrastructureError: It does not answer, or not as a server of models does.
    """
    try:
        listed: list[Mapping[str, JsonValue]] = httpx.get(f"{url}/v1/models", headers=dict(headers), timeout=10).json()[
            "data"
        ]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise InfrastructureError(f"{url}/v1/models does not answer ({type(error).__name__})") from error
    return listed
