"""The serving half of the simulated server: HTTP, statistics, death under load, and the end."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from tuner.sim import failure, log
from tuner.sim.api import Api, Options
from tuner.sim.child import Child
from tuner.sim.command import Command
from tuner.sim.engine import Engine
from tuner.sim.faults import Faults
from tuner.sim.live import schedulers_log
from tuner.sim.memory import MemoryPlan, out_of_memory_line
from tuner.sim.noise import StepTimer
from tuner.sim.player import Cast
from tuner.sim.replies import Parsers
from tuner.sim.roofline import Roofline
from tuner.sim.scores import MOST
from tuner.sim.settings import Settings
from tuner.sim.startup import uvicorn_lines
from tuner.sim.wording import source

STATS_S = 10.0
DEATH_S = 0.3
"""How long a server lives on after its engine died."""


class Server:
    """One server from the moment it answers until its process ends.

    Args:
        command: What was asked for.
        settings: What it runs with.
        plan: Its memory.
        listener: The bound socket.
        child: The engine's process.
        processes: Who writes which lines.
        wrong: What goes wrong.
    """

    def __init__(
        self,
        command: Command,
        settings: Settings,
        plan: MemoryPlan,
        listener: socket.socket,
        child: Child,
        processes: Cast,
        wrong: Faults,
    ) -> None:
        self.command = command
        self.settings = settings
        self.plan = plan
        self.listener = listener
        self.child = child
        self.processes = processes
        self.wrong = wrong

    def run(self) -> int:
        """Serve until told to stop or until the engine dies; gives back the exit status."""
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(self._main())

    async def _main(self) -> int:
        simulation = self.command.simulation
        timer = StepTimer(Roofline(self.settings), simulation.noise, simulation.seed, simulation.launch_id)
        schedulers_log(self.processes.engine)
        foreign = self.command.args.get("scheduler_cls")
        self.engine = Engine(
            self.settings,
            self.plan,
            timer,
            simulation.serving_speed,
            self._stepped,
            None if foreign is None else str(foreign),
        )
        self.engine.jitted = self._jitted
        self.api = Api(self.engine, self._options(), self.wrong, self.processes.api)
        self.stopping = asyncio.Event()
        self._watch()
        runner = web.AppRunner(self.api.application(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.SockSite(runner, self.listener).start()
        except OSError:  # somebody else bound it as well, and listened first
            log.raw(self.processes.api, failure.port_in_use())
            return 1
        log.raw(self.processes.api, uvicorn_lines(os.getpid()).text)
        engine, report = asyncio.create_task(self.engine.run()), asyncio.create_task(self._report())
        engine.add_done_callback(self._engine_ended)
        await self.stopping.wait()
        await self._stop()
        engine.cancel()
        report.cancel()
        await runner.cleanup()
        log.raw(self.processes.api, "INFO:     Application shutdown complete.")
        return 0

    def _options(self) -> Options:
        args, env = self.command.args, self.command.env
        keys = args.get("api_key") or [env.get("VLLM_API_KEY", "")]
        assert isinstance(keys, list)
        return Options(
            parsers=Parsers(
                reasoning=bool(args.get("reasoning_parser")),
                tools=bool(args.get("enable_auto_tool_choice") and args.get("tool_call_parser")),
            ),
            keys=tuple(str(key) for key in keys if key),
            dev_mode=env.get("VLLM_SERVER_DEV_MODE", "0") == "1",
            access_log=not args.get("disable_uvicorn_access_log") and args.get("uvicorn_log_level", "info") == "info",
            token_details=bool(args.get("enable_prompt_tokens_details")),
            always_usage=bool(args.get("enable_force_include_usage")),
            max_logprobs=int(str(args.get("max_logprobs", MOST))),
            environment={key: value for key, value in env.items() if key.startswith("VLLM_") and "KEY" not in key},
        )

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_reader(self.child.life, self._child_died)

    def _child_died(self) -> None:
        asyncio.get_running_loop().remove_reader(self.child.life)
        self._die(())

    def _line(self, key: str, text: str, level: str = "INFO") -> None:
        log.line(self.processes.api, level, source(self.settings.site.version, key), text)

    def _stepped(self, finished: int) -> None:
        """After each step: whether it is time to die, or to do worse."""
        if slows := self.wrong.get("slows"):
            self.engine.slowdown = 1.0 + slows.count * finished / 10_000
        if (preempts := self.wrong.get("preempts")) and finished >= preempts.count:
            self.engine.scheduler.preempt_newest()
        for name in ("die-after", "oom-serving"):
            fault = self.wrong.get(name)
            if fault is not None and finished >= fault.count and self.engine.scheduler.running:
                self._die(self._last_words(name))

    def _engine_ended(self, engine: asyncio.Task[None]) -> None:
        """A scheduler that raises takes the engine with it."""
        if not engine.cancelled() and (error := engine.exception()) is not None:
            self._die((f"{type(error).__name__}: {error}",))
        elif not self.engine.dead:
            self.stopping.set()

    def _last_words(self, name: str) -> tuple[str, ...]:
        if name == "oom-serving":
            return (out_of_memory_line(self.settings, 0.5, 0.2),)
        return ("RuntimeError: CUDA error: an illegal memory access was encountered",)

    def _die(self, reason: tuple[str, ...]) -> None:
        """The engine is gone: as in vllm-0.32.0-cpu-run_engine_killed.log, exit status 0 included."""
        if self.engine.dead or self.stopping.is_set():
            return
        if reason:
            text = f"EngineCore encountered a fatal error.\n{failure.fatal(reason)}"
            log.line(self.processes.engine, "ERROR", source(self.settings.site.version, "fatal"), text)
        text = "[shutdown] MPClient: engine core exited unexpectedly; starting cleanup"
        self._line("core_died", text, "WARNING")
        trace = failure.dead_engine("api")
        self._line("output_failed", f"AsyncLLM output_handler failed.\n{trace}", "ERROR")
        for _ in range(min(self.api.open, 3)):
            self._line("stream_failed", f"Error in chat completion stream generator.\n{trace}", "ERROR")
        self.engine.kill()
        asyncio.get_running_loop().call_later(DEATH_S, self.stopping.set)

    def _jitted(self) -> None:
        if not self.settings.site.version.at_least(0, 26):
            return
        text = (
            "Triton kernel JIT compilation during inference: fused_moe_kernel. This causes a latency spike; consider "
            "extending warmup to cover this shape/config."
        )
        log.line(self.processes.engine, "WARNING", source(self.settings.site.version, "jit"), text)

    async def _report(self) -> None:
        """The line of statistics, every ten seconds while there is something to tell."""
        if self.command.args.get("disable_log_stats"):
            return
        counters = self.engine.scheduler.counters
        before = (0, 0)
        quiet = 0
        while True:
            await asyncio.sleep(STATS_S)
            now = (counters.prompt, counters.generated)
            quiet = 0 if now != before or self.engine.scheduler.busy else quiet + 1
            if quiet <= 1 and now != (0, 0):
                self._line("stats", self._statistics(now[0] - before[0], now[1] - before[1]))
            before = now

    def _statistics(self, prompt: int, generated: int) -> str:
        scheduler = self.engine.scheduler
        counters, pool = scheduler.counters, scheduler.pool
        preempted = f"Preemptions: {counters.preemptions}, " if counters.preemptions else ""
        hit_rate = counters.prefix_hits / max(counters.prefix_queries, 1)
        return (
            f"Engine 000: Avg prompt throughput: {prompt / STATS_S:.1f} tokens/s, Avg generation throughput: "
            f"{generated / STATS_S:.1f} tokens/s, Running: {len(scheduler.running)} reqs, Waiting: "
            f"{len(scheduler.waiting)} reqs, {preempted}GPU KV cache usage: {pool.used / pool.blocks:.1%}, "
            f"Prefix cache hit rate: {hit_rate:.1%}"
        )

    async def _stop(self) -> None:
        """The end: at once when idle; with open streams vLLM waits for them, and they wait for it."""
        if not self.engine.dead:
            self._line("shutdown", "[shutdown] API server: shutdown triggered")
            self._line("client_shutdown", "[shutdown] MPClient: start timeout=0s")
        self.engine.paused = True
        deadline_s = asyncio.get_running_loop().time() + self.command.simulation.hang_s
        if self.api.open and not self.engine.dead:
            log.raw(self.processes.api, "INFO:     Waiting for connections to close. (CTRL+C to force quit)")
        while self.api.open and not self.engine.dead and asyncio.get_running_loop().time() < deadline_s:
            self.engine.drop_gone()
            await asyncio.sleep(0.1)
        log.raw(self.processes.api, "INFO:     Shutting down\nINFO:     Waiting for application shutdown.")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster event loop, where it is installed; aiohttp runs on either."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
