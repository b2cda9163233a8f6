"""What a launch on a real GPU costs, by part, and what ending hopeless loads early could save: from recorded studies.

python -m tests.bench.shares [STUDY_FOLDER…]
"""

import sys
from collections import Counter
from pathlib import Path

from tuner.engines.base import Phase
from tuner.records.folder import StudyFolder

RECORDED = Path(__file__).parents[2] / "studies" / "recorded"
HOPELESS = 0.85
"""Below this share of the study's best throughput, a load need not be measured to its end."""
SERVING = {Phase.WARMING_UP: "warm-up", Phase.MEASURING: "load", Phase.SCREENING: "screening", Phase.STOPPING: "stop"}


def main(*folders):
    print("\nshare of the launches' time; 'hopeless': all of the loads below 85 % of the best, no floor left")
    print(f"{'study':<24}{'launches':>9}{'a launch':>10}  start warm-up  load screening  stop  hopeless")
    for folder in map(Path, folders or sorted(map(str, RECORDED.iterdir()))):
        measured = [record for record in StudyFolder(folder).records() if record.measurement]
        if measured:
            print(_line(folder.name, measured))


def _line(name, measured):
    spent: Counter[str] = Counter()
    for record in measured:
        for span in record.phases:
            spent[SERVING.get(span.phase, "start")] += span.seconds
    whole = sum(spent.values())
    best = max(record.measurement.output_tokens_per_s for record in measured)
    hopeless = sum(_load_s(each) for each in measured if each.measurement.output_tokens_per_s < HOPELESS * best)
    parts = "".join(f"{spent[part] / whole:>{width}.0%}" for part, width in PARTS.items())
    return f"{name:<24}{len(measured):>9}{whole / len(measured):>8.0f} s{parts}{hopeless / whole:>10.1%}"


PARTS = {"start": 7, "warm-up": 8, "load": 6, "screening": 10, "stop": 6}


def _load_s(record):
    return sum(span.seconds for span in record.phases if span.phase is Phase.MEASURING)


if __name__ == "__main__":
    main(*sys.argv[1:])
