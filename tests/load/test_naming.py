"""One rule for names: what each means, which are one number, and what is said of those that mean nothing."""

import pytest

from tuner.load.metrics import METRICS
from tuner.load.naming import canonical, parse


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ttft_ms.p50", "ttft_p50_ms"),
        ("ttft_ms.p95", "ttft_p95_ms"),
        ("tpot_ms.p50", "concurrent_tpot_p50_ms"),
        ("tpot_ms.p50.alone", "tpot_p50_ms"),
        ("tpot_ms.alone.p95", "tpot_p95_ms"),
        ("ttft_ms.p50.alone", "single_user_ttft_p50_ms"),
        ("itl_ms.p99", "itl_p99_ms"),
        ("ttft_ms.p50.prompt_5000.cold", "ttft_5000_cold_ms"),
        ("ttft_ms.cached.prompt_5000.p50", "ttft_5000_cached_ms"),
        ("e2e_ms.class_chat.p99", "e2e_ms.p99.class_chat"),
        ("tpot_ms.cold.prompt_5000.p50", "tpot_ms.p50.prompt_5000.cold"),
    ],
)
def test_two_spellings_of_a_number_are_one_name(name, short):
    assert canonical(name) == short
    assert parse(name) == parse(short)


@pytest.mark.parametrize("name", METRICS)
def test_a_name_of_an_earlier_version_is_still_its_own(name):
    assert canonical(name) == name


@pytest.mark.parametrize(
    ("name", "stage", "percent"),
    [
        ("ttft_ms.p95.prompt_30000.cold", "ttft_30000", 95),
        ("itl_ms.p90.alone", "single_user", 90),
        ("output_tokens_per_s.users_5", "users_5", None),
        ("e2e_ms.p99_9.rate_0_5", "rate_0.5", 99.9),
        ("e2e_ms.p99", "concurrent", 99),
    ],
)
def test_parts_say_stage_and_percentile(name, stage, percent):
    found = parse(name)
    assert (found.stage, found.percent, found.text) == (stage, percent, name)


@pytest.mark.parametrize(
    ("percentile", "sample"), [("p50", 1), ("p75", 20), ("p90", 50), ("p95", 100), ("p99", 500), ("p99_9", 5000)]
)
def test_a_sample_carries_a_percentile_with_five_values_beyond_it(percentile, sample):
    assert parse(f"e2e_ms.{percentile}").support == sample


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("tft_p50_ms", "did you mean 'ttft_p50_ms'"),
        ("ttft_p99_ms", "did you mean 'ttft_ms.p99'"),
        ("ttfs_ms.p95", "did you mean 'ttft_ms.p95'"),
        ("ttft_ms", "names no percentile: write ttft_ms.p50"),
        ("ttft_ms.p95.allone", "did you mean 'alone'"),
        ("ttft_ms.p95.p99", "names two of one kind: p95 and p99"),
        ("ttft_ms.p0", "'p0' says nothing"),
        ("ttft_ms.p95.prompt_30000", "named with both, such as prompt_30000.cold"),
        ("output_tokens_per_s.prompt_30000.cold", "of a long prompt ttft_ms, tpot_ms, itl_ms and e2e_ms are measured"),
        ("goodput_share.prompt_30000.cold", "write goodput_share"),
        ("e2e_ms.p50.prompt_30000.cold.alone", "by one user; write e2e_ms.p50.prompt_30000.cold"),
        ("output_tokens_per_s.p95", "has no percentiles"),
        ("kv_tokens.alone", "nothing follows it"),
        ("ttft_ms.p50.class_chat.alone", "in the concurrent stage only"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_to_write(name, instead):
    with pytest.raises(ValueError, match=name.partition(".")[0]) as refused:
        parse(name)
    assert instead in str(refused.value)
