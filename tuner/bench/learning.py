"""``tuner workload learn``: watches a running server's ``/metrics`` and writes a workload that is like its traffic."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import yaml

from tuner.bench.running import base
from tuner.errors import ConfigError, EngineUnavailable, TunerError
from tuner.fetch import fetch
from tuner.launchers.attach import AttachLauncher
from tuner.load.traffic import Snapshot, Traffic

_WITHIN_S = 10.0
_TELL_EVERY = 10
_FEW = 100
"""Fewer requests than these say little about the shape of a distribution."""


def learn(url: str, output: Path, minutes: float, token_env: str | None, say: Callable[[str], None]) -> Traffic:
    """Watch a server and write the workload.

    Args:
        url: Its base URL.
        output: The file, which must not exist.
        minutes: How long to watch.
        token_env: Name of the environment variable that holds the bearer token, if it wants one.
        say: Told every ten readings what has been seen so far.

    Returns:
        What it was made of.

    Raises:
        EngineUnavailable: Nothing answers there.
        TunerError: Its page has no histograms of lengths, no request ended, or it was started anew meanwhile.
    """
    if output.exists():
        raise ConfigError(f"{output} is there already", place="--name", fix="name another one, or remove the file")
    server = AttachLauncher(base(url), token_env)
    traffic = _observed(server, minutes * 60, say)
    text = _text(traffic, server.url, output.stem)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    return traffic


def _observed(server: AttachLauncher, seconds: float, say: Callable[[str], None]) -> Traffic:
    readings = [_reading(server)]
    every_s = min(1.0, seconds / _TELL_EVERY)
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(every_s, left_s))
        readings.append(_reading(server))
        _check_same(readings[-2], readings[-1], server.url)
        if len(readings) % _TELL_EVERY == 1:
            say(progress(Traffic.of(readings), seconds))
    traffic = Traffic.of(readings)
    if traffic.prompts.count < 1:
        fix = "send it its usual traffic meanwhile, or watch for longer: --minutes"
        raise TunerError(f"no request ended at {server.url} within {seconds:.0f} s: there is nothing to learn", fix=fix)
    return traffic


def progress(traffic: Traffic, seconds: float) -> str:
    """What has been seen so far, in a line."""
    ended = traffic.prompts.count
    told = f"{traffic.seconds:.0f} of {seconds:.0f} s: {ended:,.0f} requests ended, {traffic.running:.1f} at once"
    if not ended:
        return told
    means = f"{traffic.prompts.mean:,.0f} prompt and {traffic.outputs.mean:,.0f} output tokens on average"
    return f"{told}, {traffic.rate:.3g} a second, {means}, {traffic.cached:.0%} of the prompts cached"


def _reading(server: AttachLauncher) -> Snapshot:
    page = f"{server.url}/metrics"
    try:
        answer = fetch(page, server.headers, within_s=_WITHIN_S)
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"nothing answers at {page}: {error}", fix="check the URL") from error
    at_ns = time.perf_counter_ns()
    if answer.status != httpx.codes.OK:
        fix = "SGLang needs --enable-metrics, and a gateway may hide the page: give the engine's own URL"
        raise TunerError(f"{page} answers HTTP {answer.status}", fix=fix)
    try:
        reading = Snapshot.of(answer.text, at_ns)
    except (ValueError, IndexError) as error:
        raise TunerError(f"{page} cannot be read: {error}") from error
    if reading.prompts is None or reading.outputs is None:
        fix = (
            "vLLM has vllm:request_prompt_tokens unless it runs with --disable-log-stats; llama.cpp has no histograms: "
            "replay its access log instead (workload=replay)"
        )
        raise TunerError(f"{page} has no histograms of prompt and generation lengths", fix=fix)
    return reading


def _check_same(before: Snapshot, after: Snapshot, url: str) -> None:
    assert before.prompts is not None
    assert after.prompts is not None
    if after.prompts.count < before.prompts.count:
        raise TunerError(f"{url} was started anew while it was watched", fix="run the same command again")


def _text(traffic: Traffic, url: str, name: str) -> str:
    """The file: what was seen as comments, and the workload."""
    few = [f"few requests: its lengths are a rough guess, which more than {_FEW} make a better one"]
    remarks = [
        f"Learnt from {url}/metrics at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {progress(traffic, traffic.seconds)}.",
        "Arrivals are taken to be independent of each other. For as many users in a closed loop, write in their place",
        f"concurrency: {max(1, round(traffic.running))}",
        *(few if traffic.prompts.count < _FEW else []),
    ]
    keys = {"defaults": ["coding-agents", "_self_"], "name": name, **traffic.workload()}
    lines = [f"# {remark}" for remark in remarks]
    return "\n".join([*lines, yaml.safe_dump(keys, sort_keys=False, default_flow_style=None, width=120)])
