"""One page of a server, up to a size and within a time: no answer can cost us our memory or our patience."""

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import httpx

MOST_BYTES = 16 << 20
"""The longest page that is read. A ``/metrics`` of vLLM takes 50 to 500 KB."""


class TooMuch(httpx.HTTPError):
    """The page is longer, or takes longer, than any that was asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came.

    Attributes:
        status: HTTP status.
        body: The page.
    """

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The page as text; what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The page as JSON.

        Raises:
            ValueError: It is none, or nested too deeply to be one.
        """
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def client_for(url: str) -> httpx.Client:
    """A client that keeps its connection to a server."""
    # loading the certificates for nothing takes longer than all the rest
    return httpx.Client(verify=url.startswith("https:"))


def fetch(
    url: str,
    headers: Mapping[str, str],
    *,
    within_s: float,
    json_body: Mapping[str, Any] | None = None,
    most_bytes: int = MOST_BYTES,
    client: httpx.Client | None = None,
) -> Answer:
    """Get a page, or post a body to it.

    Args:
        url: The page.
        headers: Sent with it.
        within_s: For the whole page, from the request to its last byte.
        json_body: Posted, if there is one.
        most_bytes: The longest page to read.
        client: Keeps its connection for further pages; without one each page has its own.

    Raises:
        httpx.HTTPError: Nothing answered in time, or too much (``TooMuch``).
    """
    deadline = time.monotonic() + within_s
    method = "GET" if json_body is None else "POST"
    with (
        nullcontext(client) if client else client_for(url) as used,
        used.stream(method, url, headers=dict(headers), json=json_body, timeout=within_s) as reply,
    ):
        body = bytearray()
        for part in reply.iter_bytes():
            body += part
            if len(body) > most_bytes:
                raise TooMuch(f"{url} sends more than {most_bytes:,} bytes")
            if time.monotonic() > deadline:
                raise TooMuch(f"{url} was not complete within {within_s:g} s")
        return Answer(reply.status_code, bytes(body))
