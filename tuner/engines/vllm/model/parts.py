"""What a decoder is made of, as far as memory depends on it."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention: one latent vector a token is cached, whatever the number of heads.

    Attributes:
        q_rank: Rank of the queries' projection; ``None`` where queries are projected directly.
        kv_rank: Rank of the cached latent.
        nope: Width of a head's part without rotary embedding.
        rope: Width of the part with it, cached next to the latent.
        v: Width of a head's values.
        index: Weights of a layer's indexer, of sparse attention, on average; 0 without.
        index_bytes: What it caches of a token, on average.
    """

    q_rank: int | None
    kv_rank: int
    nope: int
    rope: int
    v: int
    index: float = 0.0
    index_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention heads of one kind of layers.

    Attributes:
        queries: Query heads.
        keys: Key and value heads.
        width: Width of a query or key.
        value_width: Width of a value.
        projections: Matrices as wide as the queries that read the hidden state: 2 with an output gate.
        values: Whether values have weights of their own, next to the keys'.
    """

    queries: int
    keys: int
    width: int
    value_width: int
    projections: int = 1
    values: bool = True


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts.

    Attributes:
        count: Routed experts in a layer.
        active: Routed experts that a token visits.
        intermediate: Width of one expert.
        shared_intermediate: Width of all shared experts of a layer together; 0 without.
        matrices: Matrices of an expert: 3 with a gate, else 2.
        latent: Width of what routed experts read and write, where it is not the hidden state's.
    """

    count: int
    active: int
    intermediate: int
    shared_intermediate: int = 0
    matrices: int = 3
    latent: int | None = None


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A layer that keeps a state of fixed size for each request instead of a cache for each token.

    Attributes:
        names: What checkpoints call its matrices, inside its layer.
        weights: These matrices.
        conv: Width of its convolution.
        kept: Tokens that the convolution looks back.
        recurrent: Numbers in its recurrent state.
        recurrent_bytes: Bytes of one of these; ``None`` for the model's own format.
        shared: How much of the convolution's width is copied, not cut, where ranks are more than its groups.
        groups: Those groups.
    """

    names: tuple[str, ...]
    weights: int
    conv: int
    kept: int
    recurrent: int
    recurrent_bytes: float | None = None
    shared: int = 0
    groups: int = 1


class Mixer(StrEnum):
    """How a layer mixes tokens."""

    FULL = "full attention"
    WINDOWED = "windowed attention"
    CHUNKED = "attention within chunks"
    STATE = "a state"
    BOTH = "full attention and a state"
    NONE = "not at all"


class Feed(StrEnum):
    """What a layer does with each token."""

    MLP = "an MLP"
    EXPERTS = "experts"
    BOTH = "an MLP and experts"
    NONE = "nothing"


ATTENDING = frozenset({Mixer.FULL, Mixer.WINDOWED, Mixer.CHUNKED, Mixer.BOTH})


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        mixer: How it mixes tokens.
        feed: What follows.
        width: Width of its MLP, where that is not the model's own.
        cached: Whether it has a KV cache of its own; some use an earlier layer's.
    """

    mixer: Mixer = Mixer.FULL
    feed: Feed = Feed.MLP
    width: int | None = None
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Encoder:
    """What turns images, or sound, into tokens.

    Attributes:
        weights: Its weights and the projector's.
        hidden: Width of its stream.
        intermediate: Width of its MLP.
        pixels: Numbers in one patch of the image.
        merged: Patches that become one token.
        tokens: The most tokens of one image; 0 where that is not known.
        frames: The most of them that a film is profiled with.
        outputs: How many states of the decoder's width it hands over for a token.
    """

    weights: int
    hidden: int
    intermediate: int
    pixels: int
    merged: int
    tokens: int = 0
    frames: int = 1
    outputs: int = 1
