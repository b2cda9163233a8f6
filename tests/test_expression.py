"""Rules and conditions are read safely and mean what they say."""

import pytest

from tuner.errors import ConfigError
from tuner.expression import parse


@pytest.mark.parametrize(
    ("text", "settings", "holds"),
    [
        ("a >= b", {"a": 4, "b": 4}, True),
        ("a >= b", {"a": 3, "b": 4}, False),
        ("1 < a < 4", {"a": 4}, False),
        ("a * 2 == b and not c", {"a": 2, "b": 4, "c": False}, True),
        ("kind in ['x', 'y']", {"kind": "y"}, True),
        ("kind not in ['x', 'y']", {"kind": "y"}, False),
        ("a % 16 == 0 or b", {"a": 8, "b": True}, True),
        ("min(a, b) > -1", {"a": 0, "b": 3}, True),
        ("len(sizes) == 3", {"sizes": [1, 2, 4]}, True),
        ("flag == true", {"flag": True}, True),
        ("sizes != null", {"sizes": [1]}, True),
        ("sizes is not null", {}, False),
        ("b if a else c", {"a": 1, "b": 0, "c": 1}, False),
    ],
)
def test_an_expression_means_what_it_says(text, settings, holds):
    assert parse(text).holds(settings) is holds


def test_an_expression_about_what_is_not_set_says_nothing():
    assert parse("a >= b").holds({"a": 4})
    assert not parse("a >= b").holds({"a": 4}, vacuous=False)


def test_names_are_those_of_settings_only():
    assert parse("min(a, 3) > b or c == null").names == {"a", "b", "c"}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.b > 1",
        "a[0] == 1",
        "open('x')",
        "(lambda: 1)()",
        "[x for x in a]",
        "f'{a}'",
        "a := 3",
        "min(*a)",
        "min(key=a)",
        "2 ** 99999999",
        "b'x' == a",
        "a >=",
        "",
    ],
)
def test_whatever_lies_outside_the_grammar_is_refused_when_read(text):
    with pytest.raises(ConfigError, match=r"space\.rules\.x"):
        parse(text, "space.rules.x")


def test_a_comparison_of_unlike_things_names_the_expression():
    with pytest.raises(ConfigError, match="a > 3"):
        parse("a > 3").holds({"a": "word"})
