"""Every log in tests/data: real ones of this project, and short ones it composed from the engines' own messages.

``causes.csv`` says of each what it must be called and by which line.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.present import present
from tuner.engines.causes import Cause
from tuner.engines.explain import explain

DATA = Path(__file__).parents[1] / "data"
TABLE = {row["file"]: row for row in csv.DictReader((DATA / "causes.csv").read_text().splitlines())}
QUIET = (Cause.HEALTHY, Cause.DEGRADED)
HEALTHY = [file for file, row in TABLE.items() if row["cause"] == Cause.HEALTHY and "restarted" not in file]
UNDECIDED = [file for file, row in TABLE.items() if row["cause"] == Cause.UNKNOWN and not row["line"]]
LOUD = [file for file, row in TABLE.items() if file.startswith("vllm-") and row["line"] and row["cause"] not in QUIET]


def test_the_table_lists_every_log():
    assert set(TABLE) == {path.name for path in DATA.glob("*.log")}


@pytest.mark.parametrize("file", TABLE)
def test_the_cause_is_found_and_the_line_that_names_it(file, log):
    found = explain(log(file))
    assert found.cause == TABLE[file]["cause"]
    assert TABLE[file]["line"] in (found.line or "")
    assert bool(TABLE[file]["line"]) == bool(found.line)
    assert found.line is None or log(file)[present(found.line_number) - 1] == found.line


def test_a_table_of_all_of_them_is_printed(log):
    right: Counter[str] = Counter()
    for file, row in TABLE.items():
        found = explain(log(file))
        right[row["cause"]] += found.cause == row["cause"]
        sys.stdout.write(f"{file:58} {row['cause']:26} {found.cause:26} {(found.line or '')[-80:]}\n")
    seen = Counter(row["cause"] for row in TABLE.values())
    sys.stdout.writelines(f"{cause:26} {right[cause]}/{count}\n" for cause, count in seen.items())
    assert right == seen
    assert set(seen) == {str(cause) for cause in Cause}


@pytest.mark.parametrize("file", [*HEALTHY, *UNDECIDED])
def test_no_prefix_of_a_log_that_is_no_failure_is_called_one_while_the_server_runs(file, log):
    lines = log(file)
    verdicts = [explain(lines[:end], running=True) for end in range(len(lines) + 1)]
    assert {found.cause for found in verdicts} <= {Cause.UNKNOWN, Cause.HEALTHY}
    assert all(found.line is None for found in verdicts if found.cause is Cause.UNKNOWN)


@pytest.mark.parametrize("file", TABLE)
def test_the_verdict_survives_colours_a_container_and_carriage_returns(file, log):
    wrapped = [f"vllm-1  | \x1b[0;36m{line}\x1b[0m\r" for line in log(file)]
    assert explain(wrapped).cause == TABLE[file]["cause"]
