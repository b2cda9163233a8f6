"""A study over engines in words and tables: for the terminal, Markdown, HTML and programs."""

from collections.abc import Iterator

from pydantic import JsonValue

from tuner import words
from tuner.contest.outcome import ContestOutcome
from tuner.contest.verdicts import LevelVerdict, metrics_of, plain
from tuner.records.outcome import named
from tuner.report import page
from tuner.report.markup import joined, table, tag
from tuner.terminal.compared import Lines, shown

REPORT, MARKDOWN = "report.html", "report.md"


def sentences(outcome: ContestOutcome) -> list[str]:
    """Which engine for how many users; else how far it is."""
    if outcome.verdicts:
        return [each.sentence for each in outcome.verdicts]
    missing = [name for name in outcome.names if outcome.best(name) is None]
    if outcome.next_turn is None and missing:
        return [f"No configuration of {' and none of '.join(missing)} could be used: there is nothing to compare."]
    return ["The engines have not been compared yet."]


def comparison(outcome: ContestOutcome) -> Lines:
    """The table: level by level what both measured, with 95 % intervals, and the verdict; its head first."""
    first, second = outcome.names
    head = ["for", "what", first, second, f"{second} against {first}", "verdict"]
    rows = [row for number, each in enumerate(outcome.verdicts, 1) for row in _rows(each, number, outcome)]
    return [head, *rows]


def _rows(each: LevelVerdict, number: int, outcome: ContestOutcome) -> Iterator[list[str]]:
    for place, name in enumerate(metrics_of(each.level, last=number == len(outcome.levels))):
        said = each.title if name in each.level.goals else ""
        yield ["" if place else each.level.said, plain(name), *each.values(name), each.change(name), said]


def standing(outcome: ContestOutcome) -> Lines:
    """How each engine stands: its study, its launches, and what stands for it."""
    rows = []
    for share in outcome.shares:
        own, best = outcome.outcomes[share.name], outcome.best(share.name)
        params = outcome.candidate(share.name).params if best else {}
        changed = own.config.space.changed(params, own.deployed) if own else ""
        which = f"{named(best.role, best.number)}: {changed or 'as deployed'}" if best else "nothing yet"
        model = own.config.model.id if own else ""
        rows.append([share.name, outcome.terms.engines[share.name], model, str(share.launched), which])
    return [["engine", "study", "model", "launches", "best"], *rows]


def remarks(outcome: ContestOutcome) -> list[str]:
    """What else is to be known."""
    levels = len(outcome.levels)
    said = list(outcome.given_up.values())
    if outcome.verdicts:
        said.append(
            f"Both engines were launched in turns, {outcome.verdicts[0].ahead.launches} times each, with the same "
            f"prompts in each pair; the error of one proof is spent once over {levels} levels in both directions."
        )
    models = {outcome.config.model.id for outcome in outcome.outcomes.values() if outcome}
    if len(models) > 1:
        said.append(f"Different models, or files of one: {', '.join(sorted(models))}; answers were not compared.")
    return said


def now(outcome: ContestOutcome) -> str:
    """Whether it runs, is complete, or can be resumed."""
    if (holder := outcome.folder.holder()) is not None:
        return f"running (process {holder})"
    return "complete" if outcome.over else "not running; the same command resumes it"


def text(outcome: ContestOutcome, to: str = "text") -> str:
    """All of it, as ``text`` or ``markdown``."""
    parts = [" ".join(sentences(outcome)) if to == "markdown" else "\n".join(sentences(outcome))]
    if outcome.verdicts:
        parts.append(shown(comparison(outcome), to))
    mark = "- " if to == "markdown" else ""
    parts += [shown(standing(outcome), to), "\n".join(f"{mark}{each}" for each in remarks(outcome))]
    parts.append(f"{words.duration(outcome.spent_s)} spent; {now(outcome)}")
    return "\n\n".join(part for part in parts if part)


def write_reports(outcome: ContestOutcome) -> None:
    """``report.html`` and ``report.md``, in its folder."""
    folder = outcome.folder
    folder.write(folder.path / MARKDOWN, f"# {outcome.name}\n\n{text(outcome, 'markdown')}\n")
    folder.write(folder.path / REPORT, html(outcome))


def html(outcome: ContestOutcome) -> str:
    """One page, which fetches nothing."""
    title = f"{outcome.name}: which engine?"
    compared, stand = comparison(outcome), standing(outcome)
    main = tag(
        "main",
        tag("header", tag("h1", title), joined(tag("p", each) for each in sentences(outcome))),
        tag("section", tag("h2", "Level by level"), table(compared[0], compared[1:])),
        tag("section", tag("h2", "The engines"), table(stand[0], stand[1:])),
        tag("section", tag("h2", "What else is to be known"), joined(tag("p", each) for each in remarks(outcome))),
    )
    return page(title, main, script=False)


def summary(outcome: ContestOutcome) -> dict[str, JsonValue]:
    """For ``--json``."""
    return {
        "study": outcome.name,
        "folder": str(outcome.folder.path),
        "engines": {
            share.name: {
                "study": outcome.terms.engines[share.name],
                "launched": share.launched,
                "given_up": outcome.given_up.get(share.name),
                "best": best.number if (best := outcome.best(share.name)) else None,
            }
            for share in outcome.shares
        },
        "relaunched": len(outcome.counted),
        "over": outcome.over,
        "running": outcome.folder.holder(),
        "spent_s": outcome.spent_s,
        "levels": [_level(each) for each in outcome.verdicts],
        "sentence": " ".join(sentences(outcome)),
    }


def _level(each: LevelVerdict) -> dict[str, JsonValue]:
    return {
        "level": each.level.name,
        "kind": each.kind,
        "winner": each.winner,
        "sentence": each.sentence,
        "second_against_first": each.second.model_dump(mode="json"),
        "first_against_second": each.first.model_dump(mode="json"),
    }
