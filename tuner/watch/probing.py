"""A light probe of a server in use: the single user's requests of the proof, one after the other, on fresh prompts."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from tuner.errors import MeasurementError
from tuner.load.client import LoadClient
from tuner.load.deciding import Deciding
from tuner.load.metrics import measure
from tuner.load.naming import SINGLE_USER
from tuner.load.plan import plan
from tuner.load.prompts import TokenCalibration
from tuner.load.target import Target
from tuner.load.workload import Workload
from tuner.schema import Schema

_UNCALIBRATED = TokenCalibration(tokens_per_word=1.6, overhead_tokens=10)
"""Of random words, roughly: the time per token, by which a probe is judged, hardly hangs on the prompt's length."""


class ProbeResult(Schema):
    """What one user would have had; null where the server's stream does not tell."""

    ttft_p50_ms: float | None = None
    tpot_p50_ms: float | None = None
    failed: str | None = None
    """Why there is neither."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Probes one server.

    Attributes:
        client: Sends the requests.
        target: The server.
        workload: Whose single user's requests they are.
        watch: Called all the time while a probe lasts; what it raises is passed on.
    """

    client: LoadClient
    target: Target
    workload: Workload
    watch: Callable[[], None] = lambda: None

    def __call__(self) -> ProbeResult:
        """One probe."""
        planned = plan(
            self.workload,
            seed=secrets.randbits(31),
            context_tokens=None,
            kv_tokens=None,
            calibration=_UNCALIBRATED,
            deciding=Deciding(),
        )
        stage = next(each for each in planned.stages if each.name == SINGLE_USER)
        try:
            result = self.client.run(replace(stage, rule=None), self.target, self.watch)
            found = measure([result], self.workload)
        except MeasurementError as error:
            return ProbeResult(failed=error.message)
        return ProbeResult(ttft_p50_ms=found.single_user_ttft_p50_ms, tpot_p50_ms=found.tpot_p50_ms)
