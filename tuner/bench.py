"""One measurement of a server that runs already, with a study's own workload and a study's own record."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from tuner import words
from tuner.config import AttachLauncherConfig, Config, load
from tuner.engines.base import Phase
from tuner.errors import ConfigError, EngineUnavailable
from tuner.fetch import fetch
from tuner.launchers.attach import AttachLauncher
from tuner.load.counters import EngineCounters
from tuner.load.deciding import stage_of, support
from tuner.load.metrics import METRICS, Measurement
from tuner.load.plan import Skipped
from tuner.space import Candidate
from tuner.storage import Role, StudyFolder, TrialRecord
from tuner.trial import Assignment, run_trial
from tuner.workbench import workbench


def bench(
    url: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    token_env: str | None,
    on_phase: Callable[[Phase], None],
) -> tuple[Path, TrialRecord]:
    """Measure the server at a URL; returns where the record lies, in ``studies/bench/trials``, and the record.

    Args:
        url: Its base URL.
        overrides: As for a study: ``workload=quick``, ``study.folder=…``.
        config_dir: A folder with groups of the user's own.
        token_env: Name of the environment variable that holds the bearer token, if it wants one.
        on_phase: Told of each phase.

    Raises:
        ConfigError: An override is wrong.
        EngineUnavailable: Nothing answers at the URL.
    """
    url = _base(url)
    model = _served_model(AttachLauncher(url, token_env))
    said = {"launcher.url": url, "launcher.token_env": token_env, "model.id": model}
    config = load(["experiment=bench", *overrides], config_dir, said)
    folder = StudyFolder(config.study.path)
    with folder.locked(), workbench(config) as (parts, _):
        number = folder.next_number("trials")
        place = folder.trial(number)
        return place.path, run_trial(_assignment(config, number), parts, place, on_phase)


def _base(url: str) -> str:
    """The server's base URL, of what people have at hand: an OpenAI client's ends in ``/v1``."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url} is not a URL", place="URL", fix=f"say http://{url}")
    return url.rstrip("/").removesuffix("/v1")


def _assignment(config: Config, number: int) -> Assignment:
    assert isinstance(config.launcher, AttachLauncherConfig)
    # not the study's seed: the server may still have the prompts of an earlier measurement in its prefix cache
    seed = secrets.randbits(31)
    return Assignment(config.study.name, number, Role.BASELINE, Candidate({}), config.model.settings, seed)


def text(record: TrialRecord) -> str:
    """A measurement for a person: a line a number, with unit, interval and sample, or why there is none.

    Args:
        record: Of a trial that was measured.
    """
    measurement = record.measurement
    assert measurement is not None
    lines = [_row(name, _said(name, measurement, record.skipped)) for name in _names(measurement, record.skipped)]
    lines.append(_row("requests", f"{measurement.completed} completed, {measurement.failed} failed"))
    lines += (_row("", f"{count} × {reason}") for reason, count in measurement.failures.items())
    if measurement.engine:
        lines.append(_row("the server counted", _counted(measurement.engine)))
    return "\n".join([*lines, *(f"warning: {warning}" for warning in measurement.warnings)])


def _row(name: str, said: str) -> str:
    return f"{name:<24} {said}"


def _names(measurement: Measurement, skipped: Sequence[Skipped]) -> list[str]:
    """All metrics, and the TTFTs of the long prompts that were sent or left out."""
    sent = [f"ttft_{prompt.asked_tokens}" for prompt in measurement.long_prompts]
    left_out = [each.what for each in skipped if each.what.startswith("ttft_")]
    long = (f"{stage}_{how}_ms" for stage in (*sent, *left_out) for how in ("cold", "cached"))
    return [*(name for name in METRICS if name != "startup_s"), *long]


def _said(name: str, measurement: Measurement, skipped: Sequence[Skipped]) -> str:
    """One number, or why it is missing."""
    if (value := measurement.numbers.get(name)) is not None:
        return f"{value:.1f} {words.metric(name).unit}".rstrip() + _certainty(measurement, name)
    if left_out := next((each for each in skipped if each.what == stage_of(name)), None):
        return f"skipped: {left_out.reason}"
    size, needed = measurement.samples.get(name, 0), support(name)
    too_small = f": needs a sample of {needed}, had {size}" if 0 < size < needed else ""
    return f"not measured{too_small}"


def _certainty(measurement: Measurement, name: str) -> str:
    """The interval and the sample of a number, where it has them."""
    interval, size = measurement.intervals.get(name), measurement.samples.get(name)
    between = f"  [{interval.low:.1f}, {interval.high:.1f}]" if interval else ""
    return between + (f"  n={size}" if size else "")


def _counted(engine: EngineCounters) -> str:
    """The server's own counters in the steady window of the concurrent stage."""
    told = (
        (engine.generation_tokens, "{:,.0f} tokens generated"),
        (engine.preemptions, "{:.0f} preemptions"),
        (engine.kv_usage_max, "{:.0%} of the KV cache at most"),
        (engine.waiting_mean, "{:.1f} requests waiting"),
    )
    return ", ".join(shown.format(value) for value, shown in told if value is not None) or "nothing"


def _served_model(launcher: AttachLauncher) -> str:
    """The first model that the server lists."""
    try:
        reply = fetch(f"{launcher.url.rstrip('/')}/v1/models", launcher.headers, within_s=10)
        return str(reply.json()["data"][0]["id"])
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"nothing answers at {launcher.url}: {error}", fix="check the URL") from error
    except (ValueError, LookupError, TypeError) as error:
        fix = "check the URL, and say --token-env NAME if the server wants a token"
        raise EngineUnavailable(f"{launcher.url} lists no model (HTTP {reply.status})", fix=fix) from error
