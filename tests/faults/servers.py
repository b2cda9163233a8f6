"""Servers that mean no good, measured with `tuner bench run`: it ends in words, in bounded time and memory."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_WR, create_server, socket

from tests.faults.world import REPOSITORY, Ended, World, expect
from tests.test_bench import QUICK

_END_S = 120.0
_MEMORY_GB = 1.5
"""Of one process."""
_ADDRESSES_GB = 5
"""Beyond this the kernel refuses: a fault must not take the machine that it is tried on."""
_MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 4096}]}).encode()

Reply = Callable[[socket, str], None]


def floods_a_stream(folder: Path, chance: random.Random) -> None:
    """An answer that never ends."""
    _measured(folder, chance, _flood(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' * 500))


def floods_a_line(folder: Path, chance: random.Random) -> None:
    """One line that never ends."""
    _measured(folder, chance, _flood(b"x" * 65536))


def floods_the_list_of_models(folder: Path, chance: random.Random) -> None:
    _measured(folder, chance, lambda line, path: _flood(b" " * 65536)(line, path), models=None)


def closes_connections(folder: Path, chance: random.Random) -> None:
    """In the middle of a head, of a body, or of a stream."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = chance.choice([b"", b"HTTP/1.1 200", head, head + b"400\r\ndata: {"])
    _measured(folder, chance, lambda line, path: line.sendall(piece))


def never_answers(folder: Path, chance: random.Random) -> None:
    """It accepts the connection, and that is all."""
    _measured(folder, chance, lambda line, path: time.sleep(3600), models=None)


def answers_nonsense(folder: Path, chance: random.Random) -> None:
    """What comes is no HTTP, no JSON, or JSON of another shape."""
    body = chance.choice(
        [b"\xff\xfe\x00", b"[" * 100_000, b'{"data": 7}', b'{"data": [{"id": "${oc.env:HOME}"}]}', b"null"]
    )
    _measured(folder, chance, lambda line, path: line.sendall(_whole(body)), models=None)


def _flood(piece: bytes) -> Reply:
    def reply(line: socket, path: str) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while True:
            line.sendall(piece)

    return reply


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _measured(folder: Path, chance: random.Random, chat: Reply, models: bytes | None = _MODELS) -> None:
    """Healthy, lists its model, and answers each chat with the fault; ``models=None``: the fault is all it answers."""
    world = World(folder, chance)
    with _server(chat, models) as url:
        ended = _bench(world, url)
    ended.said()
    expect(ended.code in (1, 2), f"exit status {ended.code}: {ended.text[-500:]}")
    world.nothing_runs()


def _bench(world: World, url: str) -> Ended:
    """In a process whose children's memory is known: its own."""
    watched = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "print(f'peak-kb={resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}', flush=True); sys.exit(code)"
    )
    tuner = [sys.executable, "-m", "tuner", "bench", "run", url, *QUICK, f"study.folder={world.studies}"]
    with (world.folder / "output").open("wb") as output:
        command = subprocess.Popen(
            [sys.executable, "-c", watched, *tuner],
            stdout=output,
            stderr=output,
            env=world.env,
            cwd=REPOSITORY,
            start_new_session=True,
            preexec_fn=_bounded,
        )
    try:
        ended = world.end(command, _END_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
    peak_gb = int(ended.text.rsplit("peak-kb=", 1)[1].split()[0]) / 1e6
    expect(peak_gb < _MEMORY_GB, f"{peak_gb:.1f} GB of memory")
    return ended


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES_GB * 10**9,) * 2)


@contextmanager
def _server(chat: Reply, models: bytes | None) -> Iterator[str]:
    with create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, chat, models), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _serve(listening: socket, chat: Reply, models: bytes | None) -> None:
    with suppress(OSError):  # closed: the try is over
        while True:
            line, _ = listening.accept()
            threading.Thread(target=_answer, args=(line, chat, models), daemon=True).start()


def _answer(line: socket, chat: Reply, models: bytes | None) -> None:
    with suppress(OSError), line:
        while head := _head(line):
            path = head.split(" ")[1]
            if models is not None and path == "/health":
                line.sendall(_whole(b""))
            elif models is not None and path == "/v1/models":
                line.sendall(_whole(models))
            else:
                chat(line, path)
                line.shutdown(SHUT_WR)
                return


def _head(line: socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := line.recv(65536)):
            return ""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(row[15:]) for row in head.split(b"\r\n") if row.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (more := line.recv(65536)):
        body += more
    return head.decode("latin-1")
