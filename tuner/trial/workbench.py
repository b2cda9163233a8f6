"""What every trial of a study uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from tuner.engines.base import Engine, Phase
from tuner.engines.tolerance import Policy
from tuner.host.limits import HostConfig
from tuner.launchers.base import Launcher
from tuner.load.client import LoadClient
from tuner.load.workload import Workload
from tuner.objective import Objective


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every trial of a study uses.

    Attributes:
        engine: Speaks the engine's language.
        launcher: Brings servers up.
        client: Sends the load.
        workload: What is sent.
        objective: What it is worth.
        model: The name that clients ask for.
        limits_s: For each start-up phase the longest time without progress.
        gpus: The GPUs that a server may see.
        launch_args: Flags for our launches only; ``{trial}`` in them stands for the trial's name.
        launch_env: Environment variables for our launches only.
        stop_grace_s: How long a server may take to end.
        degradations: What the user says of silent degradations, by name.
        clock_scale: Simulated seconds per second; 1 for a real engine.
        proves_itself: Whether a server can be given a name by which it proves that it is the one we launched.
        host: When a stage counts as disturbed by the rest of the machine.
        watched_gpus: The GPUs whose state is recorded: also those of a server that we did not launch.
        price_per_hour: What the machine costs.
    """

    engine: Engine
    launcher: Launcher
    client: LoadClient
    workload: Workload
    objective: Objective
    model: str
    limits_s: Mapping[Phase, float]
    gpus: tuple[int, ...] = ()
    launch_args: Mapping[str, JsonValue] = field(default_factory=dict)
    launch_env: Mapping[str, str] = field(default_factory=dict)
    stop_grace_s: float = 10.0
    degradations: Mapping[str, Policy] = field(default_factory=dict)
    clock_scale: float = 1.0
    proves_itself: bool = True
    host: HostConfig = field(default_factory=HostConfig)
    watched_gpus: tuple[int, ...] = ()
    price_per_hour: float | None = None
