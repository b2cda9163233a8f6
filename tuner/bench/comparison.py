"""Two running servers, or one and a saved result: which is better, by the rule of a study's proof."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tuner import __version__, words
from tuner.bench import saved
from tuner.bench.running import RunningServer, SavedMeasurement, asked, attached, is_url
from tuner.bench.saved import Saved
from tuner.bench.view import ProgressListener
from tuner.config import Config
from tuner.errors import ConfigError, MeasurementError
from tuner.objective import Objective
from tuner.proof.decision import Decision
from tuner.proof.order import turns
from tuner.proof.rule import ProofLaunch, Terms, decide, decide_once
from tuner.records.compare import launch, rule_of
from tuner.records.folder import StudyFolder
from tuner.records.record import Role, State
from tuner.schema import Schema, Stored

_IN_TURNS = ("study.confirm.max=8",)
"""Measurements of each server at the most, unless the user says otherwise."""
_AGAINST_SAVED = ("study.confirm.max=4",)
"""Measurements of the one that runs."""


class Side(Schema):
    """One of the two."""

    name: str
    """URL or path."""
    model: str | None
    """The model's name, where it is known."""
    trials: tuple[int, ...] = ()
    """Numbers of its measurements in this folder, in order; none for a saved result."""


class Comparison(Stored):
    """What was compared, and what came of it: ``studies/bench/comparisons/NNNN.json``."""

    schema_version: Literal[1] = 1
    tuner_version: str
    started_at: str
    """Wall clock, ISO 8601 in UTC."""
    baseline: Side
    candidate: Side
    in_turns: bool
    """Whether both were measured in turns; else one of them is a saved result."""
    objective: Objective
    """What was compared by, less what a saved result does not have."""
    min_gain: float
    """A gain below this share is no difference."""
    decision: Decision
    notes: tuple[str, ...] = ()
    """What a person should know before trusting the verdict."""
    interrupted: bool = False
    """Whether Ctrl-C came before it was decided: the decision is what had been measured until then."""


