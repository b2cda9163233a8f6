"""Answers that are wrong are found to be, and a server that gives more of them than another is told apart."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tests.bench import quality as simulated
from tests.present import present
from tests.test_bench import SIM
from tuner.launchers.base import LaunchSpec
from tuner.launchers.process.launcher import ProcessLauncher
from tuner.load import sse
from tuner.quality.asking import Completion
from tuner.quality.cases import Case, Quality
from tuner.quality.comparing import SAME, compared
from tuner.quality.judging import fault
from tuner.testing.launcher import answer

WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "day": {"type": "string", "enum": ["Monday", "Sunday"]}},
        "required": ["place"],
    },
}
ASKED = {"prompt": "Weather in {city}?", "each": {"city": ["Oslo"]}, "tools": [WEATHER]}
CALL = {**ASKED, "call": {"name": "get_weather", "arguments": {"place": "{city}"}}}


def ask(**case):
    (only,) = Quality(cases={"it": Case.model_validate(case)}).asks()
    return only


def called(name, arguments, finish_reason="tool_calls"):
    return Completion(name="it", calls=((name, arguments),), finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (called("get_weather", '{"place": "Oslo"}'), None),
        (called("get_weather", '{"place": "oslo ", "day": "Sunday"}'), None),
        (called("get_weather", '{"place": "Rome"}'), "place is 'Rome', not 'Oslo'"),
        (called("get_weather", '{"place": "Os'), "the arguments are no JSON"),
        (called("get_weather", "[]"), "the arguments are no object"),
        (called("get_weather", '{"day": "Monday"}'), "place is missing"),
        (called("get_weather", '{"place": "Oslo", "day": "today"}'), "day is 'today', against its schema"),
        (called("get_weather", '{"place": 7}'), "place is 7, against its schema"),
        (called("get_weather", '{"place": "Oslo", "unit": "C"}'), "unit is no argument of it"),
        (called("get_time", '{"place": "Oslo"}'), "'get_time' was called instead of 'get_weather'"),
        (Completion(name="it", content="It rains."), "no tool was called"),
        (Completion(name="it", content='<tool_call>{"name": "get_weather"}'), "<tool_call> stands in the answer"),
        (Completion(name="it", error="HTTP 400: no parser"), "HTTP 400: no parser"),
    ],
)
def test_a_call_is_right_if_tool_arguments_and_schema_are(given, said):
    found = fault(ask(**CALL), given)
    assert found is None if said is None else present(found).startswith(said)


@pytest.mark.parametrize(
    ("content", "finish_reason", "said"),
    [
        ("The answer is 42.", "stop", None),
        ("420", "stop", "'420' does not hold"),
        ("", "stop", "the answer is empty"),
        ("<think>17 and 25</think>42", "stop", "<think> stands in the answer"),
        (
            "42 and so on and so on and so on and so on and so on and so on and so on and so on and so on",
            "stop",
            "it r",
        ),
        ("42 it may be", "length", "it did not end within 64 tokens"),
    ],
)
def test_an_answer_is_right_if_it_holds_what_is_known_and_ends(content, finish_reason, said):
    answer = Completion(name="it", content=content, finish_reason=finish_reason)
    found = fault(ask(prompt="17 + 25?", answer=r"\b42\b"), answer)
    assert found is None if said is None else present(found).startswith(said)


def test_a_case_is_asked_once_for_each_combination_and_its_fact_stands_in_the_middle():
    case = {"prompt": "The word of {a}?", "each": {"a": ["X", "Y"]}, "fact": "{a} is it.", "filler_words": 100}
    first, second = Quality(cases={"n": Case.model_validate({**case, "answer": "it"})}).asks()
    assert (first.name, second.name) == ("n (X)", "n (Y)")
    (message,) = second.body("glm")["messages"]
    before, fact, after, question = message["content"].split("\n")
    assert (fact, question) == ("Y is it.", "The word of Y?")
    assert len(before.split()) == len(after.split()) == 50
    assert second.body("glm")["temperature"] == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({**CALL, "call": {"name": "get_time"}}, "'get_time' is none of its tools"),
        ({"prompt": "?", "fact": "it"}, "say how many"),
        ({"prompt": "?", "answer": "("}, "no regular expression"),
    ],
)
def test_a_case_that_nothing_could_answer_is_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        Case.model_validate(wrong)


def test_the_cases_that_the_page_shows_are_valid():
    page = (Path(__file__).parents[1] / "docs" / "quality.md").read_text()
    shown = page[page.index("    name: agents") :].split("\n\n")[0]
    assert len(Quality.model_validate(yaml.safe_load(textwrap.dedent(shown))).asks()) == 3


def test_a_stream_is_put_together_as_a_client_does():
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "a"},
        {"content": "b"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]
    chunks = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    found = sse.said(b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n")
    assert (found.reasoning, found.content, found.calls) == ("hm", "ab", {0: ("f", '{"x": 1}')})
    assert found.finish_reason == "tool_calls"


def test_texts_that_differ_are_told_and_decide_nothing():
    cases = Quality(cases={"t": Case(prompt="{n}", each={"n": tuple("abcdefghijklmnopqrst")})})
    same = [Completion(name=ask.name, content="the same words", finish_reason="stop") for ask in cases.asks()]
    others = [each.model_copy(update={"content": "the others"}) for each in same]
    found = compared(cases, same, same, others)
    (texts,) = [family for family in found.families if family.name == SAME]
    assert (texts.lost, texts.worse) == (20, True)
    assert found.worse == ()


def test_equal_servers_are_seldom_told_apart_and_five_percent_of_corrupted_calls_are_found():
    equals = [(wrong, 0.0) for wrong in simulated.WRONG]
    rates = simulated.rates([*equals, (0.0, 0.05), (0.02, 0.1)], 100, seed=7)
    hard = simulated.rates(equals[1:], 100, seed=8, uneven=True)
    false = [*(rates[each] for each in equals), *hard.values()]
    assert sum(false) / len(false) <= 0.01 + 0.012, "1 %, and what chance adds to 700"
    assert rates[0.0, 0.05] >= 0.95
    assert rates[0.02, 0.1] >= 0.95


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server, and one that breaks off the arguments of some calls."""
    logs = tmp_path_factory.mktemp("servers")
    settings = ("--tensor-parallel-size", "2", "--max-model-len", "16384", "--max-num-seqs", "32")
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "glm47")
    argv = (*SIM, *settings, *tools, "--sim-clock-startup", "300", "--sim-clock-serving", "100")
    sound = LaunchSpec("sound/0000", argv, logs / "sound.log", stop_grace_s=1)
    broken = LaunchSpec("broken/0000", (*argv, "--sim-fault", "corrupt-tools=5"), logs / "broken.log", stop_grace_s=1)
    with ProcessLauncher().launch(sound) as a, ProcessLauncher().launch(broken) as b:
        answer(a), answer(b)
        yield a.url, b.url


