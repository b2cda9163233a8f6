"""``vllm bench serve`` again and again in one process, run by vLLM's own Python: importing it takes longer than a run.

Each line on standard input is a JSON list of its arguments; a line is written to standard output when its result is.
Its parser, its ``main`` and its numbers are vLLM's own. While it sends it has the priority that tuner gives its own
load worker: without it a client stamps late on a busy machine, and the difference would be one of scheduling.
"""

import contextlib
import json
import sys

from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser

from tuner.load.priority import realtime


def tell(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def prompt(*args, **given):
    """Its ``benchmark``, from the first request to the last, at that priority."""
    with realtime():
        return await SEND(*args, **given)


SEND, serve.benchmark = serve.benchmark, prompt


def main():
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    tell("ready")
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            serve.main(parser.parse_args(json.loads(line)))
        tell("done")


if __name__ == "__main__":
    main()
