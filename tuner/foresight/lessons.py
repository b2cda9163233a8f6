"""What a launch that failed by its configuration teaches: what need not be tried any more, and what to try instead.

GPU memory is monotone: more sequences, more batched tokens or a longer context never need less of it. Which side of
the share of the GPU (or the size of the KV cache, where that is set and decides alone) a failure closes depends on its
cause: where the share asked for is not free, more of it is hopeless; where the KV cache is too small, less of it is. A
configuration is closed only if it is at least as demanding as the failed one in all of these together, and equal in
every other setting that memory may depend on. What these settings are called, the engine says (``MemorySettings``).

Nothing is learned from a start with a cold compile cache: it peaks higher, and the same configuration may fit once
compiled (``again`` asks for that). Nor where others held the memory: that is ``GpuBusy``, and ``busy`` tells.

What the engine refuses, it refuses at every launch: closed is what the candidate changed of the deployment, as far as
the refusal can depend on it.

Two wrong cases are accepted: block sizes count as equal for memory, so that a context may be closed that fits by less
than a block; and a Mamba cache counted in a cold start, which has fewer blocks, closes a few sequences too many.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import JsonValue

from tuner.engines.base import StartupFacts
from tuner.engines.causes import Cause
from tuner.engines.foresight import MemorySettings
from tuner.errors import GpuBusy
from tuner.space import Candidate, Choice, Range, SearchSpace, Settings

_HELD_GIB = 0.3
"""Memory less free than at earlier starts from which on others must hold it."""
_ROUNDING_GIB = 0.005
_GIB = 1 << 30
_PROCESS = re.compile(r"this process has (?P<gib>[\d.]+) GiB memory in use")


class Relation(StrEnum):
    """How a setting must stand to a bound."""

    AT_LEAST = "≥"
    AT_MOST = "≤"
    ABOVE = ">"
    SAME = "="
    NO_MULTIPLE = "no multiple of"


@dataclass(frozen=True, slots=True)
class RegionSide:
    """One side of a region.

    Attributes:
        setting: The flag or variable.
        relation: How it stands to ``value``.
        value: The bound.
    """

    setting: str
    relation: Relation
    value: JsonValue

    def holds(self, value: JsonValue) -> bool:
        """Whether a value lies on this side; one that is left to the engine lies nowhere but where it is the bound."""
        if self.relation is Relation.SAME:
            return value == self.value
        if not (_is_number(value) and _is_number(self.value)):
            return False
        number, bound = float(str(value)), float(str(self.value))
        holds = {
            Relation.AT_LEAST: number >= bound,
            Relation.AT_MOST: number <= bound,
            Relation.ABOVE: number > bound,
            Relation.NO_MULTIPLE: number % bound != 0,
        }
        return holds[self.relation]

    def __str__(self) -> str:
        value = f"{self.value:.3g}" if isinstance(self.value, float) else self.value
        return f"{self.setting} {self.relation} {'unset' if self.value is None else value}"


@dataclass(frozen=True, slots=True)
class Region:
    """Configurations that are known to fail: all bounds hold together.

    Attributes:
        bounds: Its sides.
    """

    bounds: tuple[RegionSide, ...]

    def contains(self, settings: Settings) -> bool:
        """Whether a whole configuration lies in it."""
        values: Mapping[str, JsonValue] = {**settings.env, **settings.args}
        return all(bound.holds(values.get(bound.setting)) for bound in self.bounds)

    def __str__(self) -> str:
        return " and ".join(map(str, self.bounds))


@dataclass(frozen=True, slots=True)
class Failed:
    """A launch that failed.

    Attributes:
        candidate: What was tried.
        cause: Why it failed.
        numbers: The figures of the deciding line.
        line: That line.
        facts: What the log had said by then.
    """

    candidate: Candidate
    cause: Cause
    numbers: Mapping[str, float]
    line: str | None = None
    facts: StartupFacts = field(default_factory=StartupFacts)

    @property
    def warm(self) -> bool:
        """Whether nothing was compiled on the way."""
        return self.facts.compile_cache_hit is True or self.facts.eager is True

    @property
    def late(self) -> bool:
        """Whether it ran out next to its KV cache: a warm start, whose cache is larger, leaves even less room."""
        allocated = self.facts.kv_cache_gib is not None or self.facts.kv_tokens is not None
        return self.cause is Cause.CUDA_OOM and allocated

    @property
    def before_compiling(self) -> bool:
        """Whether it failed so early that the compile cache plays no part."""
        return self.cause is Cause.INSUFFICIENT_FREE_MEMORY or self.facts.weights_gib is None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one failure teaches.

    Attributes:
        region: What need not be tried any more; ``None`` if nothing can be said.
        repairs: What to try instead, best first; the first that nothing else rules out is worth a launch.
        again: Whether the same configuration is worth a second launch, now that it is compiled.
        sentence: For a person.
        free_gib: What was free when it failed; ``None`` where the failure does not tell.
        refused: Whether the engine refused it, so that memory plays no part.
    """

    region: Region | None
    repairs: tuple[Candidate, ...]
    again: bool
    sentence: str
    free_gib: float | None = None
    refused: bool = False

    def closes(self, settings: Settings, usual_free_gib: float | None) -> bool:
        """Whether a configuration need not be tried; not because of a failure that had less memory than others have.

        Args:
            settings: The whole configuration.
            usual_free_gib: The most that was free at any start, later ones included.
        """
        held = self.free_gib is not None and usual_free_gib is not None and self.free_gib < usual_free_gib - _HELD_GIB
        return self.region is not None and not held and self.region.contains(settings)


