"""``tuner quality``: whether answers are right."""

import json
from typing import Annotated

import typer

from tuner.cli.options import AsJson, ConfigDir, Overrides, TokenEnv, print_

quality_app = typer.Typer(help="Whether answers are right, and stay so.", no_args_is_help=True)


@quality_app.command("run")
def quality_run(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base URL of the server: http://127.0.0.1:8000")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    token_env: TokenEnv = None,
    as_json: AsJson = False,
) -> None:
    """Ask a running server what is known, and say what it answers wrongly; quality=NAME chooses the cases."""
    from tuner.bench.answering import read
    from tuner.terminal.quality import shown, text_of_scores

    with shown() as begin:
        found = read(url, overrides or [], config_dir, token_env, begin)
    scores = [each.model_dump(mode="json") for each in found]
    print_(json.dumps(scores, indent=1) if as_json else text_of_scores(found))


@quality_app.command("compare")
def quality_compare(
    first: Annotated[str, typer.Argument(metavar="A", help="URL of the server whose answers are good enough.")],
    second: Annotated[str, typer.Argument(metavar="B", help="URL of the one that may have become worse.")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    token_env: TokenEnv = None,
    as_json: AsJson = False,
) -> None:
    """Does B answer less rightly than A? The same questions to both, A twice; exit code 3 if it does."""
    from tuner.bench.answering import compare
    from tuner.terminal.quality import WORSE, shown, text_of_comparison

    with shown() as begin:
        found = compare(first, second, overrides or [], config_dir, token_env, begin)
    print_(found.model_dump_json(indent=1) if as_json else text_of_comparison(found))
    if found.worse:
        raise typer.Exit(WORSE)
