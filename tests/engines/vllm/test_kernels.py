"""Which file of tuned kernels a launch needs is known before it, and what it made of the folder after it."""

from dataclasses import replace

import pytest

from tests.engines.vllm.real import AWQ, GLM, H100
from tuner import composing
from tuner.engines.effective import Status, Witness
from tuner.engines.vllm.effective import effective
from tuner.engines.vllm.kernels import VARIABLE, KernelFile, kernel_file
from tuner.engines.vllm.memory.demand import demand_of, release
from tuner.engines.vllm.model.architecture import find, of_mapping
from tuner.engines.vllm.rules import PlannedLaunch, refused
from tuner.errors import ConfigError
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.space import Settings
from tuner.study.checks import check_kernels

CARD = replace(H100, gpus=8, device_name="NVIDIA H100 80GB HBM3")
GLM_FILE = "E=64,N=1536,device_name=NVIDIA_H100_80GB_HBM3.json"


def file_of(args=None, model=GLM, card=CARD):
    architecture = of_mapping("m", "test", model) if isinstance(model, dict) else find(model)
    demand = demand_of(Settings(args or {}), card, release("0.26.0"), architecture)
    return kernel_file(architecture, demand, card.device_name)


EXPERTS = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "vocab_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 512,
    "max_position_embeddings": 8192,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "model_type": "qwen3_moe",
}
FP8 = {**EXPERTS, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}


@pytest.mark.parametrize(
    ("args", "model", "name"),
    [
        ({}, GLM, GLM_FILE),
        ({"tensor_parallel_size": 2}, GLM, "E=64,N=768,device_name=NVIDIA_H100_80GB_HBM3.json"),
        ({"tensor_parallel_size": 2, "enable_expert_parallel": True}, GLM,
         "E=32,N=1536,device_name=NVIDIA_H100_80GB_HBM3.json"),
        ({"data_parallel_size": 4}, EXPERTS, "E=128,N=192,device_name=NVIDIA_H100_80GB_HBM3.json"),
        ({}, FP8, "E=128,N=768,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8,block_shape=[128,128].json"),
    ],
)  # fmt: skip
def test_a_file_is_named_after_the_experts_of_a_rank_the_card_and_the_weights(args, model, name):
    assert file_of(args, model) == KernelFile(name)


def test_one_file_serves_all_h200_and_what_is_not_known_matches_anything(tmp_path):
    assert file_of(card=replace(CARD, device_name="NVIDIA H200 NVL")).name.endswith("device_name=NVIDIA_H200.json")
    (tmp_path / GLM_FILE).touch()
    unknown = file_of(card=replace(CARD, device_name=None))
    assert unknown == KernelFile("E=64,N=1536,device_name=*.json")
    assert unknown.is_in(tmp_path)


def test_no_kernel_of_4_bit_weights_or_of_a_dense_model_reads_one():
    assert file_of(model=AWQ) is None
    assert file_of(model={**EXPERTS, "num_experts": None, "model_type": "llama"}) is None


def refusal(folder, args=None, card=CARD):
    settings, model = Settings(args or {}, {VARIABLE: str(folder)}), find(GLM)
    return refused(PlannedLaunch(settings, demand_of(settings, card, release("0.26.0"), model), model, card))


def test_a_layout_for_which_the_folder_has_no_file_is_refused_with_its_name(tmp_path):
    (tmp_path / GLM_FILE).touch()
    assert refusal(tmp_path) is None
    error = refusal(tmp_path, {"tensor_parallel_size": 2})
    assert "has no E=64,N=768,device_name=NVIDIA_H100_80GB_HBM3.json" in error.message
    assert "benchmark_moe.py" in error.fix
    assert "NVIDIA_A100" in refusal(tmp_path, card=replace(CARD, device_name="NVIDIA A100")).message
    assert refusal("/a/folder/inside/an/image") is None


def space(*overrides):
    asked = ["model.id=zai-org/GLM-4.7-Flash", "engine.version=0.26.0", "hardware=h100", *overrides]
    return composing.load(asked).space


def test_a_folder_that_is_named_is_a_switch_where_it_has_a_file(tmp_path):
    remark = f"{VARIABLE} is left out: "
    assert f"{remark}engine.tuned_kernels names no folder of kernels that were tuned for its experts" in space().remarks
    named = f"engine.tuned_kernels={tmp_path}"
    assert f"{remark}{tmp_path} has no E=64,N=1536,device_name=*.json" in space(named).remarks
    (tmp_path / GLM_FILE).touch()
    assert space(named).params[VARIABLE].choices == (None, str(tmp_path))
    other = space(named, "hardware.gpu.device_name=NVIDIA L40S")
    assert VARIABLE not in other.params


def test_a_folder_that_is_not_there_is_named_by_plan_and_start(tmp_path):
    config = composing.load(["experiment=h100", f"engine.tuned_kernels={tmp_path}/none"])
    with pytest.raises(ConfigError, match="is no folder"):
        list(check_kernels(config))


def test_containers_see_the_folder_under_its_own_name(tmp_path):
    options = DockerLauncherConfig(kind="docker", image="vllm")
    assert options.sharing(None) is options
    (bind,) = options.sharing(tmp_path).binds
    assert (str(bind.source), bind.target, bind.read_only) == (str(tmp_path), str(tmp_path), True)
    mounted = options.model_copy(update={"mounts": (f"{tmp_path}:{tmp_path}",)})
    assert mounted.sharing(tmp_path / "kernels") is mounted


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (f"INFO [fused_moe.py:1] Using configuration from /tuned/{GLM_FILE} for MoE layer.", Status.HONOURED),
        (f"INFO [fused_moe.py:1] Using configuration from /opt/vllm/{GLM_FILE} for MoE layer.", Status.OVERRIDDEN),
        ("WARNING [a] Using default MoE config. Performance might be sub-optimal! Config file", Status.NO_EFFECT),
        ("INFO [a] hello", Status.UNKNOWN),
    ],
)
def test_the_log_says_whether_the_folders_file_was_taken(said, status):
    (seen,) = effective(Settings({}, {VARIABLE: "/tuned"}), Witness([said]))
    assert seen.status is status
