"""What a start makes sure of before its first launch, for a plan: nothing is started, stopped, pulled or changed.

Each check refuses as the start itself would, or says what it had to leave open.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner import config as configuration
from tuner import driver, resume
from tuner.config import AttachLauncherConfig, Config
from tuner.errors import ConfigError, EngineUnavailable, PortTaken, TunerError
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.launchers.leases import reserved
from tuner.load.plan import SLACK_TOKENS
from tuner.outcome import Outcome
from tuner.preflight import ground_of, impossible
from tuner.storage import StudyFolder
from tuner.takeover import in_the_way
from tuner.workbench import check_executable, make_engine


@dataclass(frozen=True, slots=True)
class Checks:
    """What came of the checks.

    Attributes:
        passed: What was found in order.
        unchecked: What cannot be known without starting something, and why.
        refused: What keeps the study from starting.
    """

    passed: tuple[str, ...]
    unchecked: tuple[str, ...]
    refused: tuple[TunerError, ...]


def examined(config: Config) -> Checks:
    """Run every check; one that refuses does not keep the others from being run."""
    passed, unchecked, refused = [], [], []
    for name, check in _CHECKS.items():
        try:
            left_open = list(check(config))
        except TunerError as error:
            refused.append(error)
        else:
            unchecked += [f"{name}: {reason}" for reason in left_open]
            passed += [] if left_open else [name]
    return Checks(tuple(passed), tuple(unchecked), tuple(refused))


def check_prompts(config: Config) -> None:
    """Make sure that the deployment can take the requests that its goals and limits are measured by.

    Raises:
        ConfigError: They are longer than its ``max_model_len``; the optional stages are skipped instead.
    """
    context, workload = config.model.args.get("max_model_len"), config.workload
    if not isinstance(context, int):
        return
    needed = {
        "workload": workload.prompt_tokens + workload.output_tokens,
        "workload.single_user": workload.single_user.prompt_tokens + workload.single_user.output_tokens,
    }
    for place, tokens in needed.items():
        if tokens + SLACK_TOKENS > context:
            said = (
                f"prompt and output take {tokens} tokens (+ {SLACK_TOKENS} slack), model.args.max_model_len={context}"
            )
            raise ConfigError(said, place=place, fix="shorten prompt_tokens or output_tokens, or raise max_model_len")


def _resume(config: Config) -> Iterator[str]:
    folder = StudyFolder(config.study.path)
    if holder := folder.holder():
        raise ConfigError(f"the study in {folder.path} is being run by process {holder}", fix="wait for it")
    if records := folder.records():
        old = configuration.read(folder.config)
        if any(record.measurement for record in records):  # what never measured anything is set aside
            resume.changes(old, resume.carried(old, config))
        resume.check_budget(config, len(Outcome.of(folder).launched))
    yield from ()


def _engine(config: Config) -> Iterator[str]:
    if isinstance(config.launcher, AttachLauncherConfig):
        yield f"whether {config.launcher.url} answers is asked at the start"
    elif isinstance(config.launcher, DockerLauncherConfig):
        from tuner.launchers.docker.daemon import connected

        with connected():
            pass
    else:
        check_executable(config.engine.executable[0])


def _image(config: Config) -> Iterator[str]:
    options = config.launcher
    if not isinstance(options, DockerLauncherConfig):
        return
    from tuner.launchers.docker.images import missing
    from tuner.launchers.docker.prepare import check_mounts

    check_mounts(options)
    if how := missing(options):
        yield f"{options.image} is {how} before the first launch"


def _model(config: Config) -> Iterator[str]:
    """A model that is named by a folder is there; one that is named by its repository may have to be downloaded."""
    from tuner.launchers.docker.models import is_cached, is_repository
    from tuner.preflight import model_on_this_host

    if isinstance(config.launcher, AttachLauncherConfig):
        return
    model, docker = model_on_this_host(config), isinstance(config.launcher, DockerLauncherConfig)
    if model.startswith(("/", "./", "../", "~")):
        if not docker and not Path(model).expanduser().exists():
            raise ConfigError(f"{model} is not there", place="model.id", fix="correct the path")
        if docker and model == config.model.id:
            yield f"{model} is a folder inside the image"
        elif docker and not Path(model).exists():
            raise ConfigError(f"{model} is not there", place="model.id", fix="correct the path, or launcher.mounts")
    elif docker and is_repository(model):
        hub = (
            config.launcher.hub(os.environ.get("HF_HOME"))
            if isinstance(config.launcher, DockerLauncherConfig)
            else None
        )
        revision = config.model.args.get("revision")
        if hub and not is_cached(hub, model, str(revision) if revision else None):
            yield f"{model} is downloaded before the first launch"


def _gpus(config: Config) -> Iterator[str]:
    in_the_way(config.site, config.gpus)
    with reserved(config.gpus, f"a plan of {config.study.name}"):
        pass
    seen = {gpu.index for gpu in driver.read()}
    if seen and (absent := [gpu for gpu in config.gpus if gpu not in seen]):
        there = ", ".join(map(str, sorted(seen)))
        raise EngineUnavailable(f"there is no GPU {absent[0]} (there are: {there})", fix="correct hardware.gpus")
    if config.gpus and not seen:
        yield "no driver answers on this host"
    if config.gpus and isinstance(config.launcher, DockerLauncherConfig):
        yield "how many a container sees is asked in one, at the start"


def _port(config: Config) -> Iterator[str]:
    options = config.launcher
    if isinstance(options, DockerLauncherConfig) and options.port is not None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", options.port))
            except OSError as error:
                said = f"port {options.port} of 127.0.0.1: {error.strerror}"
                raise PortTaken(said, fix="end what listens there, or choose another launcher.port") from error
    yield from ()


def _flags(config: Config) -> Iterator[str]:
    if isinstance(config.launcher, AttachLauncherConfig):
        return
    if not config.study.preflight:
        yield "study.preflight=false launches everything"
    elif isinstance(config.launcher, DockerLauncherConfig) and config.engine.version is None:
        yield "the vLLM inside the image is asked for its flags at the start"
    else:
        ground = ground_of(config, make_engine(config))
        if error := impossible(ground):
            raise error
        if ground.flags is None:
            yield "the engine does not say which it has"


def _prompts(config: Config) -> Iterator[str]:
    check_prompts(config)
    context = config.model.args.get("max_model_len")
    if not isinstance(context, int):
        yield "max_model_len is the engine's own"
        return
    for length in config.workload.ttft_prompt_tokens:
        if length + config.workload.ttft_output_tokens + SLACK_TOKENS > context:
            yield f"a prompt of {length} tokens does not fit in max_model_len={context} and is skipped"


_CHECKS: dict[str, Callable[[Config], Iterator[str]]] = {
    "resume": _resume,
    "engine": _engine,
    "image": _image,
    "model": _model,
    "GPUs": _gpus,
    "port": _port,
    "flags": _flags,
    "prompts": _prompts,
}
