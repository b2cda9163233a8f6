"""Frames, tables and figures: what the report, the notebooks and ``tuner study export`` are made of."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from tests.present import present
from tests.simulated import simulated_study
from tuner import analysis
from tuner.analysis.sketch import requests_svg
from tuner.engines.effective import EffectiveSetting, Status
from tuner.engines.forecast import Forecast
from tuner.errors import ConfigError
from tuner.records.record import Role

MEMORY = Forecast(starts=2, margin_gib=0.1, weights_gib=8.8, kv_gib=11.1, kv_tokens=220_000, shortage="KV cache")
FRAMES = (analysis.trials, analysis.requests, analysis.phases, analysis.failures)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 20)


@pytest.fixture(scope="module")
def full(outcome):
    """The same with all that a record can hold."""
    first = outcome.records[0].model_copy(update={"forecast": MEMORY})
    return replace(outcome, records=(first, *outcome.records[1:]))


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no study"):
        analysis.study(tmp_path)


def test_a_study_is_read_from_its_folder(outcome):
    assert analysis.study(outcome.folder.path) == outcome


@pytest.mark.parametrize("frame", FRAMES)
def test_every_column_says_what_it_means(full, frame):
    documented = analysis.documented(frame(full))
    meanings = documented["meaning"]
    assert not (undocumented := [name for name, text in meanings.items() if not text]), undocumented
    # a column that only repeats its own name is not documented either
    assert not [name for name, text in meanings.items() if text.replace(" ", "_") == name]


@pytest.mark.parametrize("frame", FRAMES)
def test_durations_and_sizes_name_their_unit(full, frame):
    units = analysis.documented(frame(full))["unit"]
    ends = {"tokens_per_s": "tokens/s", "_per_s": "/s", "_ms": "ms", "_s": "s", "_gib": "GiB", "_tokens": "tokens"}
    for column, unit in units.items():
        name = str(column)
        ending = next((end for end in ends if name.endswith(end)), None)
        if ending and not name.startswith(("param.", "violation.")):
            assert unit == ends[ending], name
    assert units.get("seconds", "s") == "s"


def test_every_trial_and_relaunch_is_a_row(outcome):
    frame = analysis.trials(outcome)
    assert len(frame) == len(outcome.records) + len(outcome.relaunches)
    assert frame["relaunch"].sum() == len(outcome.relaunches)


def test_what_was_not_measured_is_missing_and_never_zero(outcome):
    frame = analysis.trials(outcome)
    dead = frame[frame["cause"].notna()]
    assert len(dead) > 0
    assert dead[["output_tokens_per_s", "ttft_p95_ms", "gain", "kv_tokens"]].isna().all(axis=None)


def test_gain_is_against_the_baselines_own_trial(outcome):
    frame = analysis.trials(outcome).set_index("trial")
    searched = frame[~frame["relaunch"]]
    best = outcome.best.number
    expected = searched.loc[best, "output_tokens_per_s"] / searched.loc[0, "output_tokens_per_s"] - 1
    assert searched.loc[best, "gain"] == pytest.approx(expected)
    assert searched.loc[0, "gain"] == 0


def test_requests_are_in_the_engines_own_time_and_belong_to_their_trial(outcome):
    frame = analysis.requests(outcome)
    best = frame[(frame["trial"] == outcome.best.number) & ~frame["relaunch"] & (frame["stage"] == "concurrent")]
    assert len(best) == outcome.config.workload.requests
    assert best["ttft_ms"].median() == pytest.approx(outcome.best.measurement.ttft_p50_ms, rel=0.05)
    assert (best["e2e_ms"] > best["ttft_ms"]).all()


def test_phases_of_a_trial_add_up_to_its_time(outcome):
    spent = analysis.phases(outcome).groupby(["relaunch", "trial"])["seconds"].sum()
    for record in outcome.records:
        assert spent[False, record.number] == pytest.approx(record.seconds)


def test_failures_carry_the_deciding_line_and_its_numbers(outcome):
    frame = analysis.failures(outcome)
    assert len(frame) == sum(record.failure is not None for record in outcome.records)
    assert frame["line"].str.contains("GPU memory|out of memory").all()
    assert all(isinstance(json.loads(numbers), dict) for numbers in frame["numbers"])


def test_a_study_without_failures_has_the_same_columns(outcome):
    healthy = replace(outcome, records=tuple(record for record in outcome.records if record.measurement))
    assert list(analysis.failures(healthy).columns) == list(analysis.failures(outcome).columns)


def test_overridden_settings_cold_starts_and_forecasts_stand_in_the_trials(outcome):
    forced = EffectiveSetting(name="block_size", requested=32, effective=16, status=Status.OVERRIDDEN, by="MLA")
    first = outcome.records[0]
    facts = replace(first.facts, compile_cache_hit=False)
    changed = first.model_copy(update={"effective": (forced,), "facts": facts, "forecast": MEMORY})
    row = analysis.trials(replace(outcome, records=(changed, *outcome.records[1:]))).iloc[0]
    assert row["overridden"] == "block_size=32→16"
    assert row["cold"]
    assert row["forecast.kv_tokens"] == MEMORY.kv_tokens
    assert not analysis.trials(outcome)["cold"].any()


def test_the_comparison_holds_what_the_relaunches_gave(outcome):
    table = analysis.comparison(outcome)
    row = table.loc["Output throughput, all users"]
    goal = outcome.decision.goals["output_tokens_per_s"]
    assert row["deployed"] == pytest.approx(sum(goal.baseline) / len(goal.baseline))
    assert row["change"] == pytest.approx(goal.gain)
    assert (row["low"], row["high"]) == (goal.low, goal.high)


def test_before_the_relaunches_the_comparison_has_no_interval(outcome):
    table = analysis.comparison(replace(outcome, relaunches=()))
    assert table[["low", "high"]].isna().all(axis=None)
    assert table["change"]["Output throughput, all users"] > 0


def test_two_studies_stand_side_by_side(outcome, tmp_path):
    other = simulated_study(tmp_path, 6, seed=3)
    table = analysis.side_by_side({"one": outcome, "other": other})
    columns: list[object] = list(table.columns)
    assert columns == [(name, which) for name in ("one", "other") for which in ("deployed", "best")]
    row = "Output throughput, all users"
    assert table["one", "best"][row, "tokens/s"] == analysis.comparison(outcome)["best"][row]


def test_settings_are_shown_as_one_types_them(outcome):
    table = analysis.settings(outcome)
    assert table.loc["max_num_batched_tokens", "deployed"] == "--max-num-batched-tokens 32768"
    assert table.loc["OMP_NUM_THREADS", "deployed"] == "OMP_NUM_THREADS=4"


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_history_shows_every_trial_and_gives_no_value_to_those_without_one(outcome):
    figure = present(analysis.history(outcome))
    dead = named(figure, "cannot run")
    assert list(dead.x) == [record.number for record in outcome.records if record.failure]
    assert dead.yaxis == "y2"
    marks = sum(len(trace.x) for trace in figure.data if trace.mode == "markers")
    assert marks == len(outcome.records)


def test_the_best_so_far_only_rises_and_ends_at_the_best(outcome):
    line = named(analysis.history(outcome), "best so far")
    assert list(line.y) == sorted(line.y)
    assert line.y[-1] == pytest.approx(outcome.best.verdict.values[0], rel=1e-4)


def test_a_trial_that_was_never_launched_is_marked_apart(outcome):
    number = next(record.number for record in outcome.records if record.failure)
    records = list(outcome.records)
    records[number] = records[number].model_copy(update={"launched": False, "phases": ()})
    ruled = replace(outcome, records=tuple(records))
    assert list(named(analysis.history(ruled), "ruled out, not launched").x) == [number]
    assert sum(len(bar.x) for bar in present(analysis.timeline(ruled)).data[:1]) == len(outcome.records) - 1 + len(
        outcome.relaunches
    )


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 10), (2, 9), (3, 12)], [(1, 10), (3, 12)]),
        ([(2, 5), (1, 5), (1, 7)], [(1, 7)]),
    ],
)
def test_the_pareto_front_holds_what_no_other_beats_in_both(points, front):
    assert analysis.pareto_front(points) == front


def test_a_slice_leaves_out_trials_in_which_the_parameter_did_not_act(outcome):
    name = "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE"
    acted = [record for record in outcome.records if name in record.params and record.measurement]
    figure = present(analysis.slice_of(outcome, name))
    assert sum(len(trace.x) for trace in figure.data if trace.yaxis != "y2") == len(acted)


def test_latencies_compare_deployed_and_best(outcome):
    figure = analysis.latencies(outcome, "single_tpot")
    deployed, best = named(figure, "deployed"), named(figure, "best")
    assert max(best.x) < min(deployed.x)


def test_the_timeline_of_a_large_study_draws_means(outcome):
    many = replace(outcome, records=outcome.records * 60)
    assert analysis.launches_a_bar(outcome) == 1
    assert analysis.launches_a_bar(many) == 13
    figure = present(analysis.timeline(many))
    assert len(figure.data[0].x) <= 100
    assert named(figure, "starting").y[0] == pytest.approx(6, rel=0.1)


def test_a_study_without_trials_has_nothing_to_show(outcome):
    empty = replace(outcome, records=(), relaunches=())
    figures = (analysis.history, analysis.parallel, analysis.tradeoff, analysis.timeline)
    assert [figure(empty) for figure in figures] == [None] * len(figures)


@pytest.mark.parametrize("table", analysis.TABLES)
def test_exports_have_the_frames_columns_in_every_format(outcome, table, tmp_path):
    frame = analysis.TABLES[table](outcome)
    for to, read in (("csv", pd.read_csv), ("json", pd.read_json), ("parquet", pd.read_parquet)):
        file = tmp_path / f"{table}.{to}"
        assert analysis.export(outcome, to, file, table) is None
        assert list(read(file).columns) == list(frame.columns)
        assert len(read(file)) == len(frame)


def test_an_export_without_a_file_is_text(outcome):
    rows = json.loads(present(analysis.export(outcome, "json")))
    assert [row["role"] for row in rows][:1] == [Role.BASELINE]
    assert present(analysis.export(outcome, "csv")).splitlines()[0].startswith("study,trial,")


@pytest.mark.parametrize(
    ("to", "table", "says"),
    [
        ("xlsx", "trials", "cannot export 'xlsx'"),
        ("csv", "trails", "no table 'trails'"),
        ("parquet", "trials", "no text"),
    ],
)
def test_an_export_that_cannot_be_says_what_can(outcome, to, table, says):
    with pytest.raises(ConfigError, match=says):
        analysis.export(outcome, to, None, table)


def test_a_trials_requests_make_a_small_picture(outcome):
    frame = analysis.requests(outcome, [outcome.records[0]])
    picture = requests_svg(frame)
    assert picture.count("<rect") == 1 + 2 * len(frame)
    assert len(picture) < 40_000


def test_a_picture_of_hundreds_of_requests_shows_the_first_and_says_of_how_many(outcome):
    frame = analysis.requests(outcome, [outcome.records[0]])
    (one,) = (rows for stage, rows in frame.groupby("stage") if stage == "concurrent")
    many = pd.concat([one] * 20)
    picture = requests_svg(many)
    assert f"40 of {len(many)}" in picture
    assert picture.count("<rect") == 1 + 2 * 40
