"""A server that somebody else runs is asked for little while it is measured."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tuner.launchers.attach import AttachLauncher
from tuner.launchers.base import LaunchSpec
from tuner.testing.launcher import until


@pytest.fixture
def stranger():
    class Counting(ThreadingHTTPServer):
        asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = Counting(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_it_is_not_asked_again_and_again_whether_it_lives(stranger, tmp_path):
    url = f"http://127.0.0.1:{stranger.server_port}"
    with AttachLauncher(url).launch(LaunchSpec("a", (), tmp_path / "log")) as server:
        assert all(server.life().running for _ in range(100))
    assert stranger.asked <= 3


def test_that_it_is_gone_is_seen_within_a_moment(stranger, tmp_path):
    url = f"http://127.0.0.1:{stranger.server_port}"
    with AttachLauncher(url).launch(LaunchSpec("a", (), tmp_path / "log")) as server:
        stranger.shutdown()
        stranger.server_close()
        until(lambda: not server.life().running, 3)
