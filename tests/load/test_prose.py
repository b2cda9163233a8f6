"""Natural text as long as a tokenizer counts: to the token, with a beginning of its own."""

import re
from itertools import combinations

import pytest

from tuner.load.prose import Prose, texts

PRETOKENS = re.compile(r"[^\r\n\w]?[^\W\d_]+|\d| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+|_")


def bpe_like(text: str) -> int:
    """Splits as the tokenizers of GPT-4, Llama 3 and Qwen do, and then every seven letters."""
    return sum(-(-len(piece) // 7) for piece in PRETOKENS.findall(text))


PROSE = Prose([float(bpe_like(text)) for text in texts()])


@pytest.mark.parametrize("tokens", [1, 5, 12, 50, 100, 512, 5000, 30_000])
def test_a_prompt_has_exactly_as_many_tokens_as_asked(tokens):
    assert {bpe_like(PROSE.text(f"{seed}", tokens)) for seed in range(20)} == {tokens}


def test_texts_that_follow_one_another_have_the_tokens_of_both():
    joined = [f"{PROSE.text(f'prefix/{seed}', 512)} {PROSE.text(f'own/{seed}', 88)}" for seed in range(20)]
    assert set(map(bpe_like, joined)) == {600}


def test_the_same_seed_gives_the_same_prompt():
    assert PROSE.text("7/concurrent/0", 300) == PROSE.text("7/concurrent/0", 300)


def test_prompts_of_different_seeds_share_no_prefix_of_seven_words():
    starts = [tuple(PROSE.text(f"{seed}/concurrent/0", 60).split()[:7]) for seed in range(500)]
    assert all(a != b for a, b in combinations(starts, 2))


def test_a_long_prompt_is_prose_and_code_of_which_nothing_comes_twice():
    prompt = PROSE.text("seed", 12_000)
    sentences = [part for part in re.split(r"(?<=\.) (?=[A-Z])", prompt) if len(part) > 80]
    assert len(sentences) == len(set(sentences)) > 200
    assert prompt.count("```python\n") > 10


def test_no_token_reaches_over_the_ends_of_a_piece_of_the_corpus():
    """Each begins with a capital letter behind a space, and ends with a full stop; quotation marks would differ."""
    _, *rest = texts()
    corpus = rest[128:]
    assert len(corpus) > 400
    assert [text for text in corpus if not re.fullmatch(r" [A-Z][a-z']*[ ,.:][ -~\n]*[^\s]\.", text)] == []
