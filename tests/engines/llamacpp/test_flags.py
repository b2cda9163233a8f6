"""A build is asked for its flags, and for the form that each has."""

import gzip
from pathlib import Path

import pytest

from tests.present import present
from tuner.engines.foresight import KnownFlags
from tuner.engines.llamacpp.flags import parse_choices, parse_flags, refused

PRINTED = gzip.decompress((Path(__file__).parents[2] / "data" / "llamacpp-4227c9b-help.txt.gz").read_bytes()).decode()
KNOWN = KnownFlags(parse_flags(PRINTED), parse_choices(PRINTED), "llama-server --help")
NEWER = KnownFlags(frozenset({"--flash-attn"}), {"--flash-attn": ("on", "off", "auto")}, "a newer build")


def test_all_names_of_a_flag_are_known():
    assert {"--ctx-size", "--gpu-layers", "--n-gpu-layers", "--no-mmap", "--kv-unified", "--draft"} <= KNOWN.flags
    assert "--mmap" not in KNOWN.flags


def test_a_switch_takes_nothing_and_a_list_names_its_values():
    assert KNOWN.choices["--flash-attn"] == KNOWN.choices["--kv-unified"] == ()
    assert KNOWN.choices["--split-mode"] == ("none", "layer", "row")
    assert KNOWN.choices["--cache-type-v"][:4] == ("f32", "f16", "bf16", "q8_0")
    assert {"--threads", "--tensor-split", "--poll"}.isdisjoint(KNOWN.choices)


@pytest.mark.parametrize(
    "args",
    [
        {"ctx_size": 4096, "flash_attn": True, "mmap": False, "cache_type_k": "q8_0", "split_mode": "row"},
        {"ngl": 99, "flash_attn": False, "no_mmap": True, "context_shift": False, "threads": -1},
        {"mmap": True, "poll": 0, "cont_batching": False},
    ],
)
def test_what_a_build_takes_is_let_through(args):
    assert refused(args, KNOWN) is None


@pytest.mark.parametrize(
    ("args", "known", "fix"),
    [
        ({"max_num_seqs": 4}, KNOWN, "drop --max-num-seqs"),
        ({"flash_attn": "on"}, KNOWN, "write true or false"),
        ({"flash_attn": True}, NEWER, "write one of: on, off, auto"),
        ({"threads": True}, KNOWN, "write its value"),
        ({"cache_type_k": "q3_9"}, KNOWN, "choose one of: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1"),
    ],
)
def test_what_it_does_not_take_is_refused_with_what_to_do(args, known, fix):
    assert present(refused(args, known)).fix == fix
