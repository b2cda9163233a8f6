"""A conversation under way in the load worker: each answer goes back into the next request, as an agent's does.

The call of a tool is the client's own, whatever the model said, and its result has the length that the workload asks
for: what a model would call that was asked nothing in particular cannot be foreseen.
"""

import asyncio
import json

from tuner.load import sse
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.endpoints.form import Message
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
        self.messages = messages_of(opening, write)
        self._endpoint = opening.endpoint
        self._write = write

    async def go_on(self, answer: bytes, request: Request) -> None:
        """Take the stream of the last answer, and the result of the tool that the agent called after it."""
        call, path = f"call{len(self.messages):05}", text(request.seed, _PATH_WORDS).replace(" ", "/")
        function = {"name": "read_file", "arguments": json.dumps({"path": path})}
        calls = [{"id": call, "type": "function", "function": function}]
        self.messages += [
            {"role": "assistant", **await self._said(answer), "tool_calls": calls},
            {"role": "tool", "tool_call_id": call, "content": self._write(request.seed, request.words)},
        ]

    async def _said(self, answer: bytes) -> Message:
        """The text of an answer; its reasoning where it has nothing else, since clients of chat send none back.

        Those of the messages API send all of it back, signed.
        """
        content, reasoning, signature = list[str](), list[str](), list[str]()
        for number, piece in enumerate(sse.texts(answer)):
            content.append(piece.content)
            reasoning.append(piece.reasoning)
            signature.append(piece.signature)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        text, thinking = "".join(content), "".join(reasoning)
        if self._endpoint is Endpoint.MESSAGES:
            return {"content": text, "thinking": thinking, "signature": "".join(signature)}
        return {"content": text or thinking}
