"""What a server's own tokenizer says of the corpus, and the lengths that prompts have by it."""

import pytest

from tests.load.test_warmup import WORKLOAD
from tuner.load import tokenizer
from tuner.load.client import LoadClient
from tuner.load.plan import plan
from tuner.load.prose import texts
from tuner.load.target import Target
from tuner.load.tokenizer import wording
from tuner.load.warmup import warm_up


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test's server is another model."""
    monkeypatch.setattr(tokenizer, "_counted", {})


def unwatched() -> None:
    """Nothing to look after."""


@pytest.mark.parametrize("kind", ["vllm", "llamacpp"])
def test_each_piece_is_counted_as_it_is_in_the_middle_of_a_prompt(server, kind):
    server.tokenizes = kind
    learnt = wording("text", server.target, unwatched)
    assert learnt.prompts == "natural text"
    assert learnt.counts == tuple(server.count(text) for text in texts())


def test_another_launch_of_the_same_model_is_asked_twice(server):
    server.tokenizes = "vllm"
    first, asked = wording("text", server.target, unwatched), server.tokenized
    assert wording("text", server.target, unwatched) == first
    assert server.tokenized - asked == 2


def test_a_server_that_does_not_tell_is_sent_words_and_that_is_said(server):
    learnt = wording("text", server.target, unwatched)
    assert learnt == ((), "random words, since /tokenize answers 404")


def test_one_that_cannot_be_reached_is_sent_words():
    away = Target("http://127.0.0.1:1", {}, "glm")
    assert wording("text", away, unwatched).prompts.startswith("random words, since /tokenize ")


def test_words_that_were_asked_for_ask_nothing(server):
    server.tokenizes = "vllm"
    assert wording("words", server.target, unwatched) == ((), "random words")
    assert server.tokenized == 0


def test_a_dead_server_ends_the_asking(server):
    server.tokenizes = "vllm"

    def dead() -> None:
        if server.tokenized > 10:
            raise RuntimeError("the engine died")

    with pytest.raises(RuntimeError, match="the engine died"):
        wording("text", server.target, dead)
    assert server.tokenized < 15


def test_every_prompt_of_a_measurement_has_its_length_by_the_servers_count(client: LoadClient, server):
    server.tokenizes, server.ttft_s, server.itl_s = "vllm", 0.005, 0.0005
    learnt = wording("text", server.target, unwatched)
    told = server.target
    target = Target(told.url, told.headers, told.model, learnt.counts)
    warmed = warm_up(
        client, target, WORKLOAD, context_tokens=None, kv_tokens=None, seed=1, watch=unwatched, prompts=learnt.prompts
    )
    assert (warmed.prompts, warmed.calibration.tokens_per_word) == ("natural text", 1.0)
    update = {"prefix": {"tokens": 200, "hit_rate": 0.5}, "prompt_tokens": 300, "min_duration_s": 0, "requests": 12}
    workload = WORKLOAD.model_validate({**WORKLOAD.model_dump(), **update})
    planned = plan(workload, seed=1, context_tokens=None, kv_tokens=None, calibration=warmed.calibration)
    records = [record for stage in planned.stages for record in client.run(stage, target).records]
    assert len(records) > 14
    assert [record.prompt_tokens for record in records] == [record.request.prompt_tokens for record in records]
    assert server.bodies[-1]["messages"][0]["content"].startswith("On ")
