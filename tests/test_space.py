"""Parameters, conditions and rules make candidates."""

import pytest
from pydantic import ValidationError

from tuner.errors import ConfigError
from tuner.schema import config_error
from tuner.space import Candidate, Choice, Range, SearchSpace, Settings


def space(rules=None, **params):
    return SearchSpace.model_validate({"params": params, "rules": rules or {}})


CONDITIONAL = {
    "compile_sizes": {"flag": "compilation_config.compile_sizes", "choices": [None, [1, 2]]},
    "VLLM_TUNE": {"choices": [True, False], "when": "compile_sizes != null"},
}


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (Range(low=4, high=32, scale="pow2"), [4, 8, 16, 32]),
        (Range(low=0.8, high=0.96, step=0.04), [0.8, 0.84, 0.88, 0.92, 0.96]),
        (Range(low=1, high=4), [1, 2, 3, 4]),
        (Range(low=0, high=10, step=5), [0, 5, 10]),
        (Choice(choices=(16, 32)), [16, 32]),
        (Choice(choices=(None, [1, 2])), [None, [1, 2]]),
    ],
)
def test_levels_are_exactly_the_values(parameter, values):
    assert [parameter.value(level) for level in range(parameter.levels)] == values
    assert [parameter.level(value) for value in values] == list(range(len(values)))


def test_a_continuous_range_has_no_levels():
    assert Range(low=0.1, high=0.9).levels is None
    assert space(x={"low": 0.1, "high": 0.9}).size is None


def test_a_deployed_value_outside_of_the_range_counts_at_its_edge():
    assert Range(low=4, high=32, scale="pow2").level(100) == 3
    assert Range(low=0.8, high=0.9, step=0.01).level(0.5) == 0


