"""A sign is found where its words, their level and what stands above them say so, and its figures carry units."""

import re

import pytest

from tests.present import present
from tuner.engines.causes import Cause
from tuner.engines.log.lines import Level, parse
from tuner.engines.log.signs import Rank, Sign, find, numbers_of

NEVER = re.compile(r"(?!)")


def sign(cause=Cause.CUDA_OOM, rank=Rank.KNOWN, words="boom", **conditions):
    return Sign(cause, rank, (words,), "advice", **conditions)


def causes(log, *table, traps=NEVER):
    return [finding.sign.cause for finding in find(parse(log), table, traps)]


def test_the_highest_rank_wins_on_a_line_and_the_first_in_the_table_among_equals():
    table = (sign(Cause.UNKNOWN, Rank.FAMILY), sign(Cause.CUDA_OOM), sign(Cause.HOST_OOM))
    assert causes(["boom"], *table) == [Cause.CUDA_OOM]


def test_a_sign_does_not_count_below_its_level():
    log = ["INFO 05-15 10:52:42 [a.py:28] boom", "WARNING 05-15 10:52:42 [a.py:28] boom", "boom"]
    assert len(causes(log, sign())) == 1
    assert len(causes(log, sign(level=Level.WARNING))) == 2
    assert len(causes(log, sign(level=Level.DEBUG))) == 3


def test_a_sign_may_need_a_line_before_it():
    wanted = sign(after="^1 validation error")
    assert causes(["1 validation error for X", "boom"], wanted) == [Cause.CUDA_OOM]
    assert causes(["boom"], wanted) == []


def test_a_sign_may_be_ruled_out_by_a_line_before_it():
    wanted = sign(unless="fatal signal")
    assert causes(["boom"], wanted) == [Cause.CUDA_OOM]
    assert causes(["got fatal signal", "boom"], wanted) == []


def test_a_sign_may_ask_in_which_file_its_process_raised():
    wanted = sign(raised_in=r"vllm/config/")
    log = ['(A pid=1)   File "/x/vllm/config/model.py", line 3, in f', '(B pid=2)   File "/x/os.py", line 3, in g']
    assert causes([*log, "(A pid=1) boom"], wanted) == [Cause.CUDA_OOM]
    assert causes([*log, "(B pid=2) boom"], wanted) == []


def test_the_place_of_a_frame_may_be_a_sign():
    assert causes(['  File "/x/torch/cuda/init.py", line 3, in boom'], sign()) == [Cause.CUDA_OOM]


def test_a_trap_is_no_sign():
    assert causes(["boom, retrying 1 of 2"], sign(), traps=re.compile("retrying")) == []


@pytest.mark.parametrize(
    ("pattern", "text", "numbers"),
    [
        (r"(?P<free_gib>[\d.]+) GiB", "7.34 GiB", {"free_gib": 7.34}),
        (r"\((?P<tokens>[\d,]+)\)", "(4,379,824)", {"tokens": 4379824}),
        (r"(?P<tried_mib>[\d.]+) (?P<tried_mib_unit>\wiB)", "1.5 GiB", {"tried_mib": 1536}),
        (r"(?P<tried_gib>[\d.]+) (?P<tried_gib_unit>\wiB)", "512.00 MiB", {"tried_gib": 0.5}),
        (r"(?P<free_mib>[\d.]+) (?P<free_mib_unit>bytes|\wiB)", "1048576 bytes", {"free_mib": 1}),
        (r"(?P<a>\d)(?P<b>\d)?", "1", {"a": 1}),
    ],
)
def test_figures_come_in_the_unit_that_their_name_carries(pattern, text, numbers):
    assert numbers_of(present(re.search(pattern, text))) == numbers
