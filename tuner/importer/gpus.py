"""Which GPUs a deployment is given, however it says so."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuner.importer.container import Gpus

_AMD = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_CDI = re.compile(r"(?:nvidia\.com/gpu|amd\.com/gpu)=(.+)")
_DEVICE = re.compile(r"/dev/(?:kfd|dri\b|accel|davinci|vfio|nvidia)")
_NONE = ("", "none", "void", "-1", "NoDevFiles")


def visible(given: Gpus, env: Mapping[str, str | None], devices: Sequence[str] = ()) -> Gpus:
    """What the server sees of what it is given: variables leave some of it out.

    Args:
        given: By the container engine; ``None`` if nothing.
        env: The server's variables.
        devices: The host's devices that it is given by path, or by their names in CDI.
    """
    given = given if given is not None else _by_name(devices)
    paths = [path for path in (one.split(":")[0] for one in devices) if _DEVICE.match(path)]
    amd = next((env[name] for name in _AMD if env.get(name)), None)
    cuda = env.get("CUDA_VISIBLE_DEVICES")
    if amd or (given is None and paths and cuda):
        return {"hip": indices(str(amd or cuda))}
    if given is None and paths:
        return {"devices": [*paths]}
    if cuda is None or cuda.strip() in ("", "all"):  # empty: a variable that is not set where the file is read
        return given
    return _narrowed(given, cuda)


def _narrowed(given: Gpus, cuda: str) -> Gpus:
    """CUDA numbers what it is given from 0."""
    if cuda.strip() in _NONE:
        return None
    seen = indices(cuda)
    if isinstance(given, list) and all(isinstance(one, int) and one < len(given) for one in seen):
        return [given[one] for one in seen if isinstance(one, int)]
    return seen


def of_runtime(runtime: str | None, env: Mapping[str, str | None]) -> Gpus:
    """What the older NVIDIA runtime gives: what NVIDIA_VISIBLE_DEVICES says, which CUDA's images set to all."""
    if runtime != "nvidia":
        return None
    own = env.get("NVIDIA_VISIBLE_DEVICES")
    asked = "all" if own is None else own.strip()
    return None if asked in _NONE else of_ids(asked)


def of_requests(requests: Iterable[Any]) -> Gpus:
    """What ``devices`` of a reservation, or a list under ``gpus``, ask for."""
    found: Gpus = None
    for request in requests:
        kinds = request.get("capabilities") or ["gpu"]
        driver = str(request.get("driver") or "")
        if "gpu" not in str(kinds) and driver not in ("nvidia", "cdi"):
            continue
        found = _request(request)
    return found


def _request(request: Mapping[str, Any]) -> Gpus:
    ids = request.get("device_ids")
    if ids:
        names = [str(one) for one in (ids if isinstance(ids, list) else [ids])]
        return _by_name(names) if any(_CDI.fullmatch(name) for name in names) else of_ids(",".join(names))
    return of_text(str(request.get("count") or "all"))


def of_text(text: str) -> Gpus:
    """``all``, a count, ``device=0,1`` or indices, as ``docker run --gpus`` and NVIDIA_VISIBLE_DEVICES have them."""
    said = text.strip().strip("\"'")
    fields = [part.strip().strip("\"'") for part in re.split(r",(?=[a-z]+=)", said)]
    device = next((part.partition("=")[2] for part in fields if part.startswith("device=")), None)
    if device is not None:
        return of_ids(device)
    count = next((part.partition("=")[2] for part in fields if part.startswith("count=")), said)
    if count in ("all", "-1"):
        return "all"
    if count in _NONE or count == "0":
        return None
    return int(count) if count.isdigit() else of_ids(count)


def of_ids(text: str) -> Gpus:
    """Indices or UUIDs, or all of them."""
    return "all" if text.strip("\"'") == "all" else indices(text)


def indices(text: str) -> list[int | str]:
    """``0,1`` as numbers; what is no number, such as a UUID, as it is."""
    parts = [part.strip().strip("\"'") for part in text.split(",")]
    return [int(part) if part.isdigit() else part for part in parts if part]


def _by_name(devices: Sequence[str]) -> Gpus:
    """GPUs that are named in CDI: ``nvidia.com/gpu=all``."""
    named = [found[1] for found in map(_CDI.fullmatch, devices) if found]
    if not named:
        return None
    return "all" if "all" in named else indices(",".join(named))


def numbered(given: object) -> tuple[int, ...]:
    """The GPUs of a deployment that are named by their indices on this host; none where others are, or a count."""
    found = given if isinstance(given, list) else []
    return tuple(one for one in found if isinstance(one, int)) if all(isinstance(one, int) for one in found) else ()
