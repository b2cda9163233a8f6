"""What may be tried: parameters with their ranges, conditions and rules, and the candidates made of them.

A parameter is named after the setting it searches. A lower-case name is a flag of the engine (``max_num_seqs`` gives
``--max-num-seqs``), an upper-case name an environment variable; ``flag`` and ``env`` say otherwise, and a dotted flag
(``compilation_config.compile_sizes``) reaches into a flag that takes JSON.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, PrivateAttr, Tag, field_validator, model_validator

from tuner.errors import ConfigError, RuleViolated
from tuner.expression import Expression, parse
from tuner.schema import Schema, flag_name, flag_names, without_nulls

_RANGE_KEYS = frozenset({"low", "high", "scale", "step"})


class _Parameter(Schema):
    """What ranges and choices have in common."""

    flag: str | None = None
    """The engine's flag, with underscores; a dotted name reaches into its JSON. Default: the parameter's own name."""
    env: str | None = None
    """The environment variable that it sets instead of a flag."""
    when: str | None = None
    """The condition under which the parameter acts at all; elsewhere it is left out of the candidate."""
    default: JsonValue = None
    """What the engine does when the setting is not given: where the search places a candidate that leaves it out."""
    why: str | None = None
    """What it is tried for, in one line."""

    @model_validator(mode="before")
    @classmethod
    def _range_or_choices(cls, raw: Any) -> Any:
        """Null takes a key back that was inherited, so that a range can become a choice and the other way round."""
        given = without_nulls(raw)
        if isinstance(given, dict) and "choices" in given and (range_keys := sorted(_RANGE_KEYS & set(given))):
            nulls = ", ".join(f"{key}: null" for key in range_keys)
            raise ValueError(
                f"choices and {', '.join(range_keys)} exclude each other; take the others back with {nulls}"
            )
        return given

    @field_validator("flag", mode="before")
    @classmethod
    def _with_underscores(cls, raw: Any) -> Any:
        return flag_name(raw)

    @model_validator(mode="after")
    def _one_target(self) -> "_Parameter":
        if self.flag and self.env:
            raise ValueError("give flag or env, not both")
        return self


class Range(_Parameter):
    """A number between two bounds, both included."""

    low: float | int
    high: float | int
    scale: Literal["linear", "log", "pow2"] = "linear"
    """``pow2``: powers of two only. ``log``: integers or floats, searched by ratio. ``linear``: in steps."""
    step: float | int | None = None
    """Distance of neighbouring values (``linear``); 1 for integers. A float range without a step is continuous."""

    @model_validator(mode="after")
    def _sane(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but low={self.low} and high={self.high}")
        if self.scale != "linear":
            self._sane_ratio()
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be positive, but is {self.step}")
        return self

    def _sane_ratio(self) -> None:
        if self.low <= 0:
            raise ValueError(f"a {self.scale} range must start above 0, but low={self.low}")
        if self.step is not None:
            raise ValueError(f"step belongs to a linear range, not to {self.scale}")
        if self.scale == "pow2" and not all(math.log2(bound).is_integer() for bound in (self.low, self.high)):
            raise ValueError(f"low and high of a pow2 range must be powers of two, but are {self.low} and {self.high}")

    @property
    def integral(self) -> bool:
        """Whether its values are whole numbers."""
        whole = (self.low, self.high, self.step if self.step is not None else 1)
        return self.scale == "pow2" or all(isinstance(bound, int) for bound in whole)

    @property
    def levels(self) -> int | None:
        """How many values it has; ``None`` if it is continuous."""
        if self.scale == "pow2":
            return round(math.log2(self.high / self.low)) + 1
        if self._step is None:
            return None if self.scale == "linear" or not self.integral else int(self.high - self.low) + 1
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) / self._step) + 1

    @property
    def _step(self) -> Decimal | None:
        if self.step is not None:
            return Decimal(str(self.step))
        return Decimal(1) if self.scale == "linear" and self.integral else None

    def value(self, level: int) -> JsonValue:
        """The value at a level, counted from 0; decimal, so that 0.84 is 0.84."""
        if self.scale == "pow2":
            return int(self.low) << level
        if self._step is None:
            return int(self.low) + level
        number = Decimal(str(self.low)) + level * self._step
        return int(number) if self.integral else float(number)

    def level(self, value: float) -> int:
        """The level nearest to a value, inside the range."""
        if self.scale == "pow2":
            nearest = math.log2(max(value, self.low) / self.low)
        else:
            nearest = float((Decimal(str(value)) - Decimal(str(self.low))) / (self._step or 1))
        return min(max(round(nearest), 0), (self.levels or 1) - 1)

    def accepts(self, value: JsonValue) -> bool:
        """Whether a deployed value can stand in this parameter's place; it may lie outside the range."""
        return isinstance(value, int | float) and not isinstance(value, bool)


