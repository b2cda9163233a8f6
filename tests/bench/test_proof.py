"""The simulation that shows a proof's error rates: its machines, its claims, and that it fails where one fails."""

import random
from math import log
from statistics import fmean, stdev

import pytest

from tests.bench.noise import DRIFT, RECORDED, SHAPES, Recorded, Simulated, recorded, recordings
from tests.bench.proof import RARELY, SPEED, TPOT, Claim, Scenario, Tally, run, scenarios, table

TALLY = Tally(repeats=2000, found=0.03, old=0.1, coverage=0.95, launches=4.5, relaunches=9.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_simulated_machine_has_the_noise_that_it_is_asked_for(shape):
    machine = Simulated(shape, 0.03).machine(random.Random(1), 5000)
    logs = [log(machine.launch({SPEED: 1.0})[SPEED]) for _ in range(5000)]
    assert stdev(logs) == pytest.approx(0.03, rel=0.05 if shape != "outliers" else 0.5)
    assert fmean(logs) == pytest.approx(0.0, abs=0.002 if shape != "outliers" else 0.01)


@pytest.mark.parametrize("drift", ["linear", "step"])
def test_a_drift_slows_the_machine_down_and_raises_its_latencies(drift):
    machine = Simulated("normal", 0.0, drift).machine(random.Random(1), 16)
    launches = [machine.launch({SPEED: 100.0, TPOT: 10.0}) for _ in range(16)]
    assert launches[0][SPEED] == 100.0
    assert launches[-1][SPEED] == pytest.approx(100 * (1 - DRIFT))
    assert launches[-1][TPOT] == pytest.approx(10 / (1 - DRIFT))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.csv")))
def test_a_recording_says_where_it_comes_from_and_holds_what_a_proof_is_about(name):
    header = [line for line in (RECORDED / f"{name}.csv").read_text().splitlines() if line.startswith("#")]
    assert any("vLLM" in line or "engine" in line for line in header)
    assert all(launch[SPEED] > 0 and launch[TPOT] > 0 for launch in recorded(name))


def test_recorded_launches_of_one_configuration_are_rarely_called_different():
    for name in recordings():
        tally = run(Scenario("equals", Recorded(name)), 100)
        assert tally.found <= 0.08
        assert tally.coverage >= 0.9


def test_a_scenario_comes_out_the_same_every_time():
    scenario = Scenario("a gain", Simulated("lognormal", 0.03), {SPEED: 1.1}, limited=True)
    assert run(scenario, 10) == run(scenario, 10)


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Claim("found", 0.03), True),
        (Claim("found", 0.031), False),
        (Claim("found", 0.029, most=True), False),
        (RARELY, True),
        (Claim("found", 0.02, most=True, chance=True), False),
        (Claim("launches", 5, most=True), True),
        (Claim("launches", 4, most=True), False),
    ],
)
def test_a_claim_holds_within_what_chance_explains_of_its_repeats(claim, holds):
    assert claim.holds(TALLY) is holds


def test_no_two_rows_of_the_table_are_the_same():
    rows = [f"{row.name} {row.noise}" for row in scenarios()]
    assert len(rows) == len(set(rows))


def test_the_table_fails_where_a_claim_does_not_hold(capsys):
    noise, never = Simulated("lognormal", 0.03), Claim("found", 0.9, chance=True)
    assert table([Scenario("equals", noise)], 10)
    assert not table([Scenario("equals", noise, claims=(never,))], 10)
    assert "DOES NOT HOLD" in capsys.readouterr().out
