"""What a winner's changes earn, in words: the same for terminal, report and notes."""

from collections.abc import Iterator, Mapping

from tuner import words
from tuner.proof.decision import Effect
from tuner.records import verdict
from tuner.records.outcome import Outcome
from tuner.study.minimal import FEWEST, Earned, SettingEffect, WinnerEffects, effects_of


def sentences(outcome: Outcome) -> list[str]:
    """What each change of a study's winner earns, or why that is not known; none where nothing was changed."""
    effects = effects_of(outcome)
    return [*lines(effects), bar(effects)] if effects else list(untold(outcome))


def untold(outcome: Outcome) -> Iterator[str]:
    """Why nothing is known of a winner's single changes, where there are several and too little was measured."""
    best = outcome.best
    if effects_of(outcome) is None and outcome.improved and best and (count := len(outcome.changes(best))) > 1:
        yield (
            f"What each of the {count} changes earns cannot be told from fewer than {FEWEST} measured configurations: "
            f"they are proven together."
        )


def lines(effects: WinnerEffects) -> Iterator[str]:
    """Each change that is kept or shown to earn something, with what it earns; then what is known of the others."""
    for each in (*effects.kept, *(each for each in effects.went_back if each.resolved)):
        yield f"{setting(each)}: {earned(each.goals)}{', '.join(['', *became(each)])}"
    yield others(effects)


def became(effect: SettingEffect) -> Iterator[str]:
    """Notes on a change that went back, or that is kept without being shown to earn anything itself."""
    if not effect.kept:
        yield "went back to the deployed value"
    elif not effect.resolved:
        yield "not shown by itself"


def setting(effect: SettingEffect) -> str:
    """``max_num_seqs 64 → 32``."""
    return f"{effect.name} {words.value(effect.deployed)} → {words.value(effect.value)}"


def earned(goals: Mapping[str, Earned]) -> str:
    """By how much each goal is better, with its interval."""
    found = ((goal, Effect(gain=each.gain, low=each.low, high=each.high)) for goal, each in goals.items())
    return "; ".join(verdict.changed(goal, effect) for goal, effect in found)


def others(effects: WinnerEffects) -> str:
    """What can be said of all changes that are not known to earn anything."""
    unknown = [each for each in effects.settings if not each.resolved]
    least = words.percent(effects.min_effect)
    if not unknown:
        return f"Each of them is shown to earn more than {least}."
    some = "No change" if len(unknown) == len(effects.settings) else "No other change"
    text = f"{some} of trial {effects.trial} is shown to earn more than {least}"
    if effects.returned is None:
        return f"{text}."
    back = [each for each in effects.went_back if not each.resolved]
    text += ": " * bool(back) + ", ".join(
        f"{each.name} (at most {words.percent(_most(each), sign=True)})" for each in back
    )
    count = len(effects.went_back)
    return f"{text}. {_those(count)} to the deployed value; in all they had earned {earned(effects.returned)}."


def _those(count: int) -> str:
    return "1 went back" if count == 1 else f"{count} went back"


def bar(effects: WinnerEffects) -> str:
    """How large an effect has to be, to be shown in this study."""
    least, from_ = words.percent(effects.min_effect), words.percent(effects.resolves)
    return (
        f"Estimated from all launches{_and_screened(effects)}, with 90 % intervals. A change is shown to earn "
        f"something if its interval excludes less than {least} (study.min_effect); with this study's launches that "
        f"takes about {from_}."
    )


def _and_screened(effects: WinnerEffects) -> str:
    if not effects.screened:
        return ""
    count = "1 setting" if effects.screened == 1 else f"{effects.screened} settings"
    return f" and {count} screened in running servers"


def _most(effect: SettingEffect) -> float:
    return max(each.high for each in effect.goals.values())
