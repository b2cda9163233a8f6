"""The report: what it says, and how it looks in a browser (pictures go to TUNER_PICTURES)."""

import re
from dataclasses import replace
from html import unescape

import pytest

from tests.browser import browser, needs_chromium, pictures
from tests.present import present
from tests.simulated import simulated_study
from tuner import words
from tuner.engines.base import Degradation
from tuner.engines.ceilings import Ceilings
from tuner.engines.effective import EffectiveSetting, Status
from tuner.engines.forecast import Forecast
from tuner.load.counters import EngineCounters
from tuner.load.plan import Skipped
from tuner.records.record import Failure, Role, State
from tuner.report import findings, launches, method, report_html
from tuner.search.base import Expectation
from tuner.study.minimal import effects_of
from tuner.study.provenance import Machine, StudyRun, append
from tuner.terminal.closing import write_results

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.48 MiB."


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 20)


@pytest.fixture(scope="module")
def text(outcome):
    return read(report_html(outcome))


def read(page):
    """A page as a reader has it: without markup, scripts and styles."""
    plain = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", plain.replace("<wbr>", ""))))


def with_trial(outcome, number, **changes):
    """The outcome with one trial's record changed."""
    records = list(outcome.records)
    records[number] = records[number].model_copy(update=changes)
    return replace(outcome, records=tuple(records))


def dead(outcome, number, line=OOM, error="OutOfMemory", cause="cuda_oom", **changes):
    failure = Failure(error=error, cause=cause, message="it ran out", line=line, advice="Lower max_num_seqs.")
    changes = {"state": State.PRUNED, "measurement": None, "verdict": None, "failure": failure, **changes}
    return with_trial(outcome, number, **changes)


def test_the_verdict_comes_first_in_one_sentence(outcome, text):
    assert outcome.proven
    body = text[text.index(f"tuner study {outcome.config.study.name}") :]
    assert body.startswith(f"tuner study {outcome.config.study.name} {outcome.sentence}")


