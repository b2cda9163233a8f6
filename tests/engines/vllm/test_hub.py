"""A model that is not on this disk is asked for once, of the hub that the engine would load it from."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.present import present
from tuner.engines.vllm.model import hub

QWEN = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "vocab_size": 151936,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
}
PAGES = {
    "/Qwen/Qwen3-8B/raw/main/config.json": json.dumps(QWEN),
    "/org/page/raw/main/config.json": "<html>log in</html>",
}


@pytest.fixture
def endpoint():
    """A hub with one model, the addresses that it was asked for, and what it was told."""
    seen = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            page = PAGES.get(self.path)
            self.send_response(200 if page else 401)
            self.end_headers()
            self.wfile.write((page or "").encode())

        def log_message(self, format, *args):  # as the base has it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_what_the_hub_says_is_kept_and_no_token_is_told(endpoint, tmp_path):
    url, seen = endpoint
    found = present(hub.asked("Qwen/Qwen3-8B", {"HF_ENDPOINT": url, "HF_TOKEN": "hf_secret"}, tmp_path))
    assert (found.layers, found.max_positions, found.name) == (36, 40960, "Qwen/Qwen3-8B")
    assert hub.kept("Qwen/Qwen3-8B", tmp_path) == found
    assert {token for _, token in seen} == {None}


@pytest.mark.parametrize("model", ["org/gated", "org/page", "/models/mine", "one-word"])
def test_what_the_hub_does_not_say_is_unknown(endpoint, tmp_path, model):
    assert hub.asked(model, {"HF_ENDPOINT": endpoint[0]}, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_offline_nobody_is_asked(endpoint, tmp_path):
    url, seen = endpoint
    assert hub.asked("Qwen/Qwen3-8B", {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "1"}, tmp_path) is None
    assert not seen
