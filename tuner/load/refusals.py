"""Whether requests failed by chance or would fail the same every time."""

from collections.abc import Sequence

from tuner.errors import MeasurementError, RequestsRefused, TrialError
from tuner.load.records import FailureKind, RequestFailure, describe

_PASSING = (408, 409, 425, 429)
"""Statuses by which a server asks to try again later."""
_UNABLE = (501, 505)
"""Statuses of 500 and more by which a server says that it has no such function."""
_KEY = "the server wants a key: name the variable that holds it in launcher.token_env, or start it without one"
_FIXES = {
    401: _KEY,
    403: _KEY,
    404: "ask for a model that the server has: model.served_name",
    413: "make the prompts of the workload shorter",
}
_FIX = "change the workload, or the deployment, as the answer says"


def unusable(message: str, failures: Sequence[RequestFailure], allowed: float = 0) -> TrialError:
    """The error of a measurement in which too much failed.

    Args:
        message: What failed.
        failures: All of it.
        allowed: How much may fail. More refusals than that, or than there are other failures, are the configuration's
            fault: a server that is asked again would answer the same.
    """
    refused = [failure for failure in failures if is_refusal(_status(failure) or 0)]
    own = [failure for failure in failures if failure.kind is not FailureKind.ABANDONED]
    if not refused or (2 * len(refused) < len(own) and len(refused) <= allowed):
        return MeasurementError(f"{message}: {describe(failures) or 'none was sent'}")
    others = [failure for failure in failures if failure not in refused]
    text = f"{message}: {describe([*refused, *others])}"
    return RequestsRefused(text, cause=RequestsRefused.CAUSE, fix=fix_of(_status(refused[0]) or 0))


def is_refusal(status: int) -> bool:
    """Whether an HTTP status says that the same request will be refused again."""
    return (400 <= status < 500 and status not in _PASSING) or status in _UNABLE


def fix_of(status: int) -> str:
    """What to do about a refusal."""
    return _FIXES.get(status, _FIX)


def _status(failure: RequestFailure) -> int | None:
    """The HTTP status that a failure's text begins with."""
    first = failure.text.partition(" ")[0]
    return int(first) if failure.kind is FailureKind.HTTP and first.isdecimal() else None
