"""Prompts and answers without a server: lengths, reasoning, tool calls, refusals."""

from typing import Any

import pytest

from tests.sim.conftest import SITE_FLAGS, Configure
from tuner.sim import tokens
from tuner.sim.replies import BadRequest, Parsers, Reply, chat, completion, render

BOTH = Parsers(reasoning=True, tools=True)
NEITHER = Parsers(reasoning=False, tools=False)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["celsius"]}},
            "required": ["city", "unit"],
        },
    },
}


def ask(configure: Configure, parsers: Parsers = BOTH, **body: Any) -> Reply:
    body.setdefault("messages", [{"role": "user", "content": "What is the weather?"}])
    return chat(body, configure(SITE_FLAGS), parsers)


def test_a_token_is_four_characters() -> None:
    assert [tokens.count("x" * length) for length in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]
    assert all(len(word) == tokens.CHARACTERS for word in tokens.WORDS)


def test_ignore_eos_gives_exactly_the_tokens_asked_for(configure: Configure) -> None:
    reply = ask(configure, max_tokens=100, ignore_eos=True)
    assert (reply.total, len(list(reply.pieces())), reply.finish_reason) == (100, 100, "length")


def test_an_answer_ends_by_itself_otherwise(configure: Configure) -> None:
    reply = ask(configure)
    assert 48 <= reply.total < 304
    assert reply.finish_reason == "stop"
    assert ask(configure, min_tokens=1000).total == 1000


def test_the_same_prompt_has_the_same_answer_whatever_the_configuration(configure: Configure) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, "ignore_eos": True}
    one = chat(body, configure(SITE_FLAGS), BOTH)
    other = chat(body, configure(SITE_FLAGS.replace("seqs 64", "seqs 8")), BOTH)
    different = chat({**body, "messages": [{"role": "user", "content": "hullo"}]}, configure(SITE_FLAGS), BOTH)
    assert list(one.pieces()) == list(other.pieces()) != list(different.pieces())


def test_reasoning_comes_first_and_only_with_a_parser(configure: Configure) -> None:
    kinds = [kind for kind, _ in ask(configure, max_tokens=10, ignore_eos=True).pieces()]
    assert kinds == ["reasoning"] * 4 + ["content"] * 6
    assert ask(configure, NEITHER, max_tokens=10).reasoning == 0
    assert ask(configure, max_tokens=10, chat_template_kwargs={"enable_thinking": False}).reasoning == 0


def test_tools_provoke_a_call_with_arguments_of_their_schema(configure: Configure) -> None:
    reply = ask(configure, tools=[WEATHER])
    assert reply.tool[0] == "get_weather"
    assert "".join(reply.tool[1:]) == '{"city": "Paris", "unit": "celsius"}'
    assert (reply.total, reply.finish_reason) == (44, "tool_calls")


def test_tool_choice_none_answers_in_text(configure: Configure) -> None:
    assert ask(configure, tools=[WEATHER], tool_choice="none").tool == ()


def test_automatic_tool_choice_must_be_enabled(configure: Configure) -> None:
    with pytest.raises(BadRequest, match='"auto" tool choice requires --enable-auto-tool-choice'):
        ask(configure, NEITHER, tools=[WEATHER])


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(configure: Configure) -> None:
    with pytest.raises(BadRequest, match=r"maximum context length is 131072 tokens\. However, you requested 131\d{3}"):
        ask(configure, max_tokens=131070)


def test_equal_beginnings_of_conversations_share_their_tokens() -> None:
    first = [{"role": "system", "content": "You are a helpful agent."}, {"role": "user", "content": "one"}]
    longer = [*first, {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"}]
    assert render(longer).startswith(render(first).removesuffix("<|assistant|>\n\n\n").rstrip("\n"))
    shared = tokens.block_hashes(render(first), 4)[:-4]
    assert tokens.block_hashes(render(longer), 4)[: len(shared)] == shared


def test_a_completion_takes_text_or_token_numbers(configure: Configure) -> None:
    settings = configure(SITE_FLAGS)
    assert completion({"prompt": "x" * 40}, settings).prompt_tokens == 10
    assert completion({"prompt": [1, 2, 3]}, settings).prompt_tokens == 3
    assert completion({"prompt": ["x" * 40]}, settings).total == 16
    with pytest.raises(BadRequest):
        completion({}, settings)
