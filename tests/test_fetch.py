"""Asking a server for a page costs no more than the page that was asked for."""

import http.server
import threading
import time

import httpx
import pytest

from tuner.fetch import TooMuch, fetch
from tuner.trial.readiness import Probe


class Server(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(2000 if self.path in ("/flood", "/metrics") else 3):
            try:
                self.wfile.write(b"x" * (1 << 16 if self.path in ("/flood", "/metrics") else 1))
                self.wfile.flush()
            except OSError:
                return
            time.sleep(0.4 if self.path == "/drip" else 0)


@pytest.fixture
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_page_arrives_whole(url):
    assert fetch(f"{url}/page", {}, within_s=5).text == "xxx"


def test_a_flood_is_cut_off(url):
    with pytest.raises(TooMuch, match="sends more than 1,000,000 bytes"):
        fetch(f"{url}/flood", {}, within_s=10, most_bytes=1_000_000)


def test_a_page_that_drips_is_given_up_in_time(url):
    with pytest.raises(httpx.HTTPError):
        fetch(f"{url}/drip", {}, within_s=0.5)


def test_a_probe_takes_a_flood_for_no_answer(url):
    assert Probe(url, "glm").witness([]).metrics is None
