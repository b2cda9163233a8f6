"""A study whose configuration changed since it began: what changed, and whether it may be resumed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from tuner.config import Config
from tuner.errors import ConfigError
from tuner.space import Choice, Range, SearchSpace

_HARMLESS: Mapping[str, str] = {
    "budget": "the study runs until the new budget is used up",
    "search": "the next proposals come from the new search; it learns from all earlier trials",
    "study.retries": "applies from the next trial",
    "study.confirm": "applies from the next proof",
    "study.min_gain": "the verdict is worded by it",
    "study.min_effect": "applies from the next proof",
    "study.soak_min": "applies to a winner that has not been soaked",
    "study.control_every": "applies from the next trial",
    "objective.guard": "the verdict is judged by it",
    "objective.unguarded": "the verdict is judged by it",
    "study.folder": "only its place is another",
    "executor": "applies from the next trial",
    "engine.phase_limits_s": "applies from the next trial",
    "engine.stop_grace_s": "applies from the next trial",
    "model.known_good": "values that are new are tried next",
    "model.service": "only the exported compose file is another",
    "host": "applies from the next trial",
    "site": "applies from the next trial",
    "secrets": "applies from the next trial",
    "quality": "applies from the next launch of a proof; answers to other questions do not count",
    "launcher.pull": "the study stays with the image that it began with",
    "launcher.port": "applies from the next trial",
    "space.remarks": "only its reasons are others",
    "space.rules": "proposals keep the new rules; earlier trials stay",
}
"""What may change in the middle of a study, by the beginning of its key, and what that means."""

_SPACE_RANGE = "the search continues in the new range; earlier trials outside of it count at its edge"
_NARROWED = "the search continues with these values; earlier trials stay comparable"
_FIXED = "no longer searched: it stays as deployed; earlier trials stay comparable"


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


def carried(old: Config, new: Config) -> Config:
    """The new configuration, in which a parameter that was removed is fixed at its deployed value.

    The trials that varied it stay part of the study, and may still hold its best configuration.
    """
    removed = {name: p for name, p in old.space.params.items() if name not in new.space.params}
    if not removed:
        return new
    deployed = old.space.set_by(new.model.settings)
    fixed = {
        name: Choice(choices=(deployed[name],), flag=p.flag, env=p.env, when=p.when, default=p.default)
        for name, p in removed.items()
    }
    space = SearchSpace(params={**new.space.params, **fixed}, rules=new.space.rules)
    return new.model_copy(update={"space": space})


def changes(old: Config, new: Config) -> tuple[Change, ...]:
    """What differs, in the order of the configuration.

    Raises:
        Incomparable: Something differs that makes the earlier trials incomparable.
    """
    before, after = (dict(_leaves(config.model_dump(mode="json"))) for config in (old, new))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    spaces = {f"space.params.{name}": meaning for name in old.space.params if (meaning := _narrowing(name, old, new))}
    found = tuple(Change(key, before.get(key), after.get(key), _meaning(key, spaces)) for key in keys)
    if fatal := [change for change in found if change.meaning is None]:
        listed = "\n".join(f"  {change}" for change in fatal)
        raise Incomparable(
            f"the study {new.study.name} was begun with another configuration:\n{listed}",
            fix="choose another study.name for a new study, or take the change back",
        )
    return found


def check_budget(config: Config, launched: int) -> None:
    """Make sure that the budget covers what has run.

    Raises:
        ConfigError: It does not: a study only grows.
    """
    if config.budget.trials is not None and config.budget.trials < launched:
        fix = f"a study only grows: budget.trials={launched} or more"
        raise ConfigError(
            f"{config.budget.trials} are fewer than have run ({launched})", place="budget.trials", fix=fix
        )


def _meaning(key: str, spaces: Mapping[str, str]) -> str | None:
    for beginning, meaning in {**_HARMLESS, **spaces}.items():
        if key == beginning or key.startswith(f"{beginning}."):
            return meaning
    if key.startswith("space.params.") and key.endswith(".why"):
        return _HARMLESS["space.remarks"]
    in_range = key.startswith("space.params.") and key.rsplit(".", 1)[1] in ("low", "high")
    return _SPACE_RANGE if in_range else None


def _narrowing(name: str, old: Config, new: Config) -> str | None:
    """What it means that a parameter can take fewer values than before; ``None`` if it can take others as well."""
    before, after = old.space.params[name], new.space.params.get(name)
    if after is None or old.space.target(name) != new.space.target(name) or before.when != after.when:
        return None
    deployed = old.space.set_by(old.model.settings)[name]
    values = None if after.levels is None else [after.value(level) for level in range(after.levels)]
    if values is None or not all(_in(before, value) or value == deployed for value in values):
        return None
    if isinstance(before, Range) and isinstance(after, Range) and before.step == after.step:
        return _SPACE_RANGE
    return _FIXED if values == [deployed] else _NARROWED


def _in(parameter: Range | Choice, value: JsonValue) -> bool:
    if isinstance(parameter, Range) and parameter.levels is None:
        return isinstance(value, int | float) and parameter.low <= value <= parameter.high
    return value in [parameter.value(level) for level in range(parameter.levels or 0)]


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _shown(value: object) -> str:
    return "(not set)" if value is None else str(value)
