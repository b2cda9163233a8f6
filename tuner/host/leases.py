"""What one launch may hold alone on this host: GPUs and ports, by locks that die with their holder.

The locks are ``flock`` on files in tuner's state folder, so that two studies of one user never meet on a GPU or a port,
and nothing is left locked after a kill -9. Another user has another state folder: a GPU is locked by the name of a
socket as well (abstract, Linux), which is one for all users of a network namespace, needs no file that two users could
write, and dies with its holder too. ``TUNER_SCOPE`` keeps tests apart that run at the same time on one host.
"""

import errno
import fcntl
import os
import pwd
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tuner.errors import GpuBusy, PortTaken

SCOPE = "TUNER_SCOPE"
_PORT_ATTEMPTS = 20


def state_dir() -> Path:
    """Where tuner keeps what outlives a study's folder: locks, and the launches that are under way."""
    given = os.environ.get("TUNER_STATE_DIR")
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return Path(given) if given else base / "tuner"


class _Busy(Exception):
    """Somebody else holds the lease; the text says who."""


@contextmanager
def lease(name: str, holder: str) -> Iterator[int]:
    """Hold a name alone until the block is left; yields the lock's file descriptor, which a child may inherit."""
    _folder().mkdir(parents=True, exist_ok=True)
    with _locked(_folder() / f"{name}.lock") as descriptor:
        with suppress(OSError):  # a full disk: who holds it is not said, and it is held all the same
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder.encode())
        yield descriptor


def _folder() -> Path:
    return state_dir() / "locks"


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, made if need be, opened and locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        swept = path.stat().st_ino != os.fstat(descriptor).st_ino
    except BlockingIOError:
        raise _Busy(os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another tuner") from None
    except FileNotFoundError:
        swept = True
    if swept:  # between opening and locking; what is locked now nobody else would see
        raise _Busy("another tuner")


@contextmanager
def gpu_lease(gpu: int, holder: str) -> Iterator[tuple[int, ...]]:
    """Hold a GPU alone; yields the locks' file descriptors, which a child may inherit.

    Raises:
        GpuBusy: Another launch of tuner holds it, this user's or another's.
    """
    with _of_gpu(f"gpu-{gpu}", gpu, holder) as descriptors:
        yield descriptors


@contextmanager
def reserved(gpus: Iterable[int], holder: str) -> Iterator[None]:
    """Hold GPUs for a whole study: no other one comes in between two of its launches.

    Raises:
        GpuBusy: Another study of tuner holds one of them.
    """
    with ExitStack() as held:
        for gpu in gpus:
            held.enter_context(_of_gpu(f"study-gpu-{gpu}", gpu, holder))
        yield


@contextmanager
def _of_gpu(name: str, gpu: int, holder: str) -> Iterator[tuple[int, ...]]:
    try:
        with lease(name, holder) as ours, _host_wide(name) as everybodys:
            yield ours, *everybodys
    except _Busy as busy:
        raise GpuBusy(
            f"GPU {gpu} is held by {busy}", fix="wait for it, or give this study other hardware.gpus"
        ) from None


@contextmanager
def _host_wide(name: str) -> Iterator[tuple[int, ...]]:
    """Hold a name alone among all users; yields what a child may inherit, nothing where there are no such names."""
    if sys.platform != "linux":
        yield ()
        return
    address = f"\0tuner/{os.environ.get(SCOPE, '')}/{name}"
    with socket.socket(socket.AF_UNIX) as lock:
        _bind(lock, address)
        yield (lock.fileno(),)


def _bind(lock: socket.socket, address: str) -> None:
    try:
        lock.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise _Busy(_listener(address)) from None
    lock.listen()  # so that whoever finds the name taken can ask the kernel who took it


def _listener(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(1)
        try:
            caller.connect(address)
            pid, uid, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return f"process {pid} of user {pwd.getpwuid(uid).pw_name}"
        except (OSError, KeyError):
            return "another user's tuner"


@contextmanager
def port_lease(holder: str) -> Iterator[tuple[int, int]]:
    """Hold a free port of the loopback interface alone; yields the port and the lock's file descriptor.

    Raises:
        PortTaken: None could be had.
    """
    try:
        with _any_port(holder) as (port, descriptor):
            yield port, descriptor
    finally:
        _sweep_ports()


@contextmanager
def _any_port(holder: str) -> Iterator[tuple[int, int]]:
    for _ in range(_PORT_ATTEMPTS):
        port = _free_port()
        try:
            with lease(f"port-{port}", holder) as descriptor:
                yield port, descriptor
                return
        except _Busy:
            continue
    raise PortTaken(
        f"no free port after {_PORT_ATTEMPTS} attempts", fix="end what listens on this host, or `tuner clean`"
    )


def _sweep_ports() -> None:
    """Remove the files of ports that nobody holds any more; there would soon be one for each port of this host.

    What cannot be removed stays: another user's, for one. It is no reason to lose what the launch has measured.
    """
    for path in _folder().glob("port-*.lock"):
        with suppress(_Busy, OSError), _locked(path):
            path.unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
