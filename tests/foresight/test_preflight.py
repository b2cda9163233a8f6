"""What is objected to before a launch, in which order, with which reason; and what trials add to it."""

import json
from dataclasses import replace

import pytest

from tests.bench.machine import Machine
from tests.present import present
from tuner import composing
from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.vllm.foresight import VllmForesight
from tuner.errors import LaunchRejected, PredictedOutOfMemory, RequestsRefused, RuleViolated
from tuner.foresight.preflight import Preflight, ground_of, impossible
from tuner.premises import make_engine
from tuner.records.record import Failure, Role, State
from tuner.space import Candidate
from tuner.study.proposals import Proposal, _admits

H100 = ("experiment=h100", "engine=sim", "hardware=sim-h100", "workload=quick")


class Site:
    """A study's ground, and trials that really ran on its simulated GPUs."""

    def __init__(self, *overrides):
        self.asked = composing.load([*(overrides or ("experiment=demo",))])
        self.ground = ground_of(self.asked, make_engine(self.asked))
        self.machine = Machine(self.asked)
        self.deployed = self.asked.space.deployed(self.asked.model.settings)
        self.records = []

    def candidate(self, **changed):
        return self.asked.space.candidate({**self.deployed.params, **changed})

    def run(self, **changed):
        """Launch the deployment with these changes."""
        proposal = Proposal(Role.SEARCH, self.candidate(**changed))
        self.records.append(self.machine.record(len(self.records), proposal))
        return self.records[-1]

    @property
    def known(self):
        return Preflight(self.ground, tuple(self.records))

    def check(self, **changed):
        return self.known.check(self.candidate(**changed))


def predicted(known, candidate):
    """All of vLLM's prediction."""
    return known.memory.predict(known.ground.settings(candidate))


@pytest.fixture
def site():
    return Site()


def test_the_deployment_is_let_through_before_and_after_it_ran(site):
    assert site.check() is None
    assert site.run().measurement
    assert site.check() is None


def test_a_rule_of_the_space_comes_first():
    site = Site("experiment=demo", "+space.params.swap_space={choices: [null, 4]}")
    error = site.check(max_num_seqs=512, max_num_batched_tokens=256, swap_space=4)
    assert isinstance(error, RuleViolated)


def test_a_flag_that_the_image_does_not_have_comes_before_what_vllm_refuses_of_known_ones():
    site = Site("experiment=demo", "+space.params.cuda_graph_sizes={choices: [null, 4]}", "space.rules=null")
    error = site.check(cuda_graph_sizes=4, max_num_seqs=512, max_num_batched_tokens=256)
    assert isinstance(error, LaunchRejected)
    assert "--cuda-graph-sizes is not known to this vLLM (tuner's table of vLLM 0.15's flags)" in error.message
    assert error.fix == "instead: --cudagraph-capture-sizes"


def test_a_value_that_a_flag_does_not_take_is_refused_with_those_that_it_takes():
    site = Site("experiment=demo", "+space.params.kv_cache_dtype={choices: [auto, fp9]}")
    error = site.check(kv_cache_dtype="fp9")
    assert error.cause == Cause.BAD_FLAG
    assert "fp8" in error.fix


def test_a_combination_comes_before_predicted_memory(site):
    site = Site("experiment=demo", "space.rules=null")
    site.run()
    error = site.check(max_num_seqs=512, max_num_batched_tokens=256, gpu_memory_utilization=0.96)
    assert "must be greater than or equal to max_num_seqs" in error.message


def test_a_placement_that_cannot_be_is_refused_with_those_that_can():
    site = Site("experiment=demo", "+space.params.tensor_parallel_size={choices: [2, 3]}")
    error = site.check(tensor_parallel_size=3)
    assert "heads (20) must be divisible by tensor parallel size (3)" in error.message
    assert "1, 2, 4, 5, 10 or 20" in error.fix


def test_predicted_memory_names_allocation_sizes_margin_and_what_to_do(site):
    site.run()
    error = site.check(gpu_memory_utilization=0.95)
    assert isinstance(error, PredictedOutOfMemory)
    assert (error.cause, error.fix) == (
        Cause.INSUFFICIENT_FREE_MEMORY,
        "end what else holds memory on the GPU, or lower gpu_memory_utilization",
    )
    assert "would need 22.79 GiB of 22.26" in error.message
    assert error.numbers["needed_gib"] == pytest.approx(22.79, abs=0.01)
    assert error.numbers["margin_gib"] > 0


