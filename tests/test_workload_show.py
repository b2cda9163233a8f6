"""``tuner workload show``: what will be sent, drawn before any of it is."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuner.cli import app
from tuner.load.deciding import Deciding
from tuner.load.outline import outlines
from tuner.load.workload import Workload
from tuner.terminal.traffic import bars, histogram

SAMPLE = Path(__file__).parent / "data" / "mooncake-sample.jsonl"


def show(*words: str) -> str:
    done = CliRunner().invoke(app, ["workload", "show", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_an_open_loop_shows_its_lengths_and_its_rate():
    said = show("workload.arrivals.kind=constant", "workload.arrivals.rate=[2,8]", "workload.min_duration_s=10")
    assert "quick: requests of 500 prompt and exactly 128 output tokens arrive on schedule, constant: 2, then 8" in said
    assert "rate_2: an open loop, 20 requests" in said
    assert re.search(
        r"concurrent: an open loop, 80 requests\n.*500 tokens each\n.*128 tokens each\n.* 8 a second", said
    )


def test_agents_show_what_they_share():
    shared = [int(share) for share in re.findall(r"(\d+)% of all prompt tokens", show("workload=agents"))]
    assert len(shared) == 4
    assert min(shared) > 90


def test_a_trace_shares_as_many_tokens_as_its_blocks_say():
    lines = [json.loads(line) for line in SAMPLE.read_text().splitlines()][:20]
    seen: set[tuple[int, ...]] = set()
    expected = []
    for line in lines:
        heads = [tuple(line["hash_ids"][: count + 1]) for count in range(len(line["hash_ids"]))]
        expected.append(512 * sum(head in seen for head in heads[:-1]))
        seen.update(heads)
    (stage,) = outlines(Workload.model_validate({"name": "w", "trace": {"file": str(SAMPLE)}}), Deciding())
    assert stage.prompts == tuple(line["input_length"] for line in lines)
    assert stage.shared == tuple(expected)


def test_what_the_proof_sends_is_shown_on_request():
    trace = ("workload=replay", f"workload.trace.file={SAMPLE}")
    assert show(*trace) != show(*trace, "--held-out")


def test_the_page_has_a_figure_for_each_question(tmp_path):
    page = tmp_path / "traffic.html"
    show("workload=replay", f"workload.trace.file={SAMPLE}", "-o", str(page))
    html = page.read_text()
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    assert titles == ["How long are prompts and answers?", "When are they sent?", "What can a prefix cache find?"]
    assert html.count('type="application/json"') == 4


@pytest.mark.parametrize(("counts", "drawn"), [([0, 1, 8], " ▁█"), ([3, 3], "██"), ([0, 0], "  ")])
def test_bars_are_as_high_as_their_counts(counts, drawn):
    assert bars(counts) == drawn


def test_a_histogram_counts_every_value_once():
    assert histogram([1, 1, 2, 10], bins=3) == [3, 0, 1]
