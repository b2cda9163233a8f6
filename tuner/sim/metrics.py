"""What ``/metrics`` says, in vLLM's names and Prometheus' text format."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from tuner.sim.memory import MemoryPlan
from tuner.sim.scheduler import Scheduler
from tuner.sim.settings import Settings

TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TPOT_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2E_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip


def token_buckets(longest: int) -> tuple[float, ...]:
    """1, 2, 5, 10 and so on, as far as a request can be long: vLLM's ``build_1_2_5_buckets``."""
    steps = (digit * 10.0**power for power in range(len(str(longest))) for digit in (1, 2, 5))
    return tuple(step for step in steps if step <= longest)


class Histogram:
    """A Prometheus histogram.

    Args:
        bounds: Upper bounds of its buckets, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, ``times`` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Its text lines."""
        bounds = [*(str(bound) for bound in self.bounds), "+Inf"]
        for bound, total in zip(bounds, accumulate(self.counts), strict=True):
            yield f'{name}_bucket{{le="{bound}",{labels}}} {float(total)}'
        yield f"{name}_count{{{labels}}} {float(sum(self.counts))}"
        yield f"{name}_sum{{{labels}}} {self.sum}"


class Metrics:
    """Everything that one server counts.

    Args:
        settings: The engine's configuration.
        plan: Its memory.
        scheduler: Whose counters to show.
    """

    def __init__(self, settings: Settings, plan: MemoryPlan, scheduler: Scheduler) -> None:
        self.settings = settings
        self.plan = plan
        self.scheduler = scheduler
        self.ttft = Histogram(TTFT_BUCKETS)
        self.tpot = Histogram(TPOT_BUCKETS)
        self.itl = Histogram(TPOT_BUCKETS)
        self.e2e = Histogram(E2E_BUCKETS)
        self.prompt_lengths = Histogram(token_buckets(settings.max_model_len))
        self.output_lengths = Histogram(token_buckets(settings.max_model_len))
        self.finished: dict[str, int] = dict.fromkeys(("stop", "length", "abort", "error"), 0)
        self.created_s = time.time()
        self._labels = f'engine="0",model_name="{settings.served_model_name[0]}"'

    def text(self) -> str:
        """The whole page."""
        lines = [*self._process(), *self._gauges(), *self._counters(), *self._histograms(), *self._cache_config()]
        return "\n".join(lines) + "\n"

    def _process(self) -> Iterator[str]:
        yield from _head(
            "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."
        )
        yield f"process_start_time_seconds {self.created_s}"
        yield from _head("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.")
        yield f"process_cpu_seconds_total {time.process_time()}"

    def _gauges(self) -> Iterator[str]:
        scheduler = self.scheduler
        usage = scheduler.pool.used / scheduler.pool.blocks
        for name, value, text in (
            ("num_requests_running", len(scheduler.running), "Number of requests in model execution batches."),
            ("num_requests_waiting", len(scheduler.waiting), "Number of requests waiting to be processed."),
            ("kv_cache_usage_perc", usage, "KV-cache usage. 1 means 100 percent usage."),
        ):
            yield from self._single(name, "gauge", text, float(value))

    def _counters(self) -> Iterator[str]:
        counters = self.scheduler.counters
        hits = "Prefix cache hits, in terms of number of cached tokens."
        for name, value, text in (
            (
                "prefix_cache_queries",
                counters.prefix_queries,
                "Prefix cache queries, in terms of number of queried tokens.",
            ),
            ("prefix_cache_hits", counters.prefix_hits, hits),
            ("num_preemptions", counters.preemptions, "Cumulative number of preemption from the engine."),
            ("prompt_tokens", counters.prompt, "Number of prefill tokens processed."),
            ("generation_tokens", counters.generated, "Number of generation tokens processed."),
        ):
            yield from self._single(f"{name}_total", "counter", text, float(value))
        yield from _head("vllm:request_success_total", "counter", "Count of successfully processed requests.")
        for reason, count in self.finished.items():
            yield f'vllm:request_success_total{{finished_reason="{reason}",{self._labels}}} {float(count)}'

    def _histograms(self) -> Iterator[str]:
        for name, histogram, text in (
            ("time_to_first_token_seconds", self.ttft, "Histogram of time to first token in seconds."),
            ("inter_token_latency_seconds", self.itl, "Histogram of inter-token latency in seconds."),
            ("request_time_per_output_token_seconds", self.tpot, "Histogram of time per output token per request."),
            ("e2e_request_latency_seconds", self.e2e, "Histogram of e2e request latency in seconds."),
            ("request_prompt_tokens", self.prompt_lengths, "Number of prefill tokens processed."),
            ("request_generation_tokens", self.output_lengths, "Number of generation tokens processed."),
        ):
            yield from _head(f"vllm:{name}", "histogram", text)
            yield from histogram.lines(f"vllm:{name}", self._labels)

    def _cache_config(self) -> Iterator[str]:
        yield from _head("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig")
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(self._cache_labels().items()))
        yield f"vllm:cache_config_info{{{labels}}} 1.0"

    def _cache_labels(self) -> Mapping[str, object]:
        settings, plan = self.settings, self.plan
        return {
            "block_size": settings.block_size,
            "cache_dtype": settings.kv_cache_dtype,
            "enable_prefix_caching": settings.enable_prefix_caching,
            "engine": 0,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "kv_cache_max_concurrency": plan.max_concurrency,
            "kv_cache_memory_bytes": settings.kv_cache_memory_bytes,
            "kv_cache_size_tokens": plan.kv_tokens,
            "num_cpu_blocks": None,
            "num_gpu_blocks": plan.num_blocks,
            "num_gpu_blocks_override": settings.num_gpu_blocks_override,
            "prefix_caching_hash_algo": "sha256",
            "sliding_window": None,
        }

    def _single(self, name: str, kind: str, text: str, value: float) -> Iterator[str]:
        yield from _head(f"vllm:{name}", kind, text)
        yield f"vllm:{name}{{{self._labels}}} {value}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
