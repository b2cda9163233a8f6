"""Which limit binds, of servers whose limit is known, by what they count; and how near they are to the hardware's."""

import json
from dataclasses import replace

import pytest

from tests.fast import FAST
from tests.present import present
from tests.simulated import simulated_study
from tuner import composing
from tuner.engines.base import StartupFacts
from tuner.engines.ceilings import Ceilings
from tuner.host.state import GpuState, HostState, StageHost
from tuner.load.counters import EngineCounters
from tuner.records.bottleneck import BindingLimit, bottleneck, finalists
from tuner.study.loop import run_study

DENSE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 40,
    "hidden_size": 5120,
    "vocab_size": 151936,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 17408,
    "max_position_embeddings": 40960,
}
"""Fourteen billion weights, all of which are read for each token."""
EIGHT_USERS = ("workload.concurrency=8", "workload.requests=24")
KNOWN = {
    BindingLimit.SEQUENCES: (*EIGHT_USERS, "model.args.max_num_seqs=2"),
    BindingLimit.KV_SPACE: (
        *EIGHT_USERS,
        "+model.args.kv_cache_memory_bytes=120000000",
        "model.args.max_model_len=1024",
        "model.args.max_num_batched_tokens=2048",
        "workload.prompt_tokens=400",
        "workload.output_tokens=64",
    ),
    BindingLimit.TOKEN_BUDGET: (*EIGHT_USERS, "model.args.max_num_batched_tokens=512", "workload.prompt_tokens=4000"),
    BindingLimit.MEMORY_BANDWIDTH: (
        "hardware=sim-h100",
        "model=any",
        "model.id={dense}",
        "workload.output_tokens=128",
        "workload.concurrency=1",
    ),
}
"""Deployments on simulated GPUs whose limit is known."""


@pytest.mark.parametrize("limit", KNOWN)
def test_the_limit_that_is_known_to_bind_is_the_one_that_is_said(limit, tmp_path):
    model = tmp_path / "dense"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(DENSE))
    known = [each.format(dense=model) if "{dense}" in each else each for each in KNOWN[limit]]
    asked = [*FAST, "engine.clock_scale=10", "space=none", "budget.trials=1", f"study.folder={tmp_path}"]
    outcome = run_study(composing.load([*asked, *known]), lambda event: None)
    (record,) = outcome.records
    found = present(bottleneck(record, outcome))
    assert found.limit is limit, (found, record.ceilings, present(record.measurement).engine)
    assert 0 < present(found.share) < 1
    assert found.share == pytest.approx(
        present(present(record.measurement).output_tokens_per_s) / present(present(record.ceilings).tokens_per_s)
    )
    assert finalists(outcome) == {"deployed": found}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 2)


def said_of(outcome, *, goal="output_tokens_per_s", host=(), facts=None, ceilings=None, client=0.1, **counted):
    counters = EngineCounters(readings=5, **counted) if counted else None
    measurement = outcome.baseline.measurement.model_copy(update={"engine": counters, "client_cpu_share": client})
    update = {"measurement": measurement, "host": host, "facts": facts, "ceilings": ceilings}
    objective = outcome.config.objective.model_copy(update={"goals": {goal: "maximize"}})
    config = outcome.config.model_copy(update={"objective": objective})
    return bottleneck(outcome.baseline.model_copy(update=update), replace(outcome, config=config))


def on_gpus(utilization, cpus=0.3):
    return (StageHost("concurrent", HostState(10.0, 8, cpus, gpus=(GpuState(0, utilization=utilization),))),)


def test_a_server_that_does_not_tell_has_no_limit(outcome):
    assert said_of(outcome).limit is BindingLimit.UNKNOWN
    assert said_of(outcome, running_mean=4.0).limit is BindingLimit.UNKNOWN


def test_requests_that_wait_for_what_is_not_told_have_no_limit(outcome):
    found = said_of(outcome, running_mean=4.0, waiting_mean=3.0)
    assert (found.limit, found.share) == (BindingLimit.UNKNOWN, None)
    assert found.sentence == "what binds is not known (3.0 requests waited in the mean, and for what is not told)"


def test_slots_bind_where_all_of_them_are_taken(outcome):
    """llama.cpp: its builds of today tell nothing of the cache's use."""
    found = said_of(outcome, ceilings=Ceilings(sequences=4), running_mean=4.0, waiting_mean=1.0)
    assert found.sentence == (
        "sequences binds (1.0 requests waited in the mean while 4.0 ran, and at most 4 run at once)"
    )


def test_a_cache_without_room_for_another_prompt_is_full(outcome):
    waits = {"running_mean": 2.0, "waiting_mean": 1.0, "kv_usage_max": 0.8, "ceilings": Ceilings(sequences=8)}
    assert said_of(outcome, **waits, facts=StartupFacts(kv_tokens=2000)).limit is BindingLimit.KV_SPACE
    assert said_of(outcome, **waits, facts=StartupFacts(kv_tokens=200_000)).limit is BindingLimit.UNKNOWN


def test_prompts_that_fit_into_one_step_do_not_wait_for_the_budget(outcome):
    waits = {"running_mean": 2.0, "waiting_mean": 1.0, "kv_usage_max": 0.1, "facts": StartupFacts(kv_tokens=200_000)}
    budgets = {
        budget: said_of(outcome, **waits, ceilings=Ceilings(sequences=8, step_tokens=budget)) for budget in (128, 32768)
    }
    assert [found.limit for found in budgets.values()] == [BindingLimit.TOKEN_BUDGET, BindingLimit.UNKNOWN]


def test_idle_gpus_and_a_busy_client_are_the_hosts_fault(outcome):
    alone = {"running_mean": 4.0, "waiting_mean": 0.0}
    assert said_of(outcome, **alone, host=on_gpus(0.5)).limit is BindingLimit.HOST
    assert said_of(outcome, **alone, host=on_gpus(0.99, cpus=0.99)).limit is BindingLimit.HOST
    assert said_of(outcome, **alone, client=0.7).limit is BindingLimit.HOST
    assert said_of(outcome, **alone, host=on_gpus(0.99)).limit is BindingLimit.STEP_TIME


def test_bandwidth_binds_only_where_most_of_a_step_is_reading(outcome):
    rate = outcome.baseline.measurement.output_tokens_per_s
    alone = {"running_mean": 4.0, "waiting_mean": 0.0}
    near, far = (said_of(outcome, **alone, ceilings=Ceilings(tokens_per_s=times * rate)) for times in (1.25, 8))
    assert (near.limit, far.limit) == (BindingLimit.MEMORY_BANDWIDTH, BindingLimit.STEP_TIME)
    assert near.sentence.endswith("; 80% of what this memory bandwidth allows")


def test_a_single_users_goal_is_held_against_a_single_users_bound(outcome):
    tpot_ms = outcome.baseline.measurement.tpot_p50_ms
    ceilings = Ceilings(tokens_per_s=1.0, alone_tokens_per_s=4 * 1000 / tpot_ms)
    found = said_of(outcome, goal="tpot_p50_ms", ceilings=ceilings, running_mean=4.0, waiting_mean=0.0)
    assert found.share == pytest.approx(0.25)
