"""How many launches die, and what they cost: plain search, with pre-flight, and with what failures teach besides.

All of it offline, on the simulated engine's memory model, scheduler, clock and compile cache; who proposes is the
product's own ``Proposer``. The predictor knows nothing of the simulator: it reads its logs.
"""

import os
import random
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median

from tests.bench.machine import Machine
from tests.engines.vllm.real import RUNS
from tests.present import present
from tuner import composing
from tuner.engines.vllm.memory.calibration import compare
from tuner.foresight.preflight import Preflight, ground_of
from tuner.premises import make_engine
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role
from tuner.study.proposals import Proposal, Proposer

SITES = {
    "RTX 4090 x2, 0.15, AWQ": ("experiment=demo",),
    "H100, 0.26, bf16": ("experiment=h100", "engine=sim", "hardware=sim-h100", "workload=quick"),
}
SEEDS, TRIALS = 20, 40
DATA = Path(__file__).parents[1] / "data"


class _Forgetful(Preflight):
    """Pre-flight that draws no lesson from failures."""

    lessons = ()

    def lesson(self, index):
        return None


class _Predicting(Proposer):
    """Proposes with pre-flight alone."""

    def known(self, outcome):
        return _Forgetful(present(self._ground), outcome.records)


ARMS = {"plain": None, "pre-flight": _Predicting, "and lessons": Proposer}
"""Who proposes; ``None`` for one who knows of nothing before a launch."""


@dataclass(frozen=True)
class Tally:
    """What one study came to.

    Attributes:
        launches: Servers that were started.
        dead: Those that did not come up.
        ruled_out: Candidates that were pruned before a launch.
        minutes: All GPU time.
        dead_minutes: That of the dead launches.
        best: What the best configuration is worth without noise.
        causes: Of the dead launches.
    """

    launches: int
    dead: int
    ruled_out: int
    minutes: float
    dead_minutes: float
    best: float
    causes: tuple[str, ...] = ()


def study(asked, arm) -> Tally:
    """One study from its first trial to the end of its budget."""
    machine, folder = Machine(asked), StudyFolder(Path(asked.study.path))
    ground = ground_of(asked, make_engine(asked))
    proposer = Proposer(asked, None, _unheard) if arm is None else arm(asked, ground, _unheard)
    outcome = Outcome(folder, asked, (), ())
    while not outcome.over and (proposal := proposer.next(outcome)):
        record = machine.record(len(outcome.records), proposal)
        outcome = Outcome(folder, asked, (*outcome.records, record), ())
    return _tally(outcome, machine)


def _tally(outcome: Outcome, machine: Machine) -> Tally:
    dead = [record for record in outcome.launched if record.failure]
    return Tally(
        launches=len(outcome.launched),
        dead=len(dead),
        ruled_out=len(outcome.ruled_out),
        minutes=sum(record.seconds for record in outcome.launched) / 60,
        dead_minutes=sum(record.seconds for record in dead) / 60,
        best=machine.worth(outcome.best),
        causes=tuple(present(record.failure).cause for record in dead),
    )


def _unheard(text):
    """Nobody listens."""


def asked_of(site, kind, seed, trials=TRIALS):
    """The configuration of a study on one of the sites."""
    alone = ["study.confirm.max=0", "study.control_every=0"]
    return composing.load([*SITES[site], f"search={kind}", f"study.seed={seed}", f"budget.trials={trials}", *alone])


def tallies(site, kind, arm, seeds, trials=TRIALS):
    """The same study with several seeds."""
    return [study(asked_of(site, kind, seed, trials), ARMS[arm]) for seed in seeds]


def kinds():
    """The searches that can run here."""
    return ("auto", "gp", "tpe") if all(find_spec(name) for name in ("torch", "greenlet")) else ("auto", "tpe")


def main():
    seeds = range(int(os.environ.get("TUNER_BENCH_SEEDS", SEEDS)))
    print(f"dead launches in studies of {TRIALS} launches, means of {len(seeds)} seeds")
    print(f"  {'site, search':<30}{'':<13}" + "".join(f"{name:>13}" for name in _COLUMNS))
    for site in SITES:
        for kind in kinds():
            for arm in ARMS:
                cells = _row(tallies(site, kind, arm, seeds))
                print(f"  {f'{site}, {kind}':<30}{arm:<13}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
    print("memory predicted and logged, H100, vLLM 0.26.0, GLM-4.7-Flash (12 and 47 layers)")
    print(f"  {'run':<14}{'after':<12}" + "".join(f"{name:>31}" for name in _FIGURES))
    for name, taught, cells in memory():
        print(f"  {name:<14}{taught:<12}" + "".join(f"{cell:>31}" for cell in cells))
    first_s, *others_s = asks_s(1000, 200)
    print(f"pre-flight, learning from 800 trials at once: {first_s:.2f} s")
    print(f"with each further one: median {median(others_s) * 1000:.1f} ms, worst {max(others_s) * 1000:.1f} ms")


_COLUMNS = ("dead", "ruled out", "GPU minutes", "of them dead", "best tok/s", "worst best")


def _row(found):
    means = [fmean(getattr(each, name) for each in found) for name in ("dead", "ruled_out", "minutes", "dead_minutes")]
    best = [each.best for each in found]
    return [*(f"{mean:.1f}" for mean in means), f"{fmean(best):.1f}", f"{min(best):.1f}"]


_FIGURES = ("weights_gib", "activation_gib", "graph_gib", "kv_gib", "kv_tokens")


def memory():
    """For each real run, before any start and after the first one: predicted and logged figures with the error."""
    first = RUNS["A_cold"]
    for run in RUNS.values():
        for taught, starts in {"nothing": (), "A_cold": (first.start(_log),)}.items():
            if starts and (run is first or run.layers != first.layers):
                continue
            found = {each.name: each for each in compare(run.predicted(_log, starts).terms, run.start(_log).facts)}
            yield run.name, taught, [_cell(found[name]) if name in found else "–" for name in _FIGURES]


def _cell(pair):
    digits = 0 if pair.name == "kv_tokens" else 2
    return f"{pair.predicted:,.{digits}f} / {pair.logged:,.{digits}f} ({pair.error:+.2%})"


def asks_s(trials, asks):
    """What it takes to hear of the first trials and to judge a candidate, and then with each one more."""
    asked, dice = asked_of(next(iter(SITES)), "random", 0), random.Random(0)
    machine, known, took = Machine(asked), Preflight(ground_of(asked, make_engine(asked)), ()), []
    proposals = [Proposal(Role.SEARCH, _drawn(asked.space, dice)) for _ in range(trials)]
    records = tuple(machine.record(number, proposal) for number, proposal in enumerate(proposals))
    for heard in range(trials - asks, trials + 1):
        begun, candidate = time.perf_counter(), _drawn(asked.space, dice)
        known = known.after(records[:heard])
        known.check(candidate)
        took.append(time.perf_counter() - begun)
    return took


def _drawn(space, dice):
    return space.candidate({name: each.value(dice.randrange(each.levels)) for name, each in space.params.items()})


def _log(name):
    return (DATA / name).read_bytes().decode().removesuffix("\n").split("\n")
