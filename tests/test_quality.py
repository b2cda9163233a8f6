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
from tuner.quality.comparing import LOG_PROBABILITIES, SAME, compared
from tuner.quality.drifting import distances
from tuner.quality.judging import fault
from tuner.records.answers import lost, told
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


CHAT = {
    "content": [
        {
            "token": "a",
            "logprob": -0.5,
            "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.23456}],
        }
    ]
}
TEXT = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.23456}]}


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({"delta": {"content": "a"}, "logprobs": CHAT}, [("a", -0.5, (("b", -1.2346),))]),
        ({"text": "a", "logprobs": TEXT}, [("a", -0.5, (("b", -1.2346),))]),
        ({"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [None]}}, []),
        ({"delta": {"content": "a"}, "logprobs": None}, []),
        ({"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}, []),
    ],
)
def test_log_probabilities_are_read_in_both_forms_and_an_answer_without_them_is_one(said, tokens):
    found = sse.said(b"data: " + json.dumps({"choices": [said]}).encode() + b"\n\n")
    assert found.content == "a"
    assert found.tokens == tokens


def scored(*tokens):
    return [Completion(name="it", content="a", tokens=tuple(sse.TokenScore(*each) for each in tokens))]


def test_log_probabilities_are_compared_up_to_where_answers_part():
    first = scored(("a", -0.1), ("b", -0.2), ("c", -0.3))
    parted = scored(("a", -0.2), ("x", -0.1, (("b", -0.5),)), ("c", -9.0))
    (found,) = distances(first, first, parted)
    assert found.own == 0.0
    assert found.other == pytest.approx((0.1 + 0.3) / 2)
    assert distances(first, first, scored()) == ()


def test_a_drift_beyond_the_own_repeats_is_told_and_refuses_where_that_is_asked_for():
    cases = Quality(cases={"t": Case(prompt="{n}", each={"n": tuple("abcdefghijklmnopqrst")})})
    first = scored(("a", -0.1)) * 20
    again, second = scored(("a", -0.13)) * 20, scored(("a", -0.25)) * 20
    found = compared(cases, first, again, second)
    (family,) = [each for each in found.families if each.name == LOG_PROBABILITIES]
    assert (family.lost, family.won, family.worse) == (20, 0, True)
    assert family.nats == pytest.approx((0.03, 0.15))
    assert found.worse == ()
    assert any("log probabilities: 0.150 nats a token apart" in each and "they drift" in each for each in told(found))
    strict = compared(cases.model_copy(update={"drift_refuses": True}), first, again, second)
    assert [lost(each) for each in strict.worse] == [
        "its log probabilities drift (0.150 nats a token apart, deployed 0.030 in its own repeat)"
    ]
    within = compared(cases, first, again, scored(("a", -0.17)) * 20)
    assert not any(each.worse for each in within.families)


def test_a_server_without_log_probabilities_is_compared_as_before_and_that_is_said():
    cases = Quality(cases={"t": Case(prompt="{n}", each={"n": tuple("abc")})})
    first, without = scored(("a", -0.1)) * 3, scored() * 3
    found = compared(cases, first, first, without)
    assert found.unscored == ("second",)
    assert [family.name for family in found.families] == ["texts", SAME]
    assert "log probabilities: the candidate gives none, so that a drift shows in changed texts alone" in told(found)


def test_completions_are_asked_in_their_own_form_and_call_no_tools():
    (only,) = Quality(cases={"t": Case(prompt="Once")}, endpoint="completions").asks()
    assert only.endpoint.path == "/v1/completions"
    body = only.body("m", scored=True)
    assert (body["prompt"], body["logprobs"]) == ("Once", 2)
    assert (
        Quality(cases={"t": Case(prompt="Once")}).digest
        != Quality(cases={"t": Case(prompt="Once")}, endpoint="completions").digest
    )
    with pytest.raises(ValidationError, match="say endpoint chat"):
        Quality(cases={"t": Case.model_validate(CALL)}, endpoint="completions")


def test_a_drift_is_found_and_rounding_is_none():
    false = [simulated.drift_rate(rounding, 0.0, 60, seed=3) for rounding in simulated.ROUNDING]
    assert sum(false) / len(false) <= 0.01 + 0.012, "1 %, and what chance adds to 180"
    assert simulated.drift_rate(0.003, 0.1, 40, seed=3) >= 0.95
    assert simulated.drift_rate(0.02, 0.2, 40, seed=3) >= 0.95


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


STORIES = """
name: stories
cases:
  story: {prompt: "Tell me of {thing}.", each: {thing: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]}, ends: false}
"""


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    """A server whose log probabilities are off, and one that gives none."""
    logs = tmp_path_factory.mktemp("drifting")
    settings = ("--tensor-parallel-size", "2", "--max-model-len", "16384", "--max-num-seqs", "32")
    argv = (*SIM, *settings, "--sim-clock-startup", "300", "--sim-clock-serving", "100")
    off = LaunchSpec("off/0000", (*argv, "--sim-fault", "drift=150"), logs / "off.log", stop_grace_s=1)
    none = LaunchSpec("none/0000", (*argv, "--max-logprobs", "0"), logs / "none.log", stop_grace_s=1)
    with ProcessLauncher().launch(off) as a, ProcessLauncher().launch(none) as b:
        answer(a), answer(b)
        yield a.url, b.url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_server_that_drifts_is_told_before_a_word_changes(servers, drifting, tmp_path, endpoint):
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/stories.yaml").write_text(STORIES)
    mine = ("quality=stories", f"quality.endpoint={endpoint}", "--config-dir", str(tmp_path))
    told = tuner("compare", servers[0], drifting[0], *mine)
    assert told.returncode == 0, told.stderr
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("log probabilities")]
    assert line.endswith("lost 15, won 0 ← drifts")
    refused = tuner("compare", servers[0], drifting[0], *mine, "quality.drift_refuses=true", "--json")
    assert refused.returncode == 3, refused.stderr
    families = {family["name"]: family for family in json.loads(refused.stdout)["families"]}
    assert families[SAME]["right"] == [15, 15]
    assert families[LOG_PROBABILITIES]["nats"][0] < 0.02
    assert families[LOG_PROBABILITIES]["nats"][1] == pytest.approx(0.15, rel=0.2)
    without = tuner("compare", servers[0], drifting[1], *mine)
    assert without.returncode == 0, without.stderr
    assert "The second gives no log probabilities: a drift shows in changed texts alone." in without.stdout
