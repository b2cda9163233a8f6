"""optuna-dashboard on a study's storage, for this machine only.

The dashboard has no login and can delete studies. So it listens on the loopback alone, answers only to its own name
(a web page elsewhere could otherwise reach it through a rebound domain), and refuses to delete: a study is its folder.
"""

import os
import sys
import warnings
import webbrowser
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tuner.dashboard.artifacts import EvidenceStore
from tuner.dashboard.ledger import Ledger
from tuner.records.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_HOST = "127.0.0.1"


@contextmanager
def serving(outcome: Outcome, port: int = 0) -> "Iterator[DashboardServer]":
    """The dashboard of a study, ready to be served; its notes are those of this moment.

    Args:
        outcome: The study.
        port: Where; 0 takes a free one.
    """
    import optuna_dashboard

    ledger = Ledger(outcome.config, outcome.folder)
    ledger.catch_up(outcome.records)
    ledger.annotate(outcome, ledger.unannotated(outcome.records))
    app = optuna_dashboard.wsgi(ledger.storage, artifact_store=EvidenceStore(outcome.folder))
    with make_server(_HOST, port, _guarded(app), DashboardServer, _Quiet) as server:
        server.study_id = ledger.study_id
        yield server


def show(outcome: Outcome, port: int, say: Callable[[str], None], *, in_browser: bool) -> None:
    """Serve the dashboard until Ctrl-C.

    Args:
        outcome: The study.
        port: Where; 0 takes a free one.
        say: Told where it is.
        in_browser: Whether to open it, if there is a browser with a screen.
    """
    warnings.filterwarnings("ignore", module="optuna")  # its notes on small studies are not for our users
    with serving(outcome, port) as server:
        try:
            say(f"{outcome.config.study.name}: {server.url}  (Ctrl-C ends it)")
            if in_browser and _has_screen():
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            say("dashboard ended")


class DashboardServer(ThreadingMixIn, WSGIServer):
    """One thread a request, none of which outlives it."""

    daemon_threads = True
    study_id = 0

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{_HOST}:{self.server_port}/dashboard/studies/{self.study_id}"


class _Quiet(WSGIRequestHandler):
    """Requests are not worth a line each."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _guarded(app: "WSGIApplication") -> "WSGIApplication":
    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        name = environ.get("HTTP_HOST", "").rpartition(":")[0]
        if name not in (_HOST, "localhost"):
            return _refused(start, "this dashboard answers to this machine only")
        if environ["REQUEST_METHOD"] == "DELETE":
            return _refused(start, "a study and its evidence are deleted with their folder, not from here")
        return app(environ, start)

    return answer


def _refused(start: "StartResponse", reason: str) -> Iterable[bytes]:
    start("403 Forbidden", [("Content-Type", "application/json")])
    return [b'{"reason": "' + reason.encode() + b'"}']


def _has_screen() -> bool:
    """Whether a browser would open in a window; a text browser would take the terminal over."""
    graphical = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return graphical and sys.stdout.isatty()
