"""``vllm bench serve`` again and again in one process, run by vLLM's own Python: importing it takes longer than a run.

Each line on standard input is a JSON list of its arguments; a line is written to standard output when its result is.
Nothing of vLLM is changed: its parser, its ``main``. It runs with the priority that tuner gives its own load worker: on
a busy machine a client without it stamps late, and the difference would be one of scheduling.
"""

import argparse
import contextlib
import json
import sys

from vllm.benchmarks import serve

from tuner.load.priority import realtime


def tell(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    with contextlib.suppress(ImportError):
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    tell("ready")
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr), realtime():
            serve.main(parser.parse_args(json.loads(line)))
        tell("done")


if __name__ == "__main__":
    main()
