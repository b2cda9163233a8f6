"""What a winner's changes earn, against the simulator's truth, and that only those are proven that earn something."""

from dataclasses import replace
from math import log
from pathlib import Path

import pytest

from tests.present import present
from tests.simulated import served_load, simulated_study
from tuner.engines.effective import EffectiveSetting, Status
from tuner.load.metrics import measure
from tuner.premises import make_engine
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.search.base import anything
from tuner.sim import flags
from tuner.sim.memory import StartupFailure
from tuner.sim.noise import QUIET
from tuner.sim.settings import Site, resolve
from tuner.study import earned
from tuner.study.minimal import effects_of, without_passengers

GOAL = "output_tokens_per_s"
TRIALS = 40


@pytest.fixture(scope="module", params=[0, 2])
def outcome(request, tmp_path_factory):
    """A study of candidates at random, not proven yet."""
    return simulated_study(tmp_path_factory.mktemp("studies"), TRIALS, seed=request.param, proven=False)


def truth(outcome, candidate):
    """The goal of a configuration in the simulator, without any noise; ``None`` if it does not start."""
    asked = outcome.config
    settings = asked.model.settings.merged(asked.space.settings(candidate))
    command = make_engine(asked).command(settings.args, {k: v for k, v in settings.env.items() if v}, None)
    words = command.argv[len(asked.engine.executable) + 1 : -4]
    site = Site.of("rtx4090", 2, "0.15")
    resolved = resolve(asked.model.id, flags.parse(site.version, [asked.model.id, *words]), command.env, site)
    ran = served_load(asked.workload, resolved, "quiet", QUIET)
    return None if isinstance(ran, StartupFailure) else measure(ran[1], asked.workload).numbers[GOAL]


def heard_terms(outcome, admitted=anything):
    heard: list[str] = []
    return without_passengers(outcome, outcome.next_terms(), admitted, heard.append), heard


def test_what_each_change_earns_is_what_it_earns_in_the_simulator(outcome):
    effects = present(effects_of(outcome))
    gains = {each.name: true_gain(outcome, effects, each.name) for each in effects.settings}
    known = [each for each in effects.settings if gains[each.name] is not None]
    inside = [each.goals[GOAL].low <= gains[each.name] <= each.goals[GOAL].high for each in known]
    assert sum(inside) >= 0.75 * len(known) > 2
    assert [each.name for each in known if each.resolved and gains[each.name] < effects.min_effect] == []
    assert [each.name for each in known if not each.resolved and gains[each.name] > 0.1] == []


def true_gain(outcome, effects, name):
    """The winner over the winner without a change; ``None`` if it does not start without."""
    without = truth(
        outcome, outcome.partly(outcome.best, [each.name for each in effects.settings if each.name != name])
    )
    return without and truth(outcome, outcome.chosen) / without - 1


def test_only_what_acts_is_proven_and_that_keeps_the_gain(outcome):
    """Compile sizes are nearly all of it; the others went back."""
    terms, heard = heard_terms(outcome)
    assert "compile_sizes" in terms.kept
    assert terms.winner == outcome.best.digest
    assert len(terms.kept) < len(outcome.changes(outcome.best))
    proven, whole = (truth(outcome, each) for each in (outcome.finalist(terms), outcome.chosen))
    deployed = truth(outcome, outcome.config.space.deployed(outcome.config.model.settings))
    assert log(proven / deployed) > 0.9 * log(whole / deployed)
    assert heard[0].startswith(f"trial {outcome.best.number} is proven with {len(terms.kept)} of its ")


def test_the_proof_of_a_part_is_said_to_be_one_everywhere(tmp_path):
    outcome = simulated_study(tmp_path, TRIALS)
    assert outcome.proven
    terms = outcome.proof.terms
    assert {record.digest for record in outcome.relaunches} >= {terms.candidate}
    changes = outcome.config.space.changes(outcome.chosen.params, outcome.deployed)
    assert set(changes) == set(terms.kept) == {each.name for each in present(effects_of(outcome)).kept}
    whole = len(outcome.changes(outcome.best))
    assert outcome.sentence.startswith(f"Trial {outcome.best.number} with {len(terms.kept)} of its {whole} changes is")


