"""``tuner workload learn``: the workload that it writes is like the traffic that a server had."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

import pytest
from typer.testing import CliRunner

from tests.load.conftest import VllmLike
from tests.load.conftest import server as _server
from tests.sim.conftest import SimServer, launcher
from tuner import composing
from tuner.bench.learning import learn
from tuner.cli import app
from tuner.errors import EngineUnavailable, TunerError
from tuner.load import lengths
from tuner.load.client import LoadClient
from tuner.load.deciding import Deciding
from tuner.load.plan import plan
from tuner.load.prompts import TokenCalibration
from tuner.load.shapes import Histogram
from tuner.load.target import Target
from tuner.load.traffic import Snapshot
from tuner.load.workload import Workload

server = _server
TRAFFIC = Workload.model_validate(
    {
        "name": "users",
        "arrivals": {"kind": "poisson", "rate": 20},
        "requests": 160,
        "min_duration_s": 0,
        "prompt_tokens": {"kind": "lognormal", "median": 700, "sigma": 0.8, "high": 6000},
        "output_tokens": {"kind": "uniform", "low": 20, "high": 90},
        "prefix": {"tokens": 300, "hit_rate": 0.6},
        "tool_call": False,
    }
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with launcher(tmp_path_factory.mktemp("sim")) as launch:
        yield launch("--max-model-len 16384 --max-num-seqs 64 --sim-clock-serving 5").wait_ready()


def learned(path: Path) -> Workload:
    words = ["experiment=demo", f"workload={path.stem}"]
    return composing.load(words, path.parent.parent).workload


def while_sending(url: str, model: str, do: Callable[[], object]) -> tuple[float, float, float]:
    """Mean prompt and output tokens of the traffic that went on meanwhile, and its rate."""
    four = TokenCalibration(tokens_per_word=1.62, overhead_tokens=6)
    stage = plan(TRAFFIC, seed=1, context_tokens=16384, kv_tokens=None, calibration=four, deciding=Deciding()).stages[0]
    with LoadClient() as client:
        results = []
        sending = threading.Thread(target=lambda: results.append(client.run(stage, Target(url, {}, model))))
        sending.start()
        do()
        sending.join()
    records = results[0].records
    assert [record.failure for record in records if record.failure] == []
    tokens = [(record.prompt_tokens, record.output_tokens) for record in records]
    return (*(mean(side) for side in zip(*tokens, strict=True)), (len(records) - 1) * 1000 / stage.due_ms[-1])


def test_it_recovers_the_lengths_and_the_rate_of_known_traffic(simulated: SimServer, tmp_path: Path):
    path, told = tmp_path / "workload" / "mine.yaml", list[str]()
    model = simulated.request("/v1/models").body["data"][0]["id"]
    prompt, output, rate = while_sending(
        simulated.url, model, lambda: learn(simulated.url, path, 0.2, None, told.append)
    )
    workload = learned(path)
    drawn = [mean(lengths.draw(each, 2000, "7")) for each in (workload.prompt_tokens, workload.output_tokens)]
    assert drawn == pytest.approx([prompt, output], rel=0.05)
    assert workload.arrivals is not None
    assert workload.arrivals.rates[0] == pytest.approx(160 / 12, rel=0.05)  # it watched for longer than they came
    assert rate == pytest.approx(20, rel=0.05)
    assert workload.prefix is not None
    assert told[0].startswith("10 of 12 s: ")


def test_lengths_of_a_histogram_have_its_mean_and_its_shares():
    asked = Histogram(kind="histogram", bounds=(100, 200, 500, 1000), counts=(0, 60, 30, 10), mean=260)
    drawn = lengths.draw(asked, 2000, "7")
    assert mean(drawn) == pytest.approx(260, rel=0.01)
    assert [sum(low < each <= high for each in drawn) for low, high in ((0, 100), (100, 200), (200, 500))] == [
        pytest.approx(count, abs=25) for count in (0, 1200, 600)
    ]
    assert lengths.longest(asked) == 1000


def page(prompt: str = "request_prompt_tokens", scale: int = 1) -> str:
    bounds = "".join(
        f'vllm:{name}_bucket{{le="{bound}",engine="{engine}"}} {count * scale}\n'
        for name in (prompt, "request_generation_tokens")
        for engine in (0, 1)
        for bound, count in (("10.0", 0.0), ("20.0", 4.0), ("+Inf", 4.0))
    )
    sums = "".join(
        f'vllm:{name}_sum{{engine="{e}"}} {60.0 * scale}\n'
        for name in (prompt, "request_generation_tokens")
        for e in (0, 1)
    )
    return f"{bounds}{sums}vllm:num_requests_running 2.0\n"


def test_engines_behind_one_page_are_added_and_one_bucket_is_one_length():
    reading = Snapshot.of(page(), 0)
    assert reading.prompts is not None
    assert (reading.prompts.count, reading.prompts.mean, reading.prompts.length()) == (8, 15, 15)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (None, "answers HTTP 404"),
        (lambda: "vllm:num_requests_running 0.0\n", "has no histograms of prompt and generation lengths"),
        (page, "no request ended at .* within 1 s"),
        (iter([page(scale=2), *[page(scale=1)] * 20]).__next__, "was started anew while it was watched"),
    ],
)
def test_what_cannot_be_learnt_from_is_said(server: VllmLike, tmp_path: Path, metrics, said: str):
    server.metrics = metrics
    with pytest.raises(TunerError, match=said):
        learn(server.target.url, tmp_path / "mine.yaml", 0.01, None, lambda _: None)


def test_nothing_is_overwritten_and_nobody_there_is_said(tmp_path: Path):
    with pytest.raises(EngineUnavailable, match="nothing answers at"):
        learn("http://127.0.0.1:1", tmp_path / "mine.yaml", 0.01, None, lambda _: None)
    (tmp_path / "workload").mkdir()
    (tmp_path / "workload" / "learned.yaml").touch()
    done = CliRunner().invoke(app, ["workload", "learn", "http://127.0.0.1:1", "--config-dir", str(tmp_path)])
    assert "is there already" in str(done.exception)
