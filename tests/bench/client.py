"""What the load client costs, and what others do, against a server that sends on a known schedule.

The load client decodes nothing while it measures; what it costs afterwards counts for nothing. The others do what their
users do.
"""

import asyncio
import json
import multiprocessing
import socket
import time
from itertools import pairwise
from statistics import quantiles

import aiohttp
import httpx
import uvloop

from tuner.load.arrivals import schedule
from tuner.load.shapes import Arrivals
from tuner.load.stage import Request, Stage, WorkerCommand
from tuner.load.worker import run

STREAMS, CHUNKS, GAP_S = 256, 60, 0.05
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


RATE, SENT = 200, 2000


def main():
    print(f"load clients, {STREAMS} streams of {CHUNKS} chunks, {STREAMS / GAP_S:,.0f} chunks/s, one process each:")
    for name, client in CLIENTS.items():
        with Server() as url:
            cpu_s, gaps = apart(client, url)
        error_ms = quantiles((abs(gap - GAP_S) * 1000 for gap in gaps), n=100)[98]
        print(f"  {name:<14} {cpu_s / STREAMS / CHUNKS * 1e6:6.1f} µs of CPU a chunk, gap error p99 {error_ms:6.2f} ms")
    with Server() as url:
        sent = on_schedule(url)
    lag = f"p99 {sent.send_lag_p99_ms:.2f} ms, at most {sent.send_lag_max_ms:.2f} ms"
    print(f"  open loop, {RATE} requests/s: sent - scheduled {lag}")


class Server:
    """Sends each stream's chunks at fixed moments, from a process of its own."""

    def __enter__(self):
        listening = socket.create_server(("127.0.0.1", 0))
        self.process = multiprocessing.get_context("fork").Process(target=serve, args=(listening,), daemon=True)
        self.process.start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


def serve(listening):
    async def forever():
        server = await asyncio.get_running_loop().create_server(Scheduled, sock=listening)
        await server.serve_forever()

    uvloop.run(forever())


class Scheduled(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.request = transport, b""

    def data_received(self, data):
        self.request += data
        head, _, body = self.request.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length:
            self.request = b""
            self.task = asyncio.ensure_future(self.play())

    async def play(self):
        loop = asyncio.get_running_loop()
        self.transport.write(HEAD)
        due_s = loop.time()
        for number in range(CHUNKS):
            due_s += GAP_S
            await asyncio.sleep(due_s - loop.time())
            self.write(event({"content": "tok"}, "length" if number == CHUNKS - 1 else None))
        usage = {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": CHUNKS}}
        self.write(b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    def write(self, data):
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def event(delta, reason):
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def apart(client, url):
    """The CPU seconds and the gaps that a client sees, in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_timed, args=(client, url, theirs))
    process.start()
    told = ours.recv()
    process.join()
    return told


def _timed(client, url, pipe):
    begun_s = time.process_time()
    gaps, measuring_s = client(url)
    pipe.send((measuring_s or time.process_time() - begun_s, gaps))


def gaps_of(streams):
    """The gaps, and ``None``: all of the process's time counts."""
    return [b - a for times in streams for a, b in pairwise(times)], None


def with_tuner(url):
    requests = tuple(Request(f"{n}", 20, 30, CHUNKS) for n in range(STREAMS))
    result = run(WorkerCommand(Stage("bench", STREAMS, requests, 0.7, 60.0, 0), url, {}, "m"))
    gaps, _ = gaps_of([ms / 1000 for ms in record.chunk_ms] for record in result.records)
    return gaps, result.client_cpu_share * result.wall_ms / 1000


def on_schedule(url):
    """An open loop's stage: how late its requests are sent is in the result."""
    requests = tuple(Request(f"{n}", 100, 130, CHUNKS) for n in range(SENT))
    due_ms = tuple(due_s * 1000 for due_s in schedule(Arrivals(kind="poisson", rate=RATE), RATE, SENT, "bench"))
    return run(WorkerCommand(Stage("bench", 1, requests, 0.7, 60.0, 0, due_ms=due_ms), url, {}, "m"))


def with_httpx(url):
    async def one(client):
        times = []
        async with client.stream("POST", url + "/v1/chat/completions", json={}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                    times.append(time.perf_counter())
        return times

    async def every():
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(*(one(client) for _ in range(STREAMS)))

    return gaps_of(asyncio.run(every()))


def with_aiohttp(url):
    async def one(client):
        times = []
        async with client.post(url + "/v1/chat/completions", json={}) as response:
            async for line in response.content:
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                    times.append(time.perf_counter())
        return times

    async def every():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            return await asyncio.gather(*(one(client) for _ in range(STREAMS)))

    return gaps_of(uvloop.run(every()))


class Raw(asyncio.Protocol):
    """The least that a client can do: stamp what comes."""

    def __init__(self, over):
        self.over, self.times = over, []

    def connection_made(self, transport):
        transport.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\n\r\n{}")

    def data_received(self, data):
        self.times.append(time.perf_counter())
        if data.endswith(b"0\r\n\r\n"):
            self.over.set_result(self.times[-CHUNKS - 1 : -1] if len(self.times) > CHUNKS else self.times)


def with_raw_protocol(url):
    async def one(port):
        over = asyncio.get_running_loop().create_future()
        await asyncio.get_running_loop().create_connection(lambda: Raw(over), "127.0.0.1", port)
        return await over

    async def every():
        return await asyncio.gather(*(one(int(url.rsplit(":", 1)[1])) for _ in range(STREAMS)))

    return gaps_of(uvloop.run(every()))


CLIENTS = {"tuner": with_tuner, "httpx": with_httpx, "aiohttp": with_aiohttp, "raw protocol": with_raw_protocol}

if __name__ == "__main__":
    main()