def test_what_a_model_cannot_be_predicted_for_is_not_ruled_out():
    site = Site("experiment=demo", "model.id=QuantTrio/GLM-4.7-Flash-AWQ")
    assert isinstance(site.ground.foresight, VllmForesight)
    blind = replace(site.ground, foresight=replace(site.ground.foresight, model=None))
    candidate = site.candidate(max_num_seqs=512)
    known = Preflight(blind, ())
    assert known.check(candidate) is None
    assert known.fits(candidate)
    assert predicted(known, candidate).unknown == ("the model's config.json",)


def test_failures_close_what_is_as_demanding_once_a_warm_start_has_shown_it(site):
    """Twice the same: the first start compiles, and teaches nothing by itself."""
    doomed = {"max_num_seqs": 512, "gpu_memory_utilization": 0.88}
    cold, warm = site.run(**doomed), site.run(**doomed)
    assert (cold.facts.compile_cache_hit, warm.facts.compile_cache_hit) == (False, True)
    assert cold.failure.cause == warm.failure.cause == Cause.CUDA_OOM
    assert [known.region is None for known in site.known.lessons] == [True, False]
    error = site.check(**doomed, block_size=32)
    assert isinstance(error, PredictedOutOfMemory)


def test_a_cold_failure_alone_does_not_rule_out_its_own_configuration(site):
    doomed = {"max_num_batched_tokens": 16384, "max_num_seqs": 128, "gpu_memory_utilization": 0.91}
    site.run()
    assert site.run(**doomed).failure.cause == Cause.CUDA_OOM
    assert site.check(**doomed) is None


def test_what_was_ruled_out_before_a_launch_teaches_nothing(site):
    site.run()
    candidate = site.candidate(gpu_memory_utilization=0.96)
    refused = Proposal(Role.SEARCH, candidate, refusal=site.known.check(candidate))
    site.records.append(site.machine.record(1, refused))
    assert site.records[-1].failure.cause == Cause.INSUFFICIENT_FREE_MEMORY
    assert site.known.lessons == ()
    assert len(site.known.memory.calibration.history) == 1


def test_a_start_that_lacked_what_others_held_is_neither_lesson_nor_evidence(site):
    baseline = site.run()
    line = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 302.00 MiB. GPU 0 has a total capacity of 23.99 "
        "GiB of which 90.00 MiB is free. Including non-PyTorch memory, this process has 17.00 GiB memory in use."
    )
    failure = Failure(error="OutOfMemory", cause="cuda_oom", message=line, line=line, numbers={"free_mib": 90.0})
    facts = StartupFacts(engine_version="0.15.0", weights_gib=8.75, kv_cache_gib=11.4, compile_cache_hit=True)
    update = {"number": 1, "state": State.PRUNED, "failure": failure, "facts": facts, "measurement": None}
    site.records.append(baseline.model_copy(update=update))
    assert "others hold" in site.known.busy(1).message
    assert site.known.lessons == ()
    assert site.check() is None


def test_going_on_with_more_records_knows_the_same_as_beginning_with_all(site):
    site.run()
    first = site.known
    for changed in ({"max_num_seqs": 512}, {"max_num_seqs": 512}, {"gpu_memory_utilization": 0.86}, {}):
        site.run(**changed)
    grown, whole = first.after(tuple(site.records)), site.known
    for seqs in (16, 64, 256, 512):
        candidate = site.candidate(max_num_seqs=seqs, gpu_memory_utilization=0.9)
        assert predicted(grown, candidate) == predicted(whole, candidate)
    assert grown.lessons == whole.lessons
    assert grown.memory.calibration.history == whole.memory.calibration.history
    assert len(first.memory.calibration.history) == 1


def test_a_record_that_was_written_anew_is_learned_anew(site):
    site.run()
    site.run(max_num_seqs=512)
    known = site.known
    assert len(known.lessons) == 1
    record = site.records[-1]
    failure = record.failure.model_copy(update={"error": "GpuBusy", "cause": "unknown"})
    site.records[-1] = record.model_copy(update={"failure": failure})
    assert known.after(tuple(site.records)).lessons == ()


def test_the_first_log_says_version_and_memory_on_which_defaults_depend():
    """Without total memory nobody knows how many sequences vLLM takes by default."""
    site = Site(*H100, "hardware.gpu.total_gib=null", "model.args.max_num_seqs=null", "space.params.max_num_seqs=null")
    candidate = site.candidate()
    assert "max_num_seqs" in predicted(site.known, candidate).unknown
    site.run()
    assert site.known.version == "0.26.0"
    assert site.known.hardware.total_gib == 79.18
    assert predicted(site.known, candidate).terms is not None


