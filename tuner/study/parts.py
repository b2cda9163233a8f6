"""Which changes of a winner are worth a proof, by what launches say of it and of the parts that it can be taken to."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice
from statistics import fmean

from tuner.records.readings import LIKELY
from tuner.search.effects import Difference, Effects
from tuner.space import Candidate

_LEVEL = 0.05
"""The probability that an effect is below its interval, shared by the goals; as much again is left above it."""
_SURE = 0.01
"""Likewise for what several changes earn together, of which many combinations are looked at."""
_BEARABLE = 0.1
"""Which share of the winner's gain may be expected to be lost with the changes that go back."""
_MOST_TRIED = 4096
"""Subsets of one size that are looked at."""


@dataclass(frozen=True)
class Parts:
    """A winner, as the deployed configuration with some or all of its changes.

    Attributes:
        changed: The parameters that it sets otherwise than the deployment.
        with_changes: The deployed configuration with some of them, as it runs.
        effects: By goal, what all launches say of differences.
        bar: The log that is worth a change.
    """

    changed: Sequence[str]
    with_changes: Callable[[Iterable[str]], Candidate]
    effects: Mapping[str, Effects]
    bar: float

    def kept(self, may_run: Callable[[Sequence[str]], bool]) -> list[str]:
        """The fewest changes that are worth a proof, those that are resolved among them; none if that is not known.

        Without the others no more than a tenth of the gain is expected to be lost. Where none is resolved by itself,
        they are shown to be worth a change together, and nothing that is worth one is expected to be lost.

        Args:
            may_run: Whether the configuration with some of the changes may be launched at all.
        """
        resolved = [name for name in self.changed if self.resolved(name)]
        rest = [name for name in self.changed if name not in resolved]
        bearable = self._bearable(_BEARABLE if resolved else 0.0)
        for more in range(0 if resolved else 1, len(rest)):
            sets = [[*resolved, *extra] for extra in islice(combinations(rest, more), _MOST_TRIED)]
            enough = (kept for kept in self._ranked(sets, bearable) if resolved or self._shown(kept))
            if (found := next(filter(may_run, enough), None)) is not None:
                return [name for name in self.changed if name in found]
        return list(self.changed) if resolved else []

    def _bearable(self, share: float) -> Sequence[float]:
        """By goal: what may be lost, which is what is worth no change or that share of the gain."""
        return [max(self.bar, share * found[0].mean) for found in self.over([()]).values()]

    def _shown(self, kept: Sequence[str]) -> bool:
        """Whether these changes together are shown to be worth a change."""
        deployed, level = [self.with_changes(())], _SURE / len(self.effects)
        found = (effects.over(self.with_changes(kept), deployed, level)[0] for effects in self.effects.values())
        return any(each.low > self.bar for each in found)

    def _ranked(self, sets: Sequence[Sequence[str]], bearable: Sequence[float]) -> Iterator[Sequence[str]]:
        """Those that are expected to lose no more than that, and that rather keep their limits, the best first."""
        if not sets:
            return
        losses = [[each.mean for each in found] for found in zip(*self.over(sets).values(), strict=True)]
        keeping = next(iter(self.effects.values()))
        chance = keeping.keep([self.with_changes(kept) for kept in sets])
        enough = min(LIKELY, float(keeping.keep([self.with_changes(self.changed)])[0]))
        borne = [all(lost <= most for lost, most in zip(each, bearable, strict=True)) for each in losses]
        fine = [n for n in range(len(sets)) if borne[n] and chance[n] >= enough]
        yield from (sets[n] for n in sorted(fine, key=lambda n: fmean(losses[n])))

    def resolved(self, name: str) -> bool:
        """Whether a change is shown to be worth one by itself."""
        return any(each.low > self.bar for each in self.alone[name].values())

    @cached_property
    def alone(self) -> Mapping[str, Mapping[str, Difference]]:
        """By change and goal: the winner over the winner without it."""
        found = self.over([[name for name in self.changed if name != one] for one in self.changed])
        return {name: {goal: each[n] for goal, each in found.items()} for n, name in enumerate(self.changed)}

    def over(self, sets: Sequence[Sequence[str]], level: float = _LEVEL) -> Mapping[str, Sequence[Difference]]:
        """By goal, which share the level: the winner over each configuration that has some of its changes."""
        whole, parts = self.with_changes(self.changed), [self.with_changes(kept) for kept in sets]
        return {goal: effects.over(whole, parts, level / len(self.effects)) for goal, effects in self.effects.items()}
