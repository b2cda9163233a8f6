"""The parts that a configuration names, put together: the one place where kinds become objects."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from shutil import which
from sys import executable as python
from typing import TYPE_CHECKING

from pydantic import JsonValue

from tuner import deployed, events
from tuner.config import AttachLauncherConfig, Config
from tuner.engines.base import Engine
from tuner.engines.foresight import Image
from tuner.engines.registry import kind_of
from tuner.errors import ConfigError
from tuner.launchers.attach import AttachLauncher
from tuner.launchers.base import Launcher
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.launchers.docker.pinned import StudyImage
from tuner.launchers.leases import reserved
from tuner.launchers.process import ProcessLauncher
from tuner.load.client import LoadClient
from tuner.preflight import Ground, ground_of, impossible
from tuner.secrets import Secrets
from tuner.site import SoleUser
from tuner.storage import StudyFolder, read_json
from tuner.takeover import in_the_way, taken_over
from tuner.trial import Workbench

if TYPE_CHECKING:
    from tuner.launchers.docker.launcher import DockerLauncher


def _unheard(event: events.Event) -> None:
    """Nobody listens."""


@contextmanager
def workbench(config: Config, listener: events.Listener = _unheard) -> Iterator[tuple[Workbench, Ground | None]]:
    """What every trial of a study uses: image and model at hand, the GPUs to itself, the load client's process waiting.

    Beside it stands what is known of launches before the first; ``None`` where the server is not ours to launch.

    Services in ``site.stop`` are stopped as long as the block lasts: whoever enters it has been asked.

    Raises:
        ConfigError: The configuration names something that is not there.
        InfrastructureError: The image, the model or the GPUs cannot be had.
    """
    options, engine = config.engine, make_engine(config)
    alone = reserved(config.gpus, f"study {config.study.name} (process {os.getpid()})")
    with alone, LoadClient() as client, _launcher(config, engine, listener) as (launcher, ground):
        bench = Workbench(
            engine=engine,
            launcher=launcher,
            client=client,
            workload=config.workload,
            objective=config.objective,
            model=config.model.served_name,
            limits_s=options.limits_s,
            gpus=config.gpus,
            launch_args={**_launch_args(config, engine, ground), **options.launch_args},
            launch_env={**_environment(config), **_launch_env(config, engine), **options.launch_env},
            stop_grace_s=options.stop_grace_s,
            degradations=options.degradations,
            clock_scale=options.clock_scale,
            proves_itself=not isinstance(config.launcher, AttachLauncherConfig),
            host=config.host,
            watched_gpus=config.hardware.gpus,
        )
        yield bench, ground


def _launch_args(config: Config, engine: Engine, ground: Ground | None) -> Mapping[str, JsonValue]:
    """What the engine adds for us on GPUs, such as to say when it compiles a kernel; what the user sets is kept."""
    known = ground.flags.flags if ground and ground.flags and config.gpus else ()
    return {flag: value for flag, value in engine.launch_args(known).items() if flag not in config.model.args}


def _launch_env(config: Config, engine: Engine) -> Mapping[str, str]:
    return engine.launch_env(sum(config.engine.limits_s.values()))


def _environment(config: Config) -> Mapping[str, str]:
    """What the launcher tells every server; it is part of what a trial ran with."""
    return config.launcher.environment if isinstance(config.launcher, DockerLauncherConfig) else {}


def make_engine(config: Config) -> Engine:
    """The engine, with ``{python}`` in its command line filled in; a container has a Python of its own."""
    own = "python3" if isinstance(config.launcher, DockerLauncherConfig) else python
    executable = tuple(part.replace("{python}", own) for part in config.engine.executable)
    return kind_of(config.engine).engine(executable, config.model.id)


@contextmanager
def _launcher(config: Config, engine: Engine, listener: events.Listener) -> Iterator[tuple[Launcher, Ground | None]]:
    """The launcher, with the GPUs to itself; what can be had without them is had before anybody is stopped for them."""

    def say(text: str) -> None:
        listener(events.Noted(text))

    in_the_way(config.site, config.gpus)  # nobody waits for an image and then hears that the GPUs are taken
    for difference in deployed.compared(config, engine):
        say(difference)
    launcher = make_launcher(config, lambda text: listener(events.Preparing(text)))
    if config.engine.version is None:
        listener(events.Preparing("asking the engine for its flags"))
    ground = _ground(config, engine, launcher)
    _check_gpus(launcher, config.gpus)  # counting them takes none of their memory
    with taken_over(config.site, config.gpus, config.study.name, say) as taken:
        yield SoleUser(launcher, config.site, taken.hold), ground


def _ground(config: Config, engine: Engine, launcher: Launcher) -> Ground | None:
    """What is known before the first launch, the image's own flags among it.

    Raises:
        ConfigError: The deployment, or a parameter of the space, sets a flag that this engine does not have.
    """
    if isinstance(launcher, AttachLauncher) or not config.study.preflight:
        return None
    ground = ground_of(config, engine, _image(launcher))
    if error := impossible(ground):
        raise error
    return ground


def _image(launcher: Launcher) -> Image | None:
    """The image of the study's containers, in which the engine can be asked."""
    from tuner.launchers.docker.launcher import DockerLauncher

    if not isinstance(launcher, DockerLauncher):
        return None
    return Image(launcher.contents.image, lambda argv: "\n".join(launcher.run("flags", argv).lines))