def tuner(*words):
    command = [sys.executable, "-m", "tuner", "quality", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_a_server_that_corrupts_calls_is_worse_and_a_sound_one_is_not(servers):
    worse = tuner("compare", *servers)
    assert worse.returncode == 3, worse.stderr
    assert "The second answers less rightly: tool calls." in worse.stdout
    assert "the arguments are no JSON" in worse.stdout
    equal = tuner("compare", servers[0], servers[0], "--json")
    assert equal.returncode == 0, equal.stderr
    found = {family["name"]: family for family in json.loads(equal.stdout)["families"]}
    assert found["tool calls"]["right"] == [360, 360]
    assert not any(family["worse"] for family in found.values())


def test_one_server_is_read_by_itself_with_cases_of_ones_own(servers, tmp_path):
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/mine.yaml").write_text("name: mine\ncases:\n  hello: {prompt: Say hello., answer: hello}\n")
    done = tuner("run", servers[0], "quality=mine", "--config-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split() == ["answers", "0", "of", "1", "right"]
    assert second.startswith("  hello: ")


def test_nobody_is_asked_nothing(servers, tmp_path):
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/empty.yaml").write_text("name: empty\n")
    done = tuner("run", servers[0], "quality=empty", "--config-dir", str(tmp_path))
    assert done.returncode == 2
    assert "choose cases: quality=basic" in done.stderr
