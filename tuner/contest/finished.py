"""Two finished studies against each other: their winners are launched again in turns, and nothing is searched."""

from tuner.config import Budget
from tuner.contest.entrants import Contest, Entrant, check_alike
from tuner.contest.levels import check_levels
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome

_MOST = 8


def contest_between(first: StudyFolder, second: StudyFolder, most: int | None = None) -> Contest:
    """The comparison of two studies, in a folder of its own next to theirs.

    Args:
        first: What the second one is compared with.
        second: What may be better.
        most: Launches of each at the most; ``None`` for as many as the first study's proof may make.

    Raises:
        ConfigError: They were not asked the same, or one of them has measured nothing.
    """
    if first.path.resolve() == second.path.resolve() or first.path.parent.resolve() != second.path.parent.resolve():
        fix = "name two studies of one folder"
        raise ConfigError(f"{first.path} and {second.path} are not two studies of one folder", place="compare", fix=fix)
    outcomes = [Outcome.of(folder) for folder in (first, second)]
    for outcome in outcomes:
        _check_measured(outcome)
    names, configs = [folder.path.name for folder in (first, second)], [outcome.config for outcome in outcomes]
    check_alike(names, configs, "compare studies that were asked the same; of others `tuner study compare` has a table")
    check_levels(configs[0].workload, configs[0].objective, least=1)
    launches = most or configs[0].study.confirm.max or _MOST
    return Contest(
        name=f"{names[0]}-against-{names[1]}",
        folder=first.path.parent,
        budget=Budget(trials=2 * launches),
        confirm=launches,
        site=configs[0].site,
        entrants=tuple(
            Entrant(name, config.model_copy(update={"site": config.site.model_copy(update={"stop": ()})}))
            for name, config in zip(names, configs, strict=True)
        ),
        searches=False,
    )


def _check_measured(outcome: Outcome) -> None:
    if outcome.best is None:
        fix = "run it first: `tuner study start`"
        raise ConfigError(f"{outcome.config.study.name} has nothing to launch: {outcome.sentence}", fix=fix)
