"""A study whose configuration changed since it began: what changed, and whether it may go on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.config import Config
from tuner.errors import ConfigError

_HARMLESS: Mapping[str, str] = {
    "budget": "the study goes on until the new budget is used up",
    "search": "the next proposals come from the new search; it learns from all earlier trials",
    "study.retries": "it counts from now on",
    "study.confirm": "applies from the next proof",
    "study.min_gain": "the verdict is worded by it",
    "study.control_every": "applies from the next trial",
    "objective.guard": "the verdict is judged by it",
    "objective.unguarded": "the verdict is judged by it",
    "study.folder": "only its place is another",
    "executor": "it counts from now on",
    "engine.phase_limits_s": "it counts from now on",
    "engine.stop_grace_s": "it counts from now on",
    "model.known_good": "values that are new are tried next",
    "model.service": "only the exported compose file is another",
    "site": "it counts from now on",
    "secrets": "it counts from now on",
    "launcher.pull": "the study stays with the image that it began with",
    "launcher.port": "it counts from now on",
    "space.rules": "proposals keep the new rules; earlier trials stay",
}
"""What may change in the middle of a study, by the beginning of its key, and what that means."""

_SPACE_RANGE = "the search goes on in the new range; earlier trials outside of it count at its edge"


class Incomparable(ConfigError):
    """A configuration under which earlier trials would not count."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs.

    Attributes:
        key: Dotted.
        old: As the study began.
        new: As it is asked now.
        meaning: What it means for the study; ``None`` if earlier trials would not be comparable.
    """

    key: str
    old: object
    new: object
    meaning: str | None

    def __str__(self) -> str:
        meaning = self.meaning or "earlier trials ran otherwise and cannot be compared"
        return f"{self.key}: {_shown(self.old)} → {_shown(self.new)} ({meaning})"


def changes(old: Config, new: Config) -> tuple[Change, ...]:
    """What differs, in the order of the configuration.

    Raises:
        Incomparable: Something differs that makes the earlier trials incomparable.
    """
    before, after = (dict(_leaves(config.model_dump(mode="json"))) for config in (old, new))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    found = tuple(Change(key, before.get(key), after.get(key), _meaning(key)) for key in keys)
    if fatal := [change for change in found if change.meaning is None]:
        listed = "\n".join(f"  {change}" for change in fatal)
        raise Incomparable(
            f"the study {new.study.name} was begun with another configuration:\n{listed}",
            fix="choose another study.name for a new study, or take the change back",
        )
    return found


def _meaning(key: str) -> str | None:
    for beginning, meaning in _HARMLESS.items():
        if key == beginning or key.startswith(f"{beginning}."):
            return meaning
    in_range = key.startswith("space.params.") and key.rsplit(".", 1)[1] in ("low", "high")
    return _SPACE_RANGE if in_range else None


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _shown(value: object) -> str:
    return "(not set)" if value is None else str(value)
