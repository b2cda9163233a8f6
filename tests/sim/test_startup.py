"""The script of a start: the lines of each version, in the order of its phases. Nothing is played here."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim.conftest import SITE_FLAGS, Configure
from tuner.sim import backends, startup
from tuner.sim.compile_cache import CompileCache
from tuner.sim.events import Bar, Event, Exit, Log, Pause, Phase, Raw
from tuner.sim.faults import PHASES
from tuner.sim.settings import Settings


def events(settings: Settings, root: Path | None = None) -> list[Event]:
    cache = CompileCache(root, settings, {})
    launch = startup.Launch(settings, backends.outcome(settings), cache, "127.0.0.1", 8000)
    return list(startup.script(launch))


def texts(script: list[Event]) -> list[str]:
    return [event.text for event in script if isinstance(event, Log | Raw)]


def seconds(script: list[Event]) -> float:
    return sum(event.seconds for event in script if isinstance(event, Pause | Bar))


def found(patterns: list[str], lines: list[str]) -> Iterator[int]:
    for pattern in patterns:
        yield next((index for index, line in enumerate(lines) if re.search(pattern, line)), -1)


COMMON = [
    r"^Resolved architecture: Glm4MoeLiteForCausalLM$",
    r"^Using max model len 131072$",
    r"^Chunked prefill is enabled with max_num_batched_tokens=32768\.$",
    r"^Initializing a V1 LLM engine \(v{version}\) with config: model='QuantTrio/GLM-4.7-Flash-AWQ'",
    r"^Starting to load model QuantTrio/GLM-4.7-Flash-AWQ\.\.\.$",
]
BY_VERSION = {
    "0.10": [
        r"^Model loading took 8\.\d{4} GiB and [\d.]+ seconds$",
        r"^Dynamo bytecode transform time: [\d.]+ s$",
        r"^Directly load the compiled graph\(s\) for dynamic shape from the cache, took [\d.]+ s$",
        r"^torch\.compile takes [\d.]+ s in total$",
        r"^Available KV cache memory: [\d.]+ GiB$",
        r"^GPU KV cache size: [\d,]+ tokens$",
        r"^Maximum concurrency for 131,072 tokens per request: [\d.]+x$",
        r"^Graph capturing finished in \d+ secs, took [\d.]+ GiB$",
        r"^init engine \(profile, create kv cache, warmup model\) took [\d.]+ seconds$",
        r"^Starting vLLM API server 0 on http://127\.0\.0\.1:8000$",
    ],
    "0.15": [
        r"^Using TRITON_MLA attention backend out of potential backends: \['TRITON_MLA'\]\.$",
        r"^Model loading took 8\.\d\d GiB memory and [\d.]+ seconds$",
        r"^Directly load the compiled graph\(s\) for compile range \(1, 32768\) from the cache, took [\d.]+ s$",
        r"^torch\.compile takes [\d.]+ s in total$",
        r"^Using default MoE config\. Performance might be sub-optimal!",
        r"^Available KV cache memory: [\d.]+ GiB$",
        r"^GPU KV cache size: [\d,]+ tokens$",
        r"^Graph capturing finished in \d+ secs, took [\d.]+ GiB$",
        r"^Free memory on device \(22\.26/23\.99 GiB\) on startup\. Desired GPU memory utilization is \(0\.92, 22",
        r"^init engine \(profile, create kv cache, warmup model\) took [\d.]+ seconds$",
        r"^Starting vLLM API server 0 on http://127\.0\.0\.1:8000$",
    ],
    "0.26": [
        r"^torch\.compile took [\d.]+ s in total$",
        r"^Initial profiling/warmup run took [\d.]+ s$",
        r"^Profiling CUDA graph memory: PIECEWISE=19 \(largest=128\), FULL=11 \(largest=64\)$",
        r"^Estimated CUDA graph memory: 0\.\d\d GiB total$",
        r"^CUDA graph memory profiling is enabled \(default since v0\.21\.0\)\.",
        r"^GPU KV cache size: [\d,]+ tokens$",
        r"^CUDA graph pool memory: [\d.]+ GiB \(actual\), [\d.]+ GiB \(estimated\)",
        r"^init engine \(profile, create kv cache, warmup model\) took [\d.]+ s \(compilation: [\d.]+ s\)$",
        r"^Starting vLLM server on http://127\.0\.0\.1:8000$",
    ],
}


@pytest.mark.parametrize(("version", "full"), [("0.10", "0.10.2"), ("0.15", "0.15.0"), ("0.26", "0.26.0")])
def test_each_version_prints_its_own_lines_in_the_order_of_its_phases(
    configure: Configure, version: str, full: str
) -> None:
    patterns = [pattern.replace("{version}", re.escape(full)) for pattern in [*COMMON, *BY_VERSION[version]]]
    places = list(found(patterns, texts(events(configure(SITE_FLAGS, version=version)))))
    assert -1 not in places, patterns[places.index(-1)]
    assert places == sorted(places)


def test_a_start_goes_through_all_phases_in_order(configure: Configure) -> None:
    phases = [event.name for event in events(configure(SITE_FLAGS)) if isinstance(event, Phase)]
    assert phases == list(PHASES[1:])


def test_v0_prints_its_banner_and_its_own_capacity_lines(configure: Configure) -> None:
    settings = configure(f"{SITE_FLAGS} --enable-chunked-prefill --enforce-eager", version="0.10")
    patterns = [
        r"^--enable-chunked-prefill is not supported by the V1 Engine\. Falling back to V0\.",
        r"^Initializing a V0 LLM engine \(v0\.10\.2\) with config:",
        r"^model weights take 8\.\d\dGiB; non_torch_memory takes",
        r"^# cuda blocks: \d+, # CPU blocks: \d+$",
        r"^Maximum concurrency for 131072 tokens per request: [\d.]+x$",
    ]
    lines = texts(events(settings))
    places = list(found(patterns, lines))
    assert -1 not in places
    assert places == sorted(places)
    assert not any("V1 LLM engine" in line or "GPU KV cache size" in line for line in lines)


def test_a_warm_start_takes_about_ninety_seconds_and_a_cold_one_more(configure: Configure) -> None:
    warm = configure(SITE_FLAGS)
    cold = replace(warm, warm=False)
    assert 70 < seconds(events(warm)) < 110
    assert seconds(events(cold)) > seconds(events(warm)) + 25


def test_a_cold_start_says_what_it_compiles_and_a_warm_one_what_it_loads(configure: Configure) -> None:
    warm = configure(f"{SITE_FLAGS} -cc.compile_sizes=[1,8]")
    cold = texts(events(replace(warm, warm=False)))
    for name in ("(1, 32768)", "(1, 1)", "(8, 8)"):
        assert f"Cache the graph of compile range {name} for later use" in cold
        assert any(line.startswith(f"Compiling a graph for compile range {name} takes") for line in cold)
    loaded = [line for line in texts(events(warm)) if line.startswith("Directly load the compiled graph(s)")]
    assert len(loaded) == 3
    assert not any(line.startswith("Compiling a graph") for line in texts(events(warm)))


def test_the_cache_is_keyed_by_what_is_compiled(configure: Configure, tmp_path: Path) -> None:
    def hit(arguments: str, **env: str) -> bool:
        return CompileCache(tmp_path, configure(arguments), env).hit

    assert not hit(SITE_FLAGS)
    CompileCache(tmp_path, configure(SITE_FLAGS), {}).store()
    assert hit(SITE_FLAGS)
    assert hit(f"{SITE_FLAGS} --served-model-name other")
    assert hit(SITE_FLAGS, VLLM_SERVER_DEV_MODE="1")
    assert not hit(SITE_FLAGS.replace("seqs 64", "seqs 32"))
    assert not hit(SITE_FLAGS.replace("32768", "16384"))
    assert not hit(f"{SITE_FLAGS} --block-size 32")
    assert not hit(SITE_FLAGS, VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE="0")


def test_healthy_starts_print_the_lines_that_mislead(configure: Configure) -> None:
    """A long compile brings the hang's reminder, a fixed KV cache an advice about running out of memory."""
    long = replace(configure(f"{SITE_FLAGS} -cc.compile_sizes=[1,2,4,8]"), warm=False)
    assert any(line.startswith("No available shared memory broadcast block found") for line in texts(events(long)))
    fixed = configure(f"{SITE_FLAGS} --kv-cache-memory-bytes 8G")
    assert any("If OOM'ed, check the difference of initial free memory" in line for line in texts(events(fixed)))


