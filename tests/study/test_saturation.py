"""A study whose goal is the rate that is sustained finds the simulated engine's known knee."""

import pytest

from tests.present import present
from tests.sim.conftest import SITE_FLAGS, configure
from tests.sim.offline import Job, Outcome, measure
from tuner import composing
from tuner.records.record import State
from tuner.study.loop import run_study

PROMPT, OUTPUT, AT_ONCE = 64, 64, 4


def knee():
    """Requests a second of a server in which others always wait: at a higher rate the queue grows for ever."""
    settings = configure(SITE_FLAGS.replace("--max-num-seqs 64", f"--max-num-seqs {AT_ONCE}"))
    jobs = [[Job(((f"{stream}/{n}", PROMPT),), OUTPUT) for n in range(20)] for stream in range(4 * AT_ONCE)]
    ran = measure(settings, jobs)
    assert isinstance(ran, Outcome)
    return len(ran.served) / ran.duration_s


def test_the_known_knee_is_found_within_5_percent(tmp_path):
    asked = composing.load(
        [
            "experiment=demo",
            "objective=saturation",
            "space=none",
            f"study.folder={tmp_path}",
            "engine.clock_scale=12",
            "engine.launch_args.sim_clock_startup=400",
            f"model.args.max_num_seqs={AT_ONCE}",
            f"workload.prompt_tokens={PROMPT}",
            f"workload.output_tokens={OUTPUT}",
            "workload.concurrency=2",
            "workload.requests=6",
            "workload.min_duration_s=3",
            "workload.single_user={prompt_tokens: 32, output_tokens: 16, requests: 1}",
            "workload.ttft_prompt_tokens=[]",
            "workload.tool_call=false",
            "workload.warm_up={shortest_tokens: 16, longest_tokens: 64, max_rounds: 2}",
            "workload.slo={ttft_ms: 1000}",
            "workload.saturation={kind: constant, tolerance: 0.03, seconds: 30}",
        ]
    )
    (record,) = run_study(asked, lambda event: None).records
    assert record.state is State.COMPLETE, record.failure
    interval = present(record.measurement).intervals["saturation_requests_per_s"]
    assert present(record.verdict).values == (interval.low,)
    assert interval.high / interval.low <= 1.03
    assert interval.low == pytest.approx(knee(), rel=0.05)
