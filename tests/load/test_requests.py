"""What a workload of several lengths, classes and shared prefixes makes, and that this is what a server receives."""

from collections import Counter
from collections.abc import Iterable
from statistics import mean, median

import pytest
from pydantic import ValidationError

from tests.load.test_arrivals import planned
from tuner.errors import ConfigError
from tuner.load import lengths
from tuner.load.prompts import TokenCalibration
from tuner.load.requests import mixed
from tuner.load.shapes import FromFile, Lognormal, Uniform
from tuner.load.stage import Request, Stage
from tuner.load.workload import Workload

UNIFORM = Uniform(kind="uniform", low=100, high=300)
LOGNORMAL = Lognormal(kind="lognormal", median=1000, sigma=1.0, high=16_000)


def test_uniform_lengths_fill_their_range():
    drawn = lengths.draw(UNIFORM, 1000, "7")
    assert (min(drawn), max(drawn)) == (100, 300)
    assert mean(drawn) == pytest.approx(200, rel=0.005)


def test_lognormal_lengths_have_their_median_their_tail_and_their_ceiling():
    drawn = lengths.draw(LOGNORMAL, 2000, "7")
    assert median(drawn) == pytest.approx(1000, rel=0.01)
    assert sum(length > 2718 for length in drawn) / 2000 == pytest.approx(0.159, abs=0.005)
    assert max(drawn) <= 16_000


def test_two_draws_differ_in_order_and_hardly_in_their_sum():
    one, other = (lengths.draw(LOGNORMAL, 50, seed) for seed in ("1", "2"))
    assert one != other
    assert sum(one) == pytest.approx(sum(other), rel=0.1)


def test_a_file_of_lengths_has_a_half_for_tuning_and_another_for_the_proof(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("10\n20\n30\n40\n")
    asked = FromFile(kind="file", file=path)
    assert Counter(lengths.draw(asked, 10, "7")) == {10: 5, 30: 5}
    assert Counter(lengths.draw(asked, 10, "7", held_out=True)) == {20: 5, 40: 5}
    assert lengths.longest(asked) == 40


@pytest.mark.parametrize("content", ["", "10\n", "10\nmany\n", "10\n0\n"])
def test_a_file_that_holds_no_lengths_is_named(tmp_path, content):
    path = tmp_path / "lengths.txt"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"lengths\.txt"):
        lengths.draw(FromFile(kind="file", file=path), 10, "7")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt_tokens": {"kind": "uniform", "low": 9, "high": 5}}, "low 9 is above high 5"),
        ({"prompt_tokens": {"kind": "normal"}}, "'fixed', 'uniform', 'lognormal', 'file'"),
        ({"prefix": {"tokens": 100, "hit_rate": 1.0}}, "less than 1"),
        ({"prefix": {"tokens": 1000, "hit_rate": 0.5}}, "a prefix of 1000 tokens leaves nothing"),
        ({"classes": [{"name": "chat", "prompt_tokens": 5, "output_tokens": 5}] * 2}, "names a class twice"),
        ({"concurrency": [1, 30]}, "20 requests never reach a concurrency of 30"),
        ({"arrivals": {"kind": "constant", "rate": 1}, "concurrency": [1, 2]}, "exclude each other"),
    ],
)
def test_a_mistake_in_a_shape_is_named(given, message):
    with pytest.raises(ValidationError, match=message):
        Workload.model_validate({"name": "w"} | given)


CLASSES = [
    {"name": "chat", "weight": 3, "prompt_tokens": {"kind": "uniform", "low": 200, "high": 400}, "output_tokens": 3},
    {"name": "document", "prompt_tokens": 900, "output_tokens": 2, "prefix": {"tokens": 600, "hit_rate": 0.75}},
]


def mixture(**given) -> Stage:
    return planned(classes=CLASSES, requests=64, concurrency=8, min_duration_s=0, **given)[0]


def seeds(requests: Iterable[Request]) -> set[str]:
    """Of all texts, own and shared ones."""
    made = list(requests)
    return {request.seed for request in made} | {shared.seed for request in made for shared in request.prefix}


def test_classes_come_as_often_as_their_weights_say():
    assert Counter(request.traffic for request in mixture().requests) == {"chat": 48, "document": 16}


def test_a_hit_rate_is_the_share_of_requests_whose_prefix_had_been_sent():
    seen, hits = set(), 0
    for request in mixture().requests:
        if request.prefix:
            hits += request.prefix in seen
            seen.add(request.prefix)
    assert hits / 16 == 0.75


def test_measurements_share_lengths_but_no_text_and_the_proof_draws_its_own():
    one, other, proof = mixture(), mixture(seed=2), mixture(held_out=True)
    asked = [[(r.traffic, r.prompt_tokens) for r in stage.requests] for stage in (one, other, proof)]
    assert asked[0] == asked[1] != asked[2]
    assert seeds(one.requests).isdisjoint(seeds(other.requests))


def test_what_is_sent_again_or_on_top_shares_nothing_with_what_was_sent():
    stage = mixture()
    first = seeds(stage.requests)
    assert first.isdisjoint(seeds(stage.afresh(1).requests))
    assert first.isdisjoint(seeds(map(stage.request, range(64, 128))))


def test_the_server_receives_the_lengths_the_classes_and_the_shared_prefixes(client, server):
    """Its tokenizer counts 1 or 2 tokens a word and 7 for the template, on average as calibrated."""
    words = TokenCalibration(tokens_per_word=1.25, overhead_tokens=10)
    stage = mixture()
    result = client.run(stage, server.target)
    texts = [body["messages"][0]["content"].split() for body in server.bodies]
    assert sorted(map(len, texts)) == sorted(words.words(request.prompt_tokens or 0) for request in stage.requests)
    assert Counter(body["max_tokens"] for body in server.bodies) == {3: 48, 2: 16}
    shared = Counter(tuple(text[:480]) for text in texts if len(text) > 480)
    assert (len(shared), shared.total()) == (4, 16)
    assert len({tuple(text[480:]) for text in texts if len(text) > 480}) == 16
    assert [record.request.traffic for record in result.records] == [request.traffic for request in stage.requests]


def test_a_prompt_shorter_than_the_shared_prefix_has_its_own_length():
    words = TokenCalibration(tokens_per_word=1.0, overhead_tokens=0)
    given = {"name": "w", "prompt_tokens": {"kind": "lognormal", "median": 100, "sigma": 1.0, "high": 900}}
    workload = Workload.model_validate(given | {"prefix": {"tokens": 120, "hit_rate": 0.5}})
    made = mixed(workload, 50, seed="1", shape="s", calibration=words, held_out=False)
    assert [request.words + sum(each.words for each in request.prefix) for request in made] == [
        request.prompt_tokens for request in made
    ]
    assert {request.prefix[0].words for request in made if (request.prompt_tokens or 0) > 128} == {120}