def compare(
    baseline: str,
    candidate: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    token_env: str | None,
    follower: ProgressListener,
) -> tuple[Path, Comparison]:
    """Compare two servers, or a server and a saved result; returns where the comparison was saved, and itself.

    Args:
        baseline: URL of a server, or path of a saved result.
        candidate: The same, of what may be better.
        overrides: As for ``bench``; ``study.confirm.max`` bounds the measurements of each server.
        config_dir: A folder with groups of the user's own.
        token_env: Name of the environment variable that holds the bearer token of the servers.
        follower: Told of each measurement.

    Raises:
        ConfigError: An override is wrong, neither of them is a URL, or a result cannot be read.
        EngineUnavailable: Nothing answers at a URL.
        MeasurementError: A server could not be measured.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    names = (baseline, candidate)
    urls = [name for name in names if is_url(name)]
    if not urls:
        fix = f"name the URL of one of them instead of {baseline} or {candidate}"
        raise ConfigError("two saved results say nothing of the noise between measurements", fix=fix)
    if len(urls) == 2:
        asks = [asked(url, [*_IN_TURNS, *overrides], config_dir, token_env) for url in urls]
        found = _in_turns(asks[0], asks[1], started_at, follower)
        folder = StudyFolder(asks[0].study.path)
    else:
        other = saved.read(Path(next(name for name in names if not is_url(name))))
        _check_traffic(other, overrides)
        config = asked(urls[0], [*_AGAINST_SAVED, *overrides], config_dir, token_env)
        found = _against(other, config, started_at, follower, candidate_runs=is_url(candidate))
        folder = StudyFolder(config.study.path)
    return _save(folder, found), found


def _save(folder: StudyFolder, comparison: Comparison) -> Path:
    place = folder.path / "comparisons"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{len(list(place.glob('*.json'))):04d}.json"
    folder.write(path, comparison.model_dump_json(indent=1) + "\n")
    return path


# two servers


def _in_turns(baseline: Config, candidate: Config, started_at: str, follower: ProgressListener) -> Comparison:
    _check_number(baseline)
    terms = rule_of(baseline, baseline.objective, baseline.study.confirm.max)
    with StudyFolder(baseline.study.path).locked(), ExitStack() as stack:
        servers = [stack.enter_context(attached(config, follower)) for config in (baseline, candidate)]
        duel = _Duel(servers[0], servers[1], terms, follower, [], [])
        interrupted = duel.run(f"{baseline.study.seed}:{started_at}")
    return Comparison(
        tuner_version=__version__,
        started_at=started_at,
        baseline=duel.side(of_candidate=False),
        candidate=duel.side(of_candidate=True),
        in_turns=True,
        objective=baseline.objective,
        min_gain=baseline.study.min_gain,
        decision=duel.decision,
        notes=(*duel.told(interrupted), *_models(baseline.model.served_name, candidate.model.served_name)),
        interrupted=interrupted,
    )


@dataclass(frozen=True, slots=True)
class _Duel:
    """Two servers that are measured in turns until it is decided."""

    baseline: RunningServer
    candidate: RunningServer
    terms: Terms
    follower: ProgressListener
    launches: list[ProofLaunch]
    numbers: list[tuple[bool, int]]

    @property
    def decision(self) -> Decision:
        """By what has been measured so far."""
        return decide(self.launches, self.terms)

    def run(self, seed: str) -> bool:
        """Measure until it is decided; whether Ctrl-C came first.

        Raises:
            KeyboardInterrupt: It came before both had been measured, so that there is nothing to compare.
        """
        try:
            for of_candidate in turns(seed, self.terms.most):
                self._turn(of_candidate)
                if len(self.launches) % 2 == 0 and self.decision.over:
                    break
        except KeyboardInterrupt:
            if len({of_candidate for of_candidate, _ in self.numbers}) < 2:
                raise
            return True
        return False

    def told(self, interrupted: bool) -> tuple[str, ...]:
        """How far it came, where it was not let to its end."""
        if not interrupted:
            return ()
        return (f"interrupted after {len(self.launches)} of at most {2 * self.terms.most} measurements",)

    def _turn(self, of_candidate: bool) -> None:
        server = self.candidate if of_candidate else self.baseline
        self.follower.note(f"measurement {len(self.launches) + 1} of at most {2 * self.terms.most}: {server.url}")
        measured = _measured(server, Role.CONFIRM_BEST if of_candidate else Role.CONFIRM_BASELINE)
        self.launches.append(launch(measured.record, self.terms.needed, candidate=of_candidate))
        self.numbers.append((of_candidate, measured.record.number))

    def side(self, *, of_candidate: bool) -> Side:
        server = self.candidate if of_candidate else self.baseline
        trials = tuple(number for of, number in self.numbers if of is of_candidate)
        return Side(name=server.url, model=server.config.model.served_name, trials=trials)


def _measured(server: RunningServer, role: Role) -> SavedMeasurement:
    """A measurement that this machine or the network disturbed says nothing of the server, and is repeated."""
    for _ in range(server.config.study.retries + 1):
        measured = server.measure(role)
        if measured.record.state is not State.FAILED:
            return measured
    failure = measured.record.failure
    assert failure is not None
    raise MeasurementError(f"{server.url}: {failure.message}", fix=failure.advice)


def _models(baseline: str | None, candidate: str | None) -> tuple[str, ...]:
    if not baseline or not candidate or baseline == candidate:
        return ()
    return (f"they name their models differently: {baseline} and {candidate}",)


def _check_number(config: Config) -> None:
    if config.study.confirm.max < 2:
        raise ConfigError(
            f"{config.study.confirm.max} measurements tell nothing of the noise between them",
            place="study.confirm.max",
            fix="say 4 or more",
        )


# one server and a saved result


def _check_traffic(other: Saved, overrides: Sequence[str]) -> None:
    """Different traffic would be compared with itself, not a server with a server."""
    named = [each for each in overrides if each.lstrip("+~").partition("=")[0].split(".")[0] == "workload"]
    if other.workload and named:
        raise ConfigError(
            f"{named[0]} would measure other traffic than {other.path} was measured with",
            place="workload",
            fix="leave it out: the saved result's own traffic is sent",
        )


def _like(other: Saved, config: Config) -> Config:
    """The configuration with the traffic of the saved result, and with as much of the objective as it measured.

    Raises:
        ConfigError: It measured no goal.
    """
    whole = config.objective
    goals = {name: way for name, way in whole.goals.items() if name in other.numbers}
    limits = {name: limit for name, limit in whole.limits.items() if name in other.numbers}
    if not goals:
        fix = f"name a goal that it has: {', '.join(other.numbers)}"
        raise ConfigError(f"{other.path} does not have {', '.join(whole.goals)}", place="objective.goals", fix=fix)
    objective = whole.model_copy(update={"goals": goals, "limits": limits})
    return config.model_copy(update={"objective": objective, "workload": other.workload or config.workload})


def _against(
    other: Saved, whole: Config, started_at: str, follower: ProgressListener, *, candidate_runs: bool
) -> Comparison:
    _check_number(whole)
    config = _like(other, whole)
    terms = rule_of(config, config.objective, config.study.confirm.max)
    with StudyFolder(config.study.path).locked(), attached(config, follower) as server:
        measured = [_repeat(server, number, terms.most, follower) for number in range(terms.most)]
        runs = Side(name=server.url, model=config.model.served_name, trials=tuple(m.record.number for m in measured))
    kept = Side(name=str(other.path), model=other.model)
    launches = [ProofLaunch(not candidate_runs, other.numbers)]
    launches += [_launch(each, other.same_kind, terms, candidate=candidate_runs) for each in measured]
    return Comparison(
        tuner_version=__version__,
        started_at=started_at,
        baseline=kept if candidate_runs else runs,
        candidate=runs if candidate_runs else kept,
        in_turns=False,
        objective=config.objective,
        min_gain=config.study.min_gain,
        decision=decide_once(launches, terms),
        notes=(*_notes(other, whole), *_models(other.model, config.model.served_name)),
    )


def _repeat(server: RunningServer, number: int, most: int, follower: ProgressListener) -> SavedMeasurement:
    follower.note(f"measurement {number + 1} of {most}: {server.url}")
    return _measured(server, Role.BASELINE)


def _launch(
    measured: SavedMeasurement,
    numbers_of: Callable[[SavedMeasurement], Mapping[str, float]],
    terms: Terms,
    *,
    candidate: bool,
) -> ProofLaunch:
    """A measurement by the definitions of the saved result."""
    own = launch(measured.record, terms.needed, candidate=candidate)
    return own if own.died else ProofLaunch(candidate, numbers_of(measured))


def _notes(other: Saved, config: Config) -> list[str]:
    wanted = (*config.objective.goals, *config.objective.limits)
    missing = [words.metric(name).short for name in wanted if name not in other.numbers]
    said = [f"not judged, since {other.path} does not have it: {', '.join(missing)}"] if missing else []
    if other.by_vllm:
        said.append("all numbers are by the definitions of vllm bench serve: ramps included, TTFT of the first chunk")
    if other.workload is None:
        said.append(
            f"{other.path} does not say with which traffic it was measured; {config.workload.name} was sent now"
        )
    return said
