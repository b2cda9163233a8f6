"""What every engine must do, as tests to inherit.

Subclass ``EngineContract`` in your own tests and override its fixtures; pytest then runs the whole contract against
your engine, as ``tests/engines/test_contract.py`` does for tuner's own.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from tuner.engines import registry
from tuner.engines.base import Command, Engine, StartupFacts
from tuner.engines.causes import Cause, Evidence, Fate
from tuner.engines.config import PHASE_LIMITS_S
from tuner.engines.effective import Status, Witness
from tuner.engines.explain import explain
from tuner.engines.foresight import Foresight, Premises, ServerStart
from tuner.engines.hardware import Hardware
from tuner.engines.kind import EngineKind
from tuner.errors import LaunchRejected
from tuner.space import Settings

_FATES = (Fate(running=True), Fate(), Fate(exit_code=1), Fate(exit_code=137), Fate(oom_killed=True))
_NO_GPU = Hardware("nothing is known of it", 0)


class EngineContract:
    """The contract of an engine, as ``tuner.engines.kind.EngineKind`` brings its parts together."""

    version: str | None = None
    """One whose flags the engine knows; ``None`` if it knows no flags."""

    @pytest.fixture
    def kind(self) -> EngineKind:
        """The kind under test, which is in the registry."""
        raise NotImplementedError("override the fixture `kind`")

    @pytest.fixture
    def settings(self) -> Settings:
        """What the engine takes: a number, a text, a flag that is switched on, one that is off, and a variable."""
        raise NotImplementedError("override the fixture `settings`")

    @pytest.fixture
    def served(self) -> Sequence[str]:
        """The log of a server that came up."""
        raise NotImplementedError("override the fixture `served`")

    @pytest.fixture
    def failed(self) -> Sequence[str]:
        """The log of a server that failed by its configuration."""
        raise NotImplementedError("override the fixture `failed`")

    @pytest.fixture
    def engine(self, kind: EngineKind) -> Engine:
        """The engine under test."""
        return kind.engine(("path/to/server", "serve"), "org/model")

    @pytest.fixture
    def foresight(self, kind: EngineKind, engine: Engine, tmp_path: Path) -> Foresight:
        """Its foresight where nothing but the version is known."""
        return kind.foresight(Premises(engine, engine.model, _NO_GPU, tmp_path, version=self.version))

    def test_the_registry_has_it_under_the_kind_of_its_configuration(self, kind: EngineKind) -> None:
        """``engine.kind`` in a configuration leads to this engine."""
        (name,) = [name for name, other in registry.ENGINES.items() if other is kind]
        config = kind.config.model_validate({"kind": name, "executable": ["x"]})
        assert registry.kind_of(config) is kind

    def test_a_degradation_that_it_does_not_have_is_refused(self, kind: EngineKind) -> None:
        """A policy for a misspelled degradation would never apply."""
        options = {"kind": kind.config.model_fields["kind"].default, "executable": ["x"]}
        for name in kind.config.known_degradations:
            assert kind.config.model_validate({**options, "degradations": {name: "warn"}})
        with pytest.raises(ValidationError, match="no such degradation: no_such_name"):
            kind.config.model_validate({**options, "degradations": {"no_such_name": "warn"}})

    def test_the_same_settings_give_the_same_command(self, engine: Engine, settings: Settings) -> None:
        """The command starts the executable, serves the model and leaves the address to the launcher."""
        command = _command(engine, settings, "an-alias")
        assert command == _command(engine, settings, "an-alias")
        assert command.argv[: len(engine.executable)] == engine.executable
        assert {"{host}", "{port}"} <= {part for word in command.argv for part in word.split("=")}
        assert any(engine.model in word for word in command.argv)
        assert command.env.items() >= settings.env.items()

    def test_the_alias_is_on_the_command_line_only_if_there_is_one(self, engine: Engine, settings: Settings) -> None:
        """By the alias a launch proves who it is."""
        assert any("an-alias" in word for word in _command(engine, settings, "an-alias").argv)
        assert not any("an-alias" in word for word in _command(engine, settings).argv)

    def test_null_leaves_a_flag_out(self, engine: Engine, settings: Settings) -> None:
        """The engine's own default applies."""
        unset = Settings({name: None for name in settings.args}, {})
        assert _command(engine, unset).argv == _command(engine, Settings({}, {})).argv

    def test_a_switch_is_written_as_its_conventions_say(
        self, kind: EngineKind, engine: Engine, settings: Settings
    ) -> None:
        """Reports spell flags as the command line does."""
        switches = {name: on for name, on in settings.args.items() if isinstance(on, bool)}
        assert set(switches.values()) == {True, False}
        for name, on in switches.items():
            alone, nothing = (_command(engine, Settings(args, {})).argv for args in ({name: on}, {}))
            assert [word for word in alone if word not in nothing] == shlex.split(kind.conventions.switch(name, on))

    def test_a_command_line_is_read_back(self, kind: EngineKind, engine: Engine, settings: Settings) -> None:
        """A deployed service is compared with trial 0 by what both command lines say."""
        command = _command(engine, settings)
        line = kind.conventions.read(command.argv, command.env)
        if line is None:
            pytest.skip("command lines of this engine are not read back: deployed services are not compared")
        assert line.model == engine.model
        read = {name: value for name, value in line.args.items() if name not in kind.conventions.trials_own}
        assert read == settings.args

    def test_a_command_of_another_program_is_not_read(self, kind: EngineKind) -> None:
        """A proxy before the server is not compared with it."""
        assert kind.conventions.read(("nginx", "-g", "daemon off;"), {}) is None

    def test_of_an_engine_without_known_flags_nothing_is_asked(self, engine: Engine) -> None:
        """A flag of tuner's own must never be what makes a launch fail."""
        assert not engine.launch_args(frozenset())
        assert all(isinstance(value, str) for value in engine.launch_env(600.0).values())

    def test_a_log_means_the_same_read_line_by_line(
        self, engine: Engine, served: Sequence[str], failed: Sequence[str]
    ) -> None:
        """What is decided while a server runs is what is said of its log afterwards."""
        for log in ((), served, failed):
            reader = engine.reader()
            for line in log:
                reader.read(line)
            for fate in _FATES:
                evidence = Evidence(log, fate.running, fate.exit_code, fate.oom_killed)
                assert reader.diagnose(fate) == engine.diagnose(evidence)

    def test_a_server_that_came_up_is_healthy(self, engine: Engine, served: Sequence[str]) -> None:
        """A degradation, where there is one, is not the diagnosis's to tell."""
        assert engine.diagnose(Evidence(served, running=True)).cause is Cause.HEALTHY

    def test_a_failure_has_a_cause_and_the_line_that_decides_it(self, engine: Engine, failed: Sequence[str]) -> None:
        """The line stands in the log as it is."""
        found = engine.diagnose(Evidence(failed, exit_code=1))
        assert found.cause not in (Cause.UNKNOWN, Cause.HEALTHY, Cause.DEGRADED)
        assert found.line in failed
        assert found.advice

    def test_of_an_empty_log_nothing_is_guessed(self, engine: Engine) -> None:
        """No line, no cause, no facts."""
        found = engine.diagnose(Evidence((), running=True))
        assert (found.cause, found.line) == (Cause.UNKNOWN, None)
        assert engine.facts(()) == StartupFacts()
        assert not engine.disturbs("")

    def test_no_line_that_announces_a_phase_is_left_out(self, engine: Engine, served: Sequence[str]) -> None:
        """See ``Engine.telling``."""
        told = engine.telling(served)
        assert list(told) == sorted(told)
        assert {place for place, line in enumerate(served) if engine.phase(line) or engine.disturbs(line)} <= set(told)

    def test_phases_that_a_log_announces_have_a_limit(self, engine: Engine, served: Sequence[str]) -> None:
        """A start is ended by its phase's longest silence."""
        assert {phase for line in served if (phase := engine.phase(line))} <= PHASE_LIMITS_S.keys()

    def test_degradations_have_names_that_a_configuration_can_speak_of(
        self, kind: EngineKind, engine: Engine, served: Sequence[str]
    ) -> None:
        """``engine.degradations`` has a word for each."""
        shown = {each.name for each in engine.facts(served).degradations}
        assert shown | set(engine.fallbacks.values()) <= kind.config.known_degradations

    def test_what_nothing_tells_of_is_not_said_to_be_honoured(self, engine: Engine, settings: Settings) -> None:
        """Each requested setting is unknown where the server says nothing."""
        became = engine.effective(settings, Witness(()))
        assert {each.name for each in became} == {*settings.args, *settings.env}
        assert {each.status for each in became} == {Status.UNKNOWN}

    def test_explain_recognises_its_logs(self, engine: Engine, failed: Sequence[str]) -> None:
        """A log without a configuration next to it is read by the engine that wrote it."""
        assert explain(failed, exit_code=1) == engine.diagnose(Evidence(failed, exit_code=1))

    def test_settings_that_the_engine_takes_are_let_through(self, foresight: Foresight, settings: Settings) -> None:
        """Where little is known, little is refused."""
        assert foresight.refused_flag(settings.args) is None
        assert foresight.refused(settings, self.version, _NO_GPU) is None

    def test_an_unknown_flag_is_refused_where_flags_are_known(self, foresight: Foresight) -> None:
        """Before a launch, and with what to do."""
        refused = foresight.refused_flag({"no_such_flag_of_any_engine": 1})
        if foresight.flags is None:
            assert refused is None
            return
        assert isinstance(refused, LaunchRejected)
        assert refused.cause == Cause.BAD_FLAG
        assert refused.fix

    def test_memory_of_which_nothing_is_known_rules_nothing_out(self, foresight: Foresight, settings: Settings) -> None:
        """Neither before a start nor after one whose log says nothing."""
        before = foresight.memory(self.version, _NO_GPU)
        for memory in (before, before.after([ServerStart(settings, StartupFacts())])):
            assert memory.shortage(settings) is None
            assert memory.fits(settings)

    def test_a_start_changes_no_earlier_prediction(self, foresight: Foresight, settings: Settings) -> None:
        """What was known before a trial can be asked for again after it."""
        before = foresight.memory(self.version, _NO_GPU)
        said = before.forecast(settings)
        before.after([ServerStart(settings, StartupFacts(total_gib=80.0, free_gib=79.0, weights_gib=10.0))])
        assert before.forecast(settings) == said

    def test_what_memory_depends_on_is_not_unrelated_to_it(self, foresight: Foresight) -> None:
        """A setting that needs more memory cannot be ignored when a failure is learned from."""
        assert not set(foresight.names.ordered) & foresight.names.unrelated
        assert len(set(foresight.names.ordered)) == len(foresight.names.ordered)


def _command(engine: Engine, settings: Settings, alias: str | None = None) -> Command:
    env = {name: value for name, value in settings.env.items() if value is not None}
    return engine.command(settings.args, env, alias)
