"""Which searches there are."""

from collections.abc import Collection, Sequence
from importlib.util import find_spec

from tuner.engines.base import NO_HINTS, Hints
from tuner.errors import ConfigError
from tuner.objective import Direction
from tuner.search.additive import AdditiveSearch
from tuner.search.base import Search, SearchConfig
from tuner.search.grid import GridSearch
from tuner.search.model import ModelSearch
from tuner.search.source import Source
from tuner.search.surrogate import Roofline
from tuner.space import SearchSpace, Settings


def make_search(
    config: SearchConfig,
    space: SearchSpace,
    directions: Sequence[Direction],
    deployed: Settings,
    seed: int,
    hints: Hints = NO_HINTS,
    shares: Collection[str] = (),
    sources: Sequence[Source] = (),
    roofline: Roofline | None = None,
) -> Search:
    """The search that the configuration names.

    Raises:
        ConfigError: It needs something that is not installed, or a space without continuous parameters; or it cannot
            begin with earlier studies.
    """
    kind = config.kind
    if kind == "auto" and len(directions) == 1:
        return AdditiveSearch(space, directions[0], deployed, seed, hints, shares, sources, roofline)
    if sources:
        said = "only search=auto with one goal begins with earlier studies"
        raise ConfigError(said, place="search.warm_from", fix="leave search.warm_from out")
    if kind == "auto":
        kind = "gp" if _gp_is_installed() else "tpe"
    if kind == "gp" and not _gp_is_installed():
        raise ConfigError("gp needs torch", place="search.kind", fix="pip install -e '.[gp]', or search=tpe")
    if kind == "grid":
        return GridSearch(space, deployed)
    return ModelSearch(kind, space, tuple(directions), deployed, seed, config.startup_trials)


def _gp_is_installed() -> bool:
    return all(find_spec(name) for name in ("torch", "scipy", "greenlet"))
