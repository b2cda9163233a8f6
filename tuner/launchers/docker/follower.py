"""Follows one container: its output goes to a file as it comes, and its end is known at once.

The engine's stream of output ends when the container does, and also, silently, when the engine itself stops. Which of
the two it was, the engine is asked then: a question that a stopped engine does not answer, and one that was started
anew answers as another than the one that we were tied to.
"""

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from docker.models.containers import Container

from tuner.errors import EngineUnavailable, InfrastructureError
from tuner.launchers.base import Life
from tuner.launchers.docker.daemon import Lifeline, accepts, connected, engine_url, no_program, translated
from tuner.launchers.redacting import Redacting, opened
from tuner.secrets import hide

_CLOSING_S = 10.0
_LOOK_EVERY_S = 0.5
_NOT_EXECUTED = 127
_INIT_FAILED = re.compile(r"^\[FATAL tini .*exec .* failed: ", re.MULTILINE)
"""The container's init process starts the program, so that it is not the engine who misses it."""


class Follower:
    """A thread next to one container.

    Args:
        container_id: The container.
        log_path: Where its output goes, secrets cut.
        hidden: The secrets.
    """

    def __init__(self, container_id: str, log_path: Path, hidden: Iterable[str]) -> None:
        self._id = container_id
        self._path = log_path
        hide(hidden)
        self._life = Life(running=True)
        self._lost: EngineUnavailable | None = None
        self._next_look_s = time.monotonic() + _LOOK_EVERY_S
        self._lifeline = Lifeline(engine_url())
        self._thread = threading.Thread(target=self._follow, name=f"follow-{container_id[:12]}", daemon=True)
        self._thread.start()

    def life(self) -> Life:
        """Whether the container lives.

        Raises:
            EngineUnavailable: The engine went away, and with it whoever could say; or the image does not have the
                program that was to be started.
        """
        if self._life.running and self._lost is None:
            self._look_after_engine()
        if self._lost:
            raise self._lost
        return self._life

    def _look_after_engine(self) -> None:
        """An engine that is told to stop closes its socket at once, and its streams only when all containers ended."""
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + _LOOK_EVERY_S
        if self._lifeline.cut or not accepts(engine_url()):
            self._lost = _gone("it accepts no connections")

    def join(self) -> None:
        """Wait until the output is written; the container has ended, or its engine has."""
        if self._lost is None:
            self._thread.join(_CLOSING_S)
        self._lifeline.close()

    def _follow(self) -> None:
        try:
            with connected() as client:
                with translated():
                    container = client.containers.get(self._id)
                self._copy(container)
                life = _ended(container)
            if self._lifeline.cut:
                raise EngineUnavailable("it was started anew")
            if life.exit_code == _NOT_EXECUTED and _INIT_FAILED.search(self._path.read_text(errors="replace")):
                self._lost = no_program(self._path.read_text(errors="replace").strip())
            self._life = life
        except InfrastructureError as error:
            self._lost = self._lost or _gone(error.message)
        finally:
            if self._life.running and self._lost is None:  # a bug of ours must not look like a server that lives
                self._lost = EngineUnavailable("the thread that followed the container broke")

    def _copy(self, container: Container) -> None:
        with translated(), opened(self._path) as file:
            stream = container.logs(stream=True, follow=True, stdout=True, stderr=True)
            cut = Redacting()
            for piece in stream:
                file.write(cut.feed(piece))
            file.write(cut.end())


def _gone(why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"the Docker engine stopped or restarted under the running trial: {why}",
        fix="nothing, if it was restarted on purpose: the trial is tried again",
    )


def _ended(container: Container) -> Life:
    """How it ended.

    Raises:
        EngineUnavailable: The engine does not answer, or says that the container still runs: it was the engine that
            ended the stream.
    """
    with translated():
        container.reload()
    state = container.attrs["State"]
    if state["Running"]:
        raise EngineUnavailable("its log ended while the container runs")
    return Life(running=False, exit_code=state["ExitCode"], oom_killed=bool(state["OOMKilled"]))