def _check_gpus(launcher: Launcher, gpus: tuple[int, ...]) -> None:
    """A container was given as many GPUs as it was to be given; a process sees what it is told to."""
    if isinstance(launcher, ProcessLauncher | AttachLauncher):
        return
    from tuner.launchers.docker.launcher import DockerLauncher
    from tuner.launchers.docker.prepare import check_gpus

    if isinstance(launcher, DockerLauncher):
        check_gpus(launcher, gpus)


def make_launcher(config: Config, progress: Callable[[str], None] = lambda text: None) -> Launcher:
    """The launcher of this kind; one of containers has its image and its model at hand when this returns.

    Args:
        config: The study; its folder keeps which image it runs in.
        progress: Told in a few words how far that is.
    """
    launcher, secrets = config.launcher, config.secrets.known()
    if isinstance(launcher, AttachLauncherConfig):
        return AttachLauncher(launcher.url, launcher.token_env, config.secrets.file)
    if isinstance(launcher, DockerLauncherConfig):
        return _in_containers(config, launcher, secrets, progress)
    check_executable(config.engine.executable[0])
    return ProcessLauncher(secrets, (*config.secrets.trial, *config.secrets.download))


def check_executable(name: str) -> None:
    """A program that is not there is no trial's fault.

    Raises:
        ConfigError: It is not there.
    """
    if which(name.replace("{python}", python)) is None:
        fix = "say where it is: engine.executable=[PATH/bin/vllm,serve]; for vLLM in a container: launcher=docker"
        raise ConfigError(f"{name} is not there, or cannot be run", place="engine.executable", fix=fix)


def _in_containers(
    config: Config, options: DockerLauncherConfig, secrets: Secrets, progress: Callable[[str], None]
) -> "DockerLauncher":
    from tuner.launchers.docker.prepare import ensure_model, image_for, launcher_for

    folder = StudyFolder(config.study.path)
    known = read_json(folder.image, StudyImage) if folder.image.exists() else None
    image = image_for(options, config.model.id, known, progress)
    folder.write(folder.image, image.model_dump_json(indent=1) + "\n")
    launcher = launcher_for(options, image, secrets.named(config.secrets.trial), secrets)
    env = {**config.model.env, **secrets.named(config.secrets.download)}
    revision = config.model.args.get("revision")
    ensure_model(launcher, config.model.id, str(revision) if revision else None, env, progress)
    return launcher
