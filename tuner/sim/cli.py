"""``serve MODEL [vLLM's flags] [--sim-*]``: from the command line to a server, or to the way in which it fails.

Only what the first log line needs is imported at the top; the HTTP server comes while the start is being played.
"""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tuner.sim import backends, failure, log, memory, models, startup
from tuner.sim.child import Child, spawn
from tuner.sim.command import Command, help_text, parse
from tuner.sim.compile_cache import CompileCache
from tuner.sim.faults import Faults
from tuner.sim.flags import UsageError
from tuner.sim.memory import MemoryPlan, StartupFailure
from tuner.sim.player import NOBODY, Cast, Player, cast
from tuner.sim.settings import Rejected, Settings, resolve


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