def test_nothing_on_the_page_comes_from_elsewhere(outcome):
    page = report_html(outcome)
    assert not re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=(?![\"']?data:)", page)
    assert "default-src 'none'" in page


def test_baseline_and_winner_stand_side_by_side_with_the_gains_interval(outcome):
    said = read(findings.comparison(outcome))
    goal = outcome.decision.goals["output_tokens_per_s"]
    low, high = min(goal.candidate), max(goal.candidate)
    assert f"{low:.0f} – {high:.0f}" in said
    assert f"+{goal.gain:.1%} +{goal.low:.1%} … +{goal.high:.1%}" in said
    assert "limit: at most 1.1 × deployed" in said
    assert "Limit: TPOT p50 (× " in said
    assert "shown to be kept" in said


def test_what_changes_is_a_diff_of_what_one_types(outcome):
    assert '+ --compilation-config {"compile_sizes": [' in read(findings.changes(outcome))
    whole = replace(outcome, relaunches=())
    said = read(findings.changes(whole))
    was, best = outcome.config.model.settings.args, outcome.best.params
    name = next(n for n in ("max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization") if was[n] != best[n])
    flag = name.replace("_", "-")
    assert f"- --{flag} {was[name]} + --{flag} {best[name]}" in said


def test_what_each_change_earns_stands_with_its_interval_and_what_became_of_it(outcome):
    said = read(findings.changes(outcome))
    (kept,) = (each for each in present(effects_of(outcome)).settings if each.kept)
    goal = kept.goals["output_tokens_per_s"]
    sizes = words.value(kept.value)
    assert f"compile_sizes unset {sizes} throughput +{goal.gain:.1%} [+{goal.low:.1%}, +{goal.high:.1%}]" in said
    assert "went back to the deployed value" in said
    assert f"No other change of trial {outcome.best.number} is shown to earn more than 1.0%: " in said
    assert "90 % intervals" in said


def test_no_importance_of_methods_that_mislead_here_stands_in_the_report(text):
    assert "ANOVA" not in text


def test_every_trial_stands_in_the_table_with_what_it_gave(outcome):
    said = read(findings.tried(outcome))
    for record in outcome.records:
        if record.verdict:
            assert f"{record.verdict.values[0]:.0f} tokens/s" in said


def test_a_trial_that_misses_a_limit_says_by_how_much(tmp_path):
    outcome = simulated_study(tmp_path, 8, "objective.limits.ttft_p50_ms.max=0.9")
    assert "misses its limit by" in read(findings.tried(outcome))


def test_a_large_study_shows_its_best_trials_and_folds_the_rest(tmp_path):
    outcome = simulated_study(tmp_path, 41)
    shown, folded = findings.tried(outcome).split("<details>")
    assert shown.count("<tr>") == 1 + min(25, sum(map(outcome.within, outcome.searched)))
    assert "<summary>All 41 trials in their order</summary>" in folded
    assert folded.count("<tr>") == 1 + 41


def test_failures_stand_by_cause_with_the_line_that_decided_it(outcome):
    said = read(findings.failed(dead(dead(outcome, 3), 5)))
    assert re.search(r"GPU memory ran out 2 3, 5 .*Tried to allocate 20.48 MiB\. Lower max_num_seqs\.", said)


def test_failures_that_are_the_machines_fault_are_told_apart(outcome):
    said = read(findings.failed(dead(outcome, 3, state=State.FAILED)))
    assert "1 attempt was no fault of the configuration" in said


def test_text_from_a_log_cannot_become_markup_nor_a_secret_be_passed_on(outcome):
    line = "</script><script>alert(1)</script> --api-key sk-verysecretverysecret"
    page = findings.failed(dead(outcome, 3, line=line))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "sk-verysecret" not in page


def test_trials_that_were_ruled_out_before_a_launch_are_counted_apart(outcome):
    ruled = dead(outcome, 4, error="PredictedOutOfMemory", line=None, launched=False, phases=())
    ruled = dead(ruled, 6, error="PredictedOutOfMemory", cause="lesson", line=None, launched=False, phases=())
    said = read(launches.ruled_out(ruled))
    assert "predicted: GPU memory ran out 1 4" in said
    assert "at least as demanding as one that failed 1 6" in said
    assert "of server time were spared" in said
    assert "2 more ruled out before a launch" in read(findings.verdict(ruled))
    assert "not launched" in read(findings.tried(ruled))


def test_no_section_stands_empty(text):
    for title in ("Ruled out before a launch", "Asked for, but not what ran", "Memory: predicted against logged"):
        assert title not in text


def test_settings_that_ran_with_another_value_are_listed_with_what_overrode_them(outcome):
    forced = EffectiveSetting(
        name="block_size", requested=32, effective=16, status=Status.OVERRIDDEN, by="the attention backend"
    )
    found = with_trial(with_trial(outcome, 1, effective=(forced,)), 2, effective=(forced,))
    said = read(launches.otherwise(found))
    assert "block_size 32 16 the attention backend 2 1, 2" in said


def test_a_dimension_that_never_did_anything_is_named(outcome):
    def asked(value):
        return EffectiveSetting(
            name="block_size", requested=value, effective=16, status=Status.OVERRIDDEN, by="the attention backend"
        )

    whole = replace(outcome, relaunches=())
    found = with_trial(with_trial(whole, 1, effective=(asked(32),)), 2, effective=(asked(64),))
    said = read(launches.otherwise(found))
    assert "block_size does nothing here: whatever is asked, 16 runs (the attention backend)." in said
    assert "Known to do nothing here: block_size." in read(findings.changes(found))
    assert "Known to do nothing" not in read(findings.changes(whole))


def test_slower_ways_of_running_are_listed_and_whether_the_deployed_one_has_them_too(outcome):
    slow = Degradation("moe_untuned", "INFO 11-22 20:00:17 [fused_moe.py:1] Using default MoE config.", 7, False)
    found = outcome
    for number in (0, 1):
        facts = replace(outcome.records[number].facts, degradations=(slow,))
        found = with_trial(found, number, facts=facts)
    said = read(launches.slower(found))
    assert "moe untuned the deployed configuration too 2 Using default MoE config." in said


def test_cold_starts_are_marked(outcome):
    facts = replace(outcome.records[1].facts, compile_cache_hit=False)
    said = read(findings.tried(with_trial(outcome, 1, facts=facts)))
    assert re.search(r"\d s cold ", said)
    assert "cold: 1 of 20 launches found no compiled graphs" in said


def test_a_cold_start_is_not_compared_with_warm_ones_on_kv_cache(outcome):
    from tuner.analysis.tables import rows

    def kv_cache(found):
        return next(row for row in rows(found) if row.label == "KV cache")

    every = outcome.relaunches
    cold = tuple(
        r.model_copy(update={"facts": replace(r.facts, compile_cache_hit=n == 1)}) for n, r in enumerate(every)
    )
    assert kv_cache(outcome).baseline is not None
    assert kv_cache(replace(outcome, relaunches=cold)).baseline is None


def test_what_the_search_expected_stands_against_what_was_read(outcome):
    number, read_per_s = next(
        (n, record.measurement.output_tokens_per_s)
        for n, record in enumerate(outcome.records)
        if record.measurement and record.role is Role.SEARCH
    )
    assert launches.expected(outcome) == ""
    expected = Expectation(why="explore", value=1.25 * read_per_s, low=1.1 * read_per_s, high=1.4 * read_per_s)
    said = read(launches.expected(with_trial(outcome, number, expected=expected)))
    assert "0 of 1 readings lie in the interval that should hold nine of ten; median error 20.0%." in said
    assert "(outside) −20.0%" in said


def test_what_held_each_trial_back_is_told_with_its_numbers(outcome):
    number, record = next((n, each) for n, each in enumerate(outcome.records) if each.measurement)
    counters = EngineCounters(readings=5, running_mean=4.0, waiting_mean=2.0)
    measurement = record.measurement.model_copy(update={"engine": counters})
    ceilings = Ceilings(sequences=4, tokens_per_s=10 * measurement.output_tokens_per_s)
    found = with_trial(outcome, number, measurement=measurement, ceilings=ceilings)
    assert "sequences 2.0 requests waited in the mean while 4.0 ran" in read(launches.binding(found))
    assert "deployed: sequences binds (2.0 requests waited" in read(findings.verdict(found))
    assert "10% of what this memory bandwidth allows." in read(findings.verdict(found))


def test_predicted_memory_stands_against_what_was_logged(outcome):
    facts = outcome.records[1].facts
    forecast = Forecast(starts=1, margin_gib=0.12, kv_tokens=round(facts.kv_tokens * 1.02))
    said = read(launches.predicted(with_trial(outcome, 1, forecast=forecast)))
    assert "KV cache, tokens 1 2.0% 2.0% 2.0%" in said
    assert "after 1 start, a shortage of KV cache was believed only beyond 0.120 GiB" in said
    assert "Predictions ruled out 0 of the trials." in said


def test_method_versions_machine_and_the_command_to_repeat_it_are_there(tmp_path):
    outcome = simulated_study(tmp_path, 3)
    machine = Machine(system="Linux 6", cpu="A CPU", cores=8, memory_gib=64, gpus=("RTX 4090, 24564 MiB, 570.1",))
    typed = "tuner study start experiment=demo"
    run = StudyRun(started_at="2026-01-05", command=typed, machine=machine, versions={"tuner": "1", "torch": "2.13"})
    append(outcome.folder, run)
    text = read(method.method(outcome)) + read(method.origin(outcome))
    for said in (f"{typed} study.name=again", "A CPU, 8 cores, 64 GiB", "RTX 4090, 24564 MiB, 570.1", "torch 2.13"):
        assert said in text
    assert "Search: a Gaussian process of single effects and pairs, seed" in text
    assert "5 users at once send 15 requests" in text
    assert "--max-num-batched-tokens 32768" in text


def test_a_study_that_has_not_been_confirmed_does_not_claim_a_win(outcome):
    unconfirmed = replace(outcome, relaunches=())
    assert "has not been launched again" in read(findings.verdict(unconfirmed))
    assert "Not shown to be better: no profile is written" in read(findings.changes(unconfirmed))


def test_a_study_in_which_nothing_ran_has_a_report_that_says_why(outcome):
    records = tuple(dead(outcome, n).records[n] for n in range(3))
    page = report_html(replace(outcome, records=records, relaunches=()))
    assert "No configuration could be used: 3 × GPU memory ran out." in read(page)


GROUNDS = {False: "rgb(255, 255, 255)", True: "rgb(20, 23, 27)"}
DRAWN = "(d => d && d.split('/')[0] === d.split('/')[1])(document.documentElement.dataset.drawn)"
MARKS = """[...document.querySelectorAll('figure.plot')].map(
    figure => figure.querySelectorAll('.points path, .point path, path.js-line').length)"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def written(outcome):
    write_results(outcome)
    return outcome.folder.report.as_uri()


def look(chromium, url, name, tmp_path, **how):
    """Open a report, wait until it is drawn, take its picture, and see that all is there."""
    with chromium.page(url, **how) as page:
        page.until(DRAWN)
        page.picture(pictures(tmp_path) / f"{name}.png")
        assert page.errors == []
        assert page.requested == [url]
        marks = page.ask(MARKS)
        assert marks
        assert min(marks) > 0, marks
        assert page.ask("document.documentElement.scrollWidth <= innerWidth")
        assert page.ask("getComputedStyle(document.documentElement).backgroundColor") == GROUNDS[how.get("dark", False)]
        return len(marks)


@needs_chromium
@pytest.mark.parametrize(
    ("look_as", "how"), [("light", {}), ("dark", {"dark": True}), ("phone", {"width": 390, "height": 844})]
)
def test_every_figure_is_drawn_in_the_readers_light_or_dark_without_an_error_or_a_request(
    chromium, written, look_as, how, tmp_path
):
    assert look(chromium, written, f"report-{look_as}", tmp_path, **how) == 19


@needs_chromium
def test_on_paper_no_figure_is_wider_than_the_sheet(chromium, written, tmp_path):
    with chromium.page(written) as page:
        page.until(DRAWN)
        page.printed(pictures(tmp_path) / "report.pdf")
        page.ask("dispatchEvent(new Event('beforeprint'))")
        widths = "[...document.querySelectorAll('figure.plot .main-svg')].map(svg => svg.getBoundingClientRect().width)"
        page.until(f"Math.max(...{widths}) <= 671")
        assert page.errors == []


@needs_chromium
@pytest.mark.timeout(400)
def test_hundreds_of_trials_are_drawn_as_well(chromium, tmp_path):
    outcome = simulated_study(tmp_path, 200)
    write_results(outcome)
    assert look(chromium, outcome.folder.report.as_uri(), "report-200", tmp_path) == 19


def test_a_stage_that_did_not_fit_is_called_skipped_where_its_number_would_be(outcome):
    reason = "90000 prompt + 64 output tokens exceed the context of 32768 tokens"
    changed = with_trial(outcome, 0, skipped=(Skipped("ttft_90000", reason),))
    page = read(findings.comparison(replace(changed, relaunches=())))
    assert re.search(rf"prompt of 90,000 tokens, nothing cached skipped {re.escape(reason)}", page)


def test_a_trial_that_was_killed_is_among_what_was_tried(outcome):
    folder = outcome.folder.path / "trials" / "0099"
    folder.mkdir()
    try:
        assert "99 interrupted: tuner was killed while it ran" in read(findings.tried(outcome))
    finally:
        folder.rmdir()


def test_settings_that_never_differ_have_no_column(outcome):
    same = [record.model_copy(update={"params": {**record.params, "block_size": 16}}) for record in outcome.records]
    head = read(findings.tried(replace(outcome, records=tuple(same)))).partition("baseline")[0]
    assert "block-size" not in head
    assert "max-num-seqs" in head
