"""The base of everything that is read from or written to disk: strict, frozen, and helpful when it refuses."""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from tuner.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Schema(BaseModel):
    """A pydantic model that refuses unknown keys by naming the valid ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            valid = {field.alias or name for name, field in cls.model_fields.items()}
            if unknown := [str(key) for key in raw if key not in valid]:
                raise ValueError("; ".join(_unknown(key, valid) for key in unknown))
        return raw


_MOST_SHOWN = 200

Upgrade = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Turns what one version of tuner wrote into what the next one would have written."""


class Stored(Schema):
    """A model that later versions of tuner read back from disk.

    A field that is added to it, or to anything that it holds, has a default: it then needs no new version. Any other
    change is a new ``schema_version``, and one more of ``upgrades``.
    """

    upgrades: ClassVar[tuple[Upgrade, ...]] = ()
    """From version 1 to 2, from 2 to 3, and so on up to this one."""

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, raw: Any) -> Any:
        current = len(cls.upgrades) + 1
        written = raw.get("schema_version", current) if isinstance(raw, Mapping) else current
        if not isinstance(written, int) or not 1 <= written <= current:
            raise ValueError(
                f"schema_version {written!r} is of another version of tuner; this one reads 1 to {current}"
            )
        for upgrade in cls.upgrades[written - 1 :]:
            raw = _upgraded(raw, upgrade, written)
        return raw


def _upgraded(raw: Mapping[str, Any], upgrade: Upgrade, written: int) -> Mapping[str, Any]:
    """What an earlier version wrote is taken on trust, so that a part of it may be missing anywhere."""
    try:
        return upgrade(raw)
    except (LookupError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"it is not whole, as version {written} of its form would be: {said}") from error


def _unknown(key: str, valid: set[str]) -> str:
    near = get_close_matches(key, valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no such key {_cut(repr(key))}{hint} (valid: {', '.join(sorted(valid))})"


def without_nulls(raw: Any) -> Any:
    """A mapping in which null removes what was inherited; null in place of all of it leaves nothing."""
    if raw is None:
        return {}
    return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, Mapping) else raw


def flag_names(raw: Any) -> Any:
    """A mapping by flag with each name as tuner writes it, ``max_num_seqs``, where it stood as ``--max-num-seqs``.

    Of a dotted name, only what is in front of the first dot is a flag; what is behind it is a key of its JSON.

    Raises:
        ValueError: One flag is given under two spellings.
    """
    if not isinstance(raw, Mapping):
        return raw
    named: dict[Any, Any] = {}
    for key, value in raw.items():
        name = flag_name(key)
        if name in named:
            raise ValueError(f"{name} is given twice, as {key} and in another spelling; write it once")
        named[name] = value
    return named


def flag_name(raw: Any) -> Any:
    """One flag's name with underscores; an environment variable's, and what is no text, as it is."""
    if not isinstance(raw, str) or raw.isupper():
        return raw
    flag, dot, path = raw.removeprefix("--").partition(".")
    return flag.replace("-", "_") + dot + path


def env_texts(raw: Any) -> Any:
    """YAML reads ``1`` as a number; an environment variable is text."""
    if not isinstance(raw, Mapping):
        return raw
    return {
        key: str(int(value)) if isinstance(value, bool) else str(value)
        for key, value in raw.items()
        if value is not None
    }


def _keys_wanted(mistake: "ErrorDetails", place: str) -> str:
    """What to write where a single value stands in the place of a mapping; empty for any other mistake."""
    name = mistake.get("ctx", {}).get("class_name") if mistake["type"] == "model_type" else None
    keys = next((list(cls.model_fields) for cls in _schemas(Schema) if cls.__name__ == name), None)
    return f"has keys of its own ({', '.join(keys)}), such as {place}.{keys[0]}=…" if keys else ""


def _schemas(of: type[Schema]) -> Iterator[type[Schema]]:
    for cls in of.__subclasses__():
        yield cls
        yield from _schemas(cls)


def of_kind(classes: Callable[[], Mapping[str, type[Schema]]], default: str | None = None) -> BeforeValidator:
    """Reads a section as the class that its ``kind`` stands for.

    Args:
        classes: The classes by kind; asked each time, so that a registry may grow.
        default: The kind of a section that names none.
    """

    def configured(raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        kind, known = raw.get("kind", default), classes()
        if kind not in tuple(known):  # it may be anything, also what has no hash
            expected = " or ".join(map(repr, known))
            mistake = InitErrorDetails(type="literal_error", loc=("kind",), input=kind, ctx={"expected": expected})
            raise ValidationError.from_exception_data("kind", [mistake])
        return known[kind].model_validate(raw)

    return BeforeValidator(configured)


def config_error(error: ValidationError, tags: frozenset[str] = frozenset()) -> ConfigError:
    """All the mistakes that pydantic found, each with its place, the value given and what is valid.

    Args:
        error: What pydantic raised.
        tags: Words that pydantic puts into the place for the branches of a union, and that the user never wrote.
    """
    lines = []
    for mistake in error.errors(include_url=False):
        place = ".".join(_cut(str(part)) for part in mistake["loc"] if part not in tags)
        reason = _keys_wanted(mistake, place) or mistake["msg"].removeprefix("Value error, ")
        given = mistake["input"]
        shown = "" if isinstance(given, Mapping) or mistake["type"] == "missing" else f", but is {_cut(repr(given))}"
        shown += _meant(mistake["ctx"]["expected"], given) if mistake["type"] in ("enum", "literal_error") else ""
        if mistake["type"] == "string_type" and isinstance(given, int | float):
            shown += f"; put quotes around it (on the command line {place}=\\'{_cut(str(given))}\\')"
        lines.append(f"{place}: {reason}{shown}" if place else f"{reason}{shown}")
    lines = list(dict.fromkeys(lines))  # the branches of a union may all say the same
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"{len(lines)} mistakes:\n" + "\n".join(f"  {line}" for line in lines))


def _cut(shown: str) -> str:
    """What was given may be a file's whole content."""
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}… ({len(shown):,} characters)"


def _meant(expected: str, given: object) -> str:
    """The valid word that is nearest, of a list that pydantic wrote for people."""
    near = get_close_matches(str(given)[:_MOST_SHOWN], re.findall(r"'([^']+)'", expected), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
