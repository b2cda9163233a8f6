"""A server on 127.0.0.1 that streams as vLLM does, at a pace that a test sets, and misbehaves on request."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tuner.load.client import LoadClient
from tuner.load.target import Target


@dataclass
class Answer:
    """What to do with a request: pieces of bytes, each after a delay in seconds; then end in one of three ways."""

    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    status: int = 200
    end: str = "clean"  # or "reset", "hang", "garble", "drop" (before a byte is answered)


@dataclass
class VllmLike:
    """The server; ``answer`` makes an Answer of a request's JSON."""

    port: int = 0
    ttft_s: float = 0.03
    itl_s: float = 0.01
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    in_flight_at_arrival: list[int] = field(default_factory=list)
    disconnected_at: list[float] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], Answer] | None = None
    closes_kept_connections: bool = False
    metrics: Callable[[], str] | None = None
    tokenizes: str = ""  # or as "vllm" does, or as "llamacpp"
    tokenized: int = 0

    @property
    def target(self) -> Target:
        return Target(f"http://127.0.0.1:{self.port}", {"Authorization": "Bearer sesame-4711"}, "glm")

    def count(self, text: str) -> int:
        """As if long words were two tokens, and each sign one."""
        return sum(1 + (len(piece) > 5) for piece in re.findall(r"\w+|[^\w\s]", text))

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """The chat template is seven tokens."""
        said = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
        return 7 + self.count(said if isinstance(said, str) else said[0]["text"])

    async def tokenize(self, request: web.Request) -> web.Response:
        self.tokenized += 1
        body = await request.json()
        if self.tokenizes == "vllm":
            count = 1 + self.count(body["prompt"])  # it begins with a token of its own
            return web.json_response({"count": count, "max_model_len": 4096, "tokens": [1] * count})
        if self.tokenizes == "llamacpp":
            return web.json_response({"tokens": [1] * self.count(body.get("content", ""))})
        return web.Response(status=404)

    def event(self, **chunk: Any) -> bytes:
        return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"

    def delta(self, finish_reason: str | None = None, **delta: Any) -> bytes:
        return self.event(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def opening(self) -> bytes:
        return self.delta(role="assistant", content="")

    def usage(self, body: dict[str, Any], output_tokens: int, **more: Any) -> bytes:
        counts = {"prompt_tokens": self.prompt_tokens(body), "completion_tokens": output_tokens} | more
        return self.event(choices=[], usage=counts) + b"data: [DONE]\n\n"

    def named(self, kind: str, **fields: Any) -> bytes:
        """An event of the messages API."""
        return f"event: {kind}\n".encode() + self.event(type=kind, **fields)

    def said(self, index: int = 0, kind: str = "text_delta", **delta: Any) -> bytes:
        return self.named("content_block_delta", index=index, delta={"type": kind, **delta})

    def begun(self, body: dict[str, Any]) -> bytes:
        usage = {"input_tokens": self.prompt_tokens(body), "output_tokens": 0}
        return self.named("message_start", message={"role": "assistant", "content": [], "usage": usage})

    def ended(self, output_tokens: int, stop_reason: str = "max_tokens") -> bytes:
        usage = {"output_tokens": output_tokens}
        delta = {"stop_reason": stop_reason}
        return self.named("message_delta", delta=delta, usage=usage) + self.named("message_stop")

    def message(self, body: dict[str, Any]) -> Answer:
        """The same of the messages API."""
        count = body["max_tokens"]
        opening = self.named("content_block_start", index=0, content_block={"type": "text", "text": ""})
        tokens = [(self.itl_s if i else self.ttft_s, self.said(text="tok")) for i in range(count)]
        return Answer([(0, self.begun(body) + opening), *tokens, (0, self.ended(count))])

    def completion(self, body: dict[str, Any]) -> Answer:
        """The same of plain completions."""
        last = body["max_tokens"] - 1
        tokens = [
            (
                self.itl_s if i else self.ttft_s,
                self.event(choices=[{"index": 0, "text": "tok", "finish_reason": "length" if i == last else None}]),
            )
            for i in range(last + 1)
        ]
        return Answer([*tokens, (0, self.usage(body, last + 1))])

    def stream(self, body: dict[str, Any]) -> Answer:
        """A well-behaved stream: a chunk a token, the last one with the finish_reason."""
        if "prompt" in body:
            return self.completion(body)
        if "stream_options" not in body:
            return self.message(body)
        last = body["max_tokens"] - 1
        reasons = ["length" if i == last else None for i in range(last + 1)]
        tokens = [
            (self.itl_s if i else self.ttft_s, self.delta(reason, content="tok")) for i, reason in enumerate(reasons)
        ]
        return Answer([(0, self.opening()), *tokens, (0, self.usage(body, last + 1))])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.in_flight_at_arrival.append(self.in_flight)
        try:
            return await self._play(request, (self.answer or self.stream)(body))
        except (asyncio.CancelledError, ConnectionError):
            self.disconnected_at.append(time.perf_counter())
            raise
        finally:
            self.in_flight -= 1

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=self.metrics()) if self.metrics else web.Response(status=404)

    async def _play(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        assert request.transport
        if answer.end == "drop":
            request.transport.abort()
            raise ConnectionResetError
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        due = time.perf_counter()
        for delay, piece in answer.pieces:
            due += delay  # from the start, so that lateness does not add up
            await asyncio.sleep(due - time.perf_counter())
            await response.write(piece)
        if answer.end == "garble":  # a chunk without a length, and the connection stays
            request.transport.write(b"no length\r\n")
        if answer.end in ("hang", "garble"):
            await asyncio.sleep(60)
        if answer.end == "reset":
            request.transport.abort()
        if self.closes_kept_connections:  # as llama.cpp: keep-alive is announced, and the socket closed
            await response.write_eof()
            request.transport.close()
        return response


def _serve(server: VllmLike, ready: threading.Event, loop: asyncio.AbstractEventLoop) -> None:
    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=1 << 24)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages"):
            app.router.add_post(path, server.handle)
        app.router.add_post("/tokenize", server.tokenize)
        app.router.add_get("/metrics", server.page)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        ready.set()
        return runner

    runner = loop.run_until_complete(start())
    loop.run_forever()
    loop.run_until_complete(runner.cleanup())
    loop.close()


@pytest.fixture
def server() -> Iterator[VllmLike]:
    server, ready, loop = VllmLike(), threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=_serve, args=(server, ready, loop))
    thread.start()
    assert ready.wait(10)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(scope="session")
def client() -> Iterator[LoadClient]:
    """One worker for all tests, as over all trials of a study."""
    with LoadClient() as client:
        yield client


@pytest.fixture
def answer() -> type[Answer]:
    return Answer
