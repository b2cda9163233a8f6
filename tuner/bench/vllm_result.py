"""The result file of ``vllm bench serve --save-result``, read, and written of tuner's own requests.

By vLLM's definitions (0.32.0, ``vllm/benchmarks/serve.py``, ``calculate_metrics``), which docs/benchmarks.md compares
with tuner's: the whole stage counts, its ramps included, and the first token is the first chunk of the answer, also
where it carries only the role. Times of single requests are in seconds, statistics in milliseconds.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, pstdev

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tuner.errors import ConfigError, MeasurementError
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.goodput import good
from tuner.load.naming import CONCURRENT, comparable
from tuner.load.percentile import percentile
from tuner.load.records import RequestRecord
from tuner.load.timing import tpot_ms
from tuner.load.workload import SingleUser, WarmUpLimits, Workload
from tuner.reading import bytes_of
from tuner.schema import config_error

_PERCENTILES = (50, 95, 99)
_BACKENDS: Mapping[Endpoint, str] = {
    Endpoint.CHAT: "openai-chat",
    Endpoint.COMPLETIONS: "openai",
    Endpoint.MESSAGES: "anthropic",
}
"""As vLLM's benchmark names what it sends to; it has no client of Anthropic's endpoint, so that this name is ours."""
_ENDPOINTS: Mapping[str, Endpoint] = {
    "vllm": Endpoint.COMPLETIONS,
    **{backend: endpoint for endpoint, backend in _BACKENDS.items()},
}
_NUMBERS = {
    "output_tokens_per_s": "output_throughput",
    "requests_per_s": "request_throughput",
    "ttft_p50_ms": "median_ttft_ms",
    "ttft_p95_ms": "p95_ttft_ms",
    "itl_p50_ms": "median_itl_ms",
    "itl_p99_ms": "p99_itl_ms",
    "concurrent_tpot_p50_ms": "median_tpot_ms",
    "e2e_p50_ms": "median_e2el_ms",
    "goodput_requests_per_s": "request_goodput",
}
"""tuner's name of each number that such a file may have."""


