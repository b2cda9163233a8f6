"""The command line as a whole."""

from typing import Annotated, NoReturn

import typer

from tuner import __version__
from tuner.cli.bench import bench_app
from tuner.cli.contest import compare_app
from tuner.cli.machine import machine_app
from tuner.cli.options import print_, say
from tuner.cli.profile import profile_app
from tuner.cli.quality import quality_app
from tuner.cli.sim import sim_app
from tuner.cli.study import study_app
from tuner.cli.watch import watch_app
from tuner.cli.workload import workload_app
from tuner.errors import TunerError
from tuner.terminal import interrupt

app = typer.Typer(
    name="tuner",
    help="Find, prove and write back the fastest configuration of an LLM server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(machine_app)
app.add_typer(watch_app)
app.add_typer(compare_app)
app.add_typer(study_app, name="study")
app.add_typer(profile_app, name="profile")
app.add_typer(sim_app, name="sim")
app.add_typer(bench_app, name="bench")
app.add_typer(workload_app, name="workload")
app.add_typer(quality_app, name="quality")


def main() -> NoReturn:
    """Run the command line; errors of ours end without a traceback, with the exit code that their class names."""
    interrupt.listen()
    try:
        code = app(standalone_mode=False)
        raise SystemExit(code if isinstance(code, int) else 0)
    except TunerError as error:
        say(f"tuner: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        say("tuner: interrupted")
        raise SystemExit(130) from None
    except typer.Exit as done:
        raise SystemExit(done.exit_code) from None
    except OSError as error:
        # a folder that cannot be written, a full disk, a port in use: the system's words name the thing
        say(f"tuner: {error}")
        raise SystemExit(1) from None
    except Exception as error:
        # with standalone_mode off, what the parser has to say of a wrong command line comes as an exception
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            if message := error.format_message():  # none, where the help has just been printed instead
                say(f"tuner: {message}")
            raise SystemExit(error.exit_code) from None
        raise


def _version(wanted: bool) -> None:
    if wanted:
        print_(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before any command."""