def busy(failed: Failed, earlier: Sequence[StartupFacts]) -> GpuBusy | None:
    """The error that a failure really is, if others held the memory; ``None`` if they did not, or nobody can know.

    Args:
        failed: The failure.
        earlier: What earlier starts on these GPUs said.
    """
    if (initial := failed.numbers.get("initial_free_gib")) is not None:
        return _busy(failed, f"others gave memory of the GPU back while it started with {initial:.2f} GiB free")
    usual, free = usual_free_gib(earlier), _free_at_start(failed)
    if usual is None or free is None or free >= usual - _HELD_GIB:
        return None
    held = f"others hold {usual - free:.2f} GiB of the GPU: {free:.2f} GiB were free, {usual:.2f} at earlier starts"
    return _busy(failed, held)


def _busy(failed: Failed, message: str) -> GpuBusy:
    fix = "end what else runs on the GPU"
    return GpuBusy(message, cause=failed.cause.value, line=failed.line, numbers=failed.numbers, fix=fix)


def usual_free_gib(starts: Iterable[StartupFacts]) -> float | None:
    """The most that was free at any of these starts."""
    return max((facts.free_gib for facts in starts if facts.free_gib), default=None)


def _free_at_start(failed: Failed) -> float | None:
    """What was free for this server: as it says itself, or what it holds and what was left when it ran out."""
    if failed.cause is Cause.INSUFFICIENT_FREE_MEMORY:
        return failed.numbers.get("free_gib")
    held, left = _PROCESS.search(failed.line or ""), failed.numbers.get("free_mib")
    return float(held["gib"]) + left / 1024 if held and left is not None else failed.facts.free_gib


def lesson(
    failed: Failed,
    space: SearchSpace,
    deployed: Settings,
    names: MemorySettings,
    earlier: Sequence[StartupFacts] = (),
) -> Lesson | None:
    """What a failure teaches; ``None`` if it was no fault of the configuration.

    Args:
        failed: The failure; one that ``busy`` explains teaches nothing and is not to be shown here.
        space: What may be tried.
        deployed: The deployment's settings, which hold where no parameter says otherwise.
        names: The settings that memory depends on, by the engine's names; of one that names none, only refusals teach.
        earlier: What earlier starts said of the GPUs.
    """
    teacher = _Teacher(failed, space, deployed, names, earlier)
    unread = failed.cause is Cause.CUDA_OOM and failed.facts == StartupFacts()
    if failed.cause in _REFUSALS:
        return _refusal(teacher)
    if failed.cause not in _BOUNDS or unread or not names.ordered:
        return None
    counted = "mamba_blocks" in failed.numbers
    if not (failed.warm or failed.before_compiling or counted):
        cold = failed.facts.compile_cache_hit is False
        return Lesson(None, (), cold and not failed.late, _COLD if cold else _UNTOLD)
    region = Region(tuple(_BOUNDS[failed.cause](teacher)))
    repairs = tuple(teacher.repairs(region))
    sentence = f"{failed.cause}: nothing with {region} is tried any more"
    return Lesson(region, repairs, False, sentence, _free_at_start(failed))


