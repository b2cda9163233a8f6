"""What a study would do, before it does it: ``--dry-run``."""

import shlex
from contextlib import suppress
from dataclasses import replace

from pydantic import Field, JsonValue

from tuner import words
from tuner.config import Config
from tuner.engines.registry import kind_of
from tuner.errors import ConfigError
from tuner.premises import make_engine
from tuner.proof.rule import FIRST_ALONE, FIRST_LOOK
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.verdict import shown_by
from tuner.schema import Schema
from tuner.space import Choice, Range
from tuner.study.checks import Checks
from tuner.study.pace import Pace
from tuner.study.warm import sources_of, told

_GUESSED_TRIAL_S = 240.0
"""A trial's length before one has run: 90 s to start (two RTX 4090s), as long to warm up and measure, and to end."""


_GUESSED_QUESTION_S = 3.0
"""Of one question until its answer, some asked at a time."""
_ASKED = 3
"""Launches that are asked where one finalist is proven: two of the baseline, one of its own."""

_USUAL_NOISE = 0.03
"""Between launches of one configuration, on a machine that does nothing else."""


class PlannedParameter(Schema):
    """One parameter, ready to print."""

    name: str
    sets: str
    values: str
    condition: str | None
    deployed: str
    why: str | None = None
    """What it is tried for."""
    weight: float = 1.0
    """What it is expected to change, over what a setting usually does: where the search begins."""


class StudyPlan(Schema):
    """What would be launched, and how long it would take."""

    study: str
    folder: str
    model: str
    hardware: str
    launcher: str
    command: tuple[str, ...] = ()
    """The command line of trial 0, as the deployment's; ``{port}`` is the launcher's."""
    env: dict[str, str] = Field(default_factory=dict)
    """Its variables."""
    objective: str
    goals: tuple[str, ...] = ()
    """What is optimised, each with its direction: those of the objective and those that were added to it."""
    limits: tuple[str, ...] = ()
    """What is to be kept, each with its bound."""
    workload: str
    search: str
    begins_with: tuple[str, ...] = ()
    """Earlier studies that the search begins with, a sentence each."""
    parameters: tuple[PlannedParameter, ...]
    rules: dict[str, str]
    remarks: tuple[str, ...] = ()
    """What was left out of the space, and why."""
    size: int | None
    """Combinations, conditions not counted; null if a parameter is continuous."""
    trials: int | None
    finished: int
    relaunches: int
    launches: int | None
    """Launches that are still to come, all told; null if only the hours are limited."""
    expected_s: float | None
    """Of wall time, from what this study's trials took so far, or from a guess: four minutes of the engine's own."""
    guessed: bool = False
    """Whether no launch has been measured yet, so that the time rests on a guess."""
    resolves: tuple[str, ...] = ()
    """What this budget can show at the noise seen so far, in sentences."""
    checks_answers: tuple[str, ...] = ()
    """How answers are checked, and how long that takes, in a sentence."""
    soaks: tuple[str, ...] = ()
    """How long the winner is soaked, in a sentence."""
    stops: tuple[str, ...] = ()
    """Services that are down in that time."""
    differences: tuple[str, ...] = ()
    """In what the deployed service is not trial 0."""
    checked: tuple[str, ...] = ()
    """What was found in order."""
    unchecked: tuple[str, ...] = ()
    """What cannot be known without starting something."""
    refused: tuple[str, ...] = ()
    """What keeps the study from starting."""

    @property
    def text(self) -> str:
        """For a person."""
        return "\n".join([*self._head(), "", *self._parameter_lines(), "", *self._tail(), *self._check_lines()])

    def _head(self) -> list[str]:
        return [
            f"study      {self.study} in {self.folder}",
            f"model      {self.model} on {self.hardware}",
            f"launcher   {self.launcher}",
            f"trial 0    {self._trial_0()}",
            f"objective  {self.objective}, workload {self.workload}, search {self.search}",
            f"goals      {', '.join(self.goals)}",
            *([f"limits     {', '.join(self.limits)}"] if self.limits else []),
            *(f"begins with {each}" for each in self.begins_with),
        ]

    def _trial_0(self) -> str:
        env = (f"{name}={shlex.quote(value)}" for name, value in self.env.items())
        return " ".join([*env, shlex.join(self.command)]) or "the server that runs already"

    def _parameter_lines(self) -> list[str]:
        width = max((len(parameter.name) for parameter in self.parameters), default=0)
        lines = []
        for p in self.parameters:
            condition = f"  when {p.condition}" if p.condition else ""
            lines.append(f"  {p.name:<{width}}  {p.values}  (deployed: {p.deployed}){condition}")
            lines += [f"  {'':<{width}}    {p.why}{_expected(p.weight)}"] if p.why else []
        rules = [f"  rule {name}: {text}" for name, text in self.rules.items()]
        rules += [f"  {remark}" for remark in self.remarks]
        most = "at most " if any(parameter.condition for parameter in self.parameters) else ""
        size = "no end of" if self.size is None else f"{most}{self.size:,}"
        return [f"{size} combinations of {len(self.parameters)} parameters", *lines, *rules]

    def _tail(self) -> list[str]:
        trials = (
            f"{self.trials} trials ({self.finished} finished)" if self.trials else "trials as long as the hours last"
        )
        launches = "" if self.launches is None else f": {self.launches} launches"
        guess = " (a guess until a launch has been measured)" if self.guessed else ""
        expected = "" if self.expected_s is None else f", about {self.expected_s / 60:.0f} minutes{guess}"
        proof = f", up to {self.relaunches} of them for the proof" if self.relaunches else ""
        whole = f"{trials}{proof}{launches}{expected}"
        stops = (f"{name} is stopped for that time, and started again in the end" for name in self.stops)
        return [whole, *self.resolves, *self.checks_answers, *self.soaks, *stops, *self.differences]

    def _check_lines(self) -> list[str]:
        checked = [f"checked    {', '.join(self.checked)}"] if self.checked else []
        return [*checked, *(f"unchecked  {reason}" for reason in self.unchecked)]


