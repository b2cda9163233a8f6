"""A configuration's engine, and what its foresight is made of."""

from tuner.config import Config
from tuner.engines.base import Engine
from tuner.engines.foresight import Foresight, Premises
from tuner.engines.hardware import Hardware
from tuner.engines.registry import kind_of
from tuner.host.inside import Inside
from tuner.host.leases import state_dir


def make_engine(config: Config) -> Engine:
    """The engine, with ``{python}`` in its command line filled in."""
    own = config.launcher.python
    executable = tuple(part.replace("{python}", own) for part in config.engine.executable)
    return kind_of(config.engine).engine(executable, config.model.id)


def foresight_of(
    config: Config, engine: Engine, hardware: Hardware, inside: Inside | None = None, *, may_ask: bool = False
) -> Foresight:
    """What the engine knows of its launches; it is asked for its flags, which takes half a minute the first time.

    Args:
        config: The study.
        engine: The engine as the launcher starts it.
        hardware: The GPUs.
        inside: The image that the engine is in, where that can be asked.
        may_ask: Whether a model that is not on this disk may be asked for where it is published.
    """
    premises = Premises(
        engine,
        config.launcher.model_here(config.model.id),
        hardware,
        state_dir() / "flags",
        env=config.launcher.cache_here(config),
        version=config.engine.version,
        inside=inside,
        image=config.launcher.container_image,
        on_this_host=config.launcher.engine_here,
        may_ask=may_ask,
    )
    return kind_of(config.engine).foresight(premises)
