"""``tuner doctor``, ``clean`` and ``explain``: this machine, and an engine's log."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import AsJson, ConfigDir, Overrides, print_, say
from tuner.errors import TunerError

if TYPE_CHECKING:
    from tuner.site.clean import LeftOver

machine_app = typer.Typer()


@machine_app.command()
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
    print_(json.dumps(asdict(diagnosis), indent=1, default=str) if as_json else described(diagnosis))


@machine_app.command()
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
        print_(json.dumps({"findings": found, "placements": [asdict(each) for each in placements]}, indent=1))
    else:
        for finding in findings:
            print_(f"{finding.state:<8} {finding.name:<18} {finding.text}")
            if finding.fix and finding.state is not CheckState.OK:
                print_(f"{'':<27} → {finding.fix}")
        if config and (shown := table(config, placements)):
            print_(f"\n{shown}")
    if any(finding.state is CheckState.MISSING for finding in findings):
        raise typer.Exit(1)


@machine_app.command()
def clean(
    caches: Annotated[bool, typer.Option("--caches", help="Caches and images that tuner built, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and stop.")] = False,
) -> None:
    """Show, then remove, what interrupted runs left, and give back what they took."""
    from tuner.rollout import returning
    from tuner.site import clean as cleaning

    found = [*cleaning.left_overs(print_), *returning.left_overs(print_)]
    for left in found:
        print_(str(left))
    for busy in cleaning.under_way():
        print_(f"not touched, since it is in use: {busy}")
    kept = cleaning.caches() if caches else []
    for cache in kept:
        print_(str(cache))
    count = len(found) + len(kept)
    failed = 0 if dry_run else sum(not _removed(each) for each in (*found, *kept))
    print_(f"{count - failed} {'would be ' if dry_run else ''}removed" if count else "nothing was left behind")
    if failed:
        raise typer.Exit(1)


def _removed(left: "LeftOver") -> bool:
    """One that resists does not keep the others."""
    try:
        left.remove()
    except TunerError as error:
        say(f"tuner: {left}: {error}")
        return False
    return True
