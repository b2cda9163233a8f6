"""Try each fault some times; print tried and survived for each, and what did not survive.

``python -m tests.faults [--rounds N] [--seed S] [--only REGEX]``; the exit status is 1 if anything did not survive.
"""

import argparse
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import damage, disks, fuzz, killing, planted, servers
from tests.faults.world import NotTried

Try = Callable[[Path, random.Random], None]


def rows() -> Iterator[tuple[str, list[Try]]]:
    """Each kind of fault with its tries of one round."""
    yield "kill -9 of tuner", [killing.tuner_killed]
    yield "Ctrl-C", [killing.tuner_interrupted]
    yield "kill -9 of the server", [killing.server_killed]
    yield "kill -9 of the guard", [killing.guard_killed]
    yield "kill -9 of tuner and guard", [killing.tuner_and_guard_killed]
    yield "kill -9 of tuner, container", [killing.container_of_killed_tuner]
    yield "kill -9 of tuner, watchdog", [killing.container_of_killed_tuner_and_watchdog]
    yield "kill -9 of the container", [killing.container_killed]
    yield "restart of the Docker engine", [killing.engine_restarted]
    yield "full disk", [disks.state_folder_full, disks.study_folder_full, disks.temporary_folder_full]
    yield "read-only disk", [disks.state_folder_read_only, disks.study_folder_read_only]
    files = [damage.record, damage.configuration, damage.database, damage.runs, damage.log_and_requests]
    yield "damaged file", [*files, damage.trace]
    fuzzed = [fuzz.record, fuzz.configuration, fuzz.requests_and_runs, fuzz.profile]
    yield "fuzzed file", [*fuzzed, fuzz.users_own, fuzz.recorded_traffic]
    floods = [servers.floods_a_stream, servers.floods_a_line, servers.floods_the_list_of_models]
    yield "hostile server", [*floods, servers.closes_connections, servers.never_answers, servers.answers_nonsense]
    for place in planted.PLACES:
        yield f"secret: {place.name}", [planted.planted(place)]


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="tests.faults")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.rounds} rounds\n{'fault':<44}{'tried':>6}{'survived':>10}{'s':>7}", flush=True)
    lost = [_row(name, tries, asked) for name, tries in rows() if re.search(asked.only, name)]
    return 1 if any(lost) else 0


def _row(name: str, tries: list[Try], asked: argparse.Namespace) -> list[str]:
    """Try one kind of fault; returns why what did not survive did not."""
    begun, tried = time.monotonic(), 0
    failures: list[str] = []
    for number in range(asked.rounds):
        for one in tries:
            try:
                _attempt(one, f"{asked.seed}/{name}/{number}")
            except NotTried as lacking:
                print(f"{name:<44}     not tried: {lacking}", flush=True)
                return failures
            except Exception as error:  # noqa: BLE001
                failures.append(f"{getattr(one, '__name__', name)}, round {number}: {_told(error)}")
            tried += 1
    print(f"{name:<44}{tried:>6}{tried - len(failures):>10}{time.monotonic() - begun:>7.0f}", flush=True)
    print("".join(f"    {failure}\n" for failure in failures), end="", flush=True)
    return failures


def _attempt(one: Try, seed: str) -> None:
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        one(Path(folder) / "try", random.Random(seed))


def _told(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return str(error)
    return "".join(traceback.format_exception(error))[-2000:]


if __name__ == "__main__":
    sys.exit(main())
