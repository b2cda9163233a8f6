"""What is wrong with a study over engines is said before anything starts, with its place and what to write."""

import pytest
import yaml

from tests.present import present
from tuner import composing
from tuner.contest.entrants import contest_of
from tuner.errors import ConfigError

CPU = ["experiment=engines-cpu", "engines.vllm.model.id=/models/glm-tiny", "engines.llamacpp.model.id=/models/a.gguf"]


def test_each_engine_has_its_own_model_space_and_deployment_under_one_budget():
    contest = present(contest_of([*CPU, "engines.vllm.model.args.max_num_seqs=16", "budget.trials=20"]))
    vllm, llamacpp = contest.entrants
    assert (vllm.name, llamacpp.name) == ("vllm", "llamacpp")
    assert vllm.config.study.name == "engines-cpu-vllm"
    assert vllm.config.model.args["max_num_seqs"] == 16
    assert llamacpp.config.model.args["parallel"] == 4
    assert set(vllm.config.space.params) != set(llamacpp.config.space.params)
    assert vllm.config.workload == llamacpp.config.workload
    assert contest.search_trials == 20 - 2 * 4
    assert vllm.config.reserve == 0


def test_engines_may_be_a_plain_list():
    vllm = ["engines.vllm.model=glm-tiny", "engines.vllm.model.id=/m", "engines.vllm.space=vllm-cpu"]
    llamacpp = ["model=gguf", "model.id=/a.gguf", "space=llamacpp-cpu"]
    common = ["workload=tiny", "hardware=cpu", "quality=none", "workload.concurrency=[1,5]", "study.name=both"]
    own = [f"engines.llamacpp.{each}" for each in llamacpp]
    named = present(contest_of(["engines=[vllm,llamacpp]", *common, *vllm, *own]))
    assert [each.config.study.name for each in named.entrants] == ["both-vllm", "both-llamacpp"]


def test_a_study_of_one_engine_is_none_of_several():
    assert contest_of(["experiment=demo"]) is None


def test_nobody_else_takes_several_engines_for_one():
    with pytest.raises(ConfigError, match="tuner study start"):
        composing.load([*CPU[:1], "model.id=/m"])


@pytest.mark.parametrize(
    ("overrides", "place", "said"),
    [
        (["engines=[vllm,llamacpp,sglang]"], "engines", "name two engines"),
        (["engines=[vllm]"], "engines", "name two engines"),
        (["engines=7"], "engines", "neither a list"),
        (["engines.sglang.model.id=/m"], "engines.sglang.model.id=/m", "name one of: vllm, llamacpp"),
        (["engines.llamacpp.model.id=null"], "engines.llamacpp", "model.id"),
        (["workload.concurrency=5"], "workload.concurrency", "[1,5]"),
        (["objective=latency"], "objective.goals", "each level"),
        (["engines.vllm.workload.requests=99"], "workload", "one for both"),
        (["budget.trials=11"], "budget.trials", "say 12 or more"),
        (["study.confirm=0"], "study.confirm.max", "without a proof"),
        (["engine=vllm"], "engine", "engines.vllm.engine"),
    ],
)
def test_a_mistake_is_named_with_its_place(overrides, place, said):
    with pytest.raises(ConfigError) as caught:
        contest_of([*CPU, *overrides])
    error = caught.value
    assert (error.place or "").startswith(place), error
    assert said in str(error)


def test_an_unknown_engine_is_named():
    with pytest.raises(ConfigError) as caught:
        contest_of(["engines=[nothing,vllm]", "engines.nothing.model.id=/m"])
    assert caught.value.place == "engines.nothing"
    assert "'engine/nothing'" in str(caught.value)


def test_engines_without_a_configuration_are_told_what_is_missing():
    with pytest.raises(ConfigError) as caught:
        contest_of(["engines=[vllm,llamacpp]"])
    assert (caught.value.place or "").startswith("engines.vllm")
    assert "model.id" in str(caught.value)


def test_engines_of_ones_own_experiment(tmp_path):
    (tmp_path / "experiment").mkdir()
    engines = {
        "vllm": ["model=glm-tiny", "model.id=/m", "space=vllm-cpu"],
        "llamacpp": ["model=gguf", "model.id=/a.gguf", "space=llamacpp-cpu"],
    }
    text = yaml.safe_dump({"engines": engines, "workload": {"concurrency": [1, 5]}}, sort_keys=False)
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    contest = present(contest_of(["experiment=mine", "hardware=cpu", "workload=tiny", "study.name=mine"], tmp_path))
    assert [each.config.model.id for each in contest.entrants] == ["/m", "/a.gguf"]
