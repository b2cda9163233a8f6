"""The presets for lent H200s: what they may try, and a study in portions on machines of its own."""

import tarfile

import pytest

from tests.fast import FAST
from tests.study.test_study import run
from tuner import composing
from tuner.records.record import Role
from tuner.space import Choice

SIMULATED = [
    *("experiment=h200", "engine=sim", "hardware=sim-h100"),
    *(override for override in FAST if override.partition("=")[0] not in ("experiment", "study.name", "budget.trials")),
    "model.known_good=[{cudagraph_capture_sizes: [1, 2, 3, 4, 5, 6, 7, 8], compile_sizes: [8]}]",
    "workload.min_duration_s=0",
    "budget.trials=2",
]


def test_every_size_that_is_compiled_has_a_graph_of_its_own():
    params = composing.load(["experiment=h200"]).space.params
    captured, compiled = (_sizes(params[name]) for name in ("cudagraph_capture_sizes", "compile_sizes"))
    assert captured
    assert compiled
    assert all(sizes <= graphs for sizes in compiled for graphs in captured)


def _sizes(parameter):
    return [set(sizes) for sizes in parameter.choices if sizes]


@pytest.mark.parametrize(("tensor", "data", "allowed"), [(2, 1, True), (1, 2, True), (1, 1, False), (2, 2, False)])
def test_two_cards_are_both_used_in_every_layout(tensor, data, allowed):
    asked = composing.load(["experiment=h200x2"])
    deployed = asked.space.deployed(asked.model.settings)
    layout = asked.space.candidate({**deployed.params, "tensor_parallel_size": tensor, "data_parallel_size": data})
    assert (asked.space.violated(layout, asked.model.settings) is None) == allowed
    assert asked.hardware.gpus == (0, 1)


def test_a_study_in_portions_is_resumed_where_its_folder_is_brought(tmp_path):
    here, there = (f"study.folder={tmp_path}/{place}" for place in ("here", "there"))
    asked = (*SIMULATED, f"engine.launch_args.sim_compile_cache={tmp_path}/cache")
    first, _ = run(composing.load([*asked, here, "budget.run_minutes=0.001"]))
    with tarfile.open(tmp_path / "study.tar", "w") as tar:
        tar.add(tmp_path / "here" / "h200", arcname="h200")
    with tarfile.open(tmp_path / "study.tar") as tar:
        tar.extractall(tmp_path / "there", filter="data")
    whole, _ = run(composing.load([*asked, there]))
    assert [record.role for record in first.searched] == [Role.BASELINE]
    assert [record.role for record in whole.searched] == [Role.BASELINE, Role.KNOWN_GOOD]
    assert whole.searched[1].measurement
    assert '"compile_sizes":[8]' in " ".join(whole.searched[1].argv)


def test_two_cards_may_also_share_the_layers():
    asked = composing.load(["experiment=h200x2"])
    deployed = asked.space.deployed(asked.model.settings)
    stages = {"tensor_parallel_size": 1, "pipeline_parallel_size": 2}
    assert asked.space.violated(asked.space.candidate({**deployed.params, **stages}), asked.model.settings) is None


@pytest.mark.parametrize("experiment", ["h100", "h200", "h200x2"])
def test_large_cards_try_backends_modes_of_graphs_and_vllms_own_presets(experiment):
    params = composing.load([f"experiment={experiment}"]).space.params
    backends = params["attention_backend"]
    assert isinstance(backends, Choice)
    assert backends.choices == (None, "FLASHMLA", "TRITON_MLA")
    assert {"cudagraph_mode", "performance_mode"} <= set(params)
