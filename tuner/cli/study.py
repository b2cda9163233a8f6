"""``tuner study``: run one, and look at its results."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli import contest
from tuner.cli.options import (
    AsJson,
    ConfigDir,
    Overrides,
    StudiesFolder,
    StudyName,
    outcome_of,
    print_,
    say,
    study_folder,
)
from tuner.errors import ConfigError, InfrastructureError, TunerError

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.config import Config

study_app = typer.Typer(help="Run a study and look at its results.", no_args_is_help=True)


def groups_help() -> str:
    """The configuration groups and their choices, as help shows them."""
    from tuner.catalog import groups

    lines = "\n\n".join(f"{group.name}={'|'.join(group.choices)}" for group in groups())
    return (
        "Run a study, or resume the one of that name.\n\n"
        "OVERRIDES choose from the groups and set any key (Hydra's grammar): experiment=demo budget.trials=40\n\n"
        "deployment=PATH[:SERVICE] makes a deployment's own file trial 0 (deployment=compose.yaml); a choice below is a"
        " service by its name\n\n"
        f"Groups and choices:\n\n{lines}"
    )


@study_app.command("start", help=groups_help())
def study_start(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    cfg: Annotated[bool, typer.Option("--cfg", help="Print the composed configuration and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Stop the services in site.stop without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study, or resume the one of that name."""
    from tuner.composing import load
    from tuner.contest.entrants import contest_of

    if (several := contest_of(overrides or [], config_dir, say)) is not None:
        if not (yes or cfg or dry_run):
            contest.ask_to_stop(several)
        return contest.start(several, cfg=cfg, dry_run=dry_run, as_json=as_json)
    config = load(overrides or [], config_dir, say=say)
    if cfg:
        return print_(config.to_yaml().rstrip())
    if dry_run:
        return _plan(config, as_json)
    if not yes:
        _ask_to_stop(config)
    _run(config, as_json)
    return None


def _plan(config: "Config", as_json: bool) -> None:
    from tuner.premises import make_engine
    from tuner.site.deployed import compared
    from tuner.study.checks import examined
    from tuner.study.plan import plan_of

    checks = examined(config)
    plan = plan_of(config, checks, compared(config, make_engine(config)))
    print_(plan.model_dump_json(indent=1) if as_json else plan.text)
    for error in checks.refused:
        say(f"tuner: {error}")
    if checks.refused:
        raise typer.Exit(checks.refused[0].exit_code)


def _ask_to_stop(config: "Config") -> None:
    """Stopping a service that others use takes the user's consent."""
    if not config.site.stop:
        return
    from tuner.premises import make_engine
    from tuner.site.deployed import compared
    from tuner.site.takeover import in_the_way
    from tuner.study.plan import plan_of

    names = ", ".join(service.known_as for service in in_the_way(config.site, config.gpus))
    plan = plan_of(config)
    if not names or plan.launches == 0:
        return
    hours = "until the study ends" if plan.expected_s is None else f"for about {plan.expected_s / 3600:.1f} hours"
    said = f"this study stops {names} {hours}, and starts it again in the end"
    for difference in compared(config, make_engine(config)):
        say(difference)
    if not sys.stdin.isatty():
        raise ConfigError(said, place="site.stop", fix="say --yes")
    if not typer.confirm(f"{said}. Continue?"):
        raise typer.Exit(1)


def _run(config: "Config", as_json: bool) -> None:
    from rich.console import Console

    from tuner.study.loop import run_study
    from tuner.terminal import live
    from tuner.terminal.closing import close, summary

    console = Console(stderr=as_json)
    try:
        with live.view(config, console, as_json=as_json) as listener:
            outcome = run_study(config, listener, ("tuner", *sys.argv[1:]))
    except InfrastructureError:
        _standing(config, console)  # the error itself says how to resume
        raise
    except OSError as error:
        _standing(config, console)
        fix = "make room on that disk, or see that it can be written to; then the same command resumes the study"
        raise InfrastructureError(f"{error.filename or config.study.path}: {error.strerror}", fix=fix) from error
    except KeyboardInterrupt:
        _standing(config, console)
        say(f"tuner: stopped; `tuner study start` with the same arguments resumes {config.study.path}")
        raise
    close(outcome, console)
    if as_json:
        print_(json.dumps({"event": "StudyEnded", **summary(outcome)}))
    if outcome.best is None:
        raise TunerError(outcome.sentence, fix="`tuner study report` shows what each trial died of")


def _standing(config: "Config", console: "Console") -> None:
    """Where things stand."""
    from tuner.records.folder import StudyFolder
    from tuner.records.outcome import Outcome
    from tuner.terminal.closing import table

    folder = StudyFolder(config.study.path)
    if folder.config.exists():
        console.print(table(Outcome.of(folder)))


