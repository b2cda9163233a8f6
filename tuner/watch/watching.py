"""``tuner watch``: from a URL and a profile to what follows the server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tuner.bench.running import base, served_model
from tuner.export.profile import Profile, read_profile
from tuner.host import gpu
from tuner.host.state import GpuState
from tuner.launchers.attach import AttachLauncher
from tuner.load.client import LoadClient
from tuner.load.target import Target
from tuner.rollout.measuring import traffic_of
from tuner.watch.holding import ProofFigures
from tuner.watch.probing import Prober
from tuner.watch.proven import mean_tpot
from tuner.watch.watcher import Watcher

DOES_NOT_HOLD = 3
"""The exit code where the proof does not hold."""
_HERE = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # a name for this machine, not a place to listen


@contextmanager
def watching(
    url: str, profile: Path, every_s: float, token_env: str | None, say: Callable[[str], None], *, probe: bool = False
) -> Iterator[Watcher]:
    """What follows a server.

    Args:
        url: Its base URL.
        profile: The profile's file; its study's folder next to it tells the traffic of the proof.
        every_s: Length of a stretch in seconds.
        token_env: Name of the environment variable that holds the bearer token, if it wants one.
        say: Told what the server is held against.
        probe: Whether it is probed as well.

    Raises:
        ConfigError: There is no such profile, or the traffic that it was proven under is not known here.
    """
    proven, server = read_profile(profile), AttachLauncher(base(url), token_env)
    workload = traffic_of(proven, profile).workload
    figures = ProofFigures.of(proven, workload, mean_tpot(profile))
    say(f"{server.url} against {profile}: {figures.text}")
    with _gpus(server.url, proven) as read, LoadClient() as client:
        prober = Prober(client, Target(server.url, server.headers, served_model(server)), workload) if probe else None
        yield Watcher(server, figures, read, every_s, prober)


@contextmanager
def _gpus(url: str, profile: Profile) -> Iterator[gpu.Read]:
    """How to read the GPUs of its study, where the server is on this machine."""
    if urlsplit(url).hostname not in _HERE or profile.machine is None or not profile.machine.indices:
        yield _none
        return
    with gpu.reading(profile.machine.indices) as (read, _):
        yield read


def _none(ours: gpu.Ours) -> tuple[GpuState, ...]:
    return ()
