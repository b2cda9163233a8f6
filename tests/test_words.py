"""How tuner says things to people."""

import shlex

import pytest

from tuner import words
from tuner.engines.causes import Cause
from tuner.engines.vllm.kind import VLLM
from tuner.load.metrics import METRICS
from tuner.space import Settings


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (18.34, "18.3"),
        (9.999, "10.0"),
        (146.8, "147"),
        (179_432, "179,000"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_digits(value, said):
    assert words.digits(value) == said


@pytest.mark.parametrize(
    ("share", "said"), [(0.2739, "+27.4%"), (-0.05, "−5.0%"), (0.0, "0.0%"), (0.0001, "0.0%"), (12.5, "+1250.0%")]
)
def test_changes_carry_their_sign_unless_they_are_none(share, said):
    assert words.percent(share, sign=True) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.001, "0 s"), (0.42, "0.420 s"), (9.96, "10 s"), (45, "45 s"), (163, "2 min 43 s"), (4320, "1 h 12 min")],
)
def test_durations_read_as_people_say_them(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_an_objective_has_a_name_and_a_unit(name):
    metric = words.metric(name)
    assert metric.unit
    assert metric.label != name


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.HEALTHY])
def test_every_cause_has_plain_words(cause):
    assert words.cause(cause) != cause.value.replace("_", " ")


def test_settings_are_said_as_a_command_line_and_an_environment_spell_them():
    settings = Settings(
        {"max_num_seqs": 8, "enforce_eager": False, "compilation_config.compile_sizes": [1, 2], "dtype": None},
        {"OMP_NUM_THREADS": "4", "GONE": None},
    )
    assert words.lines(settings, VLLM.conventions.switch) == {
        "max_num_seqs": "--max-num-seqs 8",
        "enforce_eager": "--no-enforce-eager",
        "compilation_config.compile_sizes": '--compilation-config {"compile_sizes": [1, 2]}',
        "OMP_NUM_THREADS": "OMP_NUM_THREADS=4",
    }


def test_a_command_line_has_a_flag_on_each_line_and_gives_the_same_arguments_to_a_shell():
    argv = ["vllm", "serve", "/models/a b", "--chat-template", "{{ x --y }}", "--flag", "--json", '{"a": "it\'s --b"}']
    said = words.command(argv)
    assert shlex.split(said.replace("\\\n", "")) == argv
    assert [line.split()[0] for line in said.splitlines()] == ["vllm", "--chat-template", "--flag", "--json"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("(EngineCore pid=7) ERROR 11-22 20:00:17 [core.py:1] ValueError: no", "ValueError: no"),
        ("ValueError: no", "ValueError: no"),
        ("", ""),
    ],
)
def test_a_line_can_be_said_without_what_its_logger_put_before_it(line, said):
    assert words.unprefixed(line) == said
