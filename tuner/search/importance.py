"""Which parameters explain the differences."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from tuner.objective import Direction
from tuner.search.base import NOTHING, Observation
from tuner.search.view import View, sampler
from tuner.space import SearchSpace

_FEWEST_MEASURED = 4
"""Importances of fewer are noise."""


@dataclass(frozen=True, slots=True)
class Importances:
    """Which share of a goal's differences each parameter explains; each column adds up to 1.

    Attributes:
        ped_anova: What it takes to be among the best (arXiv 2304.10255).
        fanova: What it does anywhere in the space (Hutter et al., ICML 2014); ``None`` without scikit-learn.
    """

    ped_anova: Mapping[str, float]
    fanova: Mapping[str, float] | None


def importances(space: SearchSpace, direction: Direction, seen: Sequence[Observation], seed: int) -> Importances | None:
    """The importance of each parameter to one goal.

    Args:
        space: The parameters.
        direction: The goal's.
        seen: Measured candidates with that goal's value alone; one that was not measured does not count.
        seed: Of fANOVA's forest.

    Returns:
        ``None`` with fewer than four measurements, or nothing to tell apart.
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    measured = [observation for observation in seen if observation.values]
    view = View(space, (direction,), NOTHING)
    if len(measured) < _FEWEST_MEASURED or len(view.distributions) < 2 or len({o.values for o in measured}) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's notes on small studies are not for our users
        study = view.study(measured, sampler("random", seed))
        # the best tenth is too few of a small study: five at least, as Optuna's documentation asks
        best = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, 5 / len(measured))))
        forest = None  # without scikit-learn, not even made
        if has_forests():
            forest = FanovaImportanceEvaluator(n_trees=min(64, max(16, 12_800 // len(measured))), seed=seed)
        return Importances(
            ped_anova=get_param_importances(study, evaluator=best),
            fanova=get_param_importances(study, evaluator=forest) if forest else None,
        )


def has_forests() -> bool:
    """Whether scikit-learn, which fANOVA's forests come from, is installed."""
    return find_spec("sklearn") is not None
