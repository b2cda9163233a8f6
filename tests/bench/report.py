"""What the report of a large study takes: time, memory, size."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.simulated import simulated_study
from tuner import analysis

TRIALS = (20, 1000)


def main():
    for trials in TRIALS:
        with tempfile.TemporaryDirectory() as folder:
            study = simulated_study(folder, trials).folder.path
            # a process of its own, so that its memory is its own
            subprocess.run([sys.executable, "-m", "tests.bench.report", str(study)], check=True)


def measure(study):
    """Read a study and write its report, as ``tuner study report`` does, and print what that took."""
    begun = time.perf_counter()
    from tuner.terminal.closing import write_results

    outcome = analysis.study(study)
    write_results(outcome)
    took_s = time.perf_counter() - begun
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size_mb = outcome.folder.report.stat().st_size / 1e6
    trials = len(outcome.records)
    print(f"report of {trials:>4} trials: {took_s:.1f} s, {peak_mb:.0f} MB at most, a page of {size_mb:.1f} MB")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
