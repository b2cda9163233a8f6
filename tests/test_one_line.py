"""Studies of one line: eight public models on five cards, as a person reads them in ``--dry-run``.

``tests/data/one-line/MODEL.txt`` holds what each prints; ``TUNER_RENEW=1 pytest tests/test_one_line.py`` writes them
anew, and ``git diff`` shows what changed.
"""

import json
import os
from pathlib import Path

import pytest

from tests.present import present
from tuner import composing
from tuner.engines.foresight import Foresight, Question
from tuner.engines.hardware import Hardware
from tuner.errors import ConfigError
from tuner.foresight.preflight import Preflight, ground_of, impossible
from tuner.load.workload import Workload
from tuner.premises import make_engine
from tuner.site.placements import placements_of, table
from tuner.space import Settings
from tuner.study.plan import plan_of

DATA = Path(__file__).parent / "data"
CONFIGS = {model["name"]: model["config"] for model in json.loads((DATA / "models.json").read_text("utf-8"))}
MODELS = [
    *("Qwen3-8B", "Llama-3.3-70B", "Qwen2.5-72B-AWQ", "Qwen3-30B-A3B-FP8"),
    *("DeepSeek-V2-Lite", "gpt-oss-120b", "Qwen3-Next-80B-A3B", "Gemma-3-27B"),
]
CARDS = [
    ["hardware=rtx4090x2", "hardware.gpu.total_gib=23.52"],
    *(["hardware=l40s"], ["hardware=h100"], ["hardware=h200x2"], ["hardware=h100x8"]),
]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The models' configurations where a Hugging Face cache has them."""
    for name, config in CONFIGS.items():
        folder = tmp_path / f"models--public--{name}" / "snapshots" / "1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # neither vLLM nor a driver
    return tmp_path


def study(model, *overrides):
    return composing.load([f"model.id=public/{model}", "engine.version=0.26.0", *overrides])


def check(asked):
    """Neither a parameter without any valid value nor a trial 0 that is ruled out, unless that is said."""
    ground = ground_of(asked, make_engine(asked))
    assert impossible(ground) is None
    if not any("predicted not to fit on these" in remark for remark in asked.space.remarks):
        assert Preflight(ground, ()).check(asked.space.deployed(asked.model.settings)) is None


def shown(model, card):
    """What ``--dry-run`` prints of the model, the space and trial 0."""
    asked = study(model, *card)
    check(asked)
    head, space, _ = plan_of(asked).text.split("\n\n")
    return f"== {' '.join(card)}\n{head}\n{space}\n"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("model", MODELS)
def test_a_study_of_one_line_reads_as_it_did(model):
    path = DATA / "one-line" / f"{model}.txt"
    found = "\n".join(shown(model, card) for card in CARDS)
    if os.environ.get("TUNER_RENEW"):
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8")


@pytest.mark.usefixtures("hub")
def test_only_what_can_act_is_tried():
    dense, experts = study("Qwen3-8B", "hardware=h200x2"), study("Qwen3-30B-A3B", "hardware=h200x2")
    quantized = study("Qwen2.5-72B-AWQ", "hardware=h100")
    assert not {"enable_expert_parallel", "VLLM_MARLIN_USE_ATOMIC_ADD"} & set(dense.space.params)
    assert "enable_expert_parallel" in experts.space.params
    assert "VLLM_MARLIN_USE_ATOMIC_ADD" in quantized.space.params
    assert "enable_expert_parallel" not in study("Qwen3-30B-A3B", "hardware=h100").space.params
    assert all(parameter.why for parameter in experts.space.params.values())
    assert experts.model.args == {"tensor_parallel_size": 2}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("unchecked", ["quality=none", "study.confirm=0"])
def test_what_may_change_answers_is_tried_only_where_they_are_checked(unchecked):
    lossy = {"kv_cache_dtype", "speculative_config"}
    assert lossy <= set(study("Qwen3-8B", "hardware=h100").space.params)
    space = study("Qwen3-8B", "hardware=h100", unchecked).space
    assert not lossy & set(space.params)
    assert sum("this study does not check them" in remark for remark in space.remarks) == 2
    asked = study("Qwen3-8B", "hardware=h100", unchecked, "space.params.kv_cache_dtype={choices: [auto, fp8]}")
    assert "answers: not checked, though kv_cache_dtype may change them" in plan_of(asked).text