def plan_of(config: Config, checks: Checks | None = None, differences: tuple[str, ...] = ()) -> StudyPlan:
    """The plan of a study, as far as it has come.

    Args:
        config: The study.
        checks: What was made sure of; ``None`` leaves it out of the plan.
        differences: In what the deployed service is not trial 0, a sentence each.
    """
    finished = _finished(config)
    relaunches = config.reserve
    launches = _launches(config, finished)
    measured_s = _measured_s(config)
    trial_s = measured_s or _GUESSED_TRIAL_S / config.engine.clock_scale
    checks_s = config.soak_s + _asking_s(config) if launches else 0.0
    by_trials = None if launches is None else launches * trial_s + checks_s
    by_hours = config.budget.hours * 3600 if config.budget.hours else None
    return StudyPlan(
        study=config.study.name,
        folder=str(config.study.path),
        model=config.model.id,
        hardware=config.hardware.name,
        launcher=_launcher(config),
        command=_command(config),
        env=config.model.env,
        objective=config.objective.name,
        goals=tuple(f"{way} {name}" for name, way in config.objective.goals.items()),
        limits=tuple(f"{name} {limit.said}" for name, limit in config.objective.limits.items()),
        workload=config.workload.name,
        search=config.search.kind,
        begins_with=_begins_with(config),
        parameters=tuple(_parameter(config, name) for name in config.space.params),
        rules=config.space.rules,
        remarks=config.space.remarks,
        size=config.space.size,
        trials=config.budget.trials,
        finished=finished,
        relaunches=relaunches,
        launches=launches,
        resolves=(*_no_time_left(config, trial_s), *_resolves(config)),
        checks_answers=_checks_answers(config),
        soaks=_soaks(config),
        expected_s=min((s for s in (by_trials, by_hours) if s is not None), default=None),
        guessed=measured_s is None and bool(by_trials),
        stops=config.site.stop,
        differences=differences,
        checked=checks.passed if checks else (),
        unchecked=checks.unchecked if checks else (),
        refused=tuple(map(str, checks.refused)) if checks else (),
    )


def _begins_with(config: Config) -> tuple[str, ...]:
    """What can be said of the sources; what cannot be read is refused by the checks."""
    with suppress(ConfigError):
        return tuple(map(told, sources_of(config)))
    return ()


def _no_time_left(config: Config, trial_s: float) -> tuple[str, ...]:
    """Said where the hours hold the proof and little else: the start would search nothing."""
    hours, reserve = config.budget.hours, config.reserve
    if hours is None or (reserve + 2) * trial_s + config.soak_s <= hours * 3600:
        return ()
    launches = f"{reserve} relaunches" if reserve else "two launches"
    minutes = ((reserve or 2) * trial_s + config.soak_s) / 60
    return (f"budget.hours={hours:g} leaves no time to search: {launches} may take {minutes:.1f} minutes",)


def hardly_decides(config: Config) -> str | None:
    """What is wrong with a proof of so few launches; ``None`` if nothing is."""
    most = config.study.confirm.max
    if not config.reserve or most >= FIRST_ALONE:
        return None
    return (
        f"study.confirm.max={most} will hardly decide anything: say {FIRST_ALONE} or more ({FIRST_LOOK} do where five "
        f"launches of the deployed configuration have shown the noise), or 0 to search only"
    )


