"""What a configuration says of every engine; each kind of engine adds its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue, PositiveFloat, field_validator

from tuner.engines.base import Phase
from tuner.engines.tolerance import Policy
from tuner.schema import Schema, env_texts, flag_names

PHASE_LIMITS_S: Mapping[Phase, float] = {
    # each is the longest silence in that phase; any progress in the log starts it anew
    Phase.STARTING: 300,
    Phase.LOADING_WEIGHTS: 900,
    Phase.COMPILING: 1200,
    Phase.PROFILING: 300,
    Phase.CAPTURING_GRAPHS: 600,
    Phase.OPENING: 120,
}


class EngineConfig(Schema):
    """The program that serves the model, and what tuner adds to each launch of it."""

    known_degradations: ClassVar[frozenset[str]] = frozenset()
    """The names that a degradation of this engine can have."""

    kind: str
    executable: Annotated[tuple[str, ...], Field(min_length=1)]
    """How it is started, before the model; ``{python}`` stands for the Python that runs tuner."""
    version: str | None = None
    """Its version, where it cannot be asked for its flags; else null."""
    launch_args: dict[str, JsonValue] = Field(default_factory=dict)
    """Flags for tuner's own launches only: they are left out of the exported profile. ``{trial}`` stands for the
    trial's name."""
    launch_env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for tuner's own launches only."""
    phase_limits_s: dict[Phase, PositiveFloat] = Field(default_factory=dict)
    """The longest silence allowed in a start-up phase, in seconds; what is not named keeps its default."""
    stop_grace_s: PositiveFloat = 10.0
    """How long a server may take to end before it is killed."""
    degradations: dict[str, Policy] = Field(default_factory=dict)
    """What to do with a trial that silently degrades, by the degradation's name: ``prune``, ``warn`` or ``ignore``.
    What is not named is pruned where the baseline does not show it, and accepted where it does."""
    clock_scale: PositiveFloat = 1.0
    """Simulated seconds per second of serving; 1 for every real engine."""

    @field_validator("launch_args", mode="before")
    @classmethod
    def _with_underscores(cls, raw: Any) -> Any:
        return flag_names(raw)

    @field_validator("launch_env", mode="before")
    @classmethod
    def _texts(cls, raw: Any) -> Any:
        return env_texts(raw)

    @field_validator("degradations")
    @classmethod
    def _known_degradations(cls, policy: dict[str, Policy]) -> dict[str, Policy]:
        if unknown := set(policy) - cls.known_degradations:
            valid = ", ".join(sorted(cls.known_degradations))
            raise ValueError(f"no such degradation: {', '.join(sorted(unknown))} (valid: {valid})")
        return policy

    @property
    def kernels(self) -> Path | None:
        """A folder of this host with kernels that were tuned for its cards; servers see it under the same name."""
        return None

    @property
    def limits_s(self) -> dict[Phase, float]:
        """The longest silence allowed, for every start-up phase."""
        return {**PHASE_LIMITS_S, **self.phase_limits_s}
