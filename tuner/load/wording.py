"""A workload's concurrent stage in a sentence."""

from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.shapes import Arrivals, FromFile, Histogram, Length, Lognormal, RequestClass, Uniform
from tuner.load.workload import Workload


def sending(workload: Workload) -> str:
    """Who sends what: ``5 users at once send 20 requests of 1,000 prompt and exactly 256 output tokens``."""
    through = "" if workload.endpoint is Endpoint.CHAT else f", through {workload.endpoint.path}"
    return f"{_sending(workload)}{through}"


def _sending(workload: Workload) -> str:
    if trace := workload.trace:
        return f"the requests of {trace.file.name} are sent on schedule, {trace.speed:g} times as fast as recorded"
    kinds = " or ".join(_kind(kind, exact=workload.endpoint.is_exact) for kind in workload.kinds)
    if agents := workload.agents:
        return (
            f"{_listed(workload.rungs)} agents at once, with a system prompt of {agents.system_tokens:,} tokens, tasks "
            f"of {_length(workload.prompt_tokens)}, tool results of {_length(agents.result_tokens)} and answers of "
            f"{_length(workload.output_tokens)} tokens"
        )
    if workload.arrivals:
        return f"requests of {kinds} arrive on schedule, {_arriving(workload.arrivals)} a second"
    return f"{_listed(workload.rungs)} users at once send {workload.requests} requests of {kinds}"


def _listed(numbers: tuple[float, ...]) -> str:
    return ", then ".join(f"{number:g}" for number in numbers)


def _arriving(arrivals: Arrivals) -> str:
    until = f" to {arrivals.until_rate:g}" if arrivals.until_rate else ""
    bursts = f" (burstiness {arrivals.burstiness:g})" if arrivals.kind == "gamma" else ""
    return f"{arrivals.kind}{bursts}: {_listed(arrivals.rates)}{until}"


def _kind(kind: RequestClass, *, exact: bool) -> str:
    shared = f", {kind.prefix.tokens:,} of them shared ({kind.prefix.hit_rate:.0%} hits)" if kind.prefix else ""
    name = f"{kind.name}: " if kind.name else ""
    bound = "exactly " if exact else "at most "
    output = f"{bound if isinstance(kind.output_tokens, int) else ''}{_length(kind.output_tokens)}"
    return f"{name}{_length(kind.prompt_tokens)} prompt{shared} and {output} output tokens"


def _length(length: Length) -> str:
    match length:
        case Uniform():
            return f"{length.low:,} to {length.high:,}"
        case Lognormal():
            return f"about {length.median:,} (lognormal, at most {length.high:,})"
        case Histogram():
            return f"about {length.mean:,.0f} (observed, at most {length.bounds[-1]:,})"
        case FromFile():
            return f"{length.file.name}'s"
        case _:
            return f"{length:,}"