def _resolves(config: Config) -> tuple[str, ...]:
    """The smallest gain and the margins that the proof can show, at the noise of this study or at a usual one."""
    most, so_far = config.study.confirm.max, _so_far(config)
    if not config.reserve:
        return ()
    readings = so_far.readings if so_far else None
    sentences = [f"the deployed configuration is launched again after every {config.study.control_every} launches"]
    if warning := hardly_decides(config):
        return (*sentences, warning)
    for kind, names in (("a gain in", config.objective.goals), ("a margin to the limit on", config.objective.limits)):
        for name in names:
            known = readings.scatter(name).noise if readings else None
            noise, of = (known.sd, "seen") if known else (_USUAL_NOISE, "if the noise is")
            shown, sd = words.percent(shown_by(most, noise)), words.percent(noise)
            sentences.append(
                f"{most} launches of each show {kind} {words.metric(name).short} from {shown} on ({of} {sd})"
            )
    return tuple(sentences)


def _asking_s(config: Config) -> float:
    """What all questions of a proof take, in seconds of wall time: a guess."""
    quality = config.quality
    in_turn = len(quality.asks()) / quality.concurrency if config.reserve else 0.0
    return _ASKED * in_turn * _GUESSED_QUESTION_S / config.engine.clock_scale


def _checks_answers(config: Config) -> tuple[str, ...]:
    asks = len(config.quality.asks())
    if not (config.reserve and asks):
        return _unchecked_answers(config)
    within = (
        f"{asks} questions ({config.quality.name}) after their load, about {words.rough(_asking_s(config) / _ASKED)}"
    )
    return (f"answers: two relaunches of the deployed configuration and one of a finalist are asked {within} each",)


def _unchecked_answers(config: Config) -> tuple[str, ...]:
    """Said where something is tried that may change answers."""
    space, lossy = config.space, kind_of(config.engine).hints.lossy
    risky = [name for name, each in space.params.items() if each.levels != 1 and space.target(name)[1] in lossy]
    if not risky:
        return ()
    return (f"answers: not checked, though {', '.join(risky)} may change them; quality=basic checks a winner's",)


def _soaks(config: Config) -> tuple[str, ...]:
    if not config.soak_s:
        return ()
    return (f"soak: the winner is launched once more, under load for up to {words.rough(config.soak_s)}",)


def _so_far(config: Config) -> Outcome | None:
    """What the study has found, by what is asked of it now; ``None`` before it was begun."""
    folder = StudyFolder(config.study.path)
    return replace(Outcome.of(folder), config=config) if folder.config.exists() else None


def _finished(config: Config) -> int:
    return len(so_far.launched) if (so_far := _so_far(config)) else 0


def _launches(config: Config, finished: int) -> int | None:
    """Those that are still to come; a space may hold fewer candidates than the budget pays for."""
    trials, known = config.budget.trials, _so_far(config)
    if known and known.over and known.confirmed:
        return 0
    if not config.space.params:
        return max(0, 1 - finished)
    if trials is None:
        return None
    search = trials - config.reserve
    most = search if config.space.size is None else min(search, config.space.size + 1)
    return max(0, most - finished) + max(0, config.reserve - (len(known.confirmations) if known else 0))


def _measured_s(config: Config) -> float | None:
    """What a launch of this study takes, by those that were made."""
    return Pace.of(so_far.records).launch_s if (so_far := _so_far(config)) else None


def _launcher(config: Config) -> str:
    launcher = config.launcher
    return f"{launcher.kind}: {launcher.where or ' '.join(config.engine.executable)}"


def _command(config: Config) -> tuple[str, ...]:
    if not config.launcher.starts_servers:
        return ()
    return make_engine(config).command(config.model.args, {}, None).argv


def _parameter(config: Config, name: str) -> PlannedParameter:
    parameter = config.space.params[name]
    kind, target = config.space.target(name)
    deployed = config.space.set_by(config.model.settings)
    return PlannedParameter(
        name=name,
        sets=f"--{target.replace('_', '-')}" if kind == "flag" else target,
        values=_values(parameter),
        condition=parameter.when,
        deployed=_said(deployed.get(name)),
        why=parameter.why,
        weight=kind_of(config.engine).hints.weights.get(target, 1.0),
    )


def _expected(weight: float) -> str:
    """What the search begins with, where that is not the usual."""
    return "" if weight == 1 else f" (weight {weight:g})"


def _values(parameter: Range | Choice) -> str:
    if isinstance(parameter, Choice):
        return "{" + ", ".join(_said(choice) for choice in parameter.choices) + "}"
    detail = parameter.scale if parameter.step is None else f"steps of {parameter.step}"
    return f"{parameter.low} … {parameter.high}, {detail}"


def _said(value: JsonValue) -> str:
    return words.value(value)
