"""How well the earlier studies that a search began with agreed with what it measured."""

from collections.abc import Mapping

from tuner.records.outcome import Outcome
from tuner.study.proposals import observations, search_of
from tuner.study.warm import sources_of, told


def agreement(outcome: Outcome) -> Mapping[str, float]:
    """By source: the correlation of its effects with this study's, as far as that is known by now."""
    if not outcome.config.search.warm_from:
        return {}
    search = search_of(outcome.config, sources_of(outcome.config))
    return search.agreement(observations(outcome.teaching, outcome.config.space, outcome.all_readings))


def sentences(outcome: Outcome) -> list[str]:
    """A sentence for each source: what it is, and how well it agreed."""
    if not outcome.config.search.warm_from:
        return []
    agreed = agreement(outcome)
    return [
        told(source) + (f"; agreement {agreed[source.name]:.2f} of 1" if source.name in agreed else "")
        for source in sources_of(outcome.config)
    ]
