"""The persisted Optuna study: what people and their dashboards see of the records."""

import json
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import JsonValue

from tuner.config import Config
from tuner.dashboard import artifacts, notes
from tuner.dashboard import keys as dashboard_keys
from tuner.dashboard.storage import optuna_storage
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.space import Candidate, Choice

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


class Ledger:
    """The persisted Optuna study: what a person sees in the dashboard."""

    def __init__(self, config: Config, folder: StudyFolder) -> None:
        import optuna
        from optuna_dashboard import save_note  # a second or two, and better here than in the middle of the first trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._save_note = save_note
        self._space = config.space
        self._deployed = config.space.deployed(config.model.settings)
        self._study = optuna.create_study(
            storage=optuna_storage(folder, config.storage.url),
            study_name=config.study.name,
            directions=list(config.objective.goals.values()),
            sampler=optuna.samplers.RandomSampler(seed=config.study.seed),
            load_if_exists=True,
        )
        self.storage = self._study._storage
        self.study_id = self._study._study_id
        self._earlier = {
            name: distribution
            for trial in self._study.get_trials(deepcopy=False)
            for name, distribution in trial.distributions.items()
        }
        self._folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(config.objective.goals))
        self._open: dict[int, optuna.Trial] = {}

    def reconcile(self, records: list[TrialRecord]) -> None:
        """Close what an earlier run left open: a trial with a record is told, one without has failed."""
        from optuna.trial import Trial, TrialState

        by_number = {record.number: record for record in records}
        for frozen in self._study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
            if frozen.state is TrialState.WAITING:
                self._study.ask()
            self._open[frozen.number] = Trial(self._study, frozen._trial_id)
            if frozen.number in by_number:
                self.end(by_number[frozen.number])
            else:
                self._close(frozen.number, TrialState.FAIL, cause="interrupted")

    def catch_up(self, records: Sequence[TrialRecord]) -> None:
        """Tell of trials that the storage has lost or never had: it can always be made anew from the records."""
        from optuna.trial import TrialState

        known = len(self._study.get_trials(deepcopy=False))
        for record in (record for record in records if record.number >= known):
            while (number := self.begin(Candidate(record.params))) < record.number:
                self._close(number, TrialState.FAIL, cause="lost")
            self.end(record)

    def begin(self, candidate: Candidate) -> int:
        """Open a trial with the candidate's parameters; returns its number."""
        import optuna

        acting = {name: value for name, value in candidate.params.items() if self._space.params[name].accepts(value)}
        distributions = {name: self._distribution(name) for name in acting}
        shown = {
            name: text
            for name, value in acting.items()
            if _takes(distributions[name], text := self._shown(name, value))
        }
        distributions = {name: distributions[name] for name in shown}
        with warnings.catch_warnings():
            # the deployment may run a value outside of the range that is searched
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.enqueue_trial(shown)
            trial = self._study.ask(distributions)
        self._open[trial.number] = trial
        return trial.number

    def end(self, record: TrialRecord) -> None:
        """Tell what became of a trial."""
        from optuna.trial import TrialState

        state = TrialState[record.state.name.replace("FAILED", "FAIL")]
        trial = self._open[record.number]
        for path in artifacts.of_a_trial(self._folder, record):
            self.storage.set_trial_system_attr(trial._trial_id, *artifacts.attribute(path))
        if record.verdict:
            for name, violation in record.verdict.violations.items():
                trial.set_constraint(name, violation)
            violations = record.verdict.violations.values()
            self.storage.set_trial_system_attr(trial._trial_id, *dashboard_keys.constraints(violations))
        values = record.verdict.values if record.verdict else None
        self._close(record.number, state, values, **notes.trial_facts(record))

    def annotate(self, outcome: Outcome, fresh: Sequence[TrialRecord]) -> None:
        """Write what people read in addition to the numbers: the study's note and those of trials that are over.

        Args:
            outcome: The study as it stands.
            fresh: The trials whose notes are to be written.
        """
        from optuna.trial import Trial

        self._save_note(self._study, notes.study_note(outcome))
        for name, text in notes.study_facts(outcome).items():
            self._study.set_user_attr(name, text)
        for record in fresh:
            trial = Trial(self._study, self._id_of(record))
            self._save_note(trial, notes.trial_note(outcome, record))
        for name in artifacts.OF_A_STUDY:
            if (outcome.folder.path / name).exists():
                self.storage.set_study_system_attr(self.study_id, *artifacts.attribute(name))

    def unannotated(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials that have no note, because a run was killed before it could write one."""
        noted = self.storage.get_study_system_attrs(self.study_id)
        return [record for record in records if not dashboard_keys.has_note(noted, self._id_of(record))]

    def _id_of(self, record: TrialRecord) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, record.number)

    def _close(
        self,
        number: int,
        state: "optuna.trial.TrialState",
        values: tuple[float, ...] | None = None,
        **facts: JsonValue,
    ) -> None:
        trial = self._open.pop(number)
        for name, value in facts.items():
            if value is not None:
                trial.set_user_attr(name, value)
        self._study.tell(trial, list(values) if values else None, state)

    def _distribution(self, name: str) -> "BaseDistribution":
        """How a person wants to see the parameter: its own values, on its own scale."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        parameter = self._space.params[name]
        if isinstance(parameter, Choice) and name in self._earlier:
            return self._earlier[name]  # Optuna keeps a study's choices as they began, also where they were narrowed
        if isinstance(parameter, Choice):
            return CategoricalDistribution([_label(choice) for choice in parameter.choices])
        ratio = parameter.scale != "linear"
        if parameter.integral:
            return IntDistribution(int(parameter.low), int(parameter.high), log=ratio)
        return FloatDistribution(float(parameter.low), float(parameter.high), log=ratio)

    def _shown(self, name: str, value: JsonValue) -> bool | int | float | str | None:
        return _label(value) if isinstance(self._space.params[name], Choice) else value  # type: ignore[return-value]


def forget(config: Config, folder: StudyFolder) -> None:
    """Remove a study from a storage of its own; the one in its folder goes with the folder."""
    import optuna

    if config.storage.url:
        with suppress(KeyError):  # it was never there
            optuna.delete_study(study_name=config.study.name, storage=optuna_storage(folder, config.storage.url))


def _takes(distribution: "BaseDistribution", value: bool | int | float | str | None) -> bool:
    """Whether Optuna can keep it: a deployment may run anything, such as 0 on a scale of ratios."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return False
    ratio = isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log
    return value > 0 or not ratio


def _label(value: JsonValue) -> bool | int | float | str | None:
    """A choice as Optuna can keep it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value
