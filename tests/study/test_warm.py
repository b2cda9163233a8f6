"""A study that begins with earlier ones: what it takes of them, what it refuses, and what it says of them."""

import shutil
from math import log

import pytest

from tests.fast import FAST
from tests.present import present
from tests.simulated import simulated_study
from tuner import composing
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder
from tuner.report import report_html
from tuner.study import agreed, events, warm
from tuner.study.loop import run_study
from tuner.study.plan import plan_of
from tuner.study.proposals import Proposer
from tuner.terminal import closing


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    return simulated_study(tmp_path_factory.mktemp("studies"), 20, "study.name=earlier", seed=1)


def asked(earlier, *overrides, source="earlier"):
    folder = f"study.folder={earlier.folder.path.parent}"
    return composing.load(["experiment=demo", folder, "study.name=later", f"search.warm_from=[{source}]", *overrides])


def test_launches_are_taken_relative_to_what_was_deployed_there(earlier):
    (source,) = warm.sources_of(asked(earlier))
    measured = {record.digest: record for record in earlier.searched if record.measurement}
    assert len(source.readings) == len(measured)
    assert source.skipped == 0
    goal, ttft = ({d: earlier.readings.level(d, name) for d in measured} for name in earlier_metrics(earlier))
    base = earlier.baseline.digest
    gains = sorted(log(value / goal[base]) for value in goal.values())
    assert sorted(each.gain for each in source.readings) == pytest.approx(gains)
    (deployed,) = (each for each in source.readings if each.gain == 0)
    assert deployed.beyond[earlier_metrics(earlier)[1]] == 0
    best = max(source.readings, key=lambda each: each.gain)
    digest = max(goal, key=goal.__getitem__)
    assert best.beyond[earlier_metrics(earlier)[1]] == pytest.approx(log(ttft[digest] / ttft[base]))


def earlier_metrics(earlier):
    """The goal and the first limited metric."""
    objective = earlier.config.objective
    return next(iter(objective.goals)), next(name for name, limit in objective.limits.items() if limit.max is not None)


def test_a_folder_does_as_well_as_a_name(earlier):
    by_name, by_folder = (warm.sources_of(asked(earlier, source=name)) for name in ("earlier", earlier.folder.path))
    assert by_name[0].readings == by_folder[0].readings


def test_what_this_space_does_not_hold_is_left_out_only_where_it_was_varied(earlier):
    (whole,) = warm.sources_of(asked(earlier))
    (part,) = warm.sources_of(asked(earlier, "space.params.max_num_seqs=null"))
    deployed = earlier.deployed["max_num_seqs"]
    measured = {record.digest: record for record in earlier.searched if record.measurement}.values()
    kept = [record for record in measured if record.params["max_num_seqs"] == deployed]
    assert (len(part.readings), part.skipped) == (len(kept), len(whole.readings) - len(kept))
    assert all("max_num_seqs" not in each.params for each in part.readings)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("objective.goals={tpot_p50_ms: minimize,output_tokens_per_s: null}", "its gains are none here"),
        ("model.id=QuantTrio/GLM-4.7-Flash-tiny", "earlier is of another model"),
        ("search.warm_from=[nowhere]", "there is no study nowhere"),
        ("search.warm_from=[later]", "later is this study itself"),
        ("search=tpe", "only search=auto with one goal"),
    ],
)
def test_what_means_nothing_here_is_refused_before_trial_0(earlier, override, said):
    refused = asked(earlier, override)
    with pytest.raises(ConfigError, match=said) as error:
        run_study(refused, lambda event: None)
    assert error.value.place == "search.warm_from"
    assert not refused.study.path.exists() or not StudyFolder(refused.study.path).records()


def test_a_study_that_never_measured_what_it_deployed_is_refused(earlier, tmp_path):
    copied = shutil.copytree(earlier.folder.path, tmp_path / "copied")
    shutil.rmtree(copied / "trials" / "0000")
    with pytest.raises(ConfigError, match="has not measured what it deployed"):
        warm.sources_of(asked(earlier, source=copied))


def test_the_plan_names_the_sources(earlier):
    plan = plan_of(asked(earlier))
    assert f"begins with earlier: {len(warm.sources_of(asked(earlier))[0].readings)} configurations" in plan.text


def test_the_first_proposal_is_what_was_best_there_or_next_to_it(earlier):
    config = asked(earlier)
    sources = warm.sources_of(config)
    later = simulated_study(earlier.folder.path.parent, 1, "study.name=one", proven=False)
    with_it, without = (Proposer(config, None, lambda text: None, some).next(later) for some in (sources, ()))
    best = present(sources[0].best).params
    differing = [len(config.space.changes(present(each).candidate.params, best)) for each in (with_it, without)]
    assert differing[0] <= 4
    assert differing[0] < differing[1]


def test_report_status_and_json_say_how_well_it_agreed_also_when_its_folder_is_gone(earlier, tmp_path):
    source = shutil.copytree(earlier.folder.path, tmp_path / "source")
    later = simulated_study(tmp_path, 12, "study.name=later", f"search.warm_from=[{source}]", seed=2)
    warm.keep(later.config, warm.sources_of(later.config))
    shutil.rmtree(source)
    (agreement,) = agreed.agreement(later).values()
    assert 0.5 < agreement <= 1, "both were measured on the same simulated machine"
    (sentence,) = agreed.sentences(later)
    assert sentence.endswith(f"agreement {agreement:.2f} of 1")
    assert sentence in report_html(later)
    assert closing.summary(later)["began_with"] == {str(source): agreement}


def test_a_whole_study_begins_with_another_one(tmp_path):
    first = run_study(composing.load([*FAST, f"study.folder={tmp_path}", "study.name=first"]), lambda event: None)
    heard: list[events.Event] = []
    again = [*FAST, f"study.folder={tmp_path}", "study.name=second", "search.warm_from=[first]"]
    second = run_study(composing.load(again), heard.append)
    notes = [event.text for event in heard if isinstance(event, events.Noted)]
    measured = {record.digest for record in first.searched if record.measurement}
    assert any(text.startswith(f"begins with first: {len(measured)} configurations") for text in notes)
    assert len(second.launched) == 3
    assert second.folder.sources.exists()
