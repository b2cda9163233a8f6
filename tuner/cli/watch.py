"""``tuner watch``: whether a deployed server does what its profile promised."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import AsJson, TokenEnv, print_, say

watch_app = typer.Typer()


@watch_app.command()
def watch(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base URL of the server: http://127.0.0.1:8000")],
    profile: Annotated[Path, typer.Option("--profile", help="The profile that it was deployed from.")],
    every: Annotated[float, typer.Option("--every", min=1.0, help="Seconds that one line is about.")] = 60.0,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.01, help="For how long; else until Ctrl-C.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Send a user's few requests after each, too.")] = False,
    token_env: TokenEnv = None,
    as_json: AsJson = False,
) -> None:
    """Follow a server under its real traffic and say whether its proof still holds; it is not changed.

    Exit code 3 if the last thing that could be concluded is that it does not.
    """
    from rich.console import Console

    from tuner.terminal.watch import show
    from tuner.watch.holding import WatchState
    from tuner.watch.watching import DOES_NOT_HOLD, watching

    with watching(url, profile, every, token_env, say, probe=probe) as watcher:
        lines = watcher.lines(None if minutes is None else minutes * 60)
        if as_json:
            for each in lines:
                print_(each.model_dump_json(), flush=True)
        else:
            show(lines, Console())
    if watcher.concluded is WatchState.SLOWER:
        raise typer.Exit(DOES_NOT_HOLD)
