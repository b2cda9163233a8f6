"""The header of a GGUF file: the model's dimensions, and how many bytes each layer's tensors take.

Only the header is read, of each part where a model has several (``…-00001-of-00003.gguf``).
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import BinaryIO

from tuner.reading import opened

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MOST = 1 << 24
"""A header that claims more than so many entries, or such a long text, is none."""
_BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)},
    **{23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17)},
}
"""Numbers in a block and the bytes that it takes, by the type's number in ggml."""
_LAYER = re.compile(r"blk\.(\d+)\.")
_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")

Value = int | float | str | tuple[int | float, ...] | None


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A model, as far as memory depends on it.

    Attributes:
        architecture: As llama.cpp names it.
        layers: Bytes of each layer's weights.
        input_bytes: Bytes of the token embeddings, which stay on the host.
        output_bytes: Bytes of the output layer and the final norm.
        context: The longest that it was trained for.
        width: Length of a hidden state.
        heads: Attention heads.
        keys: Cached numbers of keys for each token, layer by layer.
        values: Likewise of values.
        feed_forward: Width of the feed-forward network that a token sees.
        vocabulary: Tokens that it knows.
        unusual: Why its cache is not of the usual kind; empty where it is.
        mixture: Whether a token visits some experts only.
    """

    architecture: str
    layers: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    context: int
    width: int
    heads: int
    keys: tuple[int, ...]
    values: tuple[int, ...]
    feed_forward: int
    vocabulary: int
    unusual: str = ""
    mixture: bool = False

    @property
    def total_bytes(self) -> int:
        """Of all its weights."""
        return sum(self.layers) + self.input_bytes + self.output_bytes


def find(model: str) -> GgufModel | None:
    """The model in a file of this host; ``None`` where it is no such file, or not to be understood."""
    path = Path(model).expanduser()
    if not path.is_file():
        return None
    stat = path.stat()
    return _known(path, stat.st_size, stat.st_mtime_ns)


@cache
def _known(path: Path, size: int, changed_ns: int) -> GgufModel | None:
    try:
        return _model(path)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _model(path: Path) -> GgufModel:
    facts: dict[str, Value] = {}
    sizes: dict[str, int] = {}
    for part in _parts(path):
        with opened(part) as file:
            header = _Header(file)
            facts = {**dict(header.facts()), **facts}
            sizes |= header.tensors()
    return _of(facts, sizes)


def _parts(path: Path) -> Iterator[Path]:
    found = _PART.search(path.name)
    count = int(found[1]) if found else 1
    for number in range(1, count + 1):
        yield path.with_name(path.name.replace("-00001-of-", f"-{number:05d}-of-")) if found else path


class _Header:
    """Reads one file from its beginning.

    Raises:
        ValueError: It is no GGUF file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        magic, version, self._tensors, self._facts = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF" or version < 2 or max(self._tensors, self._facts) > _MOST:
            raise ValueError("no GGUF file that is known here")

    def facts(self) -> Iterator[tuple[str, Value]]:
        for _ in range(self._facts):
            name = self._text()
            yield name, self._value(self._number("I"))

    def tensors(self) -> Mapping[str, int]:
        """Bytes by tensor; what follows the facts."""
        return dict(self._tensor() for _ in range(self._tensors))

    def _tensor(self) -> tuple[str, int]:
        name = self._text()
        shape = [self._number("Q") for _ in range(self._number("I"))]
        numbers, size = _BLOCKS[self._number("I")]
        self._number("Q")
        return name, prod(shape) // numbers * size

    def _number(self, kind: str) -> int:
        form = f"<{kind}"
        (value,) = struct.unpack(form, self._file.read(struct.calcsize(form)))
        return value  # type: ignore[no-any-return]

    def _text(self) -> str:
        length = self._number("Q")
        if length > _MOST:
            raise ValueError("no text is so long")
        return self._file.read(length).decode("utf-8", "replace")

    def _value(self, kind: int) -> Value:
        if kind == _TEXT:
            return self._text()
        return self._array() if kind == _ARRAY else self._number(_SCALARS[kind])

    def _array(self) -> Value:
        """Numbers; of texts, such as the tokens, only how many there are."""
        kind, length = self._number("I"), self._number("Q")
        if length > _MOST:
            raise ValueError("no list is so long")
        if kind == _TEXT:
            for _ in range(length):
                self._text()
            return length
        return struct.unpack(f"<{length}{_SCALARS[kind]}", self._file.read(length * struct.calcsize(_SCALARS[kind])))


def _of(facts: Mapping[str, Value], sizes: Mapping[str, int]) -> GgufModel:
    architecture = str(facts["general.architecture"])
    own = {name.removeprefix(f"{architecture}."): value for name, value in facts.items()}
    count, width = _whole(own["block_count"]), _whole(own["embedding_length"])
    heads = max(_each(own["attention.head_count"], count))
    key_length, value_length = (
        _whole(own.get(f"attention.{kind}_length")) or width // heads for kind in ("key", "value")
    )
    kv_heads = _each(own.get("attention.head_count_kv"), count) or (heads,) * count
    return GgufModel(
        architecture=architecture,
        layers=tuple(_layers(sizes, count)),
        input_bytes=sizes.get("token_embd.weight", 0),
        output_bytes=_output_bytes(sizes),
        context=_whole(own["context_length"]),
        width=width,
        heads=heads,
        keys=tuple(each * key_length for each in kv_heads),
        values=tuple(each * value_length for each in kv_heads),
        feed_forward=_feed_forward(own),
        vocabulary=_whole(own.get("vocab_size") or facts.get("tokenizer.ggml.tokens")),
        unusual=next((why for name, why in _UNUSUAL.items() if own.get(name)), ""),
        mixture=bool(own.get("expert_used_count")),
    )


_UNUSUAL = {
    "attention.sliding_window": "a sliding window",
    "ssm.state_size": "a recurrent state",
    "attention.kv_lora_rank": "latent attention",
}


def _whole(value: Value) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _each(value: Value, layers: int) -> tuple[int, ...]:
    """A number of each layer, where the file may have one for all."""
    return tuple(map(int, value)) if isinstance(value, tuple) else (_whole(value),) * layers if value else ()


def _feed_forward(own: Mapping[str, Value]) -> int:
    """Of a mixture, that of the experts that one token uses."""
    dense = max(_each(own.get("feed_forward_length"), 1), default=0)
    used, expert = _whole(own.get("expert_used_count")), _whole(own.get("expert_feed_forward_length"))
    return used * (expert or dense) if used else dense


def _layers(sizes: Mapping[str, int], count: int) -> list[int]:
    layers = [0] * count
    for name, size in sizes.items():
        if found := _LAYER.match(name):
            layers[int(found[1])] += size
    return layers


def _output_bytes(sizes: Mapping[str, int]) -> int:
    """The output layer, which may be the token embeddings once more, with what belongs to no layer."""
    rest = sum(size for name, size in sizes.items() if name != "token_embd.weight" and not _LAYER.match(name))
    return rest if "output.weight" in sizes else rest + sizes.get("token_embd.weight", 0)
