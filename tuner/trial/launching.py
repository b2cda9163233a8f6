"""How the server of a trial is launched, and how it is asked whether it is the one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from pydantic import JsonValue

from tuner.engines.base import Command
from tuner.engines.tolerance import Tolerance
from tuner.launchers.base import LaunchSpec, Server
from tuner.records.folder import TrialFolder
from tuner.trial.assignment import Assignment
from tuner.trial.readiness import Probe
from tuner.trial.workbench import Workbench


@dataclass
class TrialLaunch:
    """The launch of one trial's server.

    Attributes:
        assignment: What the trial tries.
        bench: What all trials of its study use.
        folder: Where its log goes.
        alias: A name that the server is given by which it proves that it is the one.
    """

    assignment: Assignment
    bench: Workbench
    folder: TrialFolder
    alias: str = field(default_factory=lambda: f"tuner-{uuid4().hex[:12]}")

    @cached_property
    def command(self) -> Command:
        """How the server is started."""
        env = {name: value for name, value in self.assignment.settings.env.items() if value is not None}
        live = self.assignment.screening and self.assignment.screening.live
        return self.bench.engine.command(
            {**self.assignment.settings.args, **self._own_args, **(live.args if live else {})},
            {**self.bench.launch_env, **env, **(live.env("{folder}") if live else {})},
            self.alias if self.bench.proves_itself else None,
        )

    @property
    def _own_args(self) -> dict[str, JsonValue]:
        """Flags for our launches only; ``{trial}`` in them stands for the trial's name."""
        args = self.bench.launch_args.items()
        return {name: arg.replace("{trial}", self.name) if isinstance(arg, str) else arg for name, arg in args}

    @property
    def name(self) -> str:
        """Names the launch: ``demo/trials/0003``."""
        return f"{self.assignment.study}/{self.folder.path.parent.name}/{self.folder.path.name}"

    @property
    def spec(self) -> LaunchSpec:
        """What the launcher is told."""
        return LaunchSpec(
            name=self.name,
            argv=self.command.argv,
            env=self.command.env,
            log_path=self.folder.log,
            gpus=self.bench.gpus,
            stop_grace_s=self.bench.stop_grace_s,
            folder=self.live_folder if self.assignment.screening else None,
        )

    @property
    def live_folder(self) -> Path:
        """Over which settings are changed in the running server."""
        return self.folder.path / "live"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """The folder over which settings are changed, while there is a server to change them in."""
        if self.assignment.screening is None:
            yield
            return
        self.live_folder.mkdir(exist_ok=True)
        self.assignment.screening.live.prepare(self.live_folder)
        try:
            yield
        finally:
            rmtree(self.live_folder, ignore_errors=True)

    @property
    def tolerance(self) -> Tolerance:
        """What the baseline silently degrades in is accepted; the baseline itself may show anything."""
        baseline = self.assignment.baseline
        shown = baseline.facts.degradations if baseline and baseline.facts else ()
        accepted = frozenset(each.name for each in shown) if baseline else None
        return Tolerance(self.bench.degradations, accepted, self.bench.engine.fallbacks)

    def probe(self, server: Server) -> Probe:
        """Asks the server that came of it for an answer."""
        alias = self.alias if self.bench.proves_itself else None
        endpoint = self.bench.workload.endpoint
        return Probe(server.url, self.bench.model, server.headers, alias, self.bench.engine.info_path, endpoint)

    def broke_live(self, log: Sequence[str]) -> bool:
        """Whether what is added for screening settings is what the server failed of."""
        return bool(self.assignment.screening and self.assignment.screening.live.broke(log))