@pytest.mark.parametrize(
    ("arguments", "last", "root"),
    [
        (SITE_FLAGS.replace("0.92", "0.95"), "engine", "ValueError: Free memory on device cuda:0"),
        (f"{SITE_FLAGS} --kv-cache-dtype fp8", "weights", "ValueError: No valid attention backend found"),
        (
            f"{SITE_FLAGS} --attention-backend FLASHMLA",
            "weights",
            "ValueError: Selected backend AttentionBackendEnum.F",
        ),
        (SITE_FLAGS.replace("0.92", "0.45"), "kv", "ValueError: No available memory for the cache blocks."),
        (SITE_FLAGS.replace("0.92", "0.60"), "kv", "ValueError: To serve at least one request"),
        (SITE_FLAGS.replace("seqs 64", "seqs 256"), "graphs", "torch.OutOfMemoryError: CUDA out of memory."),
        (SITE_FLAGS.replace("seqs 64", "seqs 128"), "graphs", "RuntimeError: CUDA out of memory occurred when warming"),
    ],
)
def test_a_failed_start_ends_in_its_phase_with_root_cause_and_wrapper(
    configure: Configure, arguments: str, last: str, root: str
) -> None:
    script = events(configure(arguments))
    assert [event.name for event in script if isinstance(event, Phase)][-1] == last
    assert script[-1] == Exit(1)
    lines = "\n".join(texts(script)).split("\n")
    wrapper = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert lines[-1] == wrapper
    assert any(line.startswith(root) for line in lines)
    assert not any("Starting vLLM" in line for line in lines)


def test_a_worker_that_fails_is_told_apart_from_an_engine_that_fails(configure: Configure) -> None:
    in_worker = events(configure(SITE_FLAGS.replace("0.92", "0.95")))
    in_engine = events(configure(SITE_FLAGS.replace("0.92", "0.60")))
    errors = [
        [event.who for event in script if isinstance(event, Log) and event.level == "ERROR"]
        for script in (in_worker, in_engine)
    ]
    assert errors == [["worker", "worker", "engine"], ["engine"]]
