"""Results of measurements in the formats of other tools: read, written, and the same by their definitions."""

import json
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import pytest

from tests.present import present
from tests.test_bench import QUICK
from tuner import composing
from tuner.bench import vllm_result
from tuner.bench.export import exported
from tuner.bench.saved import read
from tuner.errors import ConfigError, MeasurementError
from tuner.load.metrics import measure
from tuner.load.naming import CONCURRENT
from tuner.load.records import FailureKind, RequestFailure, RequestRecord, StageResult, Window
from tuner.load.shapes import Slo
from tuner.load.stage import Request
from tuner.load.workload import Workload
from tuner.records.folder import StudyFolder
from tuner.records.record import Role, State, TrialRecord

REAL = Path(__file__).parent / "data/vllm-0.32.0-cpu-bench-serve.json"
"""Written by ``vllm bench serve --save-result --save-detailed`` of vLLM 0.32.0 against its own CPU server."""
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)


def records_of(real):
    """The requests of a detailed result file, as tuner would have recorded them."""
    began, users = min(real["start_times"]), real["max_concurrency"]
    return [
        RequestRecord(
            stage=CONCURRENT,
            index=index,
            stream=index % users,
            request=Request(f"{index}", 100, 100, output),
            started_ms=(start - began) * 1000,
            duration_ms=latency * 1000,
            opened_ms=ttft * 1000,
            chunk_ms=tuple(1000 * at for at in accumulate(itls, initial=ttft))[1:],
            prompt_tokens=prompt,
            output_tokens=output,
            finish_reason="length",
            status=200,
        )
        for index, (start, ttft, itls, latency, prompt, output) in enumerate(
            zip(
                *(real[k] for k in ("start_times", "ttfts", "itls", "latencies", "input_lens", "output_lens")),
                strict=True,
            )
        )
    ]


def written(records, **given):
    return json.loads(vllm_result.result_of(records, model="glm", when=NOW, **given).to_json())


def test_the_same_requests_give_the_same_statistics_as_vllms_own_benchmark():
    real = json.loads(REAL.read_text())
    ours = written(records_of(real))
    statistics = [name for name in real if name.endswith("_ms")]
    assert len(statistics) == 24
    assert {name: ours[name] for name in statistics} == pytest.approx({name: real[name] for name in statistics})


def test_the_same_requests_give_the_same_totals_and_peaks_as_vllms_own_benchmark():
    real = json.loads(REAL.read_text())
    ours = written(records_of(real))
    exact = ("completed", "failed", "num_prompts", "total_input_tokens", "total_output_tokens", "max_concurrency")
    peaks = ("max_output_tokens_per_s", "max_concurrent_requests")
    assert {name: ours[name] for name in (*exact, *peaks)} == {name: real[name] for name in (*exact, *peaks)}
    # theirs counts the time in which its tasks are made and gathered as well
    assert ours["output_throughput"] == pytest.approx(real["output_throughput"], rel=0.02)
    assert ours["request_throughput"] == pytest.approx(real["request_throughput"], rel=0.02)


def test_a_goodput_is_written_as_vllm_counts_it():
    real = json.loads(REAL.read_text())
    slo = {"ttft_ms": 200, "tpot_ms": 20, "e2e_ms": 1000}
    workload = Workload(name="w", slo=Slo.model_validate(slo))
    rows = zip(real["ttfts"], real["latencies"], real["output_lens"], strict=True)
    good = [
        ttft <= 0.2 and latency <= 1.0 and (latency - ttft) / (tokens - 1) <= 0.02 for ttft, latency, tokens in rows
    ]
    ours = written(records_of(real), workload=workload)
    assert 0 < sum(good) < len(good)
    assert ours["request_goodput"] == pytest.approx(sum(good) / ours["duration"])
    assert vllm_result.VllmResult.model_validate(ours).numbers["goodput_requests_per_s"] == ours["request_goodput"]


def test_every_field_that_vllm_writes_is_written_but_the_texts():
    real = json.loads(REAL.read_text())
    assert set(real) - set(written(records_of(real))) == {"generated_texts"}


def test_what_is_read_of_vllms_result_is_written_again_unchanged():
    assert json.loads(vllm_result.read(REAL).to_json()) == json.loads(REAL.read_text())


def test_vllms_result_is_read_as_numbers_and_as_the_traffic_to_repeat():
    result = read(REAL)
    real = json.loads(REAL.read_text())
    assert result.by_vllm
    assert result.numbers["output_tokens_per_s"] == real["output_throughput"]
    assert result.numbers["ttft_p50_ms"] == real["median_ttft_ms"]
    assert result.numbers["concurrent_tpot_p50_ms"] == real["median_tpot_ms"]
    traffic = present(result.workload)
    assert (traffic.concurrency, traffic.requests, traffic.prompt_tokens, traffic.output_tokens) == (4, 16, 106, 32)
    assert traffic.min_duration_s == 0


