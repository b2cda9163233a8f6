"""What prompts cost the load client: how long one of 5,000 tokens takes to make, as text and as words."""

import time

from tuner.load import prompts
from tuner.load.prose import Prose, texts

TOKENS, PROMPTS = 5000, 200


def main():
    counts = [len(text) / 4 for text in texts()]
    text, words = made_ms(Prose(counts).text, TOKENS), made_ms(prompts.text, round(TOKENS / 1.3))
    print(f"a prompt of {TOKENS:,} tokens: {text:.2f} ms as natural text, {words:.2f} ms as random words")


def made_ms(write, length):
    begun_s = time.perf_counter()
    for seed in range(PROMPTS):
        write(f"{seed}", length)
    return (time.perf_counter() - begun_s) / PROMPTS * 1000


if __name__ == "__main__":
    main()