class VllmResult(BaseModel):
    """One result file. What is not named here is kept as it stands: other versions write other fields."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    date: str
    """``%Y%m%d-%H%M%S``, local time."""
    backend: str
    model_id: str
    num_prompts: int
    """Requests that were sent."""
    max_concurrency: int | None
    """``None`` for an open loop."""
    duration: float
    """Seconds from the first request's sending to the last one's end."""
    completed: int
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float
    """Completed requests a second of the whole duration."""
    output_throughput: float
    """Output tokens a second of the whole duration."""

    @property
    def numbers(self) -> dict[str, float]:
        """Its numbers by tuner's names of the metrics, and by vLLM's definitions; what it does not say is missing."""
        told = {name: getattr(self, field, None) for name, field in _NUMBERS.items()}
        numbers = {name: comparable(name, value) for name, value in told.items() if isinstance(value, int | float)}
        return {name: value for name, value in numbers.items() if value > 0}

    @property
    def workload(self) -> Workload:
        """The same traffic for tuner: as many requests of the same mean lengths by as many users, and nothing else.

        Raises:
            ConfigError: It was an open loop, or too little completed to know the lengths.
        """
        if self.max_concurrency is None or not self.completed:
            raise ConfigError(
                "this result was measured without --max-concurrency, or nothing completed: tuner's users each wait "
                "for their answer, and cannot send the same traffic",
                fix="measure it again with --max-concurrency",
            )
        prompt, output = (round(n / self.completed) for n in (self.total_input_tokens, self.total_output_tokens))
        return Workload(
            name="vllm-bench-serve",
            endpoint=_ENDPOINTS.get(self.backend, Endpoint.CHAT),
            concurrency=min(self.max_concurrency, self.num_prompts),
            prompts="words",  # its own are tokens at random, unless it was given a data set
            prompt_tokens=prompt,
            output_tokens=max(2, output),
            requests=self.num_prompts,
            min_duration_s=0,
            single_user=SingleUser(prompt_tokens=prompt, output_tokens=2, requests=1),
            ttft_prompt_tokens=(),
            tool_call=False,
            warm_up=WarmUpLimits(shortest_tokens=min(50, prompt), longest_tokens=max(50, prompt)),
        )

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"))


def read(path: Path) -> VllmResult:
    """Read a result file.

    Raises:
        ConfigError: It is none, or one of an embedding benchmark.
    """
    try:
        return VllmResult.model_validate_json(bytes_of(path))
    except ValidationError as error:
        raise ConfigError(f"{path} is no result of vllm bench serve: {config_error(error)}") from error


def result_of(
    records: Sequence[RequestRecord],
    *,
    model: str,
    when: datetime,
    scale: float = 1.0,
    note: str = "",
    workload: Workload | None = None,
) -> VllmResult:
    """What ``vllm bench serve`` would have written of the concurrent stage.

    Requests that were cut off at the stage's end are left out, with their tokens: for the same throughput as vLLM's
    the stage has to send a fixed number of requests (``workload.min_duration_s=0``).

    Args:
        records: All requests of a measurement.
        model: The name that was asked for.
        when: The end of the measurement.
        scale: Seconds of a simulated engine that pass in one second of wall time.
        note: Kept as the result's ``label``.
        workload: Whose requests they are; there is a goodput where it promises something of them.

    Raises:
        MeasurementError: No request of that stage completed.
    """
    sent = [record for record in records if record.stage == CONCURRENT and not record.cut]
    done = [record for record in sent if record.completed]
    if not done:
        raise MeasurementError("no request of the concurrent stage completed: there is nothing to write")
    start_ms = min(record.started_ms for record in sent)
    duration_s = (max(record.started_ms + record.duration_ms for record in sent) - start_ms) / 1000 * scale
    fields: dict[str, JsonValue] = {
        "date": f"{when.astimezone():%Y%m%d-%H%M%S}",
        "endpoint_type": _BACKENDS[sent[0].request.endpoint],
        "backend": _BACKENDS[sent[0].request.endpoint],
        "label": note or None,
        "model_id": model,
        "tokenizer_id": None,
        "num_prompts": len(sent),
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": max(record.stream for record in sent) + 1,
        **_totals(sent, done, duration_s),
        "request_goodput": _goodput(done, workload, scale, duration_s),
        **_detailed(sent, scale),
        **_peaks(done, start_ms, scale),
    }
    for name, values in _distributions(done, scale).items():
        fields |= _statistics(name, values)
    return VllmResult.model_validate(fields)


def _totals(sent: Sequence[RequestRecord], done: Sequence[RequestRecord], duration_s: float) -> dict[str, JsonValue]:
    prompt = sum(record.prompt_tokens or 0 for record in done)
    output = sum(record.output_tokens or 0 for record in done)
    return {
        "duration": duration_s,
        "completed": len(done),
        "failed": len(sent) - len(done),
        "total_input_tokens": prompt,
        "total_output_tokens": output,
        "request_throughput": len(done) / duration_s,
        "output_throughput": output / duration_s,
        "total_token_throughput": (prompt + output) / duration_s,
    }


def _detailed(sent: Sequence[RequestRecord], scale: float) -> dict[str, JsonValue]:
    """What ``--save-detailed`` adds, but the texts, which tuner does not keep. No request waits in the client."""
    return {
        "input_lens": [record.prompt_tokens or 0 for record in sent],
        "output_lens": [(record.output_tokens or 0) if record.completed else 0 for record in sent],
        "ttfts": [_ttft_ms(record) * scale / 1000 for record in sent],
        "itls": [[gap * scale / 1000 for gap in _itls_ms(record)] for record in sent],
        "latencies": [(record.e2e_ms or 0.0) * scale / 1000 for record in sent],
        "start_times": [record.started_ms * scale / 1000 for record in sent],
        "queue_times": [0.0 for _ in sent],
        "errors": [record.failure.text if record.failure else "" for record in sent],
    }


def _peaks(done: Sequence[RequestRecord], start_ms: float, scale: float) -> dict[str, JsonValue]:
    """The busiest second by chunks, and by requests, in seconds counted from the start."""

    def second(record: RequestRecord, at_ms: float) -> int:
        return int((record.started_ms + at_ms - start_ms) * scale / 1000)

    chunks = Counter(second(record, at_ms) for record in done for at_ms in _chunks_ms(record))
    spans = ((second(record, 0), second(record, record.e2e_ms or 0.0)) for record in done)
    requests = Counter(at for first, last in spans for at in range(first, last + 1))
    return {
        "max_output_tokens_per_s": float(max(chunks.values(), default=0)),
        "max_concurrent_requests": max(requests.values(), default=0),
        "rtfx": 0.0,
    }


def _distributions(done: Sequence[RequestRecord], scale: float) -> Mapping[str, list[float]]:
    return {
        "ttft": [_ttft_ms(record) * scale for record in done],
        "tpot": list(_tpots_ms(done, scale)),
        "itl": [gap * scale for record in done for gap in _itls_ms(record)],
        "e2el": [(record.e2e_ms or 0.0) * scale for record in done],
    }


def _tpots_ms(done: Sequence[RequestRecord], scale: float) -> Iterator[float]:
    """By vLLM's TTFT; none of a request of one token."""
    for record in done:
        if (tpot := tpot_ms(record)) is not None and record.output_tokens:
            ahead = ((record.ttft_ms or 0.0) - _ttft_ms(record)) / (record.output_tokens - 1)
            yield (tpot + ahead) * scale


def _goodput(done: Sequence[RequestRecord], workload: Workload | None, scale: float, duration_s: float) -> float | None:
    """Good requests a second, by vLLM's TTFT; ``None`` where nothing is promised."""
    if workload is None or not workload.promises:
        return None
    as_vllm = (replace(record, chunk_ms=tuple(_chunks_ms(record))) for record in done)
    return sum(good(record, workload, scale) for record in as_vllm) / duration_s


def _statistics(name: str, values: Sequence[float]) -> dict[str, JsonValue]:
    """As numpy has them; zero of nothing, as vLLM has it."""
    values = values or [0.0]
    return {
        f"mean_{name}_ms": fmean(values),
        f"median_{name}_ms": median(values),
        f"std_{name}_ms": pstdev(values),
        **{f"p{percent}_{name}_ms": percentile(values, percent) for percent in _PERCENTILES},
    }


def _ttft_ms(record: RequestRecord) -> float:
    """From sending to the first chunk of the answer, whatever it carries; 0 of a request that got none."""
    first = record.ttft_ms if record.opened_ms is None else record.opened_ms
    return first or 0.0


def _chunks_ms(record: RequestRecord) -> list[float]:
    """Every chunk that vLLM counts: the one that opens the stream as well."""
    opened = [] if record.opened_ms is None else [record.opened_ms]
    return [*opened, *record.chunk_ms]


def _itls_ms(record: RequestRecord) -> list[float]:
    return [later - earlier for earlier, later in pairwise(_chunks_ms(record))]
