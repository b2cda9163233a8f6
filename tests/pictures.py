"""The README's pictures, of a finished study: ``python -m tests.pictures studies/demo notebooks/pictures``."""

import io
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from tests.browser import browser
from tuner import analysis
from tuner.engines.base import Phase
from tuner.study import events
from tuner.study.pace import Pace
from tuner.terminal import live
from tuner.terminal.closing import table, write_results

TRIAL = 11
"""The trial during which the live view is shown."""
WIDTH = 112


def main(study, folder):
    outcome = analysis.study(study)
    folder.mkdir(parents=True, exist_ok=True)
    write_results(outcome)
    with browser() as chromium:
        photograph(chromium, terminal(outcome), folder / "live.png", "svg")
        with chromium.page(outcome.folder.report.resolve().as_uri(), width=1000, height=860) as page:
            page.until("document.documentElement.dataset.drawn")
            page.picture(folder / "report.png", whole=False)


def photograph(chromium, svg, file, element):
    """A picture of exactly one drawing."""
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as html:
        html.write(f"<body style='margin:0'>{svg}</body>")
        html.flush()
        with chromium.page(Path(html.name).as_uri(), width=1100, height=1000) as page:
            height = page.ask(f"document.querySelector('{element}').getBoundingClientRect().height")
        with chromium.page(Path(html.name).as_uri(), width=1100, height=round(height)) as page:
            page.picture(file, whole=False)


def terminal(outcome):
    """What the terminal shows in the middle of a study and at its end, as SVG without a font from elsewhere."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_terminal=True)
    console.print(Text("$ tuner study start experiment=demo", style="bold"))
    console.print(view(outcome)._draw())
    console.print()
    console.print(Text("… and in the end", style="dim"))
    console.print(Group(table(outcome), Text(outcome.sentence, style="bold")))
    svg = console.export_svg(title="tuner", font_aspect_ratio=0.602)
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")


def view(outcome):
    """The live view while a trial runs."""
    shown = live.LiveView(live.Standing(outcome.config), Console(file=io.StringIO()))
    done = [record for record in outcome.records if record.number < TRIAL]
    budget, relaunches = outcome.config.budget.trials, outcome.config.reserve
    with shown:
        shown.hear(events.StudyStarted(outcome.config.study.name, budget, 0, relaunches))
        for count, record in enumerate(done, start=1):
            best = replace(outcome, records=tuple(done[:count]), relaunches=()).best
            shown.hear(events.TrialEnded(record, best, None))
        pace, running = Pace.of(done), outcome.records[TRIAL]
        left_s = pace.launch_s * (budget - len(done) + relaunches)
        shown.hear(events.TrialStarted(TRIAL, running.role, "", 1, pace, left_s))
        shown.hear(events.PhaseEntered(Phase.WARMING_UP, pace.phases[Phase.WARMING_UP]))
    return shown


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
