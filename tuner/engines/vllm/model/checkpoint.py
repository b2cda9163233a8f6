"""What a checkpoint's tensors take, by the headers of its safetensors files: the surest word on weights.

A header is the file's first bytes: its length as a 64-bit number, then JSON with each tensor's type, shape and place
(the format's own description). Only headers are read, so that a folder of 60 GB costs milliseconds.
"""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_LAYER = re.compile(r"\blayers\.(\d+)\.")
_LONGEST_HEADER = 100_000_000


def stored_bytes(folder: Path, layers: int) -> int | None:
    """Bytes of all tensors but those of layers that the engine does not load, such as multi-token prediction.

    Args:
        folder: Where the checkpoint is.
        layers: How many hidden layers the model has; tensors of a layer numbered beyond are left out.

    Returns:
        ``None`` where there is no complete checkpoint in the folder.
    """
    paths = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            named = {folder / name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
            if not named <= set(paths):
                return None
            paths = sorted(named)
        return sum(size for path in paths for size in _sizes(path, layers)) or None
    except (OSError, ValueError, KeyError, struct.error):
        return None


def _sizes(path: Path, layers: int) -> Iterator[int]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    for name, tensor in header.items():
        layer = _LAYER.search(name)
        if name != "__metadata__" and not (layer and int(layer[1]) >= layers):
            begin, end = tensor["data_offsets"]
            yield end - begin
