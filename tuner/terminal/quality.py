"""``tuner quality`` on a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from tuner.bench.answering import Begin, Score
from tuner.quality.comparing import Compared, Family

WORSE = 3
"""The exit code of a server that answers less rightly."""


@contextmanager
def shown() -> Iterator[Begin]:
    """Progress, as bars or as a line for each server."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:

        def begin(what: str, requests: int) -> Callable[[int], None]:
            if not console.is_terminal:
                console.print(f"{what}: {requests} questions", highlight=False, soft_wrap=True)
            task = progress.add_task(what, total=requests)
            return lambda answered: progress.update(task, completed=answered)

        yield begin


def text_of_scores(found: Sequence[Score]) -> str:
    """A line for each family, and the first faults of each."""
    return "\n".join(line for each in found for line in _lines(each))


def _lines(score: Score) -> Iterator[str]:
    yield f"{score.family:<14} {score.right} of {score.asked} right"
    yield from (f"  {each}" for each in score.faults[:3])
    if len(score.faults) > 3:
        yield f"  and {len(score.faults) - 3} more"


def text_of_comparison(found: Compared) -> str:
    """The verdict, and a line for each family."""
    names = ", ".join(family.name for family in found.worse)
    verdict = f"The second answers less rightly: {names}." if names else "The second answers as rightly as the first."
    rule = f"equal servers are told apart in at most {found.alpha:.0%} of comparisons"
    lines = [line for each in found.families for line in _compared_lines(each)]
    lines += [
        f"The {which} gives no log probabilities: a drift shows in changed texts alone." for which in found.unscored
    ]
    return "\n".join([*lines, f"{verdict} ({rule})"])


def _compared_lines(family: Family) -> Iterator[str]:
    one, two = family.right
    counts = f"{one} and {two} of {family.asked}"
    if family.nats:
        one_nats, two_nats = family.nats
        counts = f"{one_nats:.3f} and {two_nats:.3f} nats a token"
    yield f"{family.name:<17} {counts:<32} lost {family.lost}, won {family.won}{_mark(family)}"
    if family.worse:
        yield from (f"  {each}" for each in family.examples)


def _mark(family: Family) -> str:
    if not family.worse:
        return ""
    if family.decides:
        return " ← worse"
    return " ← drifts" if family.nats else " ← differs more than its own repeat does: rounding, or worse"
