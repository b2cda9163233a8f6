"""What a log costs to explain: seconds and memory by its size, and a line that never ends."""

import random
import string
import subprocess
import sys
import tempfile
from pathlib import Path

_START = Path(__file__).parents[1] / "data" / "vllm-0.26.0-h100-A_cold.log"
_EXPLAIN = (
    "import resource, sys, time; from tuner.engines.explain import explain, lines_of; "
    "begun = time.process_time(); found = explain(lines_of(open(sys.argv[1], 'rb'))); "
    "print(f'{time.process_time() - begun:.1f} s of CPU, "
    "{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most: {found.cause}, {found.cut} lines cut')"
)


def main(sizes_mb=(1, 10, 100)):
    """Print a row for each size."""
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        for size_mb in sizes_mb:
            _row(f"explain, {size_mb} MB of a server that serves", serving(Path(folder) / "served.log", size_mb))
            _row(f"explain, {size_mb} MB of words, no line twice", words(Path(folder) / "words.log", size_mb))
        line = Path(folder) / "line.log"
        line.write_bytes(b" " * (10 << 20) + b"RuntimeError: CUDA error: out of memory")
        _row("explain, a line of 10 MB", line)


def _row(name, path):
    done = subprocess.run([sys.executable, "-c", _EXPLAIN, str(path)], capture_output=True, text=True, check=True)
    sys.stdout.write(f"{name:48} {done.stdout}")


def serving(path, size_mb):
    """A log of this size: a start, then requests and statistics whose figures never repeat."""
    dice = random.Random(0)
    with path.open("w") as log:
        log.write(_START.read_text())
        while log.tell() < size_mb << 20:
            log.write("".join(_said(dice) for _ in range(2000)))
    return path


def words(path, size_mb):
    """A log of this size that says nothing, and that no two times."""
    dice = random.Random(0)
    vocabulary = ["".join(dice.choices(string.ascii_lowercase, k=dice.randrange(2, 11))) for _ in range(20_000)]
    with path.open("w") as log:
        while log.tell() < size_mb << 20:
            log.write("".join(" ".join(dice.choices(vocabulary, k=15)) + "\n" for _ in range(2000)))
    return path


def _said(dice):
    place = f"11-{dice.randrange(10, 30)} {dice.randrange(10, 24)}:{dice.randrange(10, 60)}:{dice.randrange(10, 60)}"
    kind = dice.randrange(10)
    if kind < 6:
        client = f"10.0.{dice.randrange(255)}.{dice.randrange(255)}:{dice.randrange(65535)}"
        return f'(APIServer pid=1) INFO:     {client} - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
    if kind < 9:
        return (
            f"(APIServer pid=1) INFO {place} [loggers.py:259] Engine 000: "
            f"Avg prompt throughput: {dice.random() * 9000:.1f} tokens/s, "
            f"Avg generation throughput: {dice.random() * 4000:.1f} tokens/s, Running: {dice.randrange(64)} reqs, "
            f"Waiting: {dice.randrange(9)} reqs, GPU KV cache usage: {dice.random() * 100:.1f}%\n"
        )
    return f"(APIServer pid=1) INFO {place} [logger.py:43] Received request chatcmpl-{dice.getrandbits(128):032x}\n"


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (1, 10, 100))
