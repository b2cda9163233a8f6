"""What is composed is what was asked; every mistake ends with its place, its value and the valid ones."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tuner import composing
from tuner.catalog import groups
from tuner.errors import ConfigError
from tuner.study import resume

CASES = Path(__file__).parent / "conf"


def cases(kind):
    return [pytest.param(path, id=path.stem) for path in sorted((CASES / kind).glob("*.yaml"))]


def composed(path):
    case = yaml.safe_load(path.read_text())
    folder = path.parent / case["config_dir"] if "config_dir" in case else None
    return case, lambda: composing.load(case["overrides"], folder)


@pytest.mark.parametrize("path", cases("good"))
def test_a_good_configuration_gives_what_it_says(path):
    case, load = composed(path)
    tree = load().model_dump(mode="json")
    for key, value in case["gives"].items():
        found = tree
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        assert found == value, key


@pytest.mark.parametrize("path", cases("bad"))
def test_a_mistake_names_its_place_its_value_and_the_valid_ones(path):
    case, load = composed(path)
    with pytest.raises(ConfigError) as refused:
        load()
    for words in case["says"]:
        assert words in str(refused.value)


def test_the_command_line_says_it_without_a_traceback_and_exits_with_2():
    run = subprocess.run(
        [sys.executable, "-m", "tuner", "study", "start", "experiment=demo", "budget.trails=4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "did you mean 'trials'" in run.stderr
    assert "Traceback" not in run.stderr + run.stdout


NEEDED = {
    "objective.goodput": ["workload.slo.ttft_ms=800"],
    "objective.saturation": ["workload.slo.ttft_ms=800"],
    "launcher.attach": ["launcher.url=http://x"],
    "launcher.docker": ["launcher.image=x"],
    "launcher.docker-llamacpp": ["launcher.image=x"],
    "storage.url": ["storage.url=sqlite://"],
    "workload.replay": [f"workload.trace.file={Path(__file__).parent}/data/mooncake-sample.jsonl"],
}
"""What a choice leaves to the user."""


@pytest.mark.parametrize("group", [group for group in groups() if group.name != "experiment"], ids=lambda g: g.name)
def test_every_choice_of_every_group_composes(group):
    for choice in group.choices:
        given = ["experiment=demo", f"{group.name}={choice}", "model.id=x", *NEEDED.get(f"{group.name}.{choice}", ())]
        if group.name in ("model", "space", "launcher"):
            given.append("space=none")
        if group.name == "hardware":
            given.append("engine=vllm")
        assert composing.load(given)


def test_a_study_reads_its_own_configuration_back(tmp_path):
    asked = composing.load(["experiment=demo"])
    (tmp_path / "config.yaml").write_text(asked.to_yaml())
    assert composing.read(tmp_path / "config.yaml") == asked
    assert resume.changes(asked, composing.read(tmp_path / "config.yaml")) == ()


def test_a_resumed_study_says_what_changed_and_what_it_means():
    changed = ["budget.trials=40", "search=random", "host.max_steal=0.2"]
    old, new = (composing.load(["experiment=demo", *more]) for more in ([], changed))
    said = [str(change) for change in resume.changes(old, new)]
    assert said == [
        "budget.trials: 28 → 40 (the study runs until the new budget is used up)",
        "search.kind: auto → random (the next proposals come from the new search; it learns from all earlier trials)",
        "host.max_steal: 0.05 → 0.2 (applies from the next trial)",
    ]


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        ("space.params.block_size.choices=[16,32]", "these values"),
        ("space.params.max_num_seqs.high=128", "new range"),
        ("space.params.block_size=null", "stays as deployed"),
        ("space.params.max_num_seqs=null", "stays as deployed"),
        ("space.params.gpu_memory_utilization.step=0.02", "these values"),
    ],
)
def test_a_space_may_be_narrowed_in_the_middle_of_a_study(change, meaning):
    old, new = (composing.load(["experiment=demo", *more]) for more in ([], [change]))
    carried = resume.carried(old, new)
    assert meaning in " ".join(str(change) for change in resume.changes(old, carried))
    assert resume.changes(carried, resume.carried(carried, new)) == ()


@pytest.mark.parametrize(
    "change",
    [
        "space.params.block_size.choices=[16,32,128]",
        "space.params.x={choices: [1, 2]}",
        "space.params.gpu_memory_utilization.step=0.005",
    ],
)
def test_a_space_does_not_grow_by_choices_in_the_middle_of_a_study(change):
    old, new = (composing.load(["experiment=demo", *more]) for more in ([], [change]))
    with pytest.raises(ConfigError, match=r"space\.params"):
        resume.changes(old, resume.carried(old, new))


def test_a_study_from_before_prompts_were_text_is_resumed_with_words_only(tmp_path):
    new = composing.load(["experiment=demo"])
    kept = tmp_path / "config.yaml"
    kept.write_text(new.to_yaml().replace("  prompts: text\n", ""))
    old = composing.read(kept)
    with pytest.raises(ConfigError, match=r"workload\.prompts: words → text"):
        resume.changes(old, new)
    assert resume.changes(old, composing.load(["experiment=demo", "workload.prompts=words"])) == ()


def test_what_compiles_is_not_searched_where_the_engine_runs_eager():
    space = composing.load(["experiment=h100", "space.params.enforce_eager.choices=[false,true]"]).space
    values = {name: parameter.value(0) for name, parameter in space.params.items()} | {"compile_sizes": [1, 2, 4, 8]}
    eager, graphs = (set(space.candidate({**values, "enforce_eager": eager}).params) for eager in (True, False))
    assert graphs - eager == {
        "compile_sizes",
        "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE",
        "VLLM_ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING",
    }


@pytest.mark.parametrize(
    "given",
    [
        "model.id=null",
        "model.id=''",
        "model.id=' '",
        "model.args.served_model_name=[null]",
        "model.args.served_model_name=' '",
    ],
)
def test_a_model_has_a_name(given):
    with pytest.raises(ConfigError, match=r"^model\."):
        composing.load(["experiment=demo", given])


@pytest.mark.parametrize(
    "change", ["model.args.max_model_len=1000", "workload=tiny", "objective=latency", "hardware=sim-h100"]
)
def test_a_change_that_makes_trials_incomparable_is_refused(change):
    old = composing.load(["experiment=demo"])
    new = composing.load(["experiment=demo", change])
    with pytest.raises(ConfigError, match=r"(?s)begun with another.*study\.name"):
        resume.changes(old, new)


OUTSIDE = {"launcher.url": "http://127.0.0.1:1", "model.id": "${oc.env:PATH}"}


def test_a_model_name_from_a_server_is_data_whatever_it_is_called():
    assert composing.load(["experiment=bench"], measured=OUTSIDE).model.id == "${oc.env:PATH}"
    assert composing.load(["experiment=bench", "model.id=mine"], measured=OUTSIDE).model.id == "mine"


@pytest.mark.parametrize("key", ["model.env.X", "launcher.env.X", "study.name", "workload.name", "engine.launch_env.X"])
def test_the_environment_is_not_interpolated_into_settings(key, monkeypatch):
    monkeypatch.setenv("TOKEN", "hush-hush-4711")
    with pytest.raises(ConfigError, match=r"secrets\.trial") as refused:
        composing.load(["experiment=demo", f"{key}=${{oc.env:TOKEN}}"])
    assert refused.value.place == key
    assert "hush" not in str(refused.value)


def test_where_secrets_are_read_from_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("WHERE", "/srv")
    assert str(composing.load(["experiment=demo", "secrets.file=${oc.env:WHERE}/.env"]).secrets.file) == "/srv/.env"


def test_a_folder_of_groups_may_have_any_name_that_the_grammar_could_read_otherwise(tmp_path):
    folder = tmp_path / "a, b=[c] {d}"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "mine.yaml").write_text("id: mine\n")
    assert composing.load(["experiment=demo", "model=mine", "space=none"], folder).model.id == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5", "holds '5' instead of keys"),
        ("[1, 2]", "holds a list instead of keys"),
        ("name: {null: 1}", "has a key without a name"),
        ("defaults: 5", "defaults: '5' is no name"),
        ("defaults: [tiny, 1.5]", "defaults: '1.5' is no name"),
        ("defaults: [[tiny]]", "is no name"),
        ("defaults: [{a: b, c: d}]", "is no name"),
        ("defaults: [own, _self_]", "own inherits itself"),
    ],
)
def test_a_file_of_the_users_own_that_is_no_configuration_is_named(text, said, tmp_path):
    file = tmp_path / "workload" / "own.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        composing.load(["experiment=demo", "workload=own"], tmp_path)
    assert said in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("text", ["name: [1]", "defaults: null", "concurrency: many\ndefaults: [tiny, _self_]"])
def test_a_mistake_in_a_file_of_the_users_own_says_where_it_may_be(text, tmp_path):
    file = tmp_path / "workload" / "own.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        composing.load(["experiment=demo", "workload=own"], tmp_path)
    assert str(file) in caught.value.fix


def mistake(*overrides):
    with pytest.raises(ConfigError) as caught:
        composing.load(overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("budget.hours=inf", "budget.hours"),
        ("model.args.rope_theta=nan", "model.args.rope_theta"),
        ("+space.params.max_num_seqs={choices: [1, nan]}", "space.params.max_num_seqs.choices.1"),
    ],
)
def test_what_is_no_number_is_refused_wherever_it_stands(override, place):
    assert f"{place}: " in mistake("experiment=demo", override)


def test_an_engine_without_a_program_is_refused():
    assert "engine.executable: " in mistake("experiment=demo", "engine.executable=[]")


def test_a_value_as_long_as_a_file_is_not_repeated_as_a_whole():
    said = mistake("experiment=demo", f"study.seed={'x' * 100_000}")
    assert "study.seed" in said
    assert len(said) < 1_000
