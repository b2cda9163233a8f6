"""One self-contained HTML page of a study: the verdict first, then everything that it rests on.

Nothing is fetched, now or later: plotly.js is in the page once, and the page's own policy forbids it any connection.
"""

from importlib.resources import files

from tuner.records.outcome import Outcome
from tuner.report import charts, findings, launches, method
from tuner.report.markup import Html, joined, tag

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def report_html(outcome: Outcome) -> str:
    """The page.

    Args:
        outcome: The study, finished or not.
    """
    found = charts.charts(outcome)
    main = tag("main", *_sections(outcome), charts.drawn(found), *_method(outcome))
    return page(f"{outcome.config.study.name}: tuner report", main, script=bool(found))


def page(title: str, main: Html, *, script: bool) -> str:
    """A page of its own; ``script`` draws its figures."""
    from plotly.offline import get_plotlyjs

    scripts = [Html(f"<script>{text}</script>") for text in (get_plotlyjs(), _part("page.js"))] if script else []
    return f"<!doctype html>\n<html lang=en>{_head(title)}<body>{joined([main, *scripts])}</body></html>\n"


def _sections(outcome: Outcome) -> list[Html]:
    return [
        tag("header", findings.verdict(outcome)),
        _section("Deployed against best", findings.comparison(outcome)),
        _section("What to change", findings.changes(outcome)),
        _section("What was tried", findings.tried(outcome)),
        _section("What could not run", findings.failed(outcome)),
        *_optional("Ruled out before a launch", launches.ruled_out(outcome)),
        *_optional("Screened in running servers", launches.screened(outcome)),
        *_optional("What held trials back", launches.binding(outcome)),
        *_optional("What the search began with", launches.began_with(outcome)),
        *_optional("What the search expected", launches.expected(outcome)),
        *_optional("Asked for, but not what ran", launches.otherwise(outcome)),
        *_optional("What ran slower than it could", launches.slower(outcome)),
        *_optional("Memory: predicted against logged", launches.predicted(outcome)),
    ]


def _optional(title: str, inside: Html) -> list[Html]:
    return [_section(title, inside)] if inside else []


def _method(outcome: Outcome) -> list[Html]:
    return [
        _section("How it was measured", method.method(outcome)),
        _section("Versions, machine, command", method.origin(outcome)),
    ]


def _section(title: str, inside: Html) -> Html:
    return tag("section", tag("h2", title), inside)


def _head(title: str) -> Html:
    return Html(
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,">{tag("title", title)}'
        f"<style>{_part('page.css')}</style></head>"
    )


def _part(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")
