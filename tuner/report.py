"""One self-contained HTML page of a study."""

from html import escape

from tuner.live import spoken
from tuner.outcome import Outcome
from tuner.space import Candidate
from tuner.storage import TrialRecord

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #8884;
vertical-align:top}code{font-size:.85em;overflow-wrap:anywhere}.lead{font-size:1.3rem}
"""


def report_html(outcome: Outcome) -> str:
    """The page: the verdict first, then what was tried."""
    name = escape(outcome.config.study.name)
    rows = "\n".join(_row(outcome, record) for record in outcome.records)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{name}: tuner</title><style>{_STYLE}</style><h1>{name}</h1>"
        f"<p class=lead>{escape(outcome.sentence)}</p>"
        "<table><thead><tr><th>trial<th>result<th>changed from the baseline<th>deciding line</thead>"
        f"<tbody>{rows}</tbody></table></html>\n"
    )


def _row(outcome: Outcome, record: TrialRecord) -> str:
    baseline = Candidate(outcome.baseline.params) if outcome.baseline else Candidate({})
    cells = (
        str(record.number),
        spoken(record, outcome.config.objective),
        Candidate(record.params).changed(baseline) or "as deployed",
        (record.failure.line or "") if record.failure else "",
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)
