"""What tuner costs beside the work: its start, its own time per trial, and the search's."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.fast import FAST
from tuner import composing
from tuner.search.base import Observation
from tuner.search.model import ModelSearch
from tuner.search.registry import make_search
from tuner.search.view import SamplerView
from tuner.study import events
from tuner.study.loop import run_study

TRIALS = 8


def main():
    print(f"tuner --help: {help_cpu_s():.2f} s of CPU (python -c pass: {cpu_s('-c', 'pass'):.2f} s)")
    own, asks = own_time_s()
    print(f"tuner's own time per trial: median {median(own):.3f} s, worst {max(own):.3f} s ({len(own)} trials)")
    print(f"ask in that study (tpe): median {median(asks):.3f} s, worst {max(asks):.3f} s")
    for kind in ("random", "tpe"):
        for count in (10, 100, 1000):
            print(f"ask, {kind}, after {count:>4} trials: {ask_s(kind, count):.3f} s")


def help_cpu_s():
    return min(cpu_s("-m", "tuner", "--help") for _ in range(3))


def cpu_s(*arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def own_time_s():
    """All of a trial's wall time but ask, start, warm-up, load and stop; and the asks."""
    begun, records = [], []

    def listen(event):
        match event:
            case events.TrialStarted():
                begun.append(time.perf_counter())
            case events.TrialEnded(record=record):
                records.append(record)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNER_STATE_DIR"] = str(Path(folder) / "state")
        run_study(composing.load([*FAST, f"study.folder={folder}", f"budget.trials={TRIALS}", "search=tpe"]), listen)
    walls = [later - earlier for earlier, later in pairwise(begun)]
    own = [wall - records[n].seconds - records[n + 1].ask_s for n, wall in enumerate(walls)]
    return own, [record.ask_s for record in records if record.ask_s]


def ask_s(kind, count):
    asked = composing.load(["experiment=demo", f"search={kind}"])
    spread = ModelSearch("random", asked.space, ("maximize",), asked.model.settings, 0)
    view = SamplerView(asked.space, ("maximize",))
    candidates = [spread._ask(view, [], attempt) for attempt in range(count)]
    seen = [Observation(candidate, (float(n % 97),), 0.0) for n, candidate in enumerate(candidates)]
    search = make_search(asked.search, asked.space, ["maximize"], asked.model.settings, 0)
    begun = time.perf_counter()
    search.propose(seen)
    return time.perf_counter() - begun
