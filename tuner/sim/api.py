"""vLLM's HTTP API over the simulated engine."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from aiohttp import web

from tuner.sim import log, messages, scores, tokens
from tuner.sim.engine import Engine
from tuner.sim.faults import Faults
from tuner.sim.log import Process
from tuner.sim.replies import BadRequest, Parsers, Reply, chat, completion, render
from tuner.sim.scheduler import Request
from tuner.sim.scores import ScoredEnvelope, Scorer
from tuner.sim.settings import Settings
from tuner.sim.sinks import DEAD, DONE, Answer, Envelope, Stream, Wrapping, error_object, usage

MAX_BODY = 64 << 20
ERROR_AFTER_TOKENS = 3
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment say about the API.

    Attributes:
        parsers: How the model's output is understood.
        keys: Accepted bearer tokens; empty for all.
        dev_mode: Whether the development routes are open.
        access_log: Whether requests are logged.
        token_details: Whether usage tells cached tokens.
        always_usage: Whether streams end with the usage without being asked.
        max_logprobs: Of how many alternatives log probabilities are told at most.
        environment: The ``VLLM_*`` variables, for ``/server_info``.
    """

    parsers: Parsers
    keys: tuple[str, ...]
    dev_mode: bool
    access_log: bool
    token_details: bool
    always_usage: bool
    max_logprobs: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood.

    Attributes:
        body: Its JSON body, in the form of OpenAI's endpoints.
        reply: What it will be answered.
        envelope: What surrounds the answer.
    """

    body: Mapping[str, Any]
    reply: Reply
    envelope: Wrapping


class Api:
    """The routes of one server.

    Args:
        engine: What answers.
        options: How the API behaves.
        faults: What goes wrong on request.
        process: Who writes the access log.
    """

    def __init__(self, engine: Engine, options: Options, faults: Faults, process: Process) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.options = options
        self.process = process
        self.open = 0
        self._faults = faults
        self._received = 0

    def application(self) -> web.Application:
        """The routes as an aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/ping", self.health),
                web.get("/load", self.load),
                web.get("/version", self.version),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.completion),
                web.post("/tokenize", self.tokenize),
                web.post("/detokenize", self.detokenize),
            ]
        )
        if messages.has_messages(self.settings.site.version):
            app.router.add_post(messages.PATH, self.message)
        if messages.counts_tokens(self.settings.site.version):
            app.router.add_post(messages.COUNT_PATH, self.count_tokens)
        if self.options.dev_mode:
            app.router.add_get("/server_info", self.server_info)
            app.router.add_post("/reset_prefix_cache", self.reset_prefix_cache)
        if self.options.access_log:
            app.on_response_prepare.append(self._log_access)
        return app

    async def health(self, request: web.Request) -> web.Response:
        """200 while the engine lives."""
        return web.Response(status=503 if self.engine.dead else 200)

    async def load(self, request: web.Request) -> web.Response:
        """Requests in flight."""
        return web.json_response({"server_load": self.open})

    async def version(self, request: web.Request) -> web.Response:
        """The version of vLLM that is simulated."""
        return web.json_response({"version": self.settings.site.version.text})

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(text=self.engine.metrics.text(), content_type="text/plain", charset="utf-8")

    async def models(self, request: web.Request) -> web.Response:
        """All names that the model answers to."""
        created = int(self.engine.metrics.created_s)
        cards = [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "vllm",
                "root": self.settings.model_name,
                "parent": None,
                "max_model_len": self.settings.max_model_len,
            }
            for name in self.settings.served_model_name
        ]
        return web.json_response({"object": "list", "data": cards})

    async def server_info(self, request: web.Request) -> web.Response:
        """The effective configuration (development mode only)."""
        config = server_config(self.settings)
        shown: object = config if request.query.get("config_format") == "json" else str(config)
        body = {"vllm_config": shown, "vllm_env": dict(self.options.environment), "system_env": {}}
        return web.json_response(body)

    async def reset_prefix_cache(self, request: web.Request) -> web.Response:
        """Forget all idle KV blocks (development mode only)."""
        self.engine.scheduler.pool.forget()
        return web.Response()

    async def tokenize(self, request: web.Request) -> web.Response:
        """Token numbers of a prompt or of messages."""
        body = await _json(request)
        text = render(body["messages"], body.get("tools")) if "messages" in body else str(body.get("prompt", ""))
        pieces = tokens.split(text)
        strings = pieces if body.get("return_token_strs") else None
        numbers = [tokens.identifier(piece) for piece in pieces]
        longest = self.settings.max_model_len
        return web.json_response(
            {"count": len(numbers), "max_model_len": longest, "tokens": numbers, "token_strs": strings}
        )

    async def detokenize(self, request: web.Request) -> web.Response:
        """Some text of as many tokens; the simulated tokenizer cannot go back."""
        body = await _json(request)
        words = (tokens.WORDS[number % len(tokens.WORDS)].decode() for number in body.get("tokens", []))
        return web.json_response({"prompt": "".join(words)})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``/v1/chat/completions``."""
        return await self._serve(request, self._chat)

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """``/v1/completions``."""
        return await self._serve(request, self._completion)

    async def message(self, request: web.Request) -> web.StreamResponse:
        """Anthropic's ``/v1/messages``."""
        return await self._serve(request, self._messages)

    async def count_tokens(self, request: web.Request) -> web.Response:
        """How long the prompt of a message would be."""
        body = await _json(request)
        self._check_model(body)
        asked = messages.chat_body({"max_tokens": 1, **body})
        count = tokens.count(render(asked["messages"], asked.get("tools")))
        return web.json_response({"input_tokens": count, "context_management": {"original_input_tokens": count}})

    def _chat(self, body: Mapping[str, Any]) -> Asked:
        reply = chat(body, self.settings, self.options.parsers)
        return Asked(body, reply, self._envelope(body, reply, reasoning_fields(self.settings)))

    def _completion(self, body: Mapping[str, Any]) -> Asked:
        reply = completion(body, self.settings)
        return Asked(body, reply, self._envelope(body, reply, ()))

    def _envelope(self, body: Mapping[str, Any], reply: Reply, fields: tuple[str, ...]) -> Envelope:
        name, is_chat = self._name(body), "messages" in body
        top = scores.asked(body, self.options.max_logprobs)
        if top is None:
            return Envelope(name, is_chat, fields)
        drift = self._faults.get("drift")
        scorer = Scorer(reply, drift.count / 1000 if drift else 0.0)
        return ScoredEnvelope(name, is_chat, fields, scorer, top)

    def _messages(self, body: Mapping[str, Any]) -> Asked:
        asked = messages.chat_body(body)
        done = b"" if self.settings.site.version.at_least(0, 20) else DONE
        reply = chat(asked, self.settings, self.options.parsers)
        return Asked(asked, reply, messages.MessageEnvelope(self._name(body), done))

    def _name(self, body: Mapping[str, Any]) -> str:
        return str(body.get("model") or self.settings.served_model_name[0])

    def _check_model(self, body: Mapping[str, Any]) -> None:
        name = body.get("model")
        if name is not None and name not in self.settings.served_model_name:
            raise BadRequest(f"The model `{name}` does not exist.", 404, "NotFoundError", "model")

    async def _serve(
        self, request: web.Request, understood: Callable[[Mapping[str, Any]], Asked]
    ) -> web.StreamResponse:
        sent_s = asyncio.get_running_loop().time()
        body = await _json(request)
        self._check_model(body)
        asked = self._faulty(understood(body))
        if self.engine.dead:
            return _refused(request, DEAD)
        self._received += 1
        self.open += 1
        try:
            return await (self._stream if asked.body.get("stream") else self._answer)(request, asked, sent_s)
        finally:
            self.open -= 1

    def _faulty(self, asked: Asked) -> Asked:
        """The same, with what goes wrong in the answer."""
        reply = asked.reply
        if self._faults.get("garbled"):
            reply = replace(reply, garbled=True)
        if (corrupt := self._faults.get("corrupt-tools")) and tokens.seed_of(reply.prompt) % 100 < corrupt.count:
            reply = replace(reply, tool=reply.tool[:-1])
        return replace(asked, reply=reply)

    async def _stream(self, request: web.Request, asked: Asked, sent_s: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        transport = request.transport
        if transport is None:
            return response
        options = asked.body.get("stream_options") or {}
        stream = Stream(
            asked.reply,
            self._job(asked.reply),
            transport,
            sent_s,
            asked.envelope,
            include_usage=bool(options.get("include_usage")) or self.options.always_usage,
            token_details=self.options.token_details,
            interval=self.settings.stream_interval,
            error_after=self._error_after(),
        )
        await response.prepare(request)
        await response.write(b"")
        await self._generate(stream)
        if not transport.is_closing():
            await response.write_eof()
        return response

    def _error_after(self) -> int | None:
        fault = self._faults.get("sse-error")
        return ERROR_AFTER_TOKENS if fault is not None and self._received == fault.count else None

    def _job(self, reply: Reply) -> Request:
        hashes = tokens.block_hashes(reply.prompt, self.settings.block_size)
        return Request(reply.prompt_tokens, reply.total, hashes)

    async def _generate(self, sink: Stream | Answer) -> None:
        await self.engine.submit(sink.job, sink)
        await sink.done

    async def _answer(self, request: web.Request, asked: Asked, sent_s: float) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            return web.Response(status=499)
        answer = Answer(asked.reply, self._job(asked.reply), transport, sent_s)
        await self._generate(answer)
        if not answer.done.result():
            return _refused(request, DEAD)
        counts = usage(asked.reply, answer.generated, answer.job.cached if self.options.token_details else None)
        return web.json_response(asked.envelope.whole(asked.reply, counts))

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.options.keys and request.path.startswith("/v1") and not self._authorized(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except BadRequest as error:
            return _refused(request, error_object(str(error), error.kind, error.status, error.parameter))
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and token in self.options.keys

    async def _log_access(self, request: web.Request, response: web.StreamResponse) -> None:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        where = f"{peer[0]}:{peer[1]}" if peer else "-"
        line = f'INFO:     {where} - "{request.method} {request.path_qs} HTTP/1.1" {response.status} {response.reason}'
        log.raw(self.process, line, log.STDOUT)


def reasoning_fields(settings: Settings) -> tuple[str, ...]:
    """What reasoning is called in deltas: renamed in 0.12, both names for a while."""
    version = settings.site.version
    if not version.at_least(0, 12):
        return ("reasoning_content",)
    return ("reasoning",) if version.at_least(0, 20) else ("reasoning", "reasoning_content")


def _refused(request: web.Request, error: Mapping[str, Any]) -> web.Response:
    """An error in the form of the endpoint that was asked."""
    known = request.path.startswith(messages.PATH) and error["error"]["type"] != messages.UNREADABLE
    return web.json_response(messages.in_this_form(error) if known else error, status=error["error"]["code"])


def server_config(settings: Settings) -> dict[str, Any]:
    """The effective configuration in the shape of vLLM's VllmConfig."""
    values = asdict(settings)
    groups = {
        "model_config": ("max_model_len", "served_model_name", "dtype", "enforce_eager"),
        "cache_config": (
            "block_size", "gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override",
            "enable_prefix_caching",
        ),
        "parallel_config": (
            "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel",
            "disable_custom_all_reduce",
        ),
        "scheduler_config": (
            "max_num_batched_tokens", "max_num_seqs", "enable_chunked_prefill", "async_scheduling", "stream_interval",
            "long_prefill_token_threshold", "max_model_len",
        ),
        "load_config": ("load_format",),
    }  # fmt: skip
    config: dict[str, Any] = {group: {key: values[key] for key in keys} for group, keys in groups.items()}
    config["model_config"] |= {"model": settings.model_name, "quantization": settings.model.quantization}
    config["cache_config"]["cache_dtype"] = settings.kv_cache_dtype
    config["compilation_config"] = {
        "mode": 0 if settings.enforce_eager else 3,
        "compile_sizes": list(settings.compile_sizes),
        "cudagraph_capture_sizes": list(settings.capture_sizes),
        "max_cudagraph_capture_size": max(settings.capture_sizes, default=0),
    }
    return config


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise BadRequest(
            f"[{{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error: {error}'}}]"
        ) from None
    if not isinstance(body, dict):
        raise BadRequest("[{'type': 'model_attributes_type', 'loc': ('body',)}]")
    return body
