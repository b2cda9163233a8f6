"""One measurement of a server that runs already, with a study's own workload and a study's own record."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from tuner.config import AttachLauncherConfig, Config, load
from tuner.engines.base import Phase
from tuner.errors import ConfigError, EngineUnavailable
from tuner.launchers.attach import AttachLauncher
from tuner.load.metrics import Measurement
from tuner.load.plan import Skipped
from tuner.objective import METRICS
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


def text(measurement: Measurement, skipped: Sequence[Skipped] = ()) -> str:
    """A measurement for a person: a line a number, with its unit, and a line for each stage that did not fit."""
    shown = [(name, getattr(measurement, name)) for name in METRICS]
    shown += [(f"ttft_{p.asked_tokens}_cold_ms", p.cold_ms) for p in measurement.long_prompts]
    shown += [(f"ttft_{p.asked_tokens}_cached_ms", p.cached_ms) for p in measurement.long_prompts]
    lines = [f"{name:<24} {'not measured' if value is None else f'{value:.1f}'}" for name, value in shown]
    lines.append(f"{'requests':<24} {measurement.completed} completed, {measurement.failed} failed")
    lines += [f"{each.what:<24} skipped: {each.reason}" for each in skipped]
    return "\n".join([*lines, *(f"{'':<24} {count} × {reason}" for reason, count in measurement.failures.items())])


def _served_model(launcher: AttachLauncher) -> str:
    """The first model that the server lists."""
    try:
        reply = httpx.get(f"{launcher.url.rstrip('/')}/v1/models", headers=launcher.headers, timeout=10)
        return str(reply.json()["data"][0]["id"])
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"nothing answers at {launcher.url}: {error}", fix="check the URL") from error
    except (ValueError, LookupError) as error:
        fix = "check the URL, and say --token-env NAME if the server wants a token"
        raise EngineUnavailable(f"{launcher.url} lists no model (HTTP {reply.status_code})", fix=fix) from error
