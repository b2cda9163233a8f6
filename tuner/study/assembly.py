"""The parts that a configuration names, put together: the one place where kinds become objects."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import JsonValue

from tuner.config import Config
from tuner.engines.base import Engine
from tuner.foresight.preflight import Ground, ground_of, impossible
from tuner.host.leases import reserved
from tuner.launchers.base import Launcher
from tuner.load.client import LoadClient
from tuner.premises import make_engine
from tuner.site import deployed
from tuner.site.gpus import SoleUser, check_there
from tuner.site.power import check_power, power_kept
from tuner.site.takeover import in_the_way, taken_over
from tuner.study import events
from tuner.study.checks import check_energy
from tuner.trial.workbench import Workbench


def _unheard(event: events.Event) -> None:
    """Nobody listens."""


@contextmanager
def workbench(config: Config, listener: events.Listener = _unheard) -> Iterator[tuple[Workbench, Ground | None]]:
    """What every trial of a study uses: image and model at hand, the GPUs to itself, the load client's process waiting.

    With it comes what is known of launches before the first; ``None`` where the server is not ours to launch.

    Services in ``site.stop`` are stopped as long as the block lasts: whoever enters it has been asked.

    Raises:
        ConfigError: The configuration names something that is not there.
        InfrastructureError: The image, the model or the GPUs cannot be had.
    """
    check_energy(config)
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
            launch_env={**config.launcher.environment, **_launch_env(config, engine), **options.launch_env},
            stop_grace_s=options.stop_grace_s,
            degradations=options.degradations,
            clock_scale=options.clock_scale,
            proves_itself=config.launcher.starts_servers,
            host=config.host,
            watched_gpus=config.hardware.gpus,
            price_per_hour=config.hardware.price_per_hour,
        )
        yield bench, ground


def _launch_args(config: Config, engine: Engine, ground: Ground | None) -> Mapping[str, JsonValue]:
    """What the engine adds for us on GPUs, such as to say when it compiles a kernel; what the user sets is kept."""
    known = ground.flags.flags if ground and ground.flags and config.gpus else ()
    return {flag: value for flag, value in engine.launch_args(known).items() if flag not in config.model.args}


def _launch_env(config: Config, engine: Engine) -> Mapping[str, str]:
    return engine.launch_env(sum(config.engine.limits_s.values()))


@contextmanager
def _launcher(config: Config, engine: Engine, listener: events.Listener) -> Iterator[tuple[Launcher, Ground | None]]:
    """The launcher, with the GPUs to itself; what can be had without them is had before anybody is stopped for them."""

    def say(text: str) -> None:
        listener(events.Noted(text))

    check_there(config.gpus)
    list(check_power(config))
    in_the_way(config.site, config.gpus)  # nobody waits for an image and then hears that the GPUs are taken
    for difference in deployed.compared(config, engine):
        say(difference)
    with config.launcher.sharing(config.engine.kernels).prepare(
        config, lambda text: listener(events.Preparing(text))
    ) as launcher:
        if config.engine.version is None:
            listener(events.Preparing("asking the engine for its flags"))
        ground = _ground(config, engine, launcher)
        with (
            taken_over(config.site, config.gpus, config.study.name, say) as taken,
            power_kept(config, SoleUser(launcher, config.site, taken.hold)) as capped,
        ):
            yield capped, ground


def _ground(config: Config, engine: Engine, launcher: Launcher) -> Ground | None:
    """What is known before the first launch, the image's own flags among it.

    Raises:
        ConfigError: The deployment, or a parameter of the space, sets a flag that this engine does not have.
    """
    if not (config.launcher.starts_servers and config.study.preflight):
        return None
    ground = ground_of(config, engine, config.launcher.inside(launcher))
    if error := impossible(ground):
        raise error
    return ground
