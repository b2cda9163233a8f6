"""``serve MODEL [vLLM's flags] [--sim-*]``: from the command line to a server, or to the way in which it fails.

Only what the first log line needs is imported at the top; the HTTP server comes while the start is being played.
"""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.sim import backends, failure, faults, flags, log, memory, models, startup, versions
from tuner.sim.child import Child, spawn
from tuner.sim.compile_cache import CompileCache
from tuner.sim.faults import Fault, Faults
from tuner.sim.flags import UsageError, Value
from tuner.sim.hardware import PRESETS
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.noise import Noise
from tuner.sim.player import NOBODY, Cast, Player, cast
from tuner.sim.settings import Rejected, Settings, Site, resolve

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


def main(argv: Sequence[str]) -> int:
    """Run the simulator.

    Args:
        argv: ``serve``, the model, and flags.

    Returns:
        The exit status: vLLM's own in the same case.
    """
    try:
        if any(word in ("-h", "--help") or word.startswith("--help=") for word in argv):
            log.raw(NOBODY, help_text(argv, os.environ), log.STDOUT)
            return 0
        command = parse(argv, os.environ)
    except UsageError as error:
        log.raw(NOBODY, error.text)
        return error.exit_code
    return _serve(command)


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


def _serve(command: Command) -> int:
    simulation, site = command.simulation, command.simulation.site
    before = Faults(simulation.faults)
    api = Cast(log.Process("APIServer", os.getpid()), NOBODY, ())
    player = Player(api, before, simulation.startup_speed, lambda: None)
    code = player.play(startup.banner(site, command.model, command.args))
    if code is not None:
        return code
    listener = None if before.get("port-in-use") else _bind(command)
    if listener is None:
        log.raw(api.api, failure.port_in_use())
        return 1
    with listener:
        try:
            settings = _settings(command)
        except Rejected as rejected:
            return player.play(startup.rejection(site, rejected, _architecture(command.model))) or 0
        return _start(command, settings, listener)


def _bind(command: Command) -> socket.socket | None:
    """The socket that the API will listen on; bound long before, as vLLM does. ``None`` if somebody has it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((command.host, command.port))
    except OSError:
        listener.close()
        return None
    return listener


def _settings(command: Command) -> Settings:
    settings = resolve(command.model, command.args, command.env, command.simulation.site)
    wrong = Faults(command.simulation.faults, settings)
    if wrong.get("v0-fallback") and not settings.site.version.at_least(0, 11) and not settings.v0:
        settings = replace(settings, v0="--preemption-mode", enable_prefix_caching=False, async_scheduling=False)
    return _silently_changed(settings, wrong)


def _silently_changed(settings: Settings, wrong: Faults) -> Settings:
    fault = wrong.get("silent-change")
    if fault is None:
        return settings
    key, _, text = fault.argument.partition(":")
    key = key.replace("-", "_")
    current = getattr(settings, key)
    value = text.lower() == "true" if isinstance(current, bool) else type(current)(text)
    changed: dict[str, Any] = {key: value}
    return replace(settings, **changed)


def _architecture(model: str) -> str | None:
    try:
        return models.find(model).architecture
    except models.UnknownModel:
        return None


def _start(command: Command, settings: Settings, listener: socket.socket) -> int:
    simulation = command.simulation
    wrong = Faults(simulation.faults, settings)
    cache = CompileCache(simulation.cache, settings, command.env)
    settings = replace(settings, warm=cache.hit or settings.enforce_eager)
    outcome = _outcome(settings, wrong)
    child = spawn(orphan=wrong.get("orphan-worker") is not None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        player = Player(cast(settings, child.pid), wrong, simulation.startup_speed, cache.store)
        dev_mode = command.env.get("VLLM_SERVER_DEV_MODE", "0") == "1"
        launch = startup.Launch(settings, outcome, cache, command.host, command.port, dev_mode)
        code = player.play(startup.script(launch))
        if code is not None or isinstance(outcome, StartupFailure):
            return code or 0
        return _run(command, settings, outcome, listener, child, player.cast, wrong)
    finally:
        if wrong.get("orphan-worker") is None:
            child.kill()


def _outcome(settings: Settings, wrong: Faults) -> MemoryPlan | StartupFailure:
    stage = wrong.out_of_memory
    return memory.forced(settings, stage) if stage else backends.outcome(settings)


def _run(
    command: Command,
    settings: Settings,
    plan: MemoryPlan,
    listener: socket.socket,
    child: Child,
    processes: Cast,
    wrong: Faults,
) -> int:
    from tuner.sim.server import Server

    return Server(command, settings, plan, listener, child, processes, wrong).run()
