"""``tuner workload``: what is sent."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import ConfigDir, Overrides, TokenEnv, print_, say

workload_app = typer.Typer(help="What is sent.", no_args_is_help=True)


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
    print_(text(config.workload, stages))
    if output:
        from tuner.report.traffic import traffic_html

        output.write_text(traffic_html(config.workload, stages))
        say(f"written to {output}")


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
    traffic = learn(url, path, minutes, token_env, say)
    say(progress(traffic, traffic.seconds))
    print_(f"written to {path}; draw it: tuner workload show --config-dir {config_dir} workload={name}")
    print_(f"tune for it: tuner study start --config-dir {config_dir} workload={name} …")