def glm(*overrides):
    return composing.load(["model.id=zai-org/GLM-4.7-Flash", "engine.version=0.26.0", *overrides])


def drafts(*overrides):
    choices = glm(*overrides).space.params["speculative_config"].choices
    return [choice["method"] for choice in choices if choice]


def test_a_models_own_layer_drafts_where_its_weights_are_not_in_four_bits():
    assert drafts("hardware=h200") == ["ngram", "mtp", "mtp"]
    assert drafts("hardware=h200", "model.id=QuantTrio/GLM-4.7-Flash-AWQ") == ["ngram"]


@pytest.mark.usefixtures("hub")
def test_a_cache_type_that_vllm_refuses_is_left_out_with_its_words():
    ada = ["hardware=rtx4090x2", "hardware.gpu.total_gib=23.52"]
    assert "kv_cache_dtype" in study("DeepSeek-V2-Lite", *ada).space.params
    old = study("DeepSeek-V2-Lite", *ada, "engine.version=0.15.0").space
    assert "kv_cache_dtype" not in old.params
    assert "kv_cache_dtype is left out: TritonMLA V1 with FP8 KV cache not yet supported" in old.remarks


def backends(model, *overrides):
    parameter = study(model, *overrides).space.params.get("attention_backend")
    return None if parameter is None else (parameter.env, parameter.choices)


@pytest.mark.usefixtures("hub")
def test_attention_backends_are_tried_where_two_can_run():
    dense = (None, "FLASHINFER", "TRITON_ATTN")
    assert backends("Qwen3-8B", "hardware=h100") == (None, dense)
    assert backends("DeepSeek-V2-Lite", "hardware=h100") == (None, (None, "FLASHMLA", "TRITON_MLA"))
    assert backends("DeepSeek-V2-Lite", "hardware=l40s") is None
    assert backends("gpt-oss-120b", "hardware=h100x8") == (None, (None, "TRITON_ATTN"))
    assert backends("Qwen3-8B", "hardware=h100", "engine.version=0.11.2") == ("VLLM_ATTENTION_BACKEND", dense)
    assert backends("Qwen3-8B", "hardware=h100", "engine.version=0.10.2") is None
    left_out = study("DeepSeek-V2-Lite", "hardware=l40s").space.remarks
    assert "attention_backend is left out: no other than TRITON_MLA runs here" in left_out


@pytest.mark.usefixtures("hub")
def test_a_deployed_backend_is_kept_among_those_that_are_tried():
    said = ["model.args.attention_backend=FLEX_ATTENTION", "workload.tool_call=false"]
    assert backends("Qwen3-8B", "hardware=h100", *said)[1][-1] == "FLEX_ATTENTION"
    nested = ["+model.args.attention_config={flash_attn_version: 2}", "workload.tool_call=false"]
    assert backends("Qwen3-8B", "hardware=h100", *nested) is None


@pytest.mark.usefixtures("hub")
def test_only_flags_of_the_version_are_tried():
    old = study("Qwen3-8B", "hardware=h100", "engine.version=0.10.2").space
    assert "async_scheduling" in old.params
    assert "compile_sizes" not in old.params
    assert "async_scheduling" not in study("Qwen3-8B", "hardware=h100").space.params


@pytest.mark.usefixtures("hub")
def test_the_user_narrows_and_widens_what_is_proposed():
    space = study(
        *("Qwen3-8B", "hardware=h100", "space.params.max_num_seqs.choices=[8,32]", "space.params.compile_sizes=null"),
        *("space.params.max_num_batched_tokens.high=4096", "space.params.stream_interval={choices: [1, 4]}"),
    ).space
    assert space.params["max_num_seqs"].choices == (8, 32)
    tokens = space.params["max_num_batched_tokens"]
    assert (tokens.value(0), tokens.levels) == (1024, 3)
    assert space.params["stream_interval"].choices == (1, 4)
    gone = {"compile_sizes", "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE"}
    assert not gone & set(space.params)
    assert "tokens_cover_sequences" in space.rules
    assert not study("Qwen3-8B", "hardware=h100", "space.params.max_num_seqs=null").space.rules