class Choice(_Parameter):
    """One of a list of values; ``null`` leaves the setting to the engine. A single choice is a fixed setting."""

    choices: tuple[JsonValue, ...]

    @field_validator("choices")
    @classmethod
    def _some(cls, choices: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
        if not choices:
            raise ValueError("choices is empty; set the parameter to null to remove it")
        if len({_canonical(choice) for choice in choices}) < len(choices):
            raise ValueError("choices holds the same value twice")
        return choices

    @property
    def levels(self) -> int:
        """How many values it has."""
        return len(self.choices)

    def value(self, level: int) -> JsonValue:
        """The value at a level, counted from 0."""
        return self.choices[level]

    def level(self, value: JsonValue) -> int:
        """The level of a value; the first if it is not among the choices."""
        keys = [_canonical(choice) for choice in self.choices]
        return keys.index(_canonical(value)) if _canonical(value) in keys else 0

    def accepts(self, value: JsonValue) -> bool:
        """Whether a deployed value is one of the choices."""
        return _canonical(value) in {_canonical(choice) for choice in self.choices}


def _kind(raw: Any) -> str:
    if isinstance(raw, dict):
        return "choice" if raw.get("choices") is not None else "range"
    return "choice" if isinstance(raw, Choice) else "range"


Parameter = Annotated[Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choice")], Discriminator(_kind)]


@dataclass(frozen=True)
class Candidate:
    """One configuration to try: the values of the parameters that act in it.

    Attributes:
        params: Values by parameter name: of those that act, ``None`` where the setting is left to the engine.
    """

    params: Mapping[str, JsonValue]

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits that name the configuration: equal for equal values, whatever their order."""
        return hashlib.sha256(_canonical(dict(self.params)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the engine is started with.

    Attributes:
        args: Flags by name with underscores, dotted names reach into a flag's JSON; ``None`` leaves a flag out.
        env: Environment variables; ``None`` leaves a variable out.
    """

    args: Mapping[str, JsonValue] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)

    def merged(self, other: "Settings") -> "Settings":
        """These settings with another's on top."""
        return Settings({**self.args, **other.args}, {**self.env, **other.env})


class SearchSpace(Schema):
    """The parameters, and the rules that every candidate must satisfy."""

    params: dict[str, Parameter]
    rules: dict[str, str] = Field(default_factory=dict)
    """Expressions that must hold, by name. They may speak of parameters and of the deployment's own flags."""
    remarks: tuple[str, ...] = ()
    """What a person should know of it: what was left out, and why."""
    _when: dict[str, Expression] = PrivateAttr(default_factory=dict)
    _rules: dict[str, Expression] = PrivateAttr(default_factory=dict)

    @field_validator("params", mode="before")
    @classmethod
    def _with_underscores(cls, raw: Any) -> Any:
        return flag_names(without_nulls(raw))

    @field_validator("rules", mode="before")
    @classmethod
    def _without_nulls(cls, raw: Any) -> Any:
        """Null removes what was inherited; a list of rules is named by the rules themselves."""
        return {str(rule): rule for rule in raw} if isinstance(raw, list) else without_nulls(raw)

    @model_validator(mode="after")
    def _conditions_name_parameters(self) -> "SearchSpace":
        for name, parameter in self.params.items():
            if parameter.when is not None:
                self._when[name] = self._condition(name, parameter.when)
        self._rules.update({name: parse(text, f"space.rules.{name}") for name, text in self.rules.items()})
        self._order  # noqa: B018  # a circle of conditions is found here, not in the middle of a study
        return self

    def _condition(self, name: str, text: str) -> Expression:
        condition = parse(text, f"space.params.{name}.when")
        unknown = condition.names - set(self.params)
        if unknown or not condition.names:
            raise ConfigError(
                f"{text!r} names {', '.join(sorted(unknown)) or 'no parameter'}",
                place=f"space.params.{name}.when",
                fix=f"name one of: {', '.join(sorted(set(self.params) - {name}))}; or leave it out too (null)",
            )
        return condition

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """The parameters, each after those that its condition names."""
        ordered: list[str] = []
        waiting = list(self.params)
        while waiting:
            ready = [name for name in waiting if name not in self._when or self._when[name].names <= set(ordered)]
            if not ready:
                place = f"space.params.{waiting[0]}.when"
                raise ConfigError(f"the conditions of {', '.join(waiting)} depend on each other", place=place)
            ordered += ready
            waiting = [name for name in waiting if name not in ready]
        return tuple(ordered)

    @property
    def size(self) -> int | None:
        """How many combinations there are, conditions not counted; ``None`` if one parameter is continuous."""
        levels = [parameter.levels for parameter in self.params.values()]
        return None if None in levels else math.prod(level for level in levels if level is not None)

    def check_rules(self, known: frozenset[str]) -> None:
        """Make sure that each rule speaks of things that exist.

        Args:
            known: The names of the deployment's own flags and variables.

        Raises:
            ConfigError: A rule names something that is neither a parameter nor one of ``known``.
        """
        valid = known | set(self.params)
        for name, rule in self._rules.items():
            if unknown := rule.names - valid:
                fix = f"name one of: {', '.join(sorted(valid))}"
                raise ConfigError(
                    f"{rule.text!r} names {', '.join(sorted(unknown))}", place=f"space.rules.{name}", fix=fix
                )

    def candidate(self, values: Mapping[str, JsonValue]) -> Candidate:
        """The candidate of these values: without the parameters whose condition does not hold."""
        params: dict[str, JsonValue] = {}
        conditions = self._when  # looked up once: a search makes thousands of candidates
        for name in self._order:
            if name in values and (name not in conditions or conditions[name].holds(params, vacuous=False)):
                params[name] = values[name]
        return Candidate({name: params[name] for name in self.params if name in params})

    def holds(self, params: Mapping[str, JsonValue]) -> bool:
        """Whether each choice among these values is still one of its parameter's; ranges take any number."""
        chosen = ((self.params.get(name), value) for name, value in params.items() if value is not None)
        return all(not isinstance(parameter, Choice) or parameter.accepts(value) for parameter, value in chosen)

    def violated(self, candidate: Candidate, deployed: Settings) -> RuleViolated | None:
        """The first rule that the candidate breaks on top of the deployed settings, or ``None``."""
        facts: dict[str, JsonValue] = {**deployed.env, **deployed.args, **candidate.params}
        for name, rule in self._rules.items():
            if not rule.holds(facts):
                values = ", ".join(f"{key}={facts.get(key)}" for key in sorted(rule.names))
                return RuleViolated(f"rule {name}: {rule.text} does not hold ({values})", cause="rule", line=rule.text)
        return None

    def settings(self, candidate: Candidate) -> Settings:
        """The flags and variables that the candidate sets."""
        args: dict[str, JsonValue] = {}
        env: dict[str, str | None] = {}
        for name, value in candidate.params.items():
            kind, target = self.target(name)
            if kind == "flag":
                args[target] = value
            else:
                env[target] = _env_text(value)
        return Settings(args, env)

    def target(self, name: str) -> tuple[Literal["flag", "env"], str]:
        """Whether a parameter is a flag or a variable, and its name there."""
        parameter = self.params[name]
        if parameter.env or (parameter.flag is None and name.isupper()):
            return "env", parameter.env or name
        return "flag", parameter.flag or name

    def deployed(self, deployed: Settings) -> Candidate:
        """The candidate that the deployment runs today; what it does not set is ``None``.

        Raises:
            ConfigError: It runs a value that the parameter cannot take.
        """
        return self.candidate(self.set_by(deployed))

    def set_by(self, deployed: Settings) -> dict[str, JsonValue]:
        """What the deployment sets of each parameter, whether it acts there or not; ``None`` where it sets nothing.

        Raises:
            ConfigError: It runs a value that the parameter cannot take.
        """
        values: dict[str, JsonValue] = {}
        for name, parameter in self.params.items():
            kind, target = self.target(name)
            value = _lookup(deployed.args, target) if kind == "flag" else deployed.env.get(target)
            values[name] = None if value is None else self._accepted(name, parameter, value)
        return values

    def _accepted(self, name: str, parameter: Range | Choice, value: JsonValue) -> JsonValue:
        if isinstance(value, str) and not parameter.accepts(value):
            value = next((read for read in _readings(value) if parameter.accepts(read)), value)
        if not parameter.accepts(value):
            valid = f"choices {list(parameter.choices)}" if isinstance(parameter, Choice) else "a number"
            fix = f"add it to the choices, or set space.params.{name} to null to leave it as deployed"
            raise ConfigError(
                f"the deployment runs {value!r}, which is not {valid}", place=f"space.params.{name}", fix=fix
            )
        return value

    def changes(self, params: Mapping[str, JsonValue], deployed: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """What a candidate sets otherwise than the deployment (``set_by``), by parameter.

        The engine's own default, and nothing at all, are the same.
        """
        return {n: v for n, v in params.items() if self._meant(n, v) != self._meant(n, deployed.get(n))}

    def changed(self, params: Mapping[str, JsonValue], deployed: Mapping[str, JsonValue]) -> str:
        """The same, ready to print; empty if nothing."""
        return ", ".join(f"{name}={_spoken(value)}" for name, value in self.changes(params, deployed).items())

    def plain(self, candidate: Candidate, deployed: Mapping[str, JsonValue]) -> Candidate:
        """The candidate without settings that say what the engine does anyway, where the deployment says nothing.

        What conditions and rules speak of stays as it is.
        """
        kept = {*self.changes(candidate.params, deployed), *self._spoken_of}
        return Candidate({n: v if n in kept else deployed.get(n, v) for n, v in candidate.params.items()})

    @property
    def _spoken_of(self) -> frozenset[str]:
        return frozenset().union(*(each.names for each in (*self._when.values(), *self._rules.values())))

    def _meant(self, name: str, value: JsonValue) -> JsonValue:
        return self.params[name].default if value is None and name in self.params else value

    def all_candidates(self) -> Iterator[Candidate]:
        """Every candidate once, in the order of the parameters; only for a space without continuous parameters."""
        levels = [range(parameter.levels or 0) for parameter in self.params.values()]
        seen: set[str] = set()
        for combination in itertools.product(*levels):
            pairs = zip(self.params.items(), combination, strict=True)
            candidate = self.candidate({name: parameter.value(level) for (name, parameter), level in pairs})
            if candidate.digest not in seen:
                seen.add(candidate.digest)
                yield candidate


def _canonical(value: JsonValue) -> str:
    if value is None or isinstance(value, str | int | float):
        return _canonical_scalar(type(value).__name__, value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=4096)
def _canonical_scalar(kind: str, value: str | float | None) -> str:
    """``kind`` keeps 1, 1.0 and true apart; a search asks for each thousands of times."""
    return json.dumps(value)


def _spoken(value: JsonValue) -> str:
    return "unset" if value is None else value if isinstance(value, str) else _canonical(value)


def _env_text(value: JsonValue) -> str | None:
    """How an environment variable spells a value: switches as 1 and 0, which is what vLLM and Inductor read."""
    if isinstance(value, bool):
        return str(int(value))
    return value if isinstance(value, str | None) else json.dumps(value)


def _readings(text: str) -> Iterator[JsonValue]:
    """What a variable's text may mean: ``1`` is a number and a switch."""
    try:
        number = json.loads(text)
    except ValueError:
        return
    yield number
    if number in (0, 1):
        yield bool(number)


def _lookup(args: Mapping[str, JsonValue], target: str) -> JsonValue:
    """The deployed value of a flag, inside its JSON where the name is dotted."""
    if target in args:
        return args[target]
    flag, _, path = target.partition(".")
    value: JsonValue = args.get(flag)
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, dict) else None
    return value if path else None
