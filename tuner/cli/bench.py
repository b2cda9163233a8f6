"""``tuner bench``: servers that run already."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import AsJson, ConfigDir, Overrides, TokenEnv, print_, say
from tuner.errors import TunerError

bench_app = typer.Typer(help="Measure a server that runs already.", no_args_is_help=True)


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
    say(f"kept in {measured.folder.path}")
    if record.measurement is None:  # with one, nothing but its verdict can have failed, and none is wanted here
        failure = record.failure
        raise TunerError(failure.message, fix=failure.advice) if failure else TunerError("nothing was measured")
    if save_vllm:
        save_vllm.write_text(vllm_of(measured).to_json() + "\n")
    print_(record.measurement.model_dump_json(indent=1) if as_json else text(record))


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
    say(f"kept in {path}")
    said = {"sentence": sentence(found), **found.model_dump(mode="json")}
    print_(json.dumps(said, indent=1) if as_json else text(found))
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
        return print_(text)
    output.write_text(text + "\n")
    return None
