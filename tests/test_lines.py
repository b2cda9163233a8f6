"""A stream is cut into lines, whatever its pieces and its line ends are, and no line is longer than can be read."""

import random

import pytest

from tuner.lines import Lines, is_cut


def cut(*pieces):
    lines = Lines()
    return [*(line for piece in pieces for line in lines.feed(piece)), *lines.rest()]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_counts_once_wherever_the_stream_is_torn(end):
    whole = end.join([b"one", b"", "zwölf".encode(), b"three"]) + end + b"last"
    for place in range(len(whole) + 1):
        assert cut(whole[:place], whole[place:]) == ["one", "", "zwölf", "three", "last"]


def test_pieces_of_any_size_give_the_same_lines():
    dice = random.Random(0)
    whole = b"".join(dice.choice([b"a", b"bc", b"\n", b"\r\n", b"\r", "ü".encode()]) for _ in range(2000))
    places = sorted(dice.choices(range(len(whole)), k=200))
    pieces = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    assert cut(*pieces) == cut(whole)


@pytest.mark.parametrize("ended", [b"", b"\nnext\n"])
def test_a_line_that_is_too_long_keeps_both_ends_and_says_what_is_missing(ended):
    line, *_ = cut(b"begin", *[b"x" * 1_000_000] * 3, b"end" + ended)
    assert line.startswith("beginxxx")
    assert line.endswith("xxxend")
    assert len(line) < 140_000
    assert "2,868,936 bytes are left out" in line
    assert is_cut(line)


def test_a_long_line_in_one_piece_is_cut_as_well_and_its_neighbours_are_not():
    before, line, after = cut(b"before\n" + b"y" * 300_000 + b"\nafter")
    assert (before, after) == ("before", "after")
    assert is_cut(line)
    assert not is_cut(before)
