"""Which parsers of tool calls and of reasoning fit a model's family, as vLLM's documentation names them.

docs/features/tool_calling.md and reasoning_outputs.md of vLLM 0.26. A parser of another family lets calls and thoughts
stand in the answer's text, without a word in the log.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class _Parsers:
    """Those that fit, the documented one first; empty where nothing is known."""

    tools: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()


_FAMILIES: Mapping[str, tuple[str, _Parsers]] = {
    "GLM-4.7": (r"glm-?4\.7", _Parsers(("glm47",), ("glm45", "glm47"))),
    "GLM-4.5 and 4.6": (r"glm-?4\.[56]", _Parsers(("glm45",), ("glm45",))),
    "Qwen3-Coder": (r"qwen3-?coder", _Parsers(("qwen3_coder", "qwen3_xml"))),
    "Qwen3": (r"qwen3(?![.\d])", _Parsers(("hermes",), ("qwen3", "deepseek_r1"))),
    "DeepSeek-V3.1": (r"deepseek-v3\.1", _Parsers(("deepseek_v31",), ("deepseek_v3",))),
    "DeepSeek-V3": (r"deepseek-v3(?!\.)", _Parsers(("deepseek_v3",))),
    "DeepSeek-R1": (r"deepseek-r1(?!-distill)", _Parsers(("deepseek_v3",), ("deepseek_r1",))),
    "Qwen2.5": (r"qwen-?2\.5", _Parsers(("hermes",))),
    "QwQ": (r"qwq", _Parsers(("hermes",), ("deepseek_r1",))),
    "gpt-oss": (r"gpt-oss", _Parsers(("openai",), ("openai_gptoss",))),
    "Kimi-K2": (r"kimi-k2", _Parsers(("kimi_k2",), ("kimi_k2",))),
    "MiniMax-M2": (r"minimax-m2", _Parsers(("minimax_m2",), ("minimax_m2", "minimax_m2_append_think"))),
    "Mistral": (r"mistral|ministral|devstral|magistral", _Parsers(("mistral",), ("mistral",))),
    "Llama 4": (r"llama-?4", _Parsers(("llama4_pythonic", "llama4_json", "llama3_json"))),
    "Hermes": (r"hermes-[234]", _Parsers(("hermes",))),
    "Llama 3": (r"llama-?3\.[123]", _Parsers(("llama3_json", "pythonic"))),
}
"""By name; the first whose pattern is found in the model's name counts."""


def misfits(model: str, args: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Parsers of a deployment that are another family's, in sentences.

    Args:
        model: Its name or path.
        args: The deployment's flags, by name with underscores.
    """
    return tuple(_misfits(model.lower().replace("_", "-"), args))


def _misfits(model: str, args: Mapping[str, JsonValue]) -> Iterator[str]:
    found = next(((name, fit) for name, (pattern, fit) in _FAMILIES.items() if re.search(pattern, model)), None)
    if found is None:
        return
    family, fit = found
    for flag, fitting in (("tool_call_parser", fit.tools), ("reasoning_parser", fit.reasoning)):
        parser = args.get(flag)
        if parser and fitting and parser not in fitting:
            yield f"{flag} {parser} does not fit {family}: {' or '.join(fitting)} does"
