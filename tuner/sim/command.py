"""The command line: vLLM's own flags, and the simulator's after ``--sim-``."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.sim import faults, flags, versions
from tuner.sim.faults import Fault
from tuner.sim.flags import UsageError, Value
from tuner.sim.hardware import PRESETS
from tuner.sim.noise import Noise
from tuner.sim.settings import Site

_USAGE = "usage: serve MODEL [vllm serve's flags] [--sim-*]; --sim-help lists the simulator's own"


@dataclass(frozen=True, slots=True)
class Simulation:
    """The simulator's own part of the command line.

    Attributes:
        site: The machine and vLLM's version.
        noise: Chance in step times.
        seed: What it is drawn from.
        launch_id: What tells this launch from others of the same seed; random where none is given.
        startup_speed: How many times faster than the real machine it starts.
        serving_speed: How many times faster it serves.
        cache: The compile cache's directory; without one every start is cold.
        faults: What goes wrong.
        hang_s: How long SIGTERM takes while streams are open.
    """

    site: Site
    noise: Noise
    seed: int
    launch_id: str
    startup_speed: float
    serving_speed: float
    cache: Path | None
    faults: tuple[Fault, ...] = ()
    hang_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that was understood.

    Attributes:
        model: Which model to serve.
        args: vLLM's flags by name with underscores.
        env: The environment.
        simulation: The simulator's own options.
    """

    model: str
    args: Mapping[str, Value]
    env: Mapping[str, str] = field(repr=False)
    simulation: Simulation

    @property
    def host(self) -> str:
        """Where to listen; this machine only, unless told otherwise."""
        return str(self.args.get("host", "127.0.0.1"))

    @property
    def port(self) -> int:
        """Likewise; vLLM's default where none is given."""
        return int(str(self.args.get("port", 8000)))


def parse(argv: Sequence[str], env: Mapping[str, str]) -> Command:
    """Understand a command line.

    Raises:
        UsageError: It cannot be.
    """
    if not argv or argv[0] != "serve":
        raise UsageError(_USAGE)
    own, rest = _parser().parse_known_args(list(argv[1:]))
    simulation = _simulation(own, env)
    args = flags.parse(simulation.site.version, rest)
    model = args.get("model_tag", args.get("model"))
    if model is None:
        raise UsageError(f"{_USAGE}\nserve: error: no model")
    return Command(str(model), args, env, simulation)


def help_text(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """All flags of the vLLM version that ``argv`` asks for.

    Raises:
        UsageError: The simulator's own options are wrong.
    """
    own, _ = _parser().parse_known_args(list(argv))
    return flags.help_text(_simulation(own, env).site.version)


class _OwnParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{_USAGE}\nserve: error: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _OwnParser(prog="serve", add_help=False, allow_abbrev=False, description="vLLM, simulated.")
    add = parser.add_argument
    add("--sim-help", action="help", help="show this and exit")
    add("--sim-version", default="0.15", help="which vLLM to be: 0.10, 0.15, 0.26, or a full version")
    add("--sim-hardware", default="rtx4090", choices=sorted(PRESETS), help="which GPUs")
    add("--sim-gpus", type=int, default=2, help="how many of them the machine has")
    add("--sim-free-gib", type=float, help="memory free at the start, where others hold some; the site's own without")
    add("--sim-seed", type=int, default=0, help="what chance is drawn from")
    add("--sim-launch-id", help="with the seed, makes a launch repeatable; random without")
    add("--sim-noise-launch", type=float, default=Noise().launch, help="spread of speed between launches")
    add("--sim-noise-step", type=float, default=Noise().step, help="spread of step times within a launch")
    add("--sim-clock-startup", type=float, default=1.0, help="start so many times faster than the real machine")
    add("--sim-clock-serving", type=float, default=1.0, help="serve so many times faster than the real machine")
    add("--sim-compile-cache", type=Path, help="directory of the compile cache; also VLLM_CACHE_ROOT")
    add("--sim-fault", action="append", default=[], metavar="NAME[=ARG][@SETTING=VALUE] …", help="what goes wrong")
    add("--sim-sigterm-hang", type=float, default=600.0, help="seconds that SIGTERM takes while streams are open")
    return parser


def _simulation(own: argparse.Namespace, env: Mapping[str, str]) -> Simulation:
    try:
        hardware = PRESETS[own.sim_hardware]
        if own.sim_free_gib is not None:
            hardware = replace(hardware, free_gib=own.sim_free_gib)
        site = Site(hardware, _visible(own.sim_gpus, env), versions.parse(own.sim_version))
        wrong = tuple(faults.parse(text) for given in own.sim_fault for text in given.split())
    except ValueError as error:
        raise UsageError(f"{_USAGE}\nserve: error: {error}") from None
    root = env.get("VLLM_CACHE_ROOT")
    return Simulation(
        site=site,
        noise=Noise(own.sim_noise_launch, own.sim_noise_step),
        seed=own.sim_seed,
        launch_id=own.sim_launch_id or os.urandom(8).hex(),
        startup_speed=own.sim_clock_startup,
        serving_speed=own.sim_clock_serving,
        cache=own.sim_compile_cache or (Path(root) if root else None),
        faults=wrong,
        hang_s=own.sim_sigterm_hang,
    )


def _visible(gpus: int, env: Mapping[str, str]) -> int:
    """GPUs left by CUDA_VISIBLE_DEVICES; as with CUDA, an index that does not exist ends the list."""
    text = env.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return gpus
    count = 0
    for part in text.split(","):
        if not part.strip().isdigit() or int(part) >= gpus:
            break
        count += 1
    return count
