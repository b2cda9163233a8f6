"""What looking at a growing study costs: after each trial that is saved, as often as a running study looks.

In CPU time, which neither the disk's nor other programs' work lengthens.
"""

import random
import tempfile
import time
from pathlib import Path
from statistics import fmean

from tests.simulated import simulated_study
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.records.record import Role
from tuner.study.pace import left_s

TRIALS = 1000
LOOKS = 10
SHOWN = (100, 500, 1000)
OVER = 50
"""Trials that a time is the mean of."""


def main():
    took_ms = measure(TRIALS)
    means = {trials: fmean(took_ms[trials - OVER : trials]) for trials in SHOWN}
    for trials, mean_ms in means.items():
        print(f"{LOOKS} looks at the outcome after each of {trials:>4} trials: {mean_ms:.1f} ms of CPU a trial")
    print(f"the last trial takes {means[SHOWN[-1]] / means[SHOWN[0]]:.1f} times the hundredth")


def measure(trials):
    """Milliseconds of CPU that each trial took to be saved and looked at, in the order of the trials."""
    with tempfile.TemporaryDirectory() as folder:
        made = simulated_study(Path(folder) / "made", 20, "study.confirm=0", f"budget.trials={2 * trials}")
        study = StudyFolder(Path(folder) / "grown")
        with study.locked():
            outcome = Outcome(study, made.config, (), ())
            took_ms = []
            for record in copies(made.records, trials):
                begun = time.process_time()
                study.trial(record.number).save(record)
                outcome = looked_at(outcome)
                took_ms.append((time.process_time() - begun) * 1000)
        assert len(outcome.records) == trials
        return took_ms


def looked_at(outcome):
    for _ in range(LOOKS):
        outcome = outcome.now()
        assert outcome.over is not None
        assert outcome.best
        assert left_s(outcome)
    return outcome


def copies(records, trials):
    """The records over and over, each of a configuration and with a throughput of its own; every ninth is a control."""
    dice, baseline = random.Random(0), records[0]
    for number in range(trials):
        record = records[number] if number < len(records) else dice.choice(records[1:])
        digest = record.digest if number < len(records) else f"{number:012x}"
        if number and number % 9 == 0:
            record, digest = baseline.model_copy(update={"role": Role.CONTROL}), baseline.digest
        yield record.model_copy(
            update={"number": number, "digest": digest, "measurement": varied(record.measurement, dice)}
        )


def varied(measurement, dice):
    if measurement is None:
        return None
    rate = measurement.output_tokens_per_s * dice.uniform(0.9, 1.1)
    return measurement.model_copy(update={"output_tokens_per_s": rate})


if __name__ == "__main__":
    main()
