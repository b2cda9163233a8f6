"""Which silent degradations a study accepts: by default what the deployment itself shows, and no new one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tuner.engines.base import Degradation
from tuner.engines.causes import Cause
from tuner.errors import Degraded

Policy = Literal["prune", "warn", "ignore"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What one trial may show.

    Attributes:
        policy: What the user says of a degradation by its name.
        accepted: Names that the baseline shows; ``None`` for the baseline itself, which may show anything.
        fallbacks: The degradation that each of these causes is if a server survives it (``Engine.fallbacks``).
    """

    policy: Mapping[str, Policy] = field(default_factory=dict)
    accepted: frozenset[str] | None = None
    fallbacks: Mapping[Cause, str] = field(default_factory=dict)

    def rejects(self, name: str, *, asked: bool = False) -> bool:
        """Whether a trial that shows it is worth nothing.

        Args:
            name: The degradation.
            asked: Whether the configuration asks for it, so that it is not silent.
        """
        if name in self.policy:
            return self.policy[name] == "prune"
        return self.accepted is not None and name not in self.accepted and not asked

    def tolerates(self, cause: Cause) -> bool:
        """Whether a cause that the log announces in mid-start is one that this trial may show."""
        return cause in self.fallbacks and not self.rejects(self.fallbacks[cause])

    def check(self, degradations: tuple[Degradation, ...]) -> None:
        """Refuse what is not accepted.

        Raises:
            Degraded: With the line that shows it.
        """
        causes = {name: cause for cause, name in self.fallbacks.items()}
        for each in degradations:
            if self.rejects(each.name, asked=each.asked):
                raise Degraded(
                    f"it runs, but silently degraded: {each.name}",
                    cause=str(causes.get(each.name, Cause.DEGRADED)),
                    line=each.line,
                    fix=f"engine.degradations.{each.name}=warn measures it all the same",
                )
