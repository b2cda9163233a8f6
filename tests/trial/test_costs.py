"""What tokens cost, by hand."""

import pytest

from tests.load.test_metrics import BUSY, measured, record, stage
from tuner.host.state import GpuState, HostState, StageHost
from tuner.load.intervals import Interval
from tuner.trial.costs import with_costs


def watched(name, *energy_j):
    return StageHost(name, HostState(1.0, gpus=tuple(GpuState(n, energy_j=each) for n, each in enumerate(energy_j))))


def test_energy_is_what_all_gpus_used_over_all_tokens_of_the_concurrent_stage():
    alone = stage("single_user", record())
    found = with_costs(
        measured(BUSY, alone), (BUSY, alone), (watched("concurrent", 21.0, 14.0), watched("x", 9.0)), None
    )
    assert found.numbers["energy_per_token_j"] == pytest.approx(35 / 7)
    assert "cost_per_million_tokens" not in found.numbers


@pytest.mark.parametrize("energy_j", [(), (21.0, None)], ids=["no GPU", "one does not tell"])
def test_without_all_counters_there_is_no_energy(energy_j):
    found = with_costs(measured(BUSY), (BUSY,), (watched("concurrent", *energy_j),), None)
    assert "energy_per_token_j" not in found.numbers


def test_a_cost_is_the_price_of_the_time_that_a_million_tokens_take_with_the_throughputs_interval():
    measurement = measured(BUSY).model_copy(
        update={"output_tokens_per_s": 200.0, "intervals": {"output_tokens_per_s": Interval(160.0, 250.0, 9)}}
    )
    found = with_costs(measurement, (BUSY,), (watched("concurrent"),), 3.6)
    assert found.numbers["cost_per_million_tokens"] == pytest.approx(5.0)
    interval = found.intervals["cost_per_million_tokens"]
    assert (interval.low, interval.high) == pytest.approx((4.0, 6.25))
