"""Variables, ``.env`` files and shell text, as Compose and a shell read them."""

import pytest

from tuner.importer import dotenv, shell
from tuner.importer.interpolation import Variables


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("$A ${A} $$A", "1 1 $A"),
        ("${E:-y}|${E-y}|${N-y}", "y||y"),
        ("${N:-http://host:1/v1}", "http://host:1/v1"),
        ("${N:-${M:-${A}}}", "1"),
        ('${N:-{"a": {"b": 1}}}', '{"a": {"b": 1}}'),
        ("${A:+alt}${N:+alt}", "alt"),
        ("costs 5$ ${", "costs 5$ ${"),
    ],
)
def test_variables_are_filled_in(text, filled):
    assert Variables({"A": "1", "E": ""}).fill(text) == filled


def test_what_is_not_set_is_said():
    variables = Variables({})
    assert variables.fill("${N}${M:?set it: in .env}") == ""
    assert variables.of("") == ["N is not set; it is read as empty", "M is not set, and must be: set it: in .env"]


def test_dotenv_files():
    text = """
# a comment
A=1 # trailing
export B="x # y ${A}"   # behind quotes
C='$A'
D=a#b
E=
F
G="two
lines"
"""
    assert dotenv.parsed(text, {}) == {
        **{"A": "1", "B": "x # y 1", "C": "$A", "D": "a#b", "E": "", "F": None, "G": "two\nlines"}
    }


SCRIPT = """
set -e
export X=1
ARGS="--a 1"
LIST=(--b "two words" # why
  --c)
LIST+=(--d)
if [ -n "$Y" ]; then ARGS="$ARGS --e"; fi
cat <<END > file
vllm serve not-this
END
[ "$X" = 1 ] && ARGS="$ARGS --f"
Z=9 run "$1" $ARGS "${LIST[@]}" '{"g": 1}' ${H:-h} \\
  $(date) 2>&1 | tee log &
"""


def test_a_script_is_read_along_its_straight_line():
    script = shell.read(SCRIPT, {}, ["first"])
    command = next(one for one in script.commands if one.words[0] == "run")
    assert command.words == ("run", "first", "--a", "1", "--b", "two words", "--c", "--d", '{"g": 1}', "h", "$(date)")
    assert command.env == {"X": "1", "Z": "9"}
    assert not command.branch
    assert "ARGS is set in a branch, to '--a 1 --e': it is read as if it were not" in script.noted
    assert "what $(date) gives is known only when it runs" in script.noted
    assert not any("not-this" in one.words for one in script.commands)


@pytest.mark.parametrize(
    ("words", "text", "arguments"),
    [
        (["sh", "-c", 'exec run "$@"', "--", "a"], 'exec run "$@"', ("a",)),
        (["/bin/bash", "-lc", "run it"], "run it", ()),
        (["sh", "-c", "run", "--it"], "run --it", ()),
        (["tmux", "new", "-d", "run it"], "run it", ()),
    ],
)
def test_a_shells_own_text_is_found(words, text, arguments):
    assert shell.script_of(words) == (text, arguments)


def test_an_option_named_c_is_no_shells():
    assert shell.script_of(["vllm", "serve", "-c", "x"]) is None
