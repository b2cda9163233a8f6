"""``tuner watch``: a running server under its own traffic, held against what was proven of it."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.bench import watch as simulation
from tests.present import present
from tests.sim.conftest import SimServer, launcher
from tests.simulated import simulated_study
from tuner.cli import app
from tuner.errors import EngineUnavailable, TunerError
from tuner.export.profile import profile_of, read_profile
from tuner.host.gpu import Ours
from tuner.host.state import GpuState
from tuner.launchers.attach import AttachLauncher
from tuner.load.client import LoadClient
from tuner.load.deciding import Deciding
from tuner.load.plan import plan
from tuner.load.prompts import TokenCalibration
from tuner.load.target import Target
from tuner.load.workload import Workload
from tuner.records.outcome import Outcome
from tuner.terminal.watch import line
from tuner.watch.evidence import SlownessEvidence
from tuner.watch.holding import Judgement, ProofFigures, WatchState
from tuner.watch.probing import Prober, ProbeResult
from tuner.watch.proven import MeanTpot, mean_tpot
from tuner.watch.scatter import margin
from tuner.watch.stretch import MedianBucket, Stretch
from tuner.watch.watcher import Watcher, WatchLine

PROVEN = ProofFigures((("ttft_p50_ms", 300.0), ("itl_p50_ms", 15.0)), prompt_tokens=500, output_tokens=128, users=5)
AS_PROVEN = Stretch(
    seconds=60,
    answered=150,
    prompt_tokens=510,
    output_tokens=120,
    users=4.6,
    ttft_p50=MedianBucket(low_ms=250, high_ms=500),
    itl_p50=MedianBucket(low_ms=10, high_ms=25),
)


@pytest.mark.parametrize(
    ("seen", "state", "why"),
    [
        ({}, WatchState.HOLDS, ()),
        ({"answered": 19}, WatchState.IDLE, ()),
        ({"prompt_tokens": 2100}, WatchState.OTHER_TRAFFIC, ("2,100 prompt tokens for 500",)),
        ({"users": 2.0}, WatchState.OTHER_TRAFFIC, ("2.00 requests at once for 5.00",)),
        (
            {"itl_p50": MedianBucket(low_ms=25, high_ms=50)},
            WatchState.SLOWER,
            ("ITL p50 at least 25.0 ms for 15.0 ms",),
        ),
        # its bucket begins below what was proven with its margin: nobody can say
        ({"ttft_p50": MedianBucket(low_ms=350, high_ms=None)}, WatchState.HOLDS, ()),
        (
            {"ttft_p50": MedianBucket(low_ms=400, high_ms=None)},
            WatchState.SLOWER,
            ("TTFT p50 at least 400 ms for 300 ms",),
        ),
        ({"ttft_p50": None, "itl_p50": None, "users": None}, WatchState.HOLDS, ()),
    ],
)
def test_only_what_is_comparable_is_compared(seen, state, why):
    judgement = PROVEN.judge(AS_PROVEN.model_copy(update=seen))
    assert (judgement.state, judgement.why) == (state, why)


@pytest.mark.parametrize(
    ("users", "tpot_ms", "state"),
    [
        (0.1, 5.5, WatchState.HOLDS),
        (0.1, 7.0, WatchState.SLOWER),
        (0.1, None, WatchState.IDLE),
        (3.0, 7.0, WatchState.IDLE),  # others were served as well
    ],
)
def test_a_probe_tells_where_nobody_else_is_served(users, tpot_ms, state):
    quiet = AS_PROVEN.model_copy(update={"answered": 2, "users": users})
    promise = replace(PROVEN, alone_ms=5.0)
    assert promise.judge(quiet, ProbeResult(tpot_p50_ms=tpot_ms)).state is state


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        # slower, at the proof's rate: that more are at once follows from it
        ({"users": 9.0, "arrived": 100, "tpot_ms": 19.0}, WatchState.SLOWER),
        # slower, and its users wait for it: that fewer come follows from it
        ({"arrived": 40, "tpot_ms": 19.0}, WatchState.SLOWER),
        ({"users": 5.8, "arrived": 120, "tpot_ms": 19.0}, WatchState.OTHER_TRAFFIC),  # a fifth more came
        ({"users": 5.8, "arrived": 120, "tpot_ms": 16.0}, WatchState.HOLDS),
        ({"users": 9.0, "arrived": 200, "tpot_ms": 16.0}, WatchState.OTHER_TRAFFIC),
    ],
)
def test_a_load_is_another_only_if_rate_and_users_say_so(seen, state):
    proven = replace(PROVEN, per_s=100 / 60, tpot_ms=16.0)
    assert proven.judge(AS_PROVEN.model_copy(update=seen)).state is state


@pytest.mark.parametrize(
    ("launches", "allowed"),
    [
        ((10.0, 10.1, 9.9, 10.0), 0.12),  # the floor
        ((10.0, 10.6, 9.4, 10.0), 0.158),
        ((10.0, 11.5, 8.5, 10.0), 0.39),
        ((10.0, 10.6), 0.165),  # of few launches less is known
        ((), 0.12),
    ],
)
def test_the_margin_follows_what_the_proofs_launches_differ_by(launches, allowed):
    mean = MeanTpot(10.0, launches, tuple(1.3 * each for each in launches))
    proven = replace(PROVEN, tpot_ms=10.0, margins={"mean": margin(mean.winner, mean.baseline)})
    below, above = (AS_PROVEN.model_copy(update={"tpot_ms": 10 * (1 + allowed + by)}) for by in (-0.01, 0.01))
    assert (proven.judge(below).state, proven.judge(above).state) == (WatchState.HOLDS, WatchState.SLOWER)


@pytest.mark.parametrize(("slower_by", "stretches"), [(0.15, 85), (0.3, 25)])
def test_it_takes_so_many_stretches_to_call_a_server_slow(slower_by, stretches):
    evidence = SlownessEvidence()
    for _ in range(stretches - 1):
        evidence.take(slower_by)
    assert not evidence.enough
    evidence.take(slower_by)
    assert evidence.enough


def test_a_server_that_is_slower_now_and_then_is_never_called_slow():
    evidence = SlownessEvidence()
    for place in range(10_000):
        evidence.take(0.5 if place % 30 < 10 else 0.0)
        assert not evidence.enough


def test_a_sound_server_is_seldom_called_slow_and_a_slower_one_is_found():
    figures = simulation.proofs(20, simulation.TRAFFIC[2])
    sound = simulation.alarms(simulation.TRAFFIC[2], figures, seed=11)
    assert sum(each is not None for each in sound) <= 1, "0.96 %, and what chance adds to 20"
    slower = simulation.alarms(simulation.TRAFFIC[0].named(0.3), figures, seed=12)
    assert sum(each is not None for each in slower) == 20


# a page that the test writes


@dataclass
class Pages:
    """A server of which the test says what its page holds; of ``None`` it is down."""

    url: str
    requests: float = 0.0
    tokens: float = 0.0
    itl: int = 0
    down: bool = False
    text: str = ""

    def page(self) -> str:
        """The text, where the test gives it, or what vLLM would say."""
        return self.text or self._counted()

    def _counted(self) -> str:
        lengths = "".join(
            f'vllm:request_{kind}_tokens_bucket{{le="+Inf"}} {self.requests}\n'
            f"vllm:request_{kind}_tokens_sum {self.requests * mean}\n"
            for kind, mean in (("prompt", 500), ("generation", 128))
        )
        itl = f'vllm:inter_token_latency_seconds_bucket{{le="0.01"}} {self.tokens - self.itl}\n'
        itl += f'vllm:inter_token_latency_seconds_bucket{{le="0.5"}} {self.tokens - self.itl}\n'
        itl += f'vllm:inter_token_latency_seconds_bucket{{le="+Inf"}} {self.tokens}\n'
        return f"{lengths}{itl}vllm:num_requests_running 5\nvllm:generation_tokens_total {self.tokens}\n"

    def serve(self, requests: int, *, slow: bool = False) -> None:
        self.requests += requests
        self.tokens += requests * 128
        self.itl += requests * 128 if slow else 0


@pytest.fixture
def pages() -> Iterator[Pages]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = served.page().encode()
            self.send_response(503 if served.down else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Pages(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def no_gpus(ours: Ours) -> tuple[GpuState, ...]:
    return ()


def watched(pages: Pages, happens: list[Callable[[], None]]) -> list[WatchLine]:
    """One stretch for each thing that happens, after one in which nothing does."""
    lines = Watcher(AttachLauncher(pages.url), PROVEN, no_gpus, every_s=0.1).lines(None)
    assert next(lines).judgement == Judgement(state=WatchState.IDLE)
    seen = []
    for each in happens:
        each()
        seen.append(next(lines))
    return seen


def test_what_enough_stretches_agree_on_is_concluded_once(pages):
    def slow() -> None:
        pages.serve(40, slow=True)

    def well() -> None:
        pages.serve(40)

    seen = watched(pages, [well, well, well, well, slow, well, *[slow] * 25])
    told = [place for place, told in enumerate(seen) if told.conclusion]
    assert told == [2, 29], "five blocks of five in which most are much slower; the first one is none"
    assert "tuning again would not pay" in (seen[2].conclusion or "")
    assert "tuner profile verify" in (seen[29].conclusion or "")
    assert [each.judgement.state for each in seen if each.judgement][4:6] == [WatchState.SLOWER, WatchState.HOLDS]
    assert "ITL p50 at least 500 ms for 15.0 ms" in line(seen[29])


def test_a_restart_or_an_outage_is_no_end_and_no_number(pages):
    def restart() -> None:
        pages.requests, pages.tokens, pages.itl, pages.down = 0.0, 0.0, 0, False

    def end() -> None:
        pages.down = True

    def well() -> None:
        pages.serve(40)

    seen = watched(pages, [well, restart, well, end, restart, well])
    assert [each.note for each in seen] == [
        *(None, "it was started anew", None, f"nothing answers at {pages.url}", None, None)
    ]
    assert [each.judgement.state if each.judgement else None for each in seen] == [
        *(WatchState.HOLDS, None, WatchState.HOLDS, None, WatchState.IDLE, WatchState.HOLDS)
    ]
    assert all(each.stretch is None for each in seen if each.note)
    assert line(seen[3]).endswith(f"nothing answers at {pages.url}")


def test_what_cannot_be_watched_is_refused_at_once(pages):
    nobody = Watcher(AttachLauncher("http://127.0.0.1:9"), PROVEN, no_gpus, every_s=1)
    with pytest.raises(EngineUnavailable, match="nothing answers"):
        next(nobody.lines(None))
    pages.text = "llamacpp:requests_processing 1\n"
    with pytest.raises(TunerError, match="no histograms of latencies"):
        next(Watcher(AttachLauncher(pages.url), PROVEN, no_gpus, every_s=1).lines(None))


# the whole command, on a simulated server with traffic

TRAFFIC = Workload.model_validate(
    {
        "name": "users",
        "arrivals": {"kind": "poisson", "rate": 10},
        "requests": 80,
        "min_duration_s": 0,
        "prompt_tokens": 500,
        "output_tokens": 128,
        "tool_call": False,
    }
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with launcher(tmp_path_factory.mktemp("sim")) as launch:
        yield launch("--max-model-len 16384 --max-num-seqs 16 --sim-clock-serving 5").wait_ready()


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outcome: Outcome = simulated_study(tmp_path_factory.mktemp("studies"), 12, "study.name=s")
    found = profile_of(outcome)
    assert found is not None
    path = outcome.folder.path / "profile.yaml"
    path.write_text(found.to_yaml())
    return path


def test_the_command_tells_a_line_a_stretch(simulated: SimServer, profile: Path):
    model = simulated.request("/v1/models").body["data"][0]["id"]
    four = TokenCalibration(tokens_per_word=1.62, overhead_tokens=6)
    stage = plan(TRAFFIC, seed=1, context_tokens=16384, kv_tokens=None, calibration=four, deciding=Deciding()).stages[0]
    with LoadClient() as client:
        sending = threading.Thread(target=lambda: client.run(stage, Target(simulated.url, {}, model)))
        sending.start()
        options = ["--profile", str(profile), "--every", "2", "--minutes", "0.1", "--json"]
        result = CliRunner().invoke(app, ["watch", simulated.url, *options])
        sending.join()
    seen = [WatchLine.model_validate(json.loads(each)) for each in result.stdout.splitlines() if each.startswith("{")]
    stretches = [each.stretch for each in seen if each.stretch]
    assert len(stretches) == len(seen) == 3
    busy = [each for each in stretches if each.prompt_tokens]
    assert busy
    assert all(each.prompt_tokens == pytest.approx(500, rel=0.1) for each in busy)
    assert all(each.output_tokens == pytest.approx(128, rel=0.05) for each in busy)
    assert all(each.users and each.output_tokens_per_s and each.ttft_p50 and each.itl_p50 for each in busy)
    assert all(each.tpot_ms and each.arrived for each in busy)
    assert "in the mean for" in result.stderr  # the study's own requests
    assert "ITL p50" in result.stderr  # what it is held against
    assert result.exit_code in (0, 3)


def test_a_probes_own_requests_are_nobodys_traffic(simulated: SimServer):
    model = simulated.request("/v1/models").body["data"][0]["id"]
    with LoadClient() as client:
        prober = Prober(client, Target(simulated.url, {}, model), TRAFFIC)
        watcher = Watcher(AttachLauncher(simulated.url), PROVEN, no_gpus, every_s=0.3, probe=prober)
        lines = watcher.lines(None)
        seen = [next(lines) for _ in range(3)]
    assert all(each.probe and each.probe.tpot_p50_ms and each.probe.ttft_p50_ms for each in seen)
    assert [each.stretch.answered for each in seen if each.stretch] == [0, 0, 0]
    assert "probe TTFT" in line(seen[0])


def test_the_mean_time_per_token_is_that_of_the_winners_own_launches(profile: Path, tmp_path: Path):
    proven = read_profile(profile).measured["concurrent_tpot_p50_ms"].winner.mean
    mean = present(mean_tpot(profile))
    assert mean.ms == pytest.approx(proven, rel=0.1)
    assert len(mean.winner) == len(mean.baseline) >= 2
    assert min(mean.winner) <= mean.ms <= max(mean.winner)
    assert mean_tpot(tmp_path / "profile.yaml") is None
