import asyncio
import time

import pytest

from tuner.load.meter import Meter, lateness_ms


def test_one_long_lag_is_what_most_arrivals_saw():
    # of 1000 ms, 500 went in one lag: what arrives in its first 490 ms is seen 10 to 500 ms late
    assert lateness_ms([500.0, *[0.0] * 50], 1000.0, 99) == pytest.approx(490.0)


def test_lags_add_up_until_they_make_the_percentile():
    # later than 15 ms: 15 of the one lag and 5 of each of the other two, 25 of 1000 ms
    assert lateness_ms([30.0, 20.0, 20.0, 1.0], 1000.0, 97.5) == pytest.approx(15.0)


@pytest.mark.parametrize("lags", [[], [0.0] * 100, [5.0]])
def test_lags_shorter_than_the_rest_of_the_time_leave_the_percentile_at_zero(lags):
    assert lateness_ms(lags, 1000.0, 99) == 0.0


def test_a_loop_that_is_blocked_is_late_by_as_much():
    async def blocked() -> Meter:
        async with Meter() as meter:
            await asyncio.sleep(0.03)
            time.sleep(0.1)  # noqa: ASYNC251 (it is the point)
            await asyncio.sleep(0.03)
        return meter

    assert max(asyncio.run(blocked()).lags_ms) == pytest.approx(95, abs=15)


def test_a_block_at_the_very_end_counts():
    async def blocked() -> Meter:
        async with Meter() as meter:
            await asyncio.sleep(0.005)
            time.sleep(0.1)  # noqa: ASYNC251 (it is the point)
        return meter

    assert max(asyncio.run(blocked()).lags_ms) > 80


def test_the_cpu_share_is_of_one_core_and_of_this_process():
    async def half() -> Meter:
        async with Meter() as meter:
            end = time.process_time() + 0.1
            while time.process_time() < end:
                pass
            await asyncio.sleep(0.1)
        return meter

    meter = asyncio.run(half())
    assert meter.cpu_share * meter.wall_ms == pytest.approx(100, abs=10)
