"""The parts that a configuration names, put together: the one place where kinds become objects."""

from collections.abc import Iterator
from contextlib import contextmanager
from sys import executable as python

from tuner.config import AttachLauncherConfig, Config, LauncherConfig
from tuner.engines.vllm.engine import VllmEngine
from tuner.launchers.attach import AttachLauncher
from tuner.launchers.base import Launcher
from tuner.launchers.process import ProcessLauncher
from tuner.load.client import LoadClient
from tuner.trial import Workbench


@contextmanager
def workbench(config: Config) -> Iterator[Workbench]:
    """What every trial of a study uses; the load client's process lives as long as the block."""
    options = config.engine
    with LoadClient() as client:
        yield Workbench(
            engine=make_engine(config),
            launcher=make_launcher(config.launcher),
            client=client,
            workload=config.workload,
            objective=config.objective,
            model=config.model.served_name,
            limits_s=options.limits_s,
            gpus=config.hardware.gpus,
            launch_args=options.launch_args,
            launch_env=options.own_env,
            stop_grace_s=options.stop_grace_s,
            clock_scale=options.clock_scale,
            proves_itself=not isinstance(config.launcher, AttachLauncherConfig),
        )


def make_engine(config: Config) -> VllmEngine:
    """The engine, with ``{python}`` in its command line filled in."""
    return VllmEngine(tuple(part.replace("{python}", python) for part in config.engine.executable), config.model.id)


def make_launcher(config: LauncherConfig) -> Launcher:
    """The launcher of this kind."""
    if isinstance(config, AttachLauncherConfig):
        return AttachLauncher(config.url, config.token_env)
    return ProcessLauncher()
