"""Faults that a simulated server is asked to have: ``NAME[=ARG][@SETTING=VALUE[,…]]``.

::

    oom-weights  oom-profile  oom-kv  oom-graphs  oom-sampler    the start runs out of memory there
    oom-serving=N        after N requests an allocation fails and the engine dies under load
    die-after=N          after N requests the engine dies under load; exit status 0, as real vLLM
    sse-error=N          the stream of the Nth request breaks off with an error inside HTTP 200; the engine lives
    garbled              answers are nonsense
    corrupt-tools=N      the arguments of N in 100 calls of tools break off
    drift=N              log probabilities are off by N thousandths of a nat; what is answered stays the same
    slows=N              each request that is finished makes all steps slower, by N in 10,000
    preempts=N           after N requests the newest one gives up its KV cache after every step
    hang=PHASE           the start stops in that phase, without end
    crash-at=PHASE       exit status 1 in that phase, without a word
    exit-zero[=PHASE]    the engine dies in that phase (profile), exit status 0
    segfault[=PHASE]     the engine dies of a signal in that phase (weights)
    slow-start=SECONDS   the start takes so much longer, in seconds of the wall clock
    port-in-use          somebody holds the port
    silent-change=SETTING:VALUE    it runs with that instead of what was asked
    v0-fallback          vLLM before 0.11 falls back to its V0 engine
    orphan-worker        the engine's process outlives the server and ignores SIGTERM

A condition names settings as they are in effect: ``die-after=20@max_num_seqs=128`` fails one configuration only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuner.sim.settings import Settings

NAMES = frozenset(
    (
        "oom-weights",
        "oom-profile",
        "oom-kv",
        "oom-graphs",
        "oom-sampler",
        "oom-serving",
        "hang",
        "die-after",
        "exit-zero",
        "sse-error",
        "silent-change",
        "v0-fallback",
        "port-in-use",
        "crash-at",
        "slow-start",
        "segfault",
        "orphan-worker",
        "garbled",
        "corrupt-tools",
        "drift",
        "slows",
        "preempts",
    )
)
_COUNTED = ("die-after", "sse-error", "oom-serving", "corrupt-tools", "drift", "slows", "preempts")
PHASES = ("api", "config", "engine", "weights", "compile", "profile", "kv", "graphs", "opening")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: Which; one of ``NAMES``.
        argument: What follows the equals sign; a number of requests, a phase of ``PHASES``, or seconds.
        conditions: Settings, as text, that must all hold for it to act; always where there are none.
    """

    name: str
    argument: str = ""
    conditions: tuple[tuple[str, str], ...] = ()

    def applies_to(self, settings: Settings) -> bool:
        """Whether these settings meet its conditions."""
        return all(str(getattr(settings, key, None)).lower() == value.lower() for key, value in self.conditions)

    @property
    def count(self) -> int:
        """The argument as a number, of requests usually."""
        return int(self.argument or 0)


def parse(text: str) -> Fault:
    """A fault from the command line.

    Raises:
        ValueError: No such fault, condition or argument; the message says what there is.
    """
    what, _, conditions = text.partition("@")
    name, _, argument = what.partition("=")
    if name not in NAMES:
        raise ValueError(f"no fault {name!r}; there are {', '.join(sorted(NAMES))}")
    if name in ("hang", "crash-at") and argument not in PHASES:
        raise ValueError(f"{name} needs a phase: {', '.join(PHASES)}; not {argument!r}")
    if name in _COUNTED and not argument.isdigit():
        raise ValueError(f"{name} needs a number, not {argument!r}")
    if name == "silent-change" and argument.partition(":")[0].replace("-", "_") not in Settings.__dataclass_fields__:
        raise ValueError(f"silent-change needs SETTING:VALUE, not {argument!r}")
    return Fault(name, argument, tuple(_conditions(conditions)))


def _conditions(text: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in Settings.__dataclass_fields__:
            raise ValueError(f"a condition is SETTING=VALUE, with a setting such as max_num_seqs; not {part!r}")
        yield key, value


class Faults:
    """The faults that act on these settings.

    Args:
        faults: All that were asked for.
        settings: What the engine runs with; ``None`` as long as that is not known, when conditions cannot hold.
    """

    def __init__(self, faults: Iterable[Fault], settings: Settings | None = None) -> None:
        self._faults = [
            fault for fault in faults if not fault.conditions or (settings is not None and fault.applies_to(settings))
        ]

    def get(self, name: str) -> Fault | None:
        """The fault of that name, if it acts."""
        return next((fault for fault in self._faults if fault.name == name), None)

    def at(self, phase: str) -> str | None:
        """``hang``, ``crash-at`` or another fault that strikes when a phase begins."""
        for name in ("hang", "crash-at"):
            if any(fault.name == name and fault.argument == phase for fault in self._faults):
                return name
        for name, default in (("segfault", "weights"), ("exit-zero", "profile")):
            fault = self.get(name)
            if fault is not None and (fault.argument or default) == phase:
                return name
        return None

    @property
    def out_of_memory(self) -> str | None:
        """The stage at which the start is to run out of memory."""
        stages = ("weights", "profile", "kv", "graphs", "sampler")
        return next((stage for stage in stages if self.get(f"oom-{stage}")), None)
