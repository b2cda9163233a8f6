"""Launch one configuration again and again, and keep what each launch measured, for ``bench-proof`` to draw from.

    python -m tests.bench.record_noise NAME LAUNCHES [OVERRIDE…]

The overrides are those of ``tuner study start``. A launch is written as it ends; the same command resumes.
"""

import csv
import os
import platform
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.noise import RECORDED, recorded
from tuner import __version__, composing
from tuner.load.metrics import METRICS
from tuner.records.folder import StudyFolder
from tuner.records.record import Role
from tuner.space import Candidate
from tuner.study.assembly import workbench
from tuner.trial.assignment import Assignment
from tuner.trial.run import run_trial


def main():
    name, launches, *overrides = sys.argv[1:]
    file = RECORDED / f"{name}.csv"
    done = len(recorded(name)) if file.exists() else 0
    with tempfile.TemporaryDirectory() as folder:
        asked = composing.load([*overrides, f"study.folder={folder}"])
        with workbench(asked) as (bench, _):
            for number in range(done, int(launches)):
                _keep(file, number, _launch(asked, bench, StudyFolder(asked.study.path), number), overrides)


def _launch(asked, bench, folder, number):
    assignment = Assignment(asked.study.name, number, Role.BASELINE, Candidate({}), asked.model.settings, seed=number)
    return run_trial(assignment, bench, folder.trial(number), lambda phase: None)


def _keep(file, number, record, overrides):
    """Append a launch; one that gave no measurement is said, and made again with the next call."""
    if record.measurement is None:
        print(f"launch {number}: {record.failure.message if record.failure else 'nothing measured'}", flush=True)
        return
    figures = {metric: record.measurement.numbers.get(metric) for metric in METRICS}
    if not file.exists():
        file.write_text(_header(record, overrides) + ",".join(["launch", *figures]) + "\n")
    with file.open("a", newline="") as lines:
        row = [number, *("" if value is None else f"{value:.6g}" for value in figures.values())]
        csv.writer(lines, lineterminator="\n").writerow(row)
    print(f"launch {number}: {record.measurement.numbers}", flush=True)


def _header(record, overrides):
    version, today = record.facts.engine_version if record.facts else None, datetime.now(UTC).date()
    machine = f"{os.cpu_count()} CPUs ({_cpu()}), {platform.system()} {platform.machine()}"
    said = [
        f"Launches of one configuration, engine {version}, tuner {__version__}, from {today} on.",
        f"Machine: {machine}, load average {os.getloadavg()[2]:.0f} at the first launch: if that is more than",
        "the server's own load, what others did meanwhile is part of this noise.",
        f"Command: python -m tests.bench.record_noise NAME LAUNCHES {' '.join(map(_public, overrides))}",
    ]
    return "".join(f"# {line}\n" for line in said)


def _cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown model")


def _public(override):
    """Without the places of this machine."""
    return shlex.quote(override.replace(str(Path.home()), "~"))


if __name__ == "__main__":
    main()