@pytest.mark.usefixtures("hub")
def test_a_users_own_space_file_stands_on_the_proposal(tmp_path):
    own = tmp_path / "mine" / "space" / "few.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [auto, _self_]\nparams: {block_size: null, max_num_seqs: {high: 64}}\n")
    asked = ["model.id=public/Qwen3-8B", "engine.version=0.26.0", "hardware=h100", "space=few"]
    space = composing.load(asked, tmp_path / "mine").space
    assert space.params["max_num_seqs"].value(present(space.params["max_num_seqs"].levels) - 1) == 64
    assert "block_size" not in space.params
    assert "max_num_batched_tokens" in space.params


@pytest.mark.usefixtures("hub")
def test_a_deployed_value_stays_possible_and_its_layout_is_kept():
    deployed = {"block_size": 128, "tensor_parallel_size": 1, "data_parallel_size": 1}
    args = [f"model.args.{name}={value}" for name, value in deployed.items()]
    asked = study("Qwen3-8B", "hardware=h200x2", "workload.tool_call=false", *args)
    assert asked.model.args == deployed
    assert 128 in asked.space.params["block_size"].choices
    assert "trial 0 uses 1 of 2 GPUs" in asked.space.remarks


@pytest.mark.usefixtures("hub")
def test_of_an_unknown_model_only_what_needs_no_knowledge_is_tried():
    space = study("Nothing", "hardware=h200x2").space
    assert any("neither this disk nor the hub tells what the model is" in remark for remark in space.remarks)
    assert {"max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization"} <= set(space.params)
    assert not {"tensor_parallel_size", "enable_expert_parallel", "block_size"} & set(space.params)


@pytest.mark.usefixtures("hub")
def test_without_a_driver_a_study_is_one_of_the_cpu():
    asked = study("Qwen3-8B")
    assert asked.hardware.name == "CPU (no GPU driver answers)"
    assert asked.gpus == ()
    assert set(asked.space.params) == {"max_num_seqs", "max_num_batched_tokens"}
    assert asked.study.name == "Qwen3-8B"
    assert "asks about cards that are not here" in table(asked, placements_of(asked))


def test_without_a_model_the_error_says_what_to_write():
    with pytest.raises(ConfigError, match=r"model\.id=VALUE"):
        composing.load([])


@pytest.mark.usefixtures("hub")
def test_will_it_fit_is_a_table():
    asked = study("Qwen3-30B-A3B-FP8", "hardware=h100x8")
    shown = {each.name: each for each in placements_of(asked)}
    assert shown["one GPU"].gpus == 1
    assert shown["TP 4 DP 2 EP"].args == {
        "tensor_parallel_size": 4,
        "data_parallel_size": 2,
        "enable_expert_parallel": True,
    }
    assert "divisible" in shown["TP 8"].refused
    assert "not divisible by tensor × data parallel size (8)" in shown["DP 8"].refused, "replicas share the experts"
    assert present(shown["DP 8 EP"].kv_tokens) > 8 * present(shown["one GPU"].kv_tokens)
    # 3.3 billion of its 30 are read for a token, and an H100 reads 3,350 GB a second
    assert shown["one GPU"].alone_tokens_per_s == pytest.approx(3350 / 3.3, rel=0.15)
    text = table(asked, placements_of(asked))
    assert "TP 4 DP 2 EP" in text
    assert "no: the experts' intermediate size (768) is not divisible" in text


@pytest.mark.usefixtures("hub")
def test_llamacpp_proposes_what_acts_with_and_without_a_gpu():
    asked = ["engine=llamacpp", "model.id=/models/none.gguf"]
    cpu, gpus = (composing.load([*asked, hardware]).space for hardware in ("hardware=cpu", "hardware=h200x2"))
    assert {"parallel", "batch_size", "ubatch_size", "threads"} <= set(cpu.params)
    assert {"n_gpu_layers", "split_mode"} <= set(gpus.params)
    assert not {"n_gpu_layers", "split_mode"} & set(cpu.params)
    assert all(parameter.why for parameter in (*cpu.params.values(), *gpus.params.values()))


def test_an_engine_of_which_nothing_is_known_proposes_nothing_and_says_so():
    question = Question(Settings(), Hardware("none", 0), None, Workload(name="any"))
    assert Foresight().proposed(question).space.params == {}
    assert "name a space" in Foresight().proposed(question).space.remarks[0]
