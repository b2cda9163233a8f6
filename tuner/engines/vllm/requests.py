"""Which of a workload's requests a vLLM server of some settings answers with HTTP 400, known before it is launched."""

from collections.abc import Iterator

from tuner.engines.foresight import RefusedRequest
from tuner.engines.vllm.memory.demand import at_least, release, whole
from tuner.engines.vllm.model.architecture import Architecture
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.workload import Workload
from tuner.space import Settings

_MESSAGES_SINCE = (0, 11, 1)


def refused_requests(
    workload: Workload, settings: Settings, model: Architecture | None = None, version: str | None = None
) -> Iterator[RefusedRequest]:
    """What a server refuses: an endpoint that it lacks, a tool call without a parser, more than its context holds."""
    if workload.endpoint is Endpoint.MESSAGES and not at_least(release(version), *_MESSAGES_SINCE):
        yield RefusedRequest(
            f"vLLM {version} has no {workload.endpoint.path}: it came with {'.'.join(map(str, _MESSAGES_SINCE))}",
            "workload.endpoint",
            "say workload.endpoint=chat, or take a newer vLLM",
            (),
        )
    parser = ("enable_auto_tool_choice", "tool_call_parser")
    if workload.tool_call and not all(settings.args.get(name) for name in parser):
        yield RefusedRequest(
            "a tool call needs enable_auto_tool_choice and tool_call_parser: without them each is refused (HTTP 400)",
            "workload.tool_call",
            "set both in model.args, or workload.tool_call=false",
            parser,
        )
    context = whole(settings.args.get("max_model_len")) or (model.max_positions if model else None)
    # of the stages that a measurement can do without, those that do not fit are left out
    prompt, output = workload.longest
    if context is not None and prompt + output > context:
        yield RefusedRequest(
            f"{prompt} prompt + {output} output tokens exceed the context of {context} tokens (max_model_len)",
            "workload.prompt_tokens",
            "raise max_model_len, or lower workload.prompt_tokens",
            ("max_model_len",),
        )
