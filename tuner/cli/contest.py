"""What ``tuner study`` does with a study over engines."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import AsJson, StudiesFolder, print_, say, study_folder
from tuner.errors import ConfigError, InfrastructureError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from tuner.config import Config
    from tuner.contest.entrants import Contest
    from tuner.contest.finished import Finished
    from tuner.contest.outcome import ContestOutcome
    from tuner.records.folder import StudyFolder
    from tuner.study import events

compare_app = typer.Typer()


@compare_app.command("compare")
def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY|PROFILE", help="A finished study, or a profile's file.")],
    second: Annotated[str, typer.Argument(metavar="STUDY|PROFILE", help="Another one, which may be better.")],
    folder: StudiesFolder = Path("studies"),
    most: Annotated[
        int | None, typer.Option("--most", min=1, max=50, help="Launches of each at the most; the first study's own.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Stop the services in site.stop without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Launch the winners of two studies, or two profiles, in turns, and say which is better at each level.

    What was interrupted is resumed by the same command.
    """
    from tuner.contest.finished import contest_between

    contest = contest_between(_finished(folder, first), _finished(folder, second), most)
    if not yes:
        ask_to_stop(contest)
    _run(contest, as_json)


def _finished(folder: Path, place: str) -> "Finished":
    from tuner.contest.finished import of_profile, of_study

    if Path(place).suffix in (".yaml", ".yml") and not (folder / place).is_dir():
        return of_profile(Path(place), folder)
    return of_study(study_folder(folder, place))


def start(contest: "Contest", *, cfg: bool, dry_run: bool, as_json: bool) -> None:
    """Run a study over engines or resume it, or print what would be done."""
    if cfg:
        return print_("\n---\n".join(f"# {each.name}\n{each.config.to_yaml().rstrip()}" for each in contest.entrants))
    if dry_run:
        return _plan(contest, as_json)
    return _run(contest, as_json)


def _plan(contest: "Contest", as_json: bool) -> None:
    from tuner.study.checks import examined
    from tuner.study.plan import plan_of

    checks = {each.name: examined(each.config) for each in contest.entrants}
    plans = {each.name: plan_of(each.config, checks[each.name]) for each in contest.entrants}
    if as_json:
        whole = {"study": contest.name, "trials": contest.budget.trials, "reserve": contest.reserve}
        engines = {name: plan.model_dump(mode="json") for name, plan in plans.items()}
        print_(json.dumps({**whole, "engines": engines}, indent=1))
    else:
        print_("\n\n".join([_head(contest), *(f"== {name}\n{plan.text}" for name, plan in plans.items())]))
    refused = [(name, error) for name, each in checks.items() for error in each.refused]
    for name, error in refused:
        say(f"tuner: {name}: {error}")
    if refused:
        raise typer.Exit(refused[0][1].exit_code)


def _head(contest: "Contest") -> str:
    from tuner.contest.levels import levels_of

    names, config = " and ".join(each.name for each in contest.entrants), contest.entrants[0].config
    levels = " and ".join(level.said for level in levels_of(config.workload, config.objective))
    search = contest.search_trials
    budget = "as many launches as the hours allow" if search is None else f"{search} launches of both searches"
    return (
        f"study      {contest.name} in {contest.path}: {names}, for {levels}\n"
        f"budget     {budget}, in turns until one engine cannot win; then up to {contest.reserve} for the proof"
    )


def ask_to_stop(contest: "Contest") -> None:
    """Stopping a service that others use takes the user's consent."""
    from tuner.site.takeover import in_the_way

    if not contest.site.stop:
        return
    gpus = contest.entrants[0].config.gpus
    names = ", ".join(service.known_as for service in in_the_way(contest.site, gpus))
    if not names:
        return
    said = f"this study stops {names}, and starts it again in the end"
    if not sys.stdin.isatty():
        raise ConfigError(said, place="site.stop", fix="say --yes")
    if not typer.confirm(f"{said}. Continue?"):
        raise typer.Exit(1)


def _run(contest: "Contest", as_json: bool) -> None:
    from rich.console import Console

    from tuner.contest.loop import run_contest
    from tuner.terminal import live

    console = Console(stderr=as_json)

    def views(config: "Config") -> "AbstractContextManager[events.Listener]":
        return live.view(config, console, as_json=as_json)

    command: Sequence[str] = ("tuner", *sys.argv[1:])
    try:
        outcome = run_contest(contest, views, command)
    except OSError as error:
        fix = "make room on that disk, or see that it can be written to; then the same command resumes the study"
        raise InfrastructureError(f"{error.filename or contest.path}: {error.strerror}", fix=fix) from error
    except KeyboardInterrupt:
        say(f"tuner: stopped; the same command resumes {contest.path}")
        raise
    _close(outcome, as_json)


def _close(outcome: "ContestOutcome", as_json: bool) -> None:
    """The files are written, and the table is shown."""
    from tuner.contest import telling

    report(outcome)
    if as_json:
        return print_(json.dumps({"event": "StudyEnded", **telling.summary(outcome)}))
    print_(telling.text(outcome))
    return print_(f"  {outcome.folder.path / telling.REPORT}\n  {outcome.folder.path / telling.MARKDOWN}")


def report(outcome: "ContestOutcome") -> Path:
    """Write its reports, and those of its engines; where the page is."""
    from tuner.contest import telling
    from tuner.terminal.closing import write_results

    for own in filter(None, outcome.outcomes.values() if outcome.terms.searches else ()):
        write_results(own)
    telling.write_reports(outcome)
    return outcome.folder.path / telling.REPORT


def status(path: Path, as_json: bool) -> None:
    """Where it stands."""
    from tuner.contest import telling
    from tuner.contest.outcome import ContestOutcome

    outcome = ContestOutcome.of(path)
    print_(json.dumps(telling.summary(outcome), indent=1) if as_json else telling.text(outcome))


def named(folder: Path, name: str | None) -> Path | None:
    """The folder of the study over engines of this name; ``None`` if it is none."""
    from tuner.contest.outcome import holds_contest

    return folder / name if name and holds_contest(folder / name) else None


def parts(folder: Path, name: str) -> "list[StudyFolder]":
    """The folders of the study over engines of this name, its engines' first; none if it is none."""
    from tuner.contest.outcome import ContestTerms, terms_path
    from tuner.records.folder import StudyFolder, read_json

    if (own := named(folder, name)) is None:
        return []
    engines: list[StudyFolder] = []
    with suppress(ConfigError):  # damaged: the studies of its engines stay, and are listed under their own names
        terms = read_json(terms_path(own), ContestTerms)
        engines = [StudyFolder(folder / study) for study in terms.engines.values()] if terms.searches else []
    return [*(study for study in engines if study.path.exists()), StudyFolder(own)]


def folders(folder: Path) -> list[Path]:
    """The studies over engines in a folder, damaged ones included."""
    return [path.parent for path in sorted(folder.glob("*/engines.json"))]


def line(place: Path) -> "tuple[str, Mapping[str, JsonValue]]":
    """A study over engines in a sentence, and for ``--json``.

    Raises:
        ConfigError: It is damaged.
    """
    from tuner.contest.outcome import ContestOutcome
    from tuner.contest.telling import sentences, summary

    outcome = ContestOutcome.of(place)
    return f"{outcome.name}: {' '.join(sentences(outcome))}", summary(outcome)
