"""A conversation under way in the load worker: each answer goes back into the next request, as an agent's does.

The call of a tool is the client's own, whatever the model said, and its result has the length that the workload asks
for: what a model would call that was asked nothing in particular cannot be foreseen.
"""

import asyncio
import json
from typing import Any

from tuner.load import sse
from tuner.load.payload import messages_of
from tuner.load.prompts import Writer, text
from tuner.load.stage import Request

_AT_ONCE = 32
"""So many events are decoded between two looks at the sockets: a fraction of a millisecond."""
_PATH_WORDS = 2


class Conversation:
    """The messages so far.

    Args:
        opening: Its first request.
        write: Makes its texts.
    """

    def __init__(self, opening: Request, write: Writer) -> None:
        self.messages: list[dict[str, Any]] = messages_of(opening, write)
        self._write = write

    async def go_on(self, answer: bytes, request: Request) -> None:
        """Take the stream of the last answer, and the result of the tool that the agent called after it."""
        call, path = f"call{len(self.messages):05}", text(request.seed, _PATH_WORDS).replace(" ", "/")
        function = {"name": "read_file", "arguments": json.dumps({"path": path})}
        calls = [{"id": call, "type": "function", "function": function}]
        self.messages += [
            {"role": "assistant", "content": await _said(answer), "tool_calls": calls},
            {"role": "tool", "tool_call_id": call, "content": self._write(request.seed, request.words)},
        ]


async def _said(answer: bytes) -> str:
    """The text of an answer; its reasoning where it has nothing else, since clients send none back."""
    content, reasoning = list[str](), list[str]()
    for number, (said, thought) in enumerate(sse.texts(answer)):
        content.append(said)
        reasoning.append(thought)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return "".join(content) or "".join(reasoning)
