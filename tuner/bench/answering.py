"""``tuner quality``: running servers are asked what is known, one by itself or two in comparison."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.bench.running import asked
from tuner.config import Config
from tuner.errors import ConfigError, MeasurementError
from tuner.load.target import Target
from tuner.quality.asking import Completion, answers
from tuner.quality.comparing import Compared, compared
from tuner.quality.judging import fault
from tuner.schema import Schema

Begin = Callable[[str, int], Callable[[int], None]]
"""Told whom so many questions are put to; returns what is told how many have been answered, each time."""


class Score(Schema):
    """How one server answered a family of cases."""

    family: str
    asked: int
    right: int
    faults: tuple[str, ...]
    """Of those that are wrong: which, and why."""


def read(
    url: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None, begin: Begin
) -> tuple[Score, ...]:
    """Ask one server everything.

    Raises:
        ConfigError: An override is wrong, or no cases are chosen.
        EngineUnavailable: Nothing answers there.
    """
    config = _config(url, overrides, config_dir, token_env)
    pairs = list(zip(config.quality.asks(), _answers(config, begin, url), strict=True))
    families = dict.fromkeys(ask.case.family for ask, _ in pairs)
    return tuple(_score(name, [(a.name, fault(a, b)) for a, b in pairs if a.case.family == name]) for name in families)


def _score(name: str, faults: Sequence[tuple[str, str | None]]) -> Score:
    wrong = tuple(f"{ask}: {why}" for ask, why in faults if why)
    return Score(family=name, asked=len(faults), right=len(faults) - len(wrong), faults=wrong)


def compare(
    first: str,
    second: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    token_env: str | None,
    begin: Begin,
) -> Compared:
    """Ask two servers the same, the first one twice.

    Raises:
        ConfigError: An override is wrong, or no cases are chosen.
        EngineUnavailable: Nothing answers at a URL.
        MeasurementError: The first server answers nothing at all, so that nothing can be lost.
    """
    configs = [_config(url, overrides, config_dir, token_env) for url in (first, second)]
    one = _answers(configs[0], begin, first)
    if all(each.error for each in one):
        raise MeasurementError(f"{first} answers nothing: {one[0].error}", fix="check the URL and its token")
    two = _answers(configs[1], begin, second)
    again = _answers(configs[0], begin, f"{first} again")
    return compared(configs[0].quality, one, again, two)


def _config(url: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None) -> Config:
    chosen = any(each.startswith("quality=") for each in overrides)
    config = asked(url, overrides if chosen else ["quality=basic", *overrides], config_dir, token_env)
    if not config.quality.cases:
        raise ConfigError("there is nothing to ask", place="quality", fix="choose cases: quality=basic")
    return config


def _answers(config: Config, begin: Begin, what: str) -> tuple[Completion, ...]:
    server, quality = config.launcher.running(config.secrets.file), config.quality
    assert server is not None, "a server that is attached runs"
    asks, target = quality.asks(), Target(server.url, server.headers, str(config.model.served_name))
    return answers(asks, target, quality.concurrency, begin(what, len(asks)))
