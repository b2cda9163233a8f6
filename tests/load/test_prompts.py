import math
from itertools import combinations

import pytest

from tuner.load.prompts import WORDS, TokenCalibration, calibrate, text


def bpe_like(prompt: str) -> int:
    """A tokenizer that counts words differently, with a chat template of 9 tokens."""
    return 9 + sum(math.ceil(len(word) / 4) for word in prompt.split())


def test_the_word_list_is_128_different_words():
    assert len(WORDS) == len(set(WORDS)) == 128


@pytest.mark.parametrize("words", [1, 127, 128, 129, 40_000])
def test_a_prompt_has_exactly_as_many_words_as_asked(words):
    assert len(text("seed", words).split()) == words


def test_the_same_seed_gives_the_same_prompt():
    assert text("7/concurrent/0", 300) == text("7/concurrent/0", 300)


def test_prompts_of_different_seeds_share_no_prefix_of_six_words():
    starts = [tuple(text(f"{seed}/concurrent/0", 6).split()) for seed in range(500)]
    assert all(a != b for a, b in combinations(starts, 2))


def test_two_requests_calibrate_an_unknown_tokenizer_exactly():
    counts = [bpe_like(text(f"calibration/{n}", n)) for n in (len(WORDS), 2 * len(WORDS))]
    calibration = calibrate(*counts)
    assert calibration.overhead_tokens == 9
    assert calibration.tokens_per_word == pytest.approx(sum(math.ceil(len(word) / 4) for word in WORDS) / len(WORDS))


@pytest.mark.parametrize("tokens", [50, 200, 1581, 5000, 30_000, 50_000])
def test_a_calibrated_prompt_misses_its_length_by_less_than_the_slack(tokens):
    calibration = calibrate(*(bpe_like(text(f"calibration/{n}", n)) for n in (len(WORDS), 2 * len(WORDS))))
    misses = [bpe_like(text(f"{seed}", calibration.words(tokens))) - tokens for seed in range(10)]
    assert max(map(abs, misses)) <= 16


def test_a_longer_prompt_that_does_not_count_as_longer_is_an_error():
    with pytest.raises(ValueError, match="300 and 300"):
        calibrate(300, 300)


def test_a_prompt_shorter_than_the_chat_template_still_has_a_word():
    assert TokenCalibration(1.5, 40.0).words(10) == 1