def test_a_request_cut_off_at_the_end_is_in_no_number_of_vllms():
    whole = records_of(json.loads(REAL.read_text()))
    cut = RequestRecord(
        CONCURRENT, 99, 0, Request("99", 1, 1, 32), 0.0, 9e6, failure=RequestFailure(FailureKind.CUT, "")
    )
    assert written([*whole, cut]) == written(whole)


@pytest.mark.parametrize(
    ("backend", "endpoint"),
    [("openai", "completions"), ("vllm", "completions"), ("openai-chat", "chat"), ("x", "chat")],
)
def test_its_traffic_goes_where_vllms_benchmark_sent_it(backend, endpoint):
    result = vllm_result.read(REAL)
    assert result.model_copy(update={"backend": backend}).workload.endpoint == endpoint


def test_where_nothing_completed_there_is_no_result_of_zeros():
    with pytest.raises(MeasurementError, match="nothing to write"):
        written([])


def test_an_open_loop_cannot_be_repeated_and_says_so(tmp_path):
    file = tmp_path / "open.json"
    file.write_text(json.dumps(json.loads(REAL.read_text()) | {"max_concurrency": None}))
    with pytest.raises(ConfigError, match="--max-concurrency"):
        read(file)


@pytest.mark.parametrize(
    ("text", "said"), [("{}", "no result of vllm bench serve"), ("[]", "list"), ("x", "cannot be read")]
)
def test_a_file_that_is_no_result_is_refused_by_its_name(tmp_path, text, said):
    file = tmp_path / "odd.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        read(file)
    assert "odd.json" in str(refused.value)


@pytest.fixture
def kept(tmp_path):
    """The folder of a measurement, made of the requests in vLLM's file."""
    asked = composing.load(["experiment=bench", "launcher.url=http://127.0.0.1:1", "model.id=glm", *QUICK])
    stage = StageResult(
        CONCURRENT, 4, tuple(records_of(json.loads(REAL.read_text()))), 3900.0, 0.1, 0.2, 0.5, window=Window(800, 3300)
    )
    place = StudyFolder(tmp_path / "bench").trial(0)
    place.save_requests([stage])
    place.config.write_text(asked.to_yaml())
    measurement = measure([stage], asked.workload)
    common = {"tuner_version": "0.1", "study": "bench", "number": 0, "seed": 1, "digest": "d", "params": {}}
    place.save(
        TrialRecord(
            **common,
            role=Role.BASELINE,
            argv=(),
            env={},
            started_at=NOW.isoformat(),
            state=State.COMPLETE,
            measurement=measurement,
        )
    )
    return place


def test_a_saved_measurement_is_read_back_with_its_numbers_and_its_traffic(kept):
    result = read(kept.path)
    assert not result.by_vllm
    assert result.numbers["output_tokens_per_s"] > 0
    assert (present(result.workload).prompt_tokens, present(result.workload).output_tokens) == (64, 16)
    assert read(kept.record) == result


def test_a_saved_measurement_is_exported_as_vllm_writes_it(kept):
    assert json.loads(exported(kept.path, "vllm"))["median_tpot_ms"] == pytest.approx(
        json.loads(REAL.read_text())["median_tpot_ms"]
    )


def test_an_unknown_format_is_refused_with_those_there_are(kept):
    with pytest.raises(ConfigError, match="vllm, llm-d"):
        exported(kept.path, "xml")


def test_llmds_own_package_accepts_the_report_and_reads_the_same_numbers(kept):
    package = pytest.importorskip(
        "llmd_benchmark_report", reason="needs llm-d's package: .venv/bin/pip install -e '.[llmd]'"
    )
    report = package.load_benchmark_report(json.loads(exported(kept.path, "llm-d")))
    own = present(TrialRecord.model_validate_json(kept.record.read_text()).measurement)
    found = report.results.request_performance.aggregate
    assert report.version == "0.2"
    assert found.latency.time_to_first_token.p50 == pytest.approx(own.ttft_p50_ms)
    assert found.latency.time_per_output_token.p50 == pytest.approx(own.concurrent_tpot_p50_ms)
    assert found.throughput.output_token_rate.mean == pytest.approx(own.output_tokens_per_s)
    assert found.latency.time_to_first_token.p95 is None  # 12 requests do not carry it
    assert report.scenario.load.standardized.concurrency == present(read(kept.path).workload).concurrency
