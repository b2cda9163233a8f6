"""In what a running service is not what its profile was measured with."""

from collections.abc import Iterator, Sequence

import httpx
from pydantic import JsonValue

from tuner.engines.registry import ENGINES
from tuner.export.inplace.deploying import gpus_of
from tuner.export.inplace.splice import leaves
from tuner.export.inplace.winner import winner_of
from tuner.export.profile import Profile
from tuner.fetch import fetch
from tuner.host import nvidia
from tuner.host.hub import commit_of
from tuner.host.nvidia import POWER_CAP
from tuner.rollout.service import LiveService
from tuner.schema import Schema
from tuner.secrets import redacted

_WITHIN_S = 10.0
_NEAR_W = 1.0
"""The driver rounds."""


class Deviation(Schema):
    """One thing that is not as it was."""

    what: str
    """``image``, ``engine version``, ``driver``, ``GPU``, ``power limit``, ``model``, ``model revision``, ``workload``,
    a flag or a variable."""
    proven: JsonValue
    now: JsonValue
    """Null for a flag or variable that is not set, and for what does not tell."""

    def __str__(self) -> str:
        return f"{self.what}: {_shown(self.proven)} in the proof, {_shown(self.now)} now"


def _shown(value: JsonValue) -> str:
    return "nothing" if value is None else str(value)


def changes(profile: Profile, service: LiveService) -> Iterator[Deviation]:
    """Everything that changed; no secret's value is in any."""
    container = service.container
    yield from image(profile, container.image_id, container.image_attrs.get("RepoDigests") or [])
    yield from version(profile, _version_now(service))
    yield from machine(profile, service.deployment.understood.gpus)
    yield from power(profile, service.deployment.understood.gpus)
    yield from _model(profile, service)
    yield from settings(profile, service)


def settings(profile: Profile, service: LiveService) -> Iterator[Deviation]:
    """Flags and variables that changed."""
    yield from _flags(profile, service)
    yield from _variables(profile, service)


def image(profile: Profile, now: str, digests: Sequence[str]) -> Iterator[Deviation]:
    """Another image.

    Args:
        profile: The proof.
        now: The id of the image that serves.
        digests: Its names in registries.
    """
    then = profile.image
    if then and then.id != now and (then.digest is None or then.digest not in digests):
        yield Deviation(what="image", proven=then.digest or then.id, now=next(iter(digests), now))


def version(profile: Profile, now: str | None) -> Iterator[Deviation]:
    """Another version of the engine; none where it does not tell."""
    then = profile.engine.version
    if then and now and _release(now) != _release(then):
        yield Deviation(what="engine version", proven=then, now=now)


def _version_now(service: LiveService) -> str | None:
    try:
        now = fetch(f"{service.url}/version", {}, within_s=_WITHIN_S).json().get("version")
    except (httpx.HTTPError, ValueError, AttributeError):
        return None
    return str(now) if now else None


def _release(version: str) -> str:
    """Without the build's own suffix, ``+cpu``: some of an engine's words leave it out."""
    return version.partition("+")[0]


def machine(profile: Profile, given: JsonValue) -> Iterator[Deviation]:
    """Other GPUs, or another driver.

    Args:
        profile: The proof.
        given: The GPUs that the server is given, as a deployment says it.
    """
    then, here = profile.machine, nvidia.descriptions()
    if then is None:
        return
    if then.indices and _are_indices(given) and given != [*then.indices]:
        yield Deviation(what="GPU", proven=[*then.indices], now=given)
    now = [here[index] for index in then.indices if index < len(here)]
    for what, part in (("GPU", 0), ("driver", 2)):
        old, new = _parts(then.gpus, part), _parts(now, part)
        if old and old != new:
            yield Deviation(what=what, proven=", ".join(old), now=", ".join(new) or None)


def power(profile: Profile, given: JsonValue) -> Iterator[Deviation]:
    """Another power limit than the cap of the proof; none where it had no cap, or the driver does not tell.

    Args:
        profile: The proof.
        given: The GPUs that the server is given, as a deployment says it.
    """
    cap = profile.env.get(POWER_CAP)
    limits = nvidia.power_limits(gpus_of(profile, given)) if cap else ()
    if cap and any(abs(limit.now_w - float(cap)) > _NEAR_W for limit in limits):
        now = ", ".join(f"GPU {limit.index} at {limit.now_w:g} W" for limit in limits)
        yield Deviation(what="power limit", proven=f"{float(cap):g} W", now=now)


def _are_indices(given: JsonValue) -> bool:
    return isinstance(given, list) and all(isinstance(one, int) for one in given)


def _parts(described: tuple[str, ...] | list[str], part: int) -> list[str]:
    """Names or drivers, each once, of ``NAME, MEMORY, DRIVER``."""
    return list(dict.fromkeys(each.split(", ")[part] for each in described if each.count(", ") == 2))


def _model(profile: Profile, service: LiveService) -> Iterator[Deviation]:
    now = service.served
    if now.model != profile.model:
        yield Deviation(what="model", proven=profile.model, now=redacted(now.model))
    elif service.hub:
        given = now.args.get("revision")
        commit = commit_of(now.model, str(given) if given else None, {"HF_HUB_CACHE": str(service.hub)})
        yield from revision(profile, commit)


def revision(profile: Profile, now: str | None) -> Iterator[Deviation]:
    """Another commit of the model; none where the cache does not tell."""
    if profile.revision and now and now != profile.revision:
        yield Deviation(what="model revision", proven=profile.revision, now=now)


def _flags(profile: Profile, service: LiveService) -> Iterator[Deviation]:
    meaning = ENGINES[profile.engine.kind].conventions.settings
    then, now = leaves(meaning(winner_of(profile).flags)), leaves(service.served.args)
    for path in dict.fromkeys((*then, *now)):
        if then.get(path) != now.get(path):
            name = ".".join((path[0].replace("_", "-"), *path[1:]))
            yield Deviation(what=f"--{name}", proven=then.get(path), now=_safe(now.get(path)))


def _variables(profile: Profile, service: LiveService) -> Iterator[Deviation]:
    """Those of the profile, and those that the engine reads; what else a container needs is no part of a proof.

    What a script sets in front of the engine counts, and not what it had been in the container until then.
    """
    conventions = ENGINES[profile.engine.kind].conventions
    then, now = profile.env, {**service.container.env, **service.served.env}
    own = [name for name in service.served.env if name.startswith(conventions.variables)]
    for name in dict.fromkeys((*then, *own)):
        if then.get(name) != now.get(name) and not name.startswith(conventions.launchers_own):
            yield Deviation(what=name, proven=then.get(name), now=_safe(now.get(name)))


def _safe(value: JsonValue) -> JsonValue:
    return redacted(value) if isinstance(value, str) else value
