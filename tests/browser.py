"""Headless Chromium for tests, by its DevTools protocol: open a page, ask it things, look at it.

Nothing but aiohttp is needed, which tuner has anyway. Where there is no Chromium, tests that ask for one are skipped.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a browser: apt-get install -y chromium (Debian), then make test"
)

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "about:blank"),
)


@contextmanager
def browser():
    """A Chromium of our own; gone when the block is left."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), f"--user-data-dir={profile}", *_FLAGS]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Browser(_endpoint(Path(profile) / "DevToolsActivePort", process))
        finally:
            process.kill()
            process.wait()


def _endpoint(path, process, patience_s=20):
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(lines := path.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    raise AssertionError(f"chromium did not start (exit status {process.poll()})")


class Browser:
    """One running Chromium."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    @contextmanager
    def page(self, url, *, width=1280, height=900, dark=False):
        """A page that has been loaded, at a size and in a colour scheme."""
        page = Page(self._endpoint)
        try:
            page.open(url, width, height, dark)
            yield page
        finally:
            page.close()


class Page:
    """One tab. ``errors`` is everything that went wrong in it: exceptions, console errors, failed or refused loads."""

    def __init__(self, endpoint):
        self.errors = []
        self.requested = []
        self._replies = {}
        self._session = None
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._await(self._connect(endpoint))

    def open(self, url, width, height, dark):
        """Load it; returns when the page and what it needs are there."""
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._resize(width, height)
        self._send("Page.navigate", {"url": url})
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression):
        """The value of a JavaScript expression."""
        reply = self._send("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, expression, patience_s=30):
        """Wait until an expression is true."""
        deadline = time.monotonic() + patience_s
        while not self.ask(expression):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {expression}\n{self.text()[:2000]}\n{self.errors}")
            time.sleep(0.05)

    def text(self):
        """What a reader sees."""
        return self.ask("document.body.innerText")

    def picture(self, path, *, whole=True):
        """A screenshot, of the whole page or of what fits the window."""
        parameters = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self._send("Page.getLayoutMetrics")["cssContentSize"]
            parameters["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        _keep(path, self._send("Page.captureScreenshot", parameters)["data"])

    def printed(self, path):
        """The page on paper: A4, as PDF."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        _keep(path, self._send("Page.printToPDF", paper)["data"])

    def close(self):
        """Leave it."""
        self._await(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._send("Emulation.setDeviceMetricsOverride", size)

    def _send(self, method, parameters=None):
        return self._await(self._call(method, parameters or {}))

    def _await(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _connect(self, endpoint):
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(endpoint, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())

    async def _disconnect(self):
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()
        await self._http.close()

    async def _call(self, method, parameters):
        self._count += 1
        number, reply = self._count, self._loop.create_future()
        self._replies[number] = reply
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": parameters, **session}))
        return await reply

    async def _read(self):
        async for message in self._socket:
            self._take(json.loads(message.data))

    def _take(self, message):
        if (reply := self._replies.pop(message.get("id"), None)) is not None:
            if "error" in message:
                reply.set_exception(AssertionError(message["error"]))
            else:
                reply.set_result(message["result"])
            return
        about = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(about["exceptionDetails"])
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "assert"):
                self.errors.append([argument.get("value", argument.get("description")) for argument in about["args"]])
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.errors.append(about["entry"])
            case "Network.requestWillBeSent":
                self.requested.append(about["request"]["url"])


def _keep(path, data):
    Path(path).write_bytes(base64.b64decode(data))


def pictures(fallback):
    """Where screenshots go: ``TUNER_PICTURES``, or else a folder of the test's own."""
    folder = Path(os.environ.get("TUNER_PICTURES", fallback))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
