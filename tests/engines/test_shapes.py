"""What the shape of a line rules out is in no line of that shape, and what is looked up by words is found."""

import re

import pytest

from tests.engines.conftest import DATA
from tests.present import present
from tuner.engines import sglang
from tuner.engines.log.diagnosis import DiagnosticReader
from tuner.engines.log.lines import parse
from tuner.engines.log.literals import Index, required
from tuner.engines.log.shapes import Shapes, relaxed
from tuner.engines.log.sieve import Sieve
from tuner.engines.registry import ENGINES
from tuner.engines.vllm.log.signs import READING, SIGNS

LINES = [line for path in sorted(DATA.glob("*-shape-*.log")) for line in parse(path.read_text().split("\n"))]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"exit code (?:-9|137)\b", "exit code 000"),
        (r"status (?!503)\d{3}", "status 503"),
        (r"died (?!again)", "died once"),
        (r"13[2-69]", "000"),
        (r"\d{2,}x[0-9a]{3}", "00x0a0"),
    ],
)
def test_a_relaxed_pattern_takes_any_digits(pattern, found):
    assert re.search(relaxed(pattern), found)


def test_a_relaxed_pattern_is_no_wider_than_that():
    assert not re.search(relaxed(r"exit code (?:-9|137)\b"), "exit code: none")
    assert not re.search(relaxed(r"died (?!again)"), "died again")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("CUDA out of memory|bad_alloc", {"cuda out of memory", "bad_alloc"}),
        (r"(?:Value|Key)Error\b", {"error"}),
        (r"^\s*(?:ValueError|TypeError): x", {"valueerror", "typeerror"}),
        ("colou?r of it", {"r of it"}),
        ("(?i:Memory)", {"memory"}),
        ("(?!ready)", None),
        ("(?!ready)started", {"started"}),
        (r"a|boom", None),
    ],
)
def test_the_words_that_a_pattern_cannot_do_without(pattern, words):
    assert required(pattern) == words


def test_no_sign_is_lost_on_the_way_through_shapes_and_words():
    index = Index((sign.relaxed, sign) for sign in SIGNS)
    for line in LINES:
        exactly = {id(sign) for sign in SIGNS if sign.regex.search(line.text)}
        assert exactly <= {id(sign) for sign in index.find(line.text)}, line.text


def test_lines_of_one_shape_are_classified_once():
    seen: list[str] = []

    def classify(lines):
        seen.append(lines[0].text)
        return True

    shapes = Shapes(classify)
    for line in ("port 80 of 0af31b7c99", "port 8443 of 77aa31b7c0", "port 81 of 1af31b7c99"):
        assert shapes.of(line)
    assert seen == ["port 80 of 0af31b7c99", "port 8443 of 77aa31b7c0"]


@pytest.mark.parametrize("piece", [" ", "\t", "a", "0", ".", "> ", "(", "'", "/", "- ", "█", "Error: ", "a | "])
def test_a_long_line_of_anything_is_read_in_linear_time(piece, cpu_s):
    short, long = (
        cpu_s(lambda n=n: READING.shapes._classify(parse([piece * (n // len(piece))]))) for n in (20_000, 80_000)
    )
    assert long < 10 * short + 0.05


@pytest.mark.parametrize("kind", [*ENGINES, "sglang"])
def test_no_line_that_says_anything_is_lost_in_the_sieve(kind):
    log = sglang.LOG if kind == "sglang" else ENGINES[kind].log
    raw = [line.raw for line in LINES]
    kept = set(present(log.sieve)().among(raw))
    reader = log.reader()
    assert isinstance(reader, DiagnosticReader)
    for place, line in enumerate(LINES):
        telling = any(pattern.search(line.text) for pattern in reader.reading.patterns) or log.announces.of(line.raw)
        assert place in kept or not telling, line.raw


def test_a_sieve_finds_words_of_any_length_at_any_place_and_in_any_colour():
    lines = ["", "Killed", "xid 3", "é XID", "nothing", "ki\x1b[31mlled", "ki[0;36mlled", "kille", "d", "so killed"]
    assert Sieve({"killed", "xid"}).among(lines) == [1, 2, 3, 5, 6, 9]
    assert Sieve({"killed"}).among([]) == []
    assert Sieve({"killed"}).among(["no", "killed\nno", "no"]) == [0, 1, 2]
