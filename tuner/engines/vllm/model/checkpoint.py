"""What a checkpoint's tensors take, by its own index and the headers of its safetensors files: the surest word.

A header is the file's first bytes: its length as a 64-bit number, then JSON with each tensor's type, shape and place
(the format's own description). Only headers are read, so that a folder of 60 GB costs milliseconds. Where the files
are not here, the index alone says what all of them take.
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.reading import opened

_LAYER = re.compile(r"\blayers\.(\d+)\.")
_AHEAD = re.compile(r"^(?:model\.)?mtp(?:_\w+)?\.")
"""Layers that predict further tokens, which are loaded only where they are asked for."""
_INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000


def stored_bytes(folder: Path, layers: int) -> int | None:
    """Bytes of all tensors but those of layers that the engine does not load, such as multi-token prediction.

    Args:
        folder: Where the checkpoint is.
        layers: How many hidden layers the model has; tensors of a layer numbered beyond are left out.

    Returns:
        ``None`` where nothing in the folder says.
    """
    paths, index = sorted(folder.glob("*.safetensors")), folder / _INDEX
    try:
        if index.is_file():
            listed = json.loads(index.read_text("utf-8"))
            named = {folder / name for name in listed["weight_map"].values()}
            if not named <= set(paths):
                return _indexed_bytes(listed, layers)
            paths = sorted(named)
        return sum(size for path in paths for size in _sizes(path, layers)) or None
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _indexed_bytes(listed: Mapping[str, Any], layers: int) -> int | None:
    """The index's total, unless it counts tensors that are not loaded: it does not say what each takes."""
    if not all(_loaded(name, layers) for name in listed["weight_map"]):
        return None
    return int(listed["metadata"]["total_size"])


def _sizes(path: Path, layers: int) -> Iterator[int]:
    with opened(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    for name, tensor in header.items():
        if name != "__metadata__" and _loaded(name, layers):
            begin, end = tensor["data_offsets"]
            yield end - begin


def _loaded(name: str, layers: int) -> bool:
    layer = _LAYER.search(name)
    return not _AHEAD.match(name) and not (layer and int(layer[1]) >= layers)
