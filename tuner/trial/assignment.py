"""What one trial is to try."""

from collections.abc import Callable
from dataclasses import dataclass

from tuner.engines.ceilings import Ceilings
from tuner.engines.forecast import Forecast
from tuner.engines.live import Live, Setting
from tuner.errors import InfeasibleConfig
from tuner.load.metrics import Measurement
from tuner.quality.cases import Quality
from tuner.records.record import ProofTerms, Role, TrialRecord
from tuner.search.base import Expectation
from tuner.space import Candidate, Settings


@dataclass(frozen=True, slots=True)
class Screen:
    """A setting to be measured live.

    Attributes:
        candidate: The configuration that it stands for.
        setting: What is changed in the running server.
    """

    candidate: Candidate
    setting: Setting


@dataclass(frozen=True, slots=True)
class Screening:
    """What a launch measures in addition to its own configuration.

    Attributes:
        live: How settings are changed.
        screens: Which, in order.
    """

    live: Live
    screens: tuple[Screen, ...]


def never(measurement: Measurement) -> bool:
    """One measurement is enough."""
    return False


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one trial is to try.

    Attributes:
        study: Name of the study.
        number: The trial's number.
        role: Why it is run.
        candidate: The parameters.
        settings: All flags and variables of the configuration, the deployment's own included.
        seed: Seeds its prompts.
        ask_s: What the search took to propose it, in seconds.
        attempt: Which try this is, from 1.
        baseline: Trial 0, against which this one is judged; ``None`` for trial 0 itself.
        forecast: What was predicted of its memory.
        ceilings: What its configuration allows at most.
        refusal: What pre-flight has against it, so that nothing is launched.
        proof: Of which proof it is a relaunch.
        worth_again: Whether what was measured is to be measured once more before its server ends: a near miss.
        screening: What is measured in its running server besides.
        expected: What the search expects of it.
        questions: What it is asked after its load.
        soak_s: How long it is soaked at most after its load, in seconds of wall time; 0 for not at all.
    """

    study: str
    number: int
    role: Role
    candidate: Candidate
    settings: Settings
    seed: int
    ask_s: float = 0.0
    attempt: int = 1
    baseline: TrialRecord | None = None
    forecast: Forecast | None = None
    ceilings: Ceilings | None = None
    refusal: InfeasibleConfig | None = None
    proof: ProofTerms | None = None
    worth_again: Callable[[Measurement], bool] = never
    screening: Screening | None = None
    expected: Expectation | None = None
    questions: Quality | None = None
    soak_s: float = 0.0
