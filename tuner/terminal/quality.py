"""``tuner quality`` on a terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from tuner.bench.running import asked
from tuner.config import Config
from tuner.errors import ConfigError, MeasurementError
from tuner.load.target import Target
from tuner.quality.asking import Answer, answers
from tuner.quality.comparing import Compared, Family, compared
from tuner.quality.judging import fault
from tuner.schema import Schema

WORSE = 3
"""The exit code of a server that answers less rightly."""


class Reading(Schema):
    """How one server answered."""

    family: str
    asked: int
    right: int
    faults: tuple[str, ...]
    """Of those that are wrong: which, and why."""


def read(url: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None) -> tuple[Reading, ...]:
    """Ask one server everything.

    Raises:
        ConfigError: An override is wrong, or no cases are chosen.
        EngineUnavailable: Nothing answers there.
    """
    config = _config(url, overrides, config_dir, token_env)
    with _shown(len(config.quality.asks())) as progress:
        found = _answers(config, progress, url)
    pairs = list(zip(config.quality.asks(), found, strict=True))
    families = dict.fromkeys(ask.case.family for ask, _ in pairs)
    return tuple(
        _reading(name, [(a.name, fault(a, b)) for a, b in pairs if a.case.family == name]) for name in families
    )


def _reading(name: str, faults: Sequence[tuple[str, str | None]]) -> Reading:
    wrong = tuple(f"{ask}: {why}" for ask, why in faults if why)
    return Reading(family=name, asked=len(faults), right=len(faults) - len(wrong), faults=wrong)


def compare(
    first: str, second: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None
) -> Compared:
    """Ask two servers the same, the first one twice.

    Raises:
        ConfigError: An override is wrong, or no cases are chosen.
        EngineUnavailable: Nothing answers at a URL.
        MeasurementError: The first server answers nothing at all, so that nothing can be lost.
    """
    configs = [_config(url, overrides, config_dir, token_env) for url in (first, second)]
    with _shown(3 * len(configs[0].quality.asks())) as progress:
        one = _answers(configs[0], progress, first)
        if all(each.error for each in one):
            raise MeasurementError(f"{first} answers nothing: {one[0].error}", fix="check the URL and its token")
        two = _answers(configs[1], progress, second)
        again = _answers(configs[0], progress, f"{first} again")
    return compared(configs[0].quality, one, again, two)


def _config(url: str, overrides: Sequence[str], config_dir: Path | None, token_env: str | None) -> Config:
    chosen = any(each.startswith("quality=") for each in overrides)
    config = asked(url, overrides if chosen else ["quality=basic", *overrides], config_dir, token_env)
    if not config.quality.cases:
        raise ConfigError("there is nothing to ask", place="quality", fix="choose cases: quality=basic")
    return config


def _answers(config: Config, progress: Progress, what: str) -> tuple[Answer, ...]:
    server, quality = config.launcher.running(config.secrets.file), config.quality
    assert server is not None, "a server that is attached runs"
    target = Target(server.url, server.headers, str(config.model.served_name))
    task: TaskID = progress.add_task(what, total=len(quality.asks()))
    return answers(quality.asks(), target, quality.concurrency, lambda n: progress.update(task, completed=n))


@contextmanager
def _shown(requests: int) -> Iterator[Progress]:
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"asking {requests} questions")
    with Progress(console=console, disable=not console.is_terminal) as progress:
        yield progress


def text_of_readings(found: Sequence[Reading]) -> str:
    """A line for each family, and the first faults of each."""
    return "\n".join(line for each in found for line in _lines(each))


def _lines(reading: Reading) -> Iterator[str]:
    yield f"{reading.family:<14} {reading.right} of {reading.asked} right"
    yield from (f"  {each}" for each in reading.faults[:3])
    if len(reading.faults) > 3:
        yield f"  and {len(reading.faults) - 3} more"


def text_of_comparison(found: Compared) -> str:
    """The verdict, and a line for each family."""
    names = ", ".join(family.name for family in found.worse)
    verdict = f"The second answers less rightly: {names}." if names else "The second answers as rightly as the first."
    rule = f"equal servers are told apart in at most {found.alpha:.0%} of comparisons"
    return "\n".join([*(line for each in found.families for line in _compared_lines(each)), f"{verdict} ({rule})"])


def _compared_lines(family: Family) -> Iterator[str]:
    one, two = family.right
    counts = f"{one} and {two} of {family.asked}"
    yield f"{family.name:<14} {counts:<20} lost {family.lost}, won {family.won}{_mark(family)}"
    if family.worse:
        yield from (f"  {each}" for each in family.examples)


def _mark(family: Family) -> str:
    if not family.worse:
        return ""
    return " ← worse" if family.decides else " ← differs more than its own repeat does: rounding, or worse"