@study_app.command("status")
def study_status(name: StudyName = None, folder: StudiesFolder = Path("studies"), as_json: AsJson = False) -> None:
    """Where a study stands."""
    if engines := contest.named(folder, name):
        return contest.status(engines, as_json)
    outcome = outcome_of(folder, name)
    if as_json:
        from tuner.terminal.closing import summary

        return print_(json.dumps(summary(outcome), indent=1))
    from rich.console import Console

    from tuner.terminal.closing import launches, table

    console = Console()
    console.print(table(outcome))
    if (each := launches(outcome)) is not None:
        console.print(each)
    return print_(outcome.sentence)


@study_app.command("list")
def study_list(folder: StudiesFolder = Path("studies"), as_json: AsJson = False) -> None:
    """All studies in a folder, a line each."""
    from tuner.records.folder import studies
    from tuner.records.outcome import Outcome
    from tuner.terminal.closing import overview, summary

    outcomes, contests, damaged = [], [], {}
    for study in studies(folder):
        try:
            outcomes.append(Outcome.of(study))
        except (TunerError, OSError) as error:
            damaged[study.path.name] = str(error)
    for place in contest.folders(folder):
        try:
            contests.append(contest.line(place))
        except (TunerError, OSError) as error:
            damaged[place.name] = str(error)
    if as_json:
        broken = [{"study": name, "error": said} for name, said in damaged.items()]
        every = [*map(summary, outcomes), *(told for _, told in contests), *broken]
        return print_(json.dumps(every, indent=1))
    if not outcomes and not damaged:
        return print_(f"no studies in {folder}; `tuner study start experiment=demo` makes one")
    from rich.console import Console

    Console().print(overview(outcomes))
    for sentence, _ in contests:
        print_(sentence)
    for name, said in damaged.items():
        say(f"{name} cannot be read: {said}")
    return None


@study_app.command("report")
def study_report(name: StudyName = None, folder: StudiesFolder = Path("studies")) -> None:
    """Write report, profile and compose file again, and print the report's path; the others are next to it."""
    if engines := contest.named(folder, name):
        from tuner.contest.outcome import ContestOutcome

        return print_(str(contest.report(ContestOutcome.of(engines))))
    from tuner.terminal.closing import write_results

    outcome = outcome_of(folder, name)
    write_results(outcome)
    return print_(str(outcome.folder.report))


@study_app.command("dashboard")
def study_dashboard(
    name: StudyName = None,
    folder: StudiesFolder = Path("studies"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 0,
    in_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Look at a study's trials, logs and notes in a browser, on this machine only; works while it runs."""
    from tuner.dashboard.server import show

    show(outcome_of(folder, name), port, print_, in_browser=in_browser)


@study_app.command("export")
def study_export(
    name: StudyName = None,
    folder: StudiesFolder = Path("studies"),
    to: Annotated[str, typer.Option("--format", help="csv, json or parquet.")] = "csv",
    table: Annotated[str, typer.Option("--table", help="trials, requests, phases or failures.")] = "trials",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
) -> None:
    """A table of the study for other programs, with the columns of the notebooks' frames."""
    from tuner.analysis import export

    text = export(outcome_of(folder, name), to, output, table)
    if text is not None:
        print_(text.rstrip("\n"))


@study_app.command("compare")
def study_compare(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY…", help="Names, folders, or files with a profile.")],
    folder: StudiesFolder = Path("studies"),
    price: Annotated[float | None, typer.Option(help="What a GPU costs an hour; adds the cost of tokens.")] = None,
    to: Annotated[str, typer.Option("--format", help="text, markdown, html, csv or json.")] = "text",
) -> None:
    """What was deployed and what won, of any number of studies and profiles, in one table."""
    from tuner.terminal.compared import compared

    places = [Path(each) if Path(each).exists() else study_folder(folder, each).path for each in studies]
    text, remarks = compared(places, to, price)
    print_(text)
    for remark in remarks:
        say(f"! {remark}")


@study_app.command("rm")
def study_rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")],
    folder: StudiesFolder = Path("studies"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Without asking.")] = False,
) -> None:
    """Remove a study: its records, logs and results, for good."""
    from tuner.composing import read
    from tuner.dashboard.ledger import forget
    from tuner.records.folder import remove

    several = contest.parts(folder, name) or [study_folder(folder, name)]
    places = ", ".join(str(study.path) for study in several)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"this removes {places} for good", place="study rm", fix="say --yes")
        if not typer.confirm(f"Remove {places} for good?"):
            raise typer.Exit(1)
    for study in several:
        if study.config.exists():  # a study over engines has none
            with suppress(ConfigError):  # a damaged study as well
                forget(read(study.config), study)
        remove(study)
        print_(f"{study.path} removed")
