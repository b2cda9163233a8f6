"""``tuner sim``: the simulated engine."""

import typer

sim_app = typer.Typer(help="The simulated engine.", no_args_is_help=True)


@sim_app.callback()
def _group() -> None:
    """Typer would make a group of a single command that command itself."""


@sim_app.command(
    "serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def sim_serve(context: typer.Context) -> None:
    """Serve a simulated model: vLLM's own command line, and --sim-* for what is simulated."""
    from tuner.sim.cli import main as serve

    raise typer.Exit(serve(["serve", *context.args]))
