"""Where a load goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """A server.

    Attributes:
        url: Base URL without a trailing slash; an endpoint's path is appended.
        headers: Sent with every request; may hold a bearer token, so they are not shown.
        model: The model's name in the requests.
        counts: How its tokenizer counts the corpus (``tuner.load.prose.texts``); empty where prompts are random words.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    model: str
    counts: tuple[float, ...] = ()
