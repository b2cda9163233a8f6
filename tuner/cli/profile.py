"""``tuner profile``: a deployment's own files, read, changed and rolled out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import AsJson, StudiesFolder, print_, say, study_folder
from tuner.errors import ConfigError

if TYPE_CHECKING:
    from tuner.export.profile import Profile

profile_app = typer.Typer(help="A deployment that runs already, or is to run.", no_args_is_help=True)


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
        print_(Understood(service=service, unread=(str(error),)).model_dump_json(indent=1))
        raise typer.Exit(error.exit_code) from error
    if as_json:
        return print_(deployment.understood.model_dump_json(indent=1))
    print_(table.text(deployment))
    return None if as_table else say(f"`tuner study start deployment={files[0]}` makes it trial 0")


@profile_app.command("show")
def profile_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study's profile.yaml.")], as_json: AsJson = False
) -> None:
    """A winner with its proof: what it changes, what that was measured to do, and what else was tried."""
    from tuner.export.profile import read_profile

    profile = read_profile(file)
    if as_json:
        return print_(profile.model_dump_json(indent=1))
    from rich.console import Console

    from tuner.terminal.profile import shown

    return Console().print(shown(profile))


@profile_app.command("schema")
def profile_schema() -> None:
    """The JSON Schema of profile.yaml, for editors and other programs."""
    from tuner.export.profile import schema

    print_(schema().rstrip("\n"))


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

    source = profile_file(folder, study, profile)
    if form is not None:
        check_deploys(_read(source), limit_not_shown=limit_not_shown)
        return _written_anew(form, source, output)
    if not files:
        raise ConfigError("which file?", fix="name your compose file, or a form with --as")
    made = changes_of(files, service, _read(source), limit_not_shown=limit_not_shown)
    for sentence in made.said:
        say(f"! {sentence}")
    if not made.texts:
        return say("nothing to change: it says what the winner says")
    if only_diff:
        return print_(made.diff().rstrip("\n"))
    for path, backup in saving.save(made.old, made.texts).items():
        say(f"{path} is written; as it was: {backup}")
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
    as_json: AsJson = False,
) -> None:
    """Deploy a study's winner with docker compose, and keep it only if its proof holds there.

    Otherwise the old file and the old service are back when this ends, with exit code 3.
    """
    from tuner.terminal.rollout import applied, winner_of

    winner = winner_of(files, service, profile_file(folder, study, profile))
    applied(winner, print_, limit_not_shown=limit_not_shown, as_json=as_json)


@profile_app.command("verify")
def profile_verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Your compose file, or several that are merged; with --relaunch a profile.yaml, if no study is named.",
        ),
    ] = None,
    study: OfStudy = None,
    profile: ProfilePath = None,
    folder: StudiesFolder = Path("studies"),
    service: ServiceName = None,
    relaunch: Annotated[
        bool,
        typer.Option("--relaunch", help="Measure a launch of its own, as in its study; what runs is left alone."),
    ] = False,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop", metavar="SERVICE", help="With --relaunch: stop this service meanwhile; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the service that runs: does its proof still hold (else exit code 3), and what changed since?"""
    from tuner.terminal.rollout import relaunch_of, verified, verified_anew, winner_of

    if relaunch:
        again = relaunch_of(_profile_alone(files, folder, study, profile, service), stop or ())
        raise typer.Exit(verified_anew(again, print_, as_json=as_json))
    if stop:
        raise ConfigError("--stop makes room for a relaunch", fix="say --relaunch, or leave it out")
    if not files:
        raise ConfigError("which file?", fix="name your compose file, or say --relaunch")
    winner = winner_of(files, service, profile_file(folder, study, profile))
    raise typer.Exit(verified(winner, print_, as_json=as_json))


def _profile_alone(
    files: list[Path] | None, folder: Path, study: str | None, profile: Path | None, service: str | None
) -> Path:
    """The profile, which may stand in the place of a compose file: a relaunch needs none."""
    if service is not None:
        raise ConfigError("--service names a service that runs, and a relaunch is none", fix="leave it out")
    if not files:
        return profile_file(folder, study, profile)
    if len(files) > 1 or study is not None or profile is not None:
        raise ConfigError("a relaunch needs a study or a profile, and no other file", fix="name one of them")
    return files[0]


@profile_app.command("rollback")
def profile_rollback(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your compose file.")],
    to: Annotated[int | None, typer.Option("--to", metavar="N", help="Deploy what was there before rollout N.")] = None,
    service: ServiceName = None,
) -> None:
    """List what `apply` has saved, with dates; with --to, go back to it. Finishes what a killed `apply` left."""
    from tuner.terminal.rollout import rolled_back

    rolled_back(file, service, to, say, print_)


def profile_file(folder: Path, study: str | None, path: Path | None) -> Path:
    """The profile of a study, or the one that is named."""
    if path is not None and study is not None:
        raise ConfigError("--study and --profile name two winners", fix="say one of them")
    if path is not None:
        return path
    found = study_folder(folder, study)
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
        return print_("\n".join(text for text in written.values()).rstrip("\n"))
    return say("\n".join(f"{path} is written" for path in anew.save(written, output)))
