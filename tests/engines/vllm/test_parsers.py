"""Parsers of another family than the model's are named."""

import pytest

from tuner.engines.vllm.parsers import misfits


@pytest.mark.parametrize(
    ("model", "tools", "reasoning"),
    [
        ("QuantTrio/GLM-4.7-Flash-AWQ", "glm47", "glm45"),
        ("zai-org/GLM-4.5-Air-FP8", "glm45", "glm45"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "hermes", None),
        ("/models/Qwen3-30B-A3B-Instruct-2507", "hermes", "qwen3"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder", None),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", "qwen3_xml", None),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek_v3", "deepseek_r1"),
        ("openai/gpt-oss-120b", "openai", "openai_gptoss"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json", None),
        ("NousResearch/Hermes-3-Llama-3.1-70B", "hermes", None),
        ("somebody/a-model-of-their-own", "anything", "anything"),
        ("Qwen/Qwen3.5-35B-A3B", "qwen3_coder", "qwen3"),
    ],
)
def test_what_the_documentation_names_fits(model, tools, reasoning):
    assert misfits(model, {"tool_call_parser": tools, "reasoning_parser": reasoning}) == ()


@pytest.mark.parametrize(
    ("model", "args", "said"),
    [
        ("zai-org/GLM-4.7-Flash", {"tool_call_parser": "glm45"}, "tool_call_parser glm45 does not fit GLM-4.7: glm47"),
        ("zai-org/GLM-4.5", {"tool_call_parser": "hermes"}, "hermes does not fit GLM-4.5 and 4.6: glm45 does"),
        ("Qwen/Qwen3-Coder-30B", {"tool_call_parser": "hermes"}, "Qwen3-Coder: qwen3_coder or qwen3_xml does"),
        ("Qwen/Qwen3-8B", {"reasoning_parser": "glm45"}, "reasoning_parser glm45 does not fit Qwen3: qwen3 or"),
        ("Qwen/QwQ-32B", {"tool_call_parser": "mistral"}, "mistral does not fit QwQ: hermes does"),
    ],
)
def test_another_familys_is_named_with_those_that_fit(model, args, said):
    (misfit,) = misfits(model, args)
    assert said in misfit
