"""Which flags a version takes is known from its own help, or else from the table that ships with tuner."""

import gzip
from pathlib import Path

import pytest

from tuner.engines.vllm.flags import REPLACED, UnknownFlag, known_choices, known_flags, parse_help, unknown_flags

HELP = Path(__file__).parents[2] / "data" / "vllm-0.32.0-serve-help.txt.gz"
NEWER_THAN_0_32 = {"--monokernel", "--reasoning-effort-map", "--sleep-mode-backend", "--watchdog-config"}


@pytest.fixture(scope="module")
def of_help():
    return parse_help(gzip.decompress(HELP.read_bytes()).decode())


def test_the_help_of_0_32_is_read_whole(of_help):
    assert {
        "--max-num-seqs",
        "--enable-prefix-caching",
        "--no-enable-prefix-caching",
        "--compilation-config",
    } <= of_help
    assert "--disable-log-requests" not in of_help
    assert not any(flag.endswith(("-", ":", ",")) for flag in of_help)


def test_the_table_agrees_with_the_help(of_help):
    positive = {
        flag for flag in of_help if flag.replace("--no-", "--", 1) not in of_help or not flag.startswith("--no-")
    }
    assert known_flags("0.33.0") - positive == NEWER_THAN_0_32
    assert positive - known_flags("0.33.0") <= {"--help"}


@pytest.mark.parametrize(
    ("flag", "has", "lacks"),
    [
        ("--max-num-seqs", ("0.6.3.post1", "0.8.5", "0.33.0"), ()),
        ("--async-scheduling", ("0.10.2", "0.33.0"), ("0.8.5", "0.9.2")),
        ("--disable-log-requests", ("0.8.5",), ("0.33.0",)),
        ("--enable-log-requests", ("0.10.2", "0.33.0"), ("0.8.5",)),
        ("--cuda-graph-sizes", ("0.9.2", "0.10.2"), ("0.33.0",)),
        ("--cudagraph-capture-sizes", ("0.15.0", "0.33.0"), ("0.10.2",)),
        ("--num-scheduler-steps", ("0.6.3.post1", "0.8.5"), ("0.33.0",)),
        ("--kv-cache-memory-bytes", ("0.11.2", "0.33.0"), ("0.9.2",)),
        ("--attention-backend", ("0.15.0", "0.33.0"), ("0.10.2",)),
    ],
)
def test_flags_come_and_go_with_versions(flag, has, lacks):
    assert all(flag in known_flags(version) for version in has)
    assert not any(flag in known_flags(version) for version in lacks)


@pytest.mark.parametrize(
    ("version", "nearest"),
    [
        ("0.8.5.post1", "0.8.5"),
        ("v0.10.1", "0.9.2"),
        ("0.12.0rc1", "0.11.2"),
        ("0.1.0", "0.6.3.post1"),
        ("9.9", "0.33.0"),
    ],
)
def test_a_version_that_is_not_in_the_table_is_answered_by_the_nearest_below(version, nearest):
    assert known_flags(version) == known_flags(nearest)


def test_choices_are_known_where_a_flag_is_limited_to_some():
    assert "fp8" in known_choices("0.10.2")["--kv-cache-dtype"]
    assert "swap" in known_choices("0.8.5")["--preemption-mode"]
    assert "bfloat16" in known_choices("0.33.0")["--dtype"]
    assert "--max-num-seqs" not in known_choices("0.33.0")


def test_an_unknown_flag_is_named_with_what_replaced_it():
    argv = ["vllm", "serve", "m", "--max-num-seqs", "8", "--disable-log-requests", "--cuda-graph-sizes", "1", "2"]
    assert unknown_flags(argv, known_flags("0.33.0")) == (
        UnknownFlag("--disable-log-requests", REPLACED["--disable-log-requests"]),
        UnknownFlag("--cuda-graph-sizes", "--cudagraph-capture-sizes"),
    )


def test_a_misspelt_flag_is_answered_with_the_one_that_was_probably_meant():
    assert unknown_flags(["--max-num-seq", "8"], known_flags("0.33.0")) == (
        UnknownFlag("--max-num-seq", "--max-num-seqs"),
    )
    assert unknown_flags(["--zzz"], known_flags("0.33.0")) == (UnknownFlag("--zzz", ""),)


@pytest.mark.parametrize(
    "argv",
    [
        ["--max_num_seqs", "8"],
        ["--max-num-seqs=8"],
        ["--no-enable-prefix-caching"],
        ["--compilation-config.cudagraph_mode", "FULL"],
        ["-tp", "2", "-O3"],
        ["--help=all"],
        ["--", "--not-a-flag"],
    ],
)
def test_spellings_that_vllms_parser_takes_are_known(argv):
    assert unknown_flags(argv, known_flags("0.33.0")) == ()


def test_what_took_a_flags_place_exists():
    named = {word for text in REPLACED.values() for word in text.replace(",", " ").split() if word.startswith("--")}
    assert {word.split(".")[0] for word in named} <= known_flags("0.33.0")
    assert not REPLACED.keys() & known_flags("0.33.0")
