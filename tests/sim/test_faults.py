"""Faults on request: how they are written, and when they act."""

import pytest

from tests.sim.conftest import SITE_FLAGS, Configure
from tuner.sim.faults import Fault, Faults, parse


def test_a_fault_has_a_name_an_argument_and_conditions() -> None:
    assert parse("segfault") == Fault("segfault")
    assert parse("hang=compile") == Fault("hang", "compile")
    expected = Fault("die-after", "20", (("max_num_seqs", "128"), ("block_size", "16")))
    assert parse("die-after=20@max_num_seqs=128,block_size=16") == expected


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "hang",
        "hang=lunch",
        "die-after=soon",
        "silent-change=nothing:1",
        "segfault@x=1",
        "segfault@block_size",
    ],
)
def test_a_fault_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|phase|number|SETTING"):
        parse(text)


def test_a_condition_restricts_a_fault_to_one_configuration(configure: Configure) -> None:
    fault = parse("die-after=20@max_num_seqs=128")
    assert Faults([fault], configure(SITE_FLAGS)).get("die-after") is None
    assert Faults([fault], configure(SITE_FLAGS.replace("seqs 64", "seqs 128"))).get("die-after") == fault


def test_conditions_do_not_hold_before_the_configuration_is_known() -> None:
    assert Faults([parse("port-in-use@max_num_seqs=128")]).get("port-in-use") is None


@pytest.mark.parametrize(
    ("text", "phase", "strikes"),
    [
        ("hang=compile", "compile", "hang"),
        ("hang=compile", "weights", None),
        ("crash-at=kv", "kv", "crash-at"),
        ("segfault", "weights", "segfault"),
        ("exit-zero", "profile", "exit-zero"),
    ],
)
def test_phase_faults_strike_in_their_phase_only(text: str, phase: str, strikes: str | None) -> None:
    assert Faults([parse(text)]).at(phase) == strikes