def _refusal(teacher: "_Teacher") -> Lesson | None:
    """What a refusal teaches; ``None`` where the candidate changes nothing that the deployment has not."""
    bounds = tuple(teacher.refused())
    if not bounds:
        return None
    region = Region(bounds)
    sentence = f"{teacher.failed.cause}: nothing with {region} is tried any more"
    return Lesson(region, tuple(teacher.repairs(region)), False, sentence, refused=True)


_COLD = "it ran out of memory with a cold compile cache, which peaks higher: that says nothing of a warm start"
_UNTOLD = "it ran out of memory, and its log does not tell whether it was compiled before: nothing follows from that"


class _Teacher:
    """One failure among the values that its parameters can take."""

    def __init__(
        self,
        failed: Failed,
        space: SearchSpace,
        deployed: Settings,
        names: MemorySettings,
        earlier: Sequence[StartupFacts],
    ) -> None:
        self.failed = failed
        self.names = names
        self.space = space
        settings = deployed.merged(space.settings(failed.candidate))
        self.values: Mapping[str, JsonValue] = {**settings.env, **settings.args}
        self.deployed: Mapping[str, JsonValue] = {**deployed.env, **deployed.args}
        self.parameters = {space.target(name)[1]: name for name in space.params}
        self.earlier = earlier
        self.share = names.cache_bytes if _is_number(self._value(names.cache_bytes)) else names.share

    def _value(self, name: str | None) -> JsonValue:
        return self.values.get(name) if name else None

    def free(self) -> Iterator[RegionSide]:
        """The share asked for is not free: whatever else is asked, no more than that share can be."""
        free, total = (self.failed.numbers.get(name) for name in ("free_gib", "total_gib"))
        if self.names.share is None:
            yield from self._bounds(Relation.SAME, *self.parameters)
        elif free and total:
            yield RegionSide(self.names.share, Relation.ABOVE, (free + _ROUNDING_GIB) / (total - _ROUNDING_GIB))
        else:
            yield from self._bounds(Relation.AT_LEAST, self.names.share)

    def cache(self) -> Iterator[RegionSide]:
        """The KV cache is too small: a smaller share, or more next to it, makes it smaller still."""
        names = self.names
        yield from self._bounds(Relation.AT_MOST, self.share)
        if names.sequences and (blocks := self.failed.numbers.get("mamba_blocks")) is not None:
            given = _is_number(self._value(names.sequences))
            yield RegionSide(names.sequences, *((Relation.ABOVE, int(blocks)) if given else (Relation.SAME, None)))
            yield from self._equal()
            return
        yield from self._bounds(Relation.AT_LEAST, names.sequences, names.tokens)
        if names.length and self.longest is not None:
            yield RegionSide(names.length, Relation.ABOVE, int(self.longest))
        else:
            yield from self._bounds(Relation.AT_LEAST, names.length)
        yield from self._equal()

    @property
    def longest(self) -> float | None:
        """The longest context that would have fitted: the engine's estimate, or else what the cache holds."""
        numbers = self.failed.numbers
        return numbers.get("estimated_max_model_len", numbers.get("kv_tokens"))

    def out_of_memory(self) -> Iterator[RegionSide]:
        """Which bounds follow depends on how far the start had come."""
        if self.failed.facts.weights_gib is None:
            yield from self._equal()
        elif not self.failed.late:
            yield from self._bounds(Relation.AT_LEAST, self.names.sequences, self.names.tokens, self.names.length)
            yield from self._equal()
        else:
            yield from self._beside_the_cache()

    def _beside_the_cache(self) -> Iterator[RegionSide]:
        """What comes after the KV cache found no room next to it.

        A larger share makes the cache larger. Batched tokens must be equal: they take from the cache what the profiling
        run foresees, which is room for what comes after it.
        """
        yield from self._bounds(Relation.AT_LEAST, self.share, self.names.sequences, self.names.length)
        yield from self._bounds(Relation.SAME, self.names.tokens)
        yield from self._equal()

    def _bounds(self, relation: Relation, *names: str | None) -> Iterator[RegionSide]:
        for name in filter(None, names):
            value = self.values.get(name)
            yield RegionSide(name, relation if _is_number(value) else Relation.SAME, value)

    def _equal(self) -> Iterator[RegionSide]:
        """Whatever else the search may change and memory may depend on; without graphs it can only be less."""
        for target in self.parameters:
            eager = target == self.names.eager and self.values.get(target) is True
            if target not in (*self.names.ordered, self.share, *self.names.unrelated) and not eager:
                yield RegionSide(target, Relation.SAME, self.values.get(target))

    def refused(self) -> Iterator[RegionSide]:
        """What was refused: the block size by what the attention backends take, anything else as it stands."""
        if (block := self.names.block) and (base := self._block_multiple()) is not None:
            yield RegionSide(block, Relation.NO_MULTIPLE, base)
            yield from self._equal()
            return
        changed = [target for target in self.parameters if self.values.get(target) != self.deployed.get(target)]
        named = [target for target in changed if _names(self.failed.line or "", target)]
        choices = [target for target in changed if target not in (*self.names.ordered, *self.names.unrelated)]
        for target in dict.fromkeys([*named, *choices]) if named else changed:
            yield RegionSide(target, Relation.SAME, self.values.get(target))

    def _block_multiple(self) -> int | None:
        """What a block size must be a multiple of, after one was refused that is none.

        Where the engine names no number, it is the next power of two that does not divide the refused size: kernels
        take multiples of 16, 32 or 64 tokens, so that 24 fails where 8 does.
        """
        numbers, size = self.failed.numbers, self._value(self.names.block)
        if not isinstance(size, int) or not {"block_size", "wanted_multiple"} & numbers.keys():
            return None
        told = (numbers.get(name) for name in ("block_multiple", "wanted_multiple"))
        named = next((int(number) for number in told if number and size % number), None)
        return named or 2 * (size & -size)

    def repairs(self, region: Region) -> Iterator[Candidate]:
        """Candidates with one parameter changed so that they lie outside of the region."""
        for target, value in self._changes():
            name = self.parameters[target]
            repaired = self.space.candidate({**self.failed.candidate.params, name: value})
            changed = Settings({**self.values, target: value})
            if value != self.values.get(target) and not region.contains(changed):
                yield repaired

    def _changes(self) -> Iterator[tuple[str, JsonValue]]:
        cause, late, names = self.failed.cause, self.failed.late, self.names
        if cause in _REFUSALS:
            yield from self._other_blocks()
        elif cause is Cause.INSUFFICIENT_FREE_MEMORY:
            yield from self._at_most(names.share, self._share("free_gib"))
        elif (blocks := self.failed.numbers.get("mamba_blocks")) is not None:
            yield from self._at_most(names.sequences, blocks)
        elif cause in (Cause.NO_KV_CACHE, Cause.CONTEXT_EXCEEDS_KV_CACHE):
            yield from self._at_most(names.length, self.longest)
            yield from self._more_cache()
            yield from (*self._lower(names.tokens), *self._lower(names.sequences))
        elif late:
            yield from self._suggested()
            yield from self._less_cache()
            yield from self._lower(names.sequences)
        elif self.failed.facts.weights_gib is not None:
            yield from (*self._lower(names.tokens), *self._lower(names.sequences))

    def _other_blocks(self) -> Iterator[tuple[str, JsonValue]]:
        """The smallest block size that is a multiple of what it must be."""
        block = self.names.block
        if block in self.parameters and (base := self._block_multiple()) is not None:
            yield from ((block, value) for value in self._numbers(block) if value % base == 0)

    def _total(self) -> float | None:
        known = [facts.total_gib for facts in self.earlier if facts.total_gib]
        return self.failed.numbers.get("total_gib") or self.failed.facts.total_gib or (known[-1] if known else None)

    def _share(self, name: str) -> float | None:
        gib, total = self.failed.numbers.get(name), self._total()
        return gib / total if gib is not None and total else None

    def _more_cache(self) -> Iterator[tuple[str, JsonValue]]:
        """As much more of the GPU as the cache lacks, as far as so much was ever free."""
        needed, there = (self.failed.numbers.get(name, 0.0) for name in ("needed_kv_gib", "available_kv_gib"))
        present, total = self._value(self.share), self._total()
        if self._has_fixed_cache:
            yield from self._at_least(self.share, float(str(present)) + (needed - there) * _GIB)
            return
        if total is None or not _is_number(present):
            return
        wanted = float(str(present)) + (needed - there + 2 * _ROUNDING_GIB) / total
        most = max((facts.free_gib for facts in self.earlier if facts.free_gib), default=total) / total
        yield from ((name, value) for name, value in self._at_least(self.share, wanted) if float(str(value)) <= most)

    def _less_cache(self) -> Iterator[tuple[str, JsonValue]]:
        """So much less of the GPU that the failed allocation has room; a step at least."""
        tried, left = (self.failed.numbers.get(name) for name in ("tried_mib", "free_mib"))
        present, total = self._value(self.share), self._total()
        if not _is_number(present):
            return
        lacking = (tried - left) / 1024 if tried is not None and left is not None else 0.0
        unit = 1 / _GIB if self._has_fixed_cache else total
        below = math.nextafter(float(str(present)) - (max(lacking, 0.0) / unit if unit else 0.0), 0.0)
        yield from self._at_most(self.share, below)

    def _suggested(self) -> Iterator[tuple[str, JsonValue]]:
        """The size of the cache that an earlier start said would fit."""
        said = [facts.suggested_kv_bytes for facts in self.earlier if facts.suggested_kv_bytes]
        yield from self._at_most(self.names.cache_bytes, min(said, default=None))

    @property
    def _has_fixed_cache(self) -> bool:
        return self.share is not None and self.share == self.names.cache_bytes

    def _lower(self, target: str | None) -> Iterator[tuple[str, JsonValue]]:
        value = self._value(target)
        yield from self._at_most(target, math.nextafter(float(str(value)), 0.0) if _is_number(value) else None)

    def _at_most(self, target: str | None, bound: float | None) -> Iterator[tuple[str, JsonValue]]:
        """The largest value of the parameter that does not pass the bound."""
        if bound is not None and target in self.parameters:
            values = [value for value in self._numbers(target) if value <= bound]
            yield from ((target, value) for value in values[-1:])

    def _at_least(self, target: str | None, bound: float) -> Iterator[tuple[str, JsonValue]]:
        """The smallest value of the parameter that reaches the bound."""
        if target in self.parameters:
            values = [value for value in self._numbers(target) if value >= bound]
            yield from ((target, value) for value in values[:1])

    def _numbers(self, target: str) -> list[float | int]:
        parameter = self.space.params[self.parameters[target]]
        return sorted(value for value in _values(parameter) if isinstance(value, float | int))


def _values(parameter: Range | Choice) -> Iterator[JsonValue]:
    """The values of a parameter; of a continuous one those of two digits."""
    if parameter.levels is not None:
        yield from (parameter.value(level) for level in range(parameter.levels))
    elif isinstance(parameter, Range):
        steps = range(math.ceil(parameter.low * 100), math.floor(parameter.high * 100) + 1)
        yield from (step / 100 for step in steps)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(line: str, setting: str) -> bool:
    """Whether a line names a setting, as an attribute, a flag or in words."""
    words = re.escape(setting).replace("_", "[-_ ]")
    return re.search(rf"(?i)(?<![a-z]){words}(?![a-z])", line) is not None


_REFUSALS = (Cause.BAD_FLAG, Cause.UNSUPPORTED)
"""Causes by which the engine refuses a configuration, whatever memory it has."""

_BOUNDS = {
    Cause.INSUFFICIENT_FREE_MEMORY: _Teacher.free,
    Cause.NO_KV_CACHE: _Teacher.cache,
    Cause.CONTEXT_EXCEEDS_KV_CACHE: _Teacher.cache,
    Cause.CUDA_OOM: _Teacher.out_of_memory,
}
"""Which causes close a region, and which."""
