"""What a person sees while a running server is measured."""

import io

import pytest
from rich.console import Console

from tuner.bench.view import spoken, view
from tuner.engines.base import Phase
from tuner.load.progress import Progress
from tuner.load.stage import Request, Stage, StopRule

REQUESTS = tuple(Request(f"{n}", 10, 10, 8) for n in range(20))
LASTING = Stage("concurrent", 5, REQUESTS, 0.7, 60, 1, rule=StopRule(10, 60, least_requests=20))
FIXED = Stage("ttft_5000", 1, REQUESTS[:2], 0.7, 60, 0)


def shown(progress, *, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140)
    with view(console, as_json=False) as follower:
        follower.note("measurement 1 of at most 16: http://127.0.0.1:8000")
        follower.phase(Phase.MEASURING)
        follower.progress(progress)
        follower.progress(progress)
    return out.getvalue()


def test_a_lasting_stage_says_requests_elapsed_and_the_longest_it_takes():
    said = spoken(Progress(LASTING, 37, 12.3))
    assert said == "concurrent: 37 requests answered of at least 20, 12 s of 10 s to 1 min 0 s"


def test_a_stage_of_so_many_requests_says_how_many_are_left():
    assert spoken(Progress(FIXED, 1, 3.0)) == "ttft_5000: 1 of 2 requests answered, 3 s"


def test_a_terminal_shows_the_stage_as_it_goes():
    assert "concurrent: 37 requests answered of at least 20" in shown(Progress(LASTING, 37, 12.3), terminal=True)


def test_without_a_terminal_each_stage_is_one_line():
    assert shown(Progress(LASTING, 37, 12.3), terminal=False).splitlines() == [
        "measurement 1 of at most 16: http://127.0.0.1:8000",
        "measuring …",
        "  concurrent: at least 20 requests, 10 s to 1 min 0 s",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_program_is_told_nothing(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal)
    with view(console, as_json=True) as follower:
        follower.note("x")
        follower.phase(Phase.MEASURING)
        follower.progress(Progress(LASTING, 37, 12.3))
    assert not out.getvalue()
