"""Which changes of a winner are proven, by launches whose noise is known."""

from math import log1p

import pytest

from tuner.engines.base import NO_HINTS
from tuner.proof.estimate import Noise
from tuner.search.base import Observation
from tuner.search.effects import Effects
from tuner.space import Choice, SearchSpace
from tuner.study.parts import Parts

NAMES = "large", "small", "idle"
SPACE = SearchSpace(params={name: Choice(choices=(0, 1), default=0) for name in NAMES})
WHOLE = (1, 1, 1)


def parts(readings, noise=0.04):
    """Of a winner with three changes; readings by configuration."""
    seen = [Observation(configured(values), (read,)) for values, read in readings.items()]
    effects = Effects(SPACE, "maximize", seen, Noise(noise, 8.0), NO_HINTS)
    return Parts(NAMES, lambda kept: configured([name in kept for name in NAMES]), {"goal": effects}, log1p(0.01))


def configured(values):
    return SPACE.candidate({name: int(value) for name, value in zip(NAMES, values, strict=True)})


def read(small, *, large=0.4):
    """What every configuration reads, without noise."""
    every = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return {(a, b, c): 100 * (1 + large * a) * (1 + small * b) for a, b, c in every}


@pytest.mark.parametrize(("small", "kept"), [(0.0, ["large"]), (0.02, ["large"]), (0.09, ["large", "small"])])
def test_what_is_not_resolved_stays_if_more_than_a_tenth_of_the_gain_is_expected_of_it(small, kept):
    found = parts(read(small), noise=0.1)
    assert [name for name in NAMES if found.resolved(name)] == ["large"]
    assert found.kept(lambda kept: True) == kept