def test_a_forecast_is_what_was_predicted_of_the_trial(site):
    forecast = site.known.forecast(site.deployed)
    record = site.run()
    assert forecast.starts == 0
    assert forecast.weights_gib == pytest.approx(record.facts.weights_gib, rel=0.01)
    assert forecast.kv_tokens == pytest.approx(record.facts.kv_tokens, rel=0.03)
    assert site.known.forecast(site.deployed).kv_tokens == pytest.approx(record.facts.kv_tokens, rel=0.005)


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("+model.args.num_scheduler_steps=8", "model.args.num_scheduler_steps"),
        ("+space.params.not_a_flag={choices: [7, 8]}", "space.params.not_a_flag"),
        ("+model.args.kv_cache_dtype=fp9", "model.args.kv_cache_dtype"),
    ],
)
def test_what_no_trial_could_have_is_a_mistake_before_the_first(override, place):
    error = present(
        impossible(Site("experiment=demo", override.removeprefix("+") if "dtype" in override else override).ground)
    )
    assert error.place == place
    assert error.fix


def test_a_flag_that_may_be_left_out_is_no_mistake(site):
    assert impossible(site.ground) is None
    assert impossible(Site("experiment=demo", "+space.params.not_a_flag={choices: [null, 7]}").ground) is None


def test_a_candidate_is_judged_by_all_that_it_is_launched_with(site):
    """Settings that are not searched count: 131,072 tokens of context are the deployment's own."""
    settings = site.ground.settings(Candidate({"max_num_seqs": 8}))
    assert (settings.args["max_num_seqs"], settings.args["max_model_len"]) == (8, 131072)


def test_what_is_likely_to_fail_is_put_off_and_launched_if_the_search_insists(site):
    """Within the margin of the prediction, so that nothing rules it out."""
    site.run()
    doubtful = site.candidate(max_num_seqs=256, gpu_memory_utilization=0.9)
    assert not site.known.fits(doubtful)
    assert site.known.check(doubtful) is None
    admits = _admits(site.known, launchable=False, put_off=3)
    assert [admits(doubtful) for _ in range(4)] == [False, False, False, True]
    assert admits(site.deployed)


def test_what_is_ruled_out_is_proposed_so_that_its_reason_is_kept_unless_a_launch_is_due(site):
    site.run()
    hopeless = site.candidate(gpu_memory_utilization=0.95)
    assert _admits(site.known, launchable=False, put_off=3)(hopeless)
    assert not _admits(site.known, launchable=True, put_off=3)(hopeless)


TINY = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "vocab_size": 4096,
    "num_attention_heads": 8,
    "intermediate_size": 512,
    "max_position_embeddings": 8192,
}


def ground_in_a_container(model, *overrides):
    launcher = ("launcher=docker", "launcher.image=x", "engine=vllm", "engine.version=0.15.0", f"model.id={model}")
    asked = composing.load(["experiment=demo", "hardware=rtx4090x2", *launcher, *overrides])
    return ground_of(asked, make_engine(asked))


def test_a_model_in_a_folder_that_a_container_mounts_is_read_on_this_host(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(TINY))
    assert (
        ground_in_a_container("/models/tiny", f"launcher.mounts=['{tmp_path}:/models:ro']").foresight.model.layers == 4
    )
    assert (
        ground_in_a_container("/elsewhere/tiny", f"launcher.mounts=['{tmp_path}:/models:ro']").foresight.model is None
    )


def test_a_model_in_the_cache_that_containers_share_is_read_there(tmp_path):
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(TINY))
    assert ground_in_a_container("org/tiny", f"launcher.hf_home={tmp_path}").foresight.model.layers == 4


@pytest.mark.parametrize(
    ("override", "place", "said"),
    [
        ("model.args.tool_call_parser=null", "workload.tool_call", "enable_auto_tool_choice and tool_call_parser"),
        ("model.args.enable_auto_tool_choice=false", "workload.tool_call", "HTTP 400"),
        ("model.args.max_model_len=1024", "workload.prompt_tokens", "exceed the context of 1024 tokens"),
    ],
)
def test_requests_that_the_deployment_would_refuse_are_a_mistake_in_the_configuration(override, place, said):
    error = present(impossible(Site("experiment=demo", override, "workload.prompt_tokens=1000").ground))
    assert error.place == place
    assert said in error.message


def test_a_candidate_whose_context_is_too_short_for_the_workload_is_not_launched():
    site = Site(
        "experiment=demo", "+space.params.max_model_len={choices: [1024, 131072]}", "workload.prompt_tokens=1000"
    )
    assert isinstance(site.check(max_model_len=1024), RequestsRefused)
    assert site.check(max_model_len=131072) is None


def test_where_the_size_of_the_cache_is_given_no_advice_is_about_the_share():
    site = Site("experiment=demo", "+space.params.kv_cache_memory_bytes={choices: [null, 20000000000]}")
    error = site.check(kv_cache_memory_bytes=20_000_000_000)
    assert "gpu_memory_utilization" not in (error.fix if error else "")
