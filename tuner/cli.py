"""The commands: parse, call, print. Nothing heavy is imported before it is needed."""

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tuner import __version__
from tuner.errors import ConfigError, InfrastructureError, TunerError
from tuner.terminal import interrupt

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.config import Config
    from tuner.export.profile import Profile
    from tuner.records.folder import StudyFolder
    from tuner.records.outcome import Outcome
    from tuner.site.clean import LeftOver

app = typer.Typer(
    name="tuner",
    help="Find, prove and write back the fastest configuration of an LLM server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
study_app = typer.Typer(help="Run a study and look at its results.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure a server that runs already.", no_args_is_help=True)
profile_app = typer.Typer(help="A deployment that runs already, or is to run.", no_args_is_help=True)
workload_app = typer.Typer(help="What is sent.", no_args_is_help=True)
sim_app = typer.Typer(help="The simulated engine.", no_args_is_help=True)
app.add_typer(study_app, name="study")
app.add_typer(profile_app, name="profile")
app.add_typer(sim_app, name="sim")
app.add_typer(bench_app, name="bench")
app.add_typer(workload_app, name="workload")


def main() -> NoReturn:
    """Run the command line; errors of ours end without a traceback, with the exit code that their class names."""
    interrupt.listen()
    try:
        code = app(standalone_mode=False)
        raise SystemExit(code if isinstance(code, int) else 0)
    except TunerError as error:
        _say(f"tuner: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        _say("tuner: interrupted")
        raise SystemExit(130) from None
    except typer.Exit as done:
        raise SystemExit(done.exit_code) from None
    except OSError as error:
        # a folder that cannot be written, a full disk, a port in use: the system's words name the thing
        _say(f"tuner: {error}")
        raise SystemExit(1) from None
    except Exception as error:
        # with standalone_mode off, what the parser has to say of a wrong command line comes as an exception
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            if message := error.format_message():  # none, where the help has just been printed instead
                _say(f"tuner: {message}")
            raise SystemExit(error.exit_code) from None
        raise


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _version(wanted: bool) -> None:
    if wanted:
        _print(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before any command."""


@bench_app.callback()
@profile_app.callback()
@workload_app.callback()
@sim_app.callback()
def _group() -> None:
    """Typer would make a group of a single command that command itself."""


def _groups_help() -> str:
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


def _complete_override(incomplete: str) -> list[str]:
    from tuner.catalog import groups

    words = [f"{group.name}={choice}" for group in groups() for choice in group.choices]
    return [word for word in words if word.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[OVERRIDE]...", help="group=choice or key=value", autocompletion=_complete_override),
]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="A folder with configuration groups of your own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
TokenEnv = Annotated[str | None, typer.Option("--token-env", help="Environment variable that holds the bearer token.")]
StudyName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The study; not needed where there is only one.")
]
StudiesFolder = Annotated[Path, typer.Option("--folder", help="Where study folders lie.")]


@study_app.command("start", help=_groups_help())
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

    config = load(overrides or [], config_dir, say=_say)
    if cfg:
        return _print(config.to_yaml().rstrip())
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
    _print(plan.model_dump_json(indent=1) if as_json else plan.text)
    for error in checks.refused:
        _say(f"tuner: {error}")
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
        _say(difference)
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
        _say(f"tuner: stopped; `tuner study start` with the same arguments resumes {config.study.path}")
        raise
    close(outcome, console)
    if as_json:
        _print(json.dumps({"event": "StudyEnded", **summary(outcome)}))
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
    outcome = _outcome(folder, name)
    if as_json:
        from tuner.terminal.closing import summary

        return _print(json.dumps(summary(outcome), indent=1))
    from rich.console import Console

    from tuner.terminal.closing import launches, table

    console = Console()
    console.print(table(outcome))
    if (each := launches(outcome)) is not None:
        console.print(each)
    return _print(outcome.sentence)


@study_app.command("list")
def study_list(folder: StudiesFolder = Path("studies"), as_json: AsJson = False) -> None:
    """All studies in a folder, a line each."""
    from tuner.records.folder import studies
    from tuner.records.outcome import Outcome
    from tuner.terminal.closing import overview, summary

    outcomes, damaged = [], {}
    for study in studies(folder):
        try:
            outcomes.append(Outcome.of(study))
        except (TunerError, OSError) as error:
            damaged[study.path.name] = str(error)
    if as_json:
        broken = [{"study": name, "error": said} for name, said in damaged.items()]
        return _print(json.dumps([*(summary(outcome) for outcome in outcomes), *broken], indent=1))
    if not outcomes and not damaged:
        return _print(f"no studies in {folder}; `tuner study start experiment=demo` makes one")
    from rich.console import Console

    Console().print(overview(outcomes))
    for name, said in damaged.items():
        _say(f"{name} cannot be read: {said}")
    return None


@study_app.command("report")
def study_report(name: StudyName = None, folder: StudiesFolder = Path("studies")) -> None:
    """Write report, profile and compose file again, and print the report's path; the others are next to it."""
    from tuner.terminal.closing import write_results

    outcome = _outcome(folder, name)
    write_results(outcome)
    _print(str(outcome.folder.report))


@study_app.command("dashboard")
def study_dashboard(
    name: StudyName = None,
    folder: StudiesFolder = Path("studies"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 0,
    in_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Look at a study's trials, logs and notes in a browser, on this machine only; works while it runs."""
    from tuner.dashboard.server import show

    show(_outcome(folder, name), port, _print, in_browser=in_browser)


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

    text = export(_outcome(folder, name), to, output, table)
    if text is not None:
        _print(text.rstrip("\n"))


@study_app.command("compare")
def study_compare(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY…", help="Names, folders, or files with a profile.")],
    folder: StudiesFolder = Path("studies"),
    price: Annotated[float | None, typer.Option(help="What a GPU costs an hour; adds the cost of tokens.")] = None,
    to: Annotated[str, typer.Option("--format", help="text, markdown, html, csv or json.")] = "text",
) -> None:
    """What was deployed and what won, of any number of studies and profiles, in one table."""
    from tuner.terminal.compared import compared

    places = [Path(each) if Path(each).exists() else _study_folder(folder, each).path for each in studies]
    text, remarks = compared(places, to, price)
    _print(text)
    for remark in remarks:
        _say(f"! {remark}")


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

    study = _study_folder(folder, name)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"this removes {study.path} for good", place="study rm", fix="say --yes")
        if not typer.confirm(f"Remove {study.path} for good?"):
            raise typer.Exit(1)
    with suppress(ConfigError):  # a damaged study as well
        forget(read(study.config), study)
    remove(study)
    _print(f"{study.path} removed")


@bench_app.command("run")
def bench_run(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base URL of the server: http://127.0.0.1:8000")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    token_env: TokenEnv = None,
    save_vllm: Annotated[
        Path | None, typer.Option("--save-vllm", help="Also write a result file as `vllm bench serve` does.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a running server once; OVERRIDES choose the workload: workload=quick."""
    from rich.console import Console

    from tuner.bench.running import bench
    from tuner.bench.saved import vllm_of
    from tuner.bench.text import text
    from tuner.bench.view import view

    with view(Console(stderr=True), as_json=as_json) as follower:
        measured = bench(url, overrides or [], config_dir, token_env, follower)
    record = measured.record
    _say(f"kept in {measured.folder.path}")
    if record.measurement is None:  # with one, nothing but its verdict can have failed, and none is wanted here
        raise TunerError(record.failure.message if record.failure else "nothing was measured")
    if save_vllm:
        save_vllm.write_text(vllm_of(measured).to_json() + "\n")
    _print(record.measurement.model_dump_json(indent=1) if as_json else text(record))


@workload_app.command("show")
def workload_show(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="What the proof sends, not the search.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a page with figures as well.")] = None,
) -> None:
    """Draw the lengths, arrivals and shared prefixes of a workload: workload=agents."""
    from tuner.composing import load
    from tuner.load.outline import outlines
    from tuner.terminal.traffic import text

    asked = overrides or []
    experiment = [] if any(each.startswith("experiment=") for each in asked) else ["experiment=demo"]
    config = load([*experiment, *asked], config_dir)
    stages = outlines(config.workload, config.objective.deciding, held_out=held_out)
    _print(text(config.workload, stages))
    if output:
        from tuner.report.traffic import traffic_html

        output.write_text(traffic_html(config.workload, stages))
        _say(f"written to {output}")


@workload_app.command("learn")
def workload_learn(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base URL of a server with its usual traffic.")],
    name: Annotated[str, typer.Option("--name", help="What to call it.")] = "learned",
    config_dir: Annotated[
        Path, typer.Option("--config-dir", help="Your folder of configuration groups: it gets workload/NAME.yaml.")
    ] = Path("mine"),
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="How long to watch.")] = 3.0,
    token_env: TokenEnv = None,
) -> None:
    """Write a workload that is like a running server's traffic, from the histograms on its /metrics page."""
    from tuner.bench.learning import learn, progress

    path = config_dir / "workload" / f"{name}.yaml"
    traffic = learn(url, path, minutes, token_env, _say)
    _say(progress(traffic, traffic.seconds))
    _print(f"written to {path}; draw it: tuner workload show --config-dir {config_dir} workload={name}")
    _print(f"tune for it: tuner study start --config-dir {config_dir} workload={name} …")


@bench_app.command("compare")
def bench_compare(
    baseline: Annotated[str, typer.Argument(metavar="A", help="URL of a server, or a saved result.")],
    candidate: Annotated[str, typer.Argument(metavar="B", help="The same, of what may be better.")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    token_env: TokenEnv = None,
    as_json: AsJson = False,
) -> None:
    """Is B better than A? Two running servers, measured in turns; or one and a saved result.

    A saved result is a folder in studies/bench/trials, its record.json, or the result file of `vllm bench serve`.
    """
    from rich.console import Console

    from tuner.bench.comparison import compare
    from tuner.bench.sentences import sentence, text
    from tuner.bench.view import view

    with view(Console(stderr=True), as_json=as_json) as follower:
        path, found = compare(baseline, candidate, overrides or [], config_dir, token_env, follower)
    _say(f"kept in {path}")
    said = {"sentence": sentence(found), **found.model_dump(mode="json")}
    _print(json.dumps(said, indent=1) if as_json else text(found))
    if found.interrupted:
        raise KeyboardInterrupt


@bench_app.command("export")
def bench_export(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="Folder of a measurement: studies/bench/trials/0000")
    ],
    to: Annotated[str, typer.Option("--format", help="vllm (as `vllm bench serve`) or llm-d (Benchmark Report 0.2).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
) -> None:
    """A saved measurement in the format of another tool."""
    from tuner.bench.export import exported

    text = exported(result, to)
    if output is None:
        return _print(text)
    output.write_text(text + "\n")
    return None


@profile_app.command("import")
def profile_import(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="A compose file (or several, merged), a shell line or script, vLLM's config.yml, the output of"
            " `docker inspect`, a systemd unit or a Kubernetes manifest; - for standard input.",
        ),
    ],
    service: Annotated[str | None, typer.Option("--service", help="Which one, where the file has several.")] = None,
    as_table: Annotated[bool, typer.Option("--print", help="A table: setting, value, where it stood.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a deployment's own file says, as a study would take it over; nothing is started or changed."""
    from tuner.importer import sources, table
    from tuner.importer.understood import Understood

    try:
        deployment = sources.read(files, service)
    except ConfigError as error:
        if not as_json:
            raise
        _print(Understood(service=service, unread=(str(error),)).model_dump_json(indent=1))
        raise typer.Exit(error.exit_code) from error
    if as_json:
        return _print(deployment.understood.model_dump_json(indent=1))
    _print(table.text(deployment))
    return None if as_table else _say(f"`tuner study start deployment={files[0]}` makes it trial 0")


@profile_app.command("show")
def profile_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study's profile.yaml.")], as_json: AsJson = False
) -> None:
    """A winner with its proof: what it changes, what that was measured to do, and what else was tried."""
    from tuner.export.profile import read_profile

    profile = read_profile(file)
    if as_json:
        return _print(profile.model_dump_json(indent=1))
    from rich.console import Console

    from tuner.terminal.profile import shown

    return Console().print(shown(profile))


@profile_app.command("schema")
def profile_schema() -> None:
    """The JSON Schema of profile.yaml, for editors and other programs."""
    from tuner.export.profile import schema

    _print(schema().rstrip("\n"))


ProfilePath = Annotated[Path | None, typer.Option("--profile", help="Take the winner from this profile.yaml.")]
OfStudy = Annotated[
    str | None, typer.Option("--study", help="Take the winner from this study; the only one if not named.")
]


@profile_app.command("write")
def profile_write(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="Your compose file (or several, merged), or vLLM's config.yml."),
    ] = None,
    study: OfStudy = None,
    profile: ProfilePath = None,
    folder: StudiesFolder = Path("studies"),
    service: Annotated[str | None, typer.Option("--service", help="Which one, where the file has several.")] = None,
    only_diff: Annotated[bool, typer.Option("--diff", help="Show what would change, and write nothing.")] = False,
    limit_not_shown: Annotated[
        bool, typer.Option("--limit-not-shown", help="Also a winner that is not shown to keep a limit.")
    ] = False,
    form: Annotated[
        str | None, typer.Option("--as", help="A new file instead: compose, serve, config or kubernetes.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the new file goes; without it, it is printed.")
    ] = None,
) -> None:
    """Write a study's winner into the deployment's own file: only what differs, in place, with a backup next to it.

    With --as, write it in a new file instead.
    """
    from tuner.export.inplace import saving
    from tuner.export.inplace.deploying import changes_of, check_deploys

    source = _profile_file(folder, study, profile)
    if form is not None:
        check_deploys(_read(source), limit_not_shown=limit_not_shown)
        return _written_anew(form, source, output)
    if not files:
        raise ConfigError("which file?", fix="name your compose file, or a form with --as")
    made = changes_of(files, service, _read(source), limit_not_shown=limit_not_shown)
    for sentence in made.said:
        _say(f"! {sentence}")
    if not made.texts:
        return _say("nothing to change: it says what the winner says")
    if only_diff:
        return _print(made.diff().rstrip("\n"))
    for path, backup in saving.save(made.old, made.texts).items():
        _say(f"{path} is written; as it was: {backup}")
    return None


DeployedFiles = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Your compose file, or several that are merged.")
]
ServiceName = Annotated[str | None, typer.Option("--service", help="Which one, where the file has several.")]


@profile_app.command("apply")
def profile_apply(
    files: DeployedFiles,
    study: OfStudy = None,
    profile: ProfilePath = None,
    folder: StudiesFolder = Path("studies"),
    service: ServiceName = None,
    limit_not_shown: Annotated[
        bool, typer.Option("--limit-not-shown", help="Also a winner that is not shown to keep a limit.")
    ] = False,
) -> None:
    """Deploy a study's winner with docker compose, and keep it only if its proof holds there.

    Otherwise the old file and the old service are back when this ends, with exit code 3.
    """
    from tuner.terminal.rollout import applied, winner_of

    winner = winner_of(files, service, _profile_file(folder, study, profile))
    applied(winner, _print, limit_not_shown=limit_not_shown)


@profile_app.command("verify")
def profile_verify(
    files: DeployedFiles,
    study: OfStudy = None,
    profile: ProfilePath = None,
    folder: StudiesFolder = Path("studies"),
    service: ServiceName = None,
    as_json: AsJson = False,
) -> None:
    """Measure the service that runs: does its proof still hold (else exit code 3), and what changed since?"""
    from tuner.terminal.rollout import verified, winner_of

    winner = winner_of(files, service, _profile_file(folder, study, profile))
    raise typer.Exit(verified(winner, _print, as_json=as_json))


@profile_app.command("rollback")
def profile_rollback(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your compose file.")],
    to: Annotated[int | None, typer.Option("--to", metavar="N", help="Deploy what was there before rollout N.")] = None,
    service: ServiceName = None,
) -> None:
    """List what `apply` has saved, with dates; with --to, go back to it. Finishes what a killed `apply` left."""
    from tuner.terminal.rollout import rolled_back

    rolled_back(file, service, to, _say, _print)


@sim_app.command(
    "serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def sim_serve(context: typer.Context) -> None:
    """Serve a simulated model: vLLM's own command line, and --sim-* for what is simulated."""
    from tuner.sim.cli import main as serve

    raise typer.Exit(serve(["serve", *context.args]))


@app.command()
def explain(
    log: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="LOG", help="The log's file, or - for standard input.")
    ],
    exit_code: Annotated[int | None, typer.Option("--exit-code", help="The server's exit status, if known.")] = None,
    oom_killed: Annotated[bool, typer.Option("--oom-killed", help="The kernel killed it for memory.")] = False,
    running: Annotated[bool, typer.Option("--running", help="It still runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """What an engine's log says: cause, deciding line, what to do."""
    from dataclasses import asdict

    from tuner.engines.causes import described
    from tuner.engines.explain import explain as diagnose
    from tuner.engines.explain import lines_of

    diagnosis = diagnose(lines_of(log), exit_code, oom_killed, running)
    _print(json.dumps(asdict(diagnosis), indent=1, default=str) if as_json else described(diagnosis))


@app.command()
def doctor(overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False) -> None:
    """What this machine can run, and what is missing; OVERRIDES name a study that is to run here.

    model.id=MODEL shows every layout on these GPUs, or on others (hardware=h200x2), and whether it fits.
    """
    from tuner.composing import load
    from tuner.host.check_result import CheckState
    from tuner.site.doctor import examine
    from tuner.site.placements import placements_of, table

    config = load(overrides, config_dir) if overrides else None
    findings, placements = examine(config), placements_of(config) if config else ()
    if as_json:
        found = [finding.model_dump() for finding in findings]
        _print(json.dumps({"findings": found, "placements": [asdict(each) for each in placements]}, indent=1))
    else:
        for finding in findings:
            _print(f"{finding.state:<8} {finding.name:<18} {finding.text}")
            if finding.fix and finding.state is not CheckState.OK:
                _print(f"{'':<27} → {finding.fix}")
        if config and (shown := table(config, placements)):
            _print(f"\n{shown}")
    if any(finding.state is CheckState.MISSING for finding in findings):
        raise typer.Exit(1)


@app.command()
def clean(
    caches: Annotated[bool, typer.Option("--caches", help="Caches and images that tuner built, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and stop.")] = False,
) -> None:
    """Show, then remove, what interrupted runs left, and give back what they took."""
    from tuner.rollout import returning
    from tuner.site import clean as cleaning

    found = [*cleaning.left_overs(_print), *returning.left_overs(_print)]
    for left in found:
        _print(str(left))
    for busy in cleaning.under_way():
        _print(f"not touched, since it is in use: {busy}")
    kept = cleaning.caches() if caches else []
    for cache in kept:
        _print(str(cache))
    count = len(found) + len(kept)
    failed = 0 if dry_run else sum(not _removed(each) for each in (*found, *kept))
    _print(f"{count - failed} {'would be ' if dry_run else ''}removed" if count else "nothing was left behind")
    if failed:
        raise typer.Exit(1)


def _removed(left: "LeftOver") -> bool:
    """One that resists does not keep the others."""
    try:
        left.remove()
    except TunerError as error:
        _say(f"tuner: {left}: {error}")
        return False
    return True


def _outcome(folder: Path, name: str | None) -> "Outcome":
    """The study of this name, or the only one there is."""
    from tuner.records.outcome import Outcome

    return Outcome.of(_study_folder(folder, name))


def _profile_file(folder: Path, study: str | None, path: Path | None) -> Path:
    """The profile of a study, or the one that is named."""
    if path is not None and study is not None:
        raise ConfigError("--study and --profile name two winners", fix="say one of them")
    if path is not None:
        return path
    found = _study_folder(folder, study)
    if not found.profile.exists():
        fix = "`tuner study status` says how it ended; it may not be over"
        raise ConfigError(f"the study in {found.path} has no winner to write", fix=fix)
    return found.profile


def _read(path: Path) -> "Profile":
    from tuner.export.profile import read_profile

    return read_profile(path)


def _written_anew(form: str, source: Path, output: Path | None) -> None:
    """A winner in new files, or printed."""
    from tuner.export import anew

    if form not in tuple(anew.Form):
        raise ConfigError(f"there is no form {form!r}", fix=f"one of {', '.join(anew.Form)}")
    written = anew.texts(anew.Form(form), _read(source), source.parent)
    if output is None:
        return _print("\n".join(text for text in written.values()).rstrip("\n"))
    return _say("\n".join(f"{path} is written" for path in anew.save(written, output)))


def _study_folder(folder: Path, name: str | None) -> "StudyFolder":
    from tuner.records.folder import studies

    found = {study.path.name: study for study in studies(folder)}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name in found:
        return found[str(name)]
    listed = ", ".join(found) or "none"
    raise ConfigError(
        f"no study {name!r} in {folder} (there: {listed})" if name else f"which study? In {folder}: {listed}",
        fix="name one of them, or say --folder",
    )
