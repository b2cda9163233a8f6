"""Deployments side by side, as people keep them in a table: what each of some studies and profiles measured.

Every number is that of the relaunches where there are any, else of the one launch that the search had, and says which.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner import words
from tuner.engines.hardware import stated_hardware
from tuner.export.decided import Reading, measured_of
from tuner.export.origin import digest_of
from tuner.export.profile import Profile, read_profile, recommended, settings_of
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord

_ALONE, _TOGETHER, _TTFT = "tpot_p50_ms", "output_tokens_per_s", "ttft_p50_ms"
_READ = (_ALONE, _TOGETHER, _TTFT)
_TOKENS, _HOUR_S = 1e6, 3600


@dataclass(frozen=True, slots=True)
class ComparedDeployment:
    """A configuration that was measured.

    Attributes:
        name: Its study, and whether it is what was deployed or the winner.
        engine: Kind and version.
        model: Which one it serves.
        gpus: How many GPUs it holds; ``None`` where nobody says.
        context: Longest prompt and answer that it takes, in tokens; ``None`` where nobody says.
        traffic: Name of the workload.
        digest: Equal for equal traffic; ``None`` where nobody says.
        readings: By metric.
    """

    name: str
    engine: str
    model: str
    gpus: int | None
    context: int | None
    traffic: str
    digest: str | None
    readings: Mapping[str, Reading]

    @property
    def alone(self) -> Reading | None:
        """Tokens a second of one user, from its time per output token."""
        return _over(1000, self.readings.get(_ALONE))

    def cost(self, price: float) -> Reading | None:
        """What a million output tokens cost under this traffic, where a GPU costs so much an hour."""
        return _over(price * self.gpus / _HOUR_S * _TOKENS, self.readings.get(_TOGETHER)) if self.gpus else None


def _over(amount: float, reading: Reading | None) -> Reading | None:
    """An amount over what was read; the ends of the interval change places."""
    if reading is None:
        return None
    low, high = (None if end is None else amount / end for end in (reading.high, reading.low))
    return Reading(mean=amount / reading.mean, low=low, high=high, launches=reading.launches)


def deployments(place: Path) -> list[ComparedDeployment]:
    """What was deployed and, if there is one, the winner: of a study's folder, or of a profile.

    Raises:
        ConfigError: It is neither.
    """
    if place.is_dir():
        return list(_of_study(Outcome.of(StudyFolder(place))))
    return list(_of_profile(read_profile(place)))


def remarks(compared: Sequence[ComparedDeployment]) -> Iterator[str]:
    """What makes the numbers of one row another thing than those of the next."""
    traffic = {each.digest: f"{each.traffic} ({each.digest or 'unknown'})" for each in compared}
    if len(traffic) > 1:
        yield f"measured under different traffic: {', '.join(traffic.values())}"
    models = dict.fromkeys(each.model for each in compared)
    if len(models) > 1:
        yield f"different models: {', '.join(models)}"


def numbers(compared: Sequence[ComparedDeployment], price: float | None = None) -> list[dict[str, object]]:
    """A row a deployment, for programs: each number with its 95 % interval and its launches."""
    return [_row(each, price) for each in compared]


def table(compared: Sequence[ComparedDeployment], price: float | None = None) -> list[dict[str, str]]:
    """The same for people: intervals in brackets, columns of which nothing is known left out."""
    rows = [
        {
            "deployment": each.name,
            "engine": each.engine,
            "one user (tokens/s)": _said(each.alone),
            "all users (tokens/s)": _said(each.readings.get(_TOGETHER)),
            "TTFT p50 (ms)": _said(each.readings.get(_TTFT)),
            "GPUs": str(each.gpus or ""),
            "context": "" if each.context is None else f"{each.context:,}",
            "launches": str(max((reading.launches for reading in each.readings.values()), default=0)),
            "a million tokens": _said(each.cost(price)) if price is not None else "",
        }
        for each in compared
    ]
    known = [column for column in rows[0] if any(row[column] for row in rows)]
    return [{column: row[column] for column in known} for row in rows]


def _said(reading: Reading | None) -> str:
    if reading is None:
        return ""
    known = reading.low is not None and reading.high is not None
    ends = f" [{words.digits(reading.low or 0)}, {words.digits(reading.high or 0)}]" if known else ""
    return f"{words.digits(reading.mean)}{ends}"


def _row(each: ComparedDeployment, price: float | None) -> dict[str, object]:
    readings = {
        "single_user_tokens_per_s": each.alone,
        _TOGETHER: each.readings.get(_TOGETHER),
        _TTFT: each.readings.get(_TTFT),
        "cost_per_million_tokens": None if price is None else each.cost(price),
    }
    spread = {
        name if part == "mean" else f"{name}_{part}": getattr(reading, part, None)
        for name, reading in readings.items()
        for part in ("mean", "low", "high", "launches")
    }
    plain = {name: getattr(each, name) for name in ("name", "engine", "model", "gpus", "context", "traffic", "digest")}
    return {**plain, **spread}


def _of_study(outcome: Outcome) -> Iterator[ComparedDeployment]:
    measured = measured_of(outcome.decision) if outcome.decision else {}
    if outcome.baseline:
        relaunched = {name: both.baseline for name, both in measured.items()}
        args = outcome.config.model.settings.args
        yield _of(outcome, "deployed", outcome.baseline, args, relaunched)
    winner = recommended(outcome)
    if winner and outcome.chosen:
        relaunched = {name: both.winner for name, both in measured.items()}
        yield _of(outcome, "winner", winner, settings_of(outcome, outcome.chosen).args, relaunched)


def _of(
    outcome: Outcome,
    which: str,
    trial: TrialRecord,
    args: Mapping[str, object],
    relaunched: Mapping[str, Reading],
) -> ComparedDeployment:
    config, version = outcome.config, trial.facts.engine_version if trial.facts else None
    numbers = trial.measurement.numbers if trial.measurement else {}
    once = {name: Reading(mean=value, launches=1) for name in _READ if (value := numbers.get(name)) is not None}
    context = trial.facts.max_model_len if trial.facts else None
    return ComparedDeployment(
        name=f"{config.study.name}, {which}",
        engine=f"{config.engine.kind} {version or ''}".rstrip(),
        model=config.model.id,
        gpus=stated_hardware(config.hardware).gpus or None,
        context=context or _tokens(args.get("max_model_len")),
        traffic=config.workload.name,
        digest=digest_of(config.workload),
        readings={name: relaunched[name] for name in _READ if name in relaunched} or once,
    )


def _of_profile(profile: Profile) -> Iterator[ComparedDeployment]:
    sides = {"deployed": profile.deployed, "winner": profile}
    for which, settings in sides.items():
        both = {name: measured for name in _READ if (measured := profile.measured.get(name))}
        yield ComparedDeployment(
            name=f"{profile.study.name}, {which}",
            engine=f"{profile.engine.kind} {profile.engine.version or ''}".rstrip(),
            model=profile.model,
            gpus=len(profile.machine.indices) or None if profile.machine else None,
            context=_tokens(settings.args.get("max_model_len")) if settings else None,
            traffic=profile.study.workload,
            digest=profile.study.workload_digest,
            readings={name: each.winner if which == "winner" else each.baseline for name, each in both.items()},
        )


def _tokens(given: object) -> int | None:
    return given if isinstance(given, int) else None
