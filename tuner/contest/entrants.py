"""What a study over engines is asked: an ordinary study for each of them, under one budget.

``engines: {vllm: [model=glm-tiny, space=vllm-cpu], llamacpp: [model=gguf, space=llamacpp-cpu]}`` says for each engine
in what its configuration differs, as it would stand on the command line; all else is common to both. On the command
line itself the same is written ``engines.vllm.model.id=VALUE``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner import composing
from tuner.config import Budget, Config, ConfirmConfig, SiteConfig
from tuner.contest.levels import check_levels
from tuner.errors import ConfigError
from tuner.space import Candidate

_OWN = re.compile(r"^\+{0,2}engines\.([A-Za-z0-9_-]+)\.(.+)$", re.DOTALL)
_NUMBER = 2
_ALIKE = ("workload", "objective", "quality", "hardware", "host")
"""What is common to both: else their numbers would not be of the same question."""
_SILENT: Callable[[str], None] = lambda sentence: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class Entrant:
    """One engine of the two.

    Attributes:
        name: As it stands in ``engines``.
        config: Its own study: the search's share of the budget, and no proof.
        candidate: What is launched of it, where a profile names it; ``None`` for the best of its study.
    """

    name: str
    config: Config
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """A study over engines, resolved and valid.

    Attributes:
        name: Its name, and its folder's.
        folder: Where study folders lie.
        budget: Of all together.
        confirm: Launches of each in the proof, at the most.
        site: Services that are stopped for it.
        entrants: The engines.
        searches: Whether each of them is searched; else they are finished studies.
    """

    name: str
    folder: Path
    budget: Budget
    confirm: int
    site: SiteConfig
    entrants: tuple[Entrant, ...]
    searches: bool = True

    @property
    def path(self) -> Path:
        """Its own folder, with the proof between the engines."""
        return self.folder / self.name

    @property
    def reserve(self) -> int:
        """Launches that are kept back from the searches for the proof."""
        return _NUMBER * self.confirm

    @property
    def search_trials(self) -> int | None:
        """Launches of both searches together; ``None`` if only the hours are limited."""
        return None if self.budget.trials is None else self.budget.trials - self.reserve


def contest_of(
    overrides: Sequence[str], config_dir: Path | None = None, say: Callable[[str], None] = _SILENT
) -> Contest | None:
    """The study over engines that is asked for; ``None`` if it is a study of one engine.

    Raises:
        ConfigError: One of the engines is unknown, has no configuration of its own, or is asked something else than
            the other.
    """
    common = [each for each in overrides if not _OWN.match(each)]
    own = [found.groups() for each in overrides if (found := _OWN.match(each))]
    name, engines = composing.engines_of(common, config_dir)
    if not engines:
        _check_named(own, {})
        return None
    if len(engines) != _NUMBER:
        raise ConfigError(f"names {len(engines)}: {', '.join(engines)}", place="engines", fix="name two engines")
    _check_named(own, engines)
    configs = [
        _config(engine, common, [*said, *(text for of, text in own if of == engine)], name, config_dir, say)
        for engine, said in engines.items()
    ]
    return _contest(name, list(engines), configs)


def _check_named(own: Sequence[tuple[str, ...]], engines: Mapping[str, object]) -> None:
    for of, text in own:
        if of not in engines:
            fix = f"name one of: {', '.join(engines)}" if engines else f"name them: 'engines=[{of},…]'"
            raise ConfigError(f"there is no engine {of!r} in engines", place=f"engines.{of}.{text}", fix=fix)


def _config(
    engine: str,
    common: Sequence[str],
    own: Sequence[str],
    name: str,
    config_dir: Path | None,
    say: Callable[[str], None],
) -> Config:
    """One engine's study, as its overrides make it.

    Raises:
        ConfigError: As that study's own start would raise it, with the engine in its place.
    """
    left = [each for each in common if _key(each) != "engines"]
    overrides = _last_of_each([f"engine={engine}", *left, *own, f"study.name={name}-{engine}", "engines=null"])
    if any(_key(each) == "engine" for each in left):
        raise ConfigError("is said for both", place="engine", fix=f"say it for one: engines.{engine}.engine=…")
    try:
        return composing.load(overrides, config_dir, say=lambda sentence: say(f"{engine}: {sentence}"))
    except ConfigError as error:
        place = f"engines.{engine}" + (f".{error.place}" if error.place else "")
        fix = error.fix and f"{error.fix} (of {engine} alone: engines.{engine}.KEY=VALUE)"
        raise ConfigError(error.message.removeprefix(f"{error.place}: "), place=place, fix=fix) from error


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """Where a key is said twice, the later one counts: the engine's own after what is common."""
    return list({_key(each): each for each in overrides}.values())


def _contest(name: str, engines: Sequence[str], configs: Sequence[Config]) -> Contest:
    first = configs[0]
    check_alike(engines, configs, "choose one for both, outside of engines")
    check_levels(first.workload, first.objective)
    contest = Contest(
        name=name,
        folder=first.study.folder,
        budget=first.budget,
        confirm=first.study.confirm.max,
        site=first.site,
        entrants=(),
    )
    _check_shares(contest)
    entrants = (Entrant(each, _searching(contest, config)) for each, config in zip(engines, configs, strict=True))
    return Contest(name, contest.folder, contest.budget, contest.confirm, contest.site, tuple(entrants))


def check_alike(names: Sequence[str], configs: Sequence[Config], fix: str) -> None:
    """Both are asked the same, on the same machine.

    Raises:
        ConfigError: They are not.
    """
    for section in _ALIKE:
        one, other = (getattr(config, section) for config in configs)
        if one != other:
            raise ConfigError(f"{names[0]} and {names[1]} are not asked the same", place=section, fix=fix)


def _check_shares(contest: Contest) -> None:
    """The proof decides, and each search needs its deployed configuration and one more."""
    if contest.confirm < 1:
        raise ConfigError("without a proof nothing is compared", place="study.confirm.max", fix="say 4 or more")
    least = contest.reserve + 2 * _NUMBER
    if contest.budget.trials is not None and contest.budget.trials < least:
        said = f"{contest.budget.trials} launches leave nothing to search: the proof may take {contest.reserve} of them"
        raise ConfigError(
            said, place="budget.trials", fix=f"say {least} or more, or lower study.confirm.max (now {contest.confirm})"
        )


def _searching(contest: Contest, config: Config) -> Config:
    """An engine's study as it is run: it searches, and what it finds is proven against the other engine's."""
    study = config.study.model_copy(update={"confirm": ConfirmConfig(max=0), "soak_min": 0.0})
    budget = config.budget.model_copy(update={"trials": contest.search_trials, "run_minutes": None})
    site = config.site.model_copy(update={"stop": ()})  # stopped once, for both
    return config.model_copy(update={"study": study, "budget": budget, "site": site})
