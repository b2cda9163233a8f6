"""How far off the next prediction may be, by the errors of earlier ones."""

from collections.abc import Sequence

_RECENT = 8


def margin(errors: Sequence[float], prior: float, floor: float) -> float:
    """The largest error measured, times ``1 + 2/n`` for ``n`` errors: the largest of a few says little of the next.

    Before any error it is a prior, which fades as ``1/(1 + n)``, so that one lucky prediction is not believed too much.
    The first errors are those of an uncorrected formula: once four are known, they are left out.
    """
    late = errors[-_RECENT:] if len(errors) > _RECENT else errors[1:] if len(errors) > 3 else errors
    if not late:
        return prior
    return max(floor, prior / (1 + len(errors)), max(abs(error) for error in late) * (1 + 2 / len(late)))