@pytest.mark.parametrize(
    "raw",
    [
        {"low": 5, "high": 4},
        {"low": 3, "high": 8, "scale": "pow2"},
        {"low": 0, "high": 8, "scale": "log"},
        {"low": 1, "high": 8, "scale": "log", "step": 2},
        {"low": 1, "high": 8, "step": 0},
        {"low": 1, "high": 8, "scale": "cubic"},
        {"low": 1},
        {"choices": []},
        {"choices": [1, 1]},
        {"choices": [1], "flag": "a", "env": "B"},
        {"choices": [1], "low": 3},
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_by_name(raw):
    with pytest.raises(ValidationError, match="x") as refused:
        space(x=raw)
    assert "params.x" in str(config_error(refused.value, frozenset({"range", "choice"})))


def test_a_name_says_whether_it_is_a_flag_or_a_variable():
    parameters = {
        "max_num_seqs": {"choices": [1]},
        "OMP_NUM_THREADS": {"choices": [2]},
        "threads": {"env": "OMP", "choices": [3]},
        "sizes": {"flag": "compilation_config.compile_sizes", "choices": [[1]]},
        "SWITCH": {"choices": [True]},
    }
    settings = space(**parameters).settings(
        Candidate({"max_num_seqs": 1, "OMP_NUM_THREADS": 2, "threads": 3, "sizes": [1], "SWITCH": True})
    )
    assert settings == Settings(
        {"max_num_seqs": 1, "compilation_config.compile_sizes": [1]},
        {"OMP_NUM_THREADS": "2", "OMP": "3", "SWITCH": "1"},
    )


def test_a_conditional_parameter_is_left_out_where_it_does_not_act():
    conditional = space(**CONDITIONAL)
    assert conditional.candidate({"compile_sizes": None, "VLLM_TUNE": True}).params == {"compile_sizes": None}
    assert conditional.candidate({"VLLM_TUNE": True, "compile_sizes": [1, 2]}).params["VLLM_TUNE"] is True


def test_every_candidate_comes_once():
    candidates = list(space(**CONDITIONAL).all_candidates())
    assert [candidate.params for candidate in candidates] == [
        {"compile_sizes": None},
        {"compile_sizes": [1, 2], "VLLM_TUNE": True},
        {"compile_sizes": [1, 2], "VLLM_TUNE": False},
    ]


def test_equal_values_have_equal_digests_whatever_their_order():
    assert Candidate({"a": 1, "b": [2]}).digest == Candidate({"b": [2], "a": 1}).digest
    assert Candidate({"a": 1}).digest != Candidate({"a": 2}).digest


def test_conditions_may_chain_in_any_order_but_not_in_a_circle():
    chained = {
        "c": {"choices": [1], "when": "b == 1"},
        "b": {"choices": [1], "when": "a == 1"},
        "a": {"choices": [1, 2]},
    }
    assert set(space(**chained).candidate({"a": 1, "b": 1, "c": 1}).params) == {"a", "b", "c"}
    assert set(space(**chained).candidate({"a": 2, "b": 1, "c": 1}).params) == {"a"}
    with pytest.raises(ConfigError, match="depend on each other"):
        space(a={"choices": [1], "when": "b == 1"}, b={"choices": [1], "when": "a == 1"})


@pytest.mark.parametrize("when", ["nothing > 3", "1 > 0"])
def test_a_condition_that_names_nothing_is_refused_with_the_valid_names(when):
    with pytest.raises(ConfigError, match=r"space\.params\.x\.when.*\n.*y"):
        space(x={"choices": [1], "when": when}, y={"choices": [1]})


def test_rules_speak_of_parameters_and_of_the_deployment():
    ruled = space({"cover": "tokens >= seqs"}, tokens={"low": 1, "high": 64, "scale": "pow2"})
    ruled.check_rules(frozenset({"seqs"}))
    deployed = Settings({"seqs": 16})
    assert ruled.violated(Candidate({"tokens": 16}), deployed) is None
    broken = ruled.violated(Candidate({"tokens": 8}), deployed)
    assert broken is not None
    assert "cover" in broken.message
    assert "seqs=16" in broken.message
    with pytest.raises(ConfigError, match="seqs"):
        ruled.check_rules(frozenset())


def test_null_removes_a_parameter_and_a_rule():
    left = space({"a": "x > 0", "b": None}, x={"choices": [1]}, y=None)
    assert set(left.params) == {"x"}
    assert set(left.rules) == {"a"}


def test_the_deployment_is_a_candidate():
    deployed = Settings(
        {"max_num_seqs": 100, "compilation_config": {"compile_sizes": [1, 2]}, "other": 1}, {"VLLM_TUNE": "1"}
    )
    candidate = space(max_num_seqs={"low": 4, "high": 64, "scale": "pow2"}, absent={"choices": [1]}, **CONDITIONAL)
    assert candidate.deployed(deployed).params == {
        "max_num_seqs": 100,
        "absent": None,
        "compile_sizes": [1, 2],
        "VLLM_TUNE": True,
    }


def test_a_setting_left_to_the_engine_is_the_same_candidate_however_it_is_said():
    choices = space(a={"choices": [None, 1]}, b={"choices": [2, 3]})
    assert choices.deployed(Settings({"b": 2})).digest == choices.candidate({"a": None, "b": 2}).digest
    assert choices.settings(choices.candidate({"a": None, "b": 2})).args == {"a": None, "b": 2}


def test_a_deployed_value_that_is_no_choice_names_the_place():
    with pytest.raises(ConfigError, match=r"space\.params\.block_size.*128"):
        space(block_size={"choices": [16, 32]}).deployed(Settings({"block_size": 128}))


DEFAULTED = space(block_size={"choices": [16, 32], "default": 16}, seqs={"low": 4, "high": 64, "scale": "pow2"})


@pytest.mark.parametrize(
    ("asked", "deployed", "changes"),
    [
        (16, None, {}),
        (None, 16, {}),
        (32, None, {"block_size": 32}),
        (16, 32, {"block_size": 16}),
        (None, 32, {"block_size": None}),
    ],
)
def test_the_engines_default_and_nothing_at_all_are_the_same(asked, deployed, changes):
    assert DEFAULTED.changes({"block_size": asked, "seqs": 8}, {"block_size": deployed, "seqs": 8}) == changes


def test_what_says_only_what_the_engine_does_anyway_is_left_out():
    deployed = DEFAULTED.set_by(Settings({"seqs": 8}))
    plain = DEFAULTED.plain(Candidate({"block_size": 16, "seqs": 8}), deployed)
    assert plain.digest == DEFAULTED.deployed(Settings({"seqs": 8})).digest
    assert DEFAULTED.plain(Candidate({"block_size": 32, "seqs": 4}), deployed).params == {"block_size": 32, "seqs": 4}


def test_what_conditions_speak_of_stays_as_it_is():
    mode = {"choices": ["fast", "slow"], "default": "fast"}
    conditional = space(mode=mode, boost={"choices": [True, False], "when": "mode == 'fast'"})
    asked = conditional.candidate({"mode": "fast", "boost": True})
    assert conditional.plain(asked, {"mode": None, "boost": None}) == asked
