"""Two finished studies, or two profiles, against each other: both are launched in turns, and nothing is searched."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.config import Budget
from tuner.contest.entrants import Contest, Entrant, check_alike
from tuner.contest.levels import check_levels
from tuner.errors import ConfigError
from tuner.export.profile import ProfileSettings, profiled, read_profile, settings_of
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.space import Candidate

_MOST = 8


@dataclass(frozen=True, slots=True)
class Finished:
    """One side of the comparison.

    Attributes:
        outcome: Its study.
        candidate: The configuration that a profile names; ``None`` for what the study's verdict says to deploy.
    """

    outcome: Outcome
    candidate: Candidate | None = None

    @property
    def name(self) -> str:
        """The study's."""
        return self.outcome.folder.path.name

    @property
    def entrant(self) -> Entrant:
        """What is launched of it; services are stopped once, for both."""
        config = self.outcome.config
        site = config.site.model_copy(update={"stop": ()})
        return Entrant(self.name, config.model_copy(update={"site": site}), self.candidate)


def of_study(folder: StudyFolder) -> Finished:
    """A study.

    Raises:
        ConfigError: It has measured nothing that could be launched.
    """
    outcome = Outcome.of(folder)
    if outcome.best is None:
        fix = "run it first: `tuner study start`"
        raise ConfigError(f"{outcome.config.study.name} has nothing to launch: {outcome.sentence}", fix=fix)
    return Finished(outcome)


def of_profile(path: Path, studies: Path) -> Finished:
    """A profile, launched as its study launched it: that knows the launcher, the traffic and the machine.

    Args:
        path: The file.
        studies: Where study folders lie, for a profile that does not lie in its study's.

    Raises:
        ConfigError: It is none, its study is not there, or no launch of that study had these settings.
    """
    profile = read_profile(path)
    folder = StudyFolder(path.parent)
    if not folder.config.exists():
        folder = StudyFolder(studies / profile.study.name)
    if not folder.config.exists():
        fix = "say --folder, or compare two running servers: `tuner bench compare`"
        raise ConfigError(f"its study, {profile.study.name}, is not in {studies}", place=str(path), fix=fix)
    outcome = Outcome.of(folder)
    wanted = ProfileSettings(args=profile.args, env=profile.env)
    found = next((each for each in _measured(outcome) if profiled(settings_of(outcome, each)) == wanted), None)
    if found is None:
        fix = "take the profile as `tuner study export` writes it"
        raise ConfigError(f"no launch of {profile.study.name} had these settings", place=str(path), fix=fix)
    return Finished(outcome, found)


def _measured(outcome: Outcome) -> Iterator[Candidate]:
    """What was measured, relaunches first: a winner is launched without changes that do nothing."""
    for record in (*outcome.confirmations, *outcome.searched):
        if record.measurement:
            yield Candidate(record.params)


def contest_between(first: Finished, second: Finished, most: int | None = None) -> Contest:
    """Their comparison, in a folder of its own next to the studies.

    Args:
        first: What the second one is compared with.
        second: What may be better.
        most: Launches of each at the most; ``None`` for as many as the first study's proof may make.

    Raises:
        ConfigError: They are not two studies of one folder, or were not asked the same.
    """
    paths = [each.outcome.folder.path.resolve() for each in (first, second)]
    if paths[0] == paths[1] or paths[0].parent != paths[1].parent:
        fix = "name two studies of one folder"
        raise ConfigError(f"{paths[0]} and {paths[1]} are not two studies of one folder", place="compare", fix=fix)
    names, configs = [first.name, second.name], [first.outcome.config, second.outcome.config]
    check_alike(names, configs, "compare studies that were asked the same; of others `tuner study compare` has a table")
    check_levels(configs[0].workload, configs[0].objective, least=1)
    launches = most or configs[0].study.confirm.max or _MOST
    return Contest(
        name=f"{names[0]}-against-{names[1]}",
        folder=first.outcome.folder.path.parent,
        budget=Budget(trials=2 * launches),
        confirm=launches,
        site=configs[0].site,
        entrants=(first.entrant, second.entrant),
        searches=False,
    )