def test_one_that_fails_gives_way_to_the_whole_winner_within_the_same_error_rate(tmp_path):
    outcome = simulated_study(tmp_path, TRIALS)
    dead = {"measurement": None, "verdict": None}
    lost = [
        record if record.digest == outcome.baseline.digest else record.model_copy(update=dead)
        for record in outcome.relaunches
    ]
    grown = outcome.config.budget.model_copy(update={"trials": 200})
    failed = replace(outcome, relaunches=tuple(lost), config=outcome.config.model_copy(update={"budget": grown}))
    terms, heard = heard_terms(failed)
    assert (terms.candidate, terms.winner, heard) == (failed.best.digest, "", [])
    assert terms.alpha < outcome.proof.terms.alpha


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Nine launches of candidates that differ in everything: no change of the winner is resolved by itself."""
    return simulated_study(tmp_path_factory.mktemp("short"), 9, seed=1, proven=False)


def test_where_no_change_is_resolved_the_fewest_that_together_are_keep_the_gain(short):
    terms, _ = heard_terms(short)
    effects = present(effects_of(short))
    assert not any(each.resolved for each in effects.settings)
    assert "compile_sizes" in terms.kept
    assert len(terms.kept) <= len(effects.settings) / 2
    proven, whole = (truth(short, each) for each in (short.finalist(terms), short.chosen))
    deployed = truth(short, short.config.space.deployed(short.config.model.settings))
    assert log(proven / deployed) > 0.9 * log(whole / deployed)


def test_where_no_part_can_be_proven_the_whole_winner_is_and_that_is_said(short):
    terms, heard = heard_terms(short, admitted=lambda candidate: False)
    assert terms == short.next_terms()
    assert heard == [
        f"no change of trial {short.best.number} could be told from nothing: all of them are proven together"
    ]
    assert earned.others(present(effects_of(short))).startswith(
        f"No change of trial {short.best.number} is shown to earn more than"
    )


def test_what_rules_and_memory_need_is_kept_as_well(outcome):
    """Pre-flight that admits nothing without two more of its changes: the fewest that make it so."""
    terms, _ = heard_terms(outcome)
    changes = [name for name in outcome.changes(outcome.best) if name not in terms.kept]
    needed = set(changes[:2])

    def admitted(candidate):
        same = {name for name, value in outcome.best.params.items() if candidate.params.get(name) == value}
        return needed <= same

    strict, _ = heard_terms(outcome, admitted)
    assert set(strict.kept) == {*terms.kept, *needed}


def test_a_change_that_never_ran_earns_nothing(outcome):
    """The engine runs its own block size, whatever is asked."""
    forced = [
        record.model_copy(
            update={
                "params": {
                    **record.params,
                    "block_size": 32 if record == outcome.best else record.params["block_size"],
                },
                "effective": (
                    EffectiveSetting(name="block_size", requested=32, effective=16, status=Status.OVERRIDDEN, by="it"),
                ),
            }
        )
        for record in outcome.records
    ]
    found = present(effects_of(replace(outcome, records=tuple(forced))))
    each = next(each for each in found.settings if each.name == "block_size")
    assert abs(each.goals[GOAL].gain) < 1e-3
    assert not each.resolved


def test_of_too_few_launches_nothing_is_said_and_the_winner_is_proven_as_it_is(tmp_path):
    outcome = simulated_study(tmp_path, 7, seed=2, proven=False)
    assert effects_of(outcome) is None
    assert heard_terms(outcome) == (outcome.next_terms(), [])
    changes = len(outcome.changes(outcome.best))
    assert earned.sentences(outcome) == [
        f"What each of the {changes} changes earns cannot be told from fewer than 4 measured configurations: "
        "they are proven together."
    ]


def test_what_was_screened_tells_the_passengers_of_three_launches():
    """A token budget and graphs for it make the gain of a real study; block size and sequences went along."""
    recorded = Outcome.of(StudyFolder(Path(__file__).parents[2] / "studies" / "recorded" / "h200-budget"))
    searched = replace(recorded, relaunches=())
    terms, _ = heard_terms(searched)
    assert terms.kept == ("max_num_batched_tokens", "cudagraph_capture_sizes")
    effects = present(effects_of(searched))
    assert effects.screened == 8
    assert {each.name for each in effects.settings if each.goals[GOAL].gain > 0.05} == set(terms.kept)
    assert "all launches and 8 settings screened in running servers" in earned.bar(effects)
    bare = [record.model_copy(update={"screened": ()}) for record in searched.records]
    assert effects_of(replace(searched, records=tuple(bare))) is None
