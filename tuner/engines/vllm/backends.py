"""Which attention backends can run a model on a card: what vLLM finds out when it starts, known before.

Read in vLLM's ``docs/design/attention_backends.md`` and ``platforms/cuda.py`` (0.12 to 0.26). A backend that is named
and cannot run is refused at the start; older versions took another one and went on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tuner.engines.vllm.memory.demand import Demand, Release, at_least
from tuner.engines.vllm.model.architecture import Architecture
from tuner.space import Settings

FLAG, VARIABLE = "attention_backend", "VLLM_ATTENTION_BACKEND"
_NESTED = "attention_config"
_NAMED_BY_VARIABLE = ((0, 11), (0, 14))
"""Versions before the flag; older ones left V1 for a backend that they did not know."""
_BOTH_WAYS_SINCE = (0, 12)
"""From here on a prefix of images is attended to in both directions, which few backends can."""

Cards = tuple[tuple[int, int], tuple[int, int]]
"""The first and the last compute capability."""
_ANY: Cards = ((0, 0), (99, 99))
_NONE: Cards = ((99, 99), (0, 0))
_HOPPER: Cards = ((9, 0), (9, 99))
_BLACKWELL: Cards = ((10, 0), (10, 99))
_FP8: Cards = ((8, 9), (99, 99))


@dataclass(frozen=True, slots=True)
class Backend:
    """One attention backend.

    Attributes:
        latent: Whether it is for multi-head latent attention, and for nothing else.
        cards: On which it runs.
        eight_bits: On which it reads a KV cache in FP8.
        sinks: On which it takes models with attention sinks.
        block: What a block of the KV cache is a multiple of.
        widths: Widths of a head; empty for any.
        both_ways: Whether it can attend to images in both directions.
        nope: Widths of a latent head's part without rotary embedding; empty for any.
    """

    latent: bool
    cards: Cards = _ANY
    eight_bits: Cards = _NONE
    sinks: Cards = _NONE
    block: int = 16
    widths: tuple[int, ...] = ()
    both_ways: bool = False
    nope: tuple[int, ...] = ()


BACKENDS: Mapping[str, Backend] = {
    "FLASH_ATTN": Backend(latent=False, cards=((8, 0), (99, 99)), eight_bits=_HOPPER, sinks=_HOPPER),
    "FLASHINFER": Backend(
        latent=False, cards=((7, 5), (12, 1)), eight_bits=_ANY, sinks=_BLACKWELL, widths=(64, 128, 256)
    ),
    "TRITON_ATTN": Backend(latent=False, eight_bits=_FP8, sinks=_ANY, both_ways=True),
    "FLASHINFER_MLA": Backend(latent=True, cards=_BLACKWELL, eight_bits=_ANY, block=32, nope=(64, 128)),
    "CUTLASS_MLA": Backend(latent=True, cards=_BLACKWELL, eight_bits=_ANY, block=128),
    "FLASH_ATTN_MLA": Backend(latent=True, cards=_HOPPER),
    "FLASHMLA": Backend(latent=True, cards=_HOPPER, eight_bits=_ANY, block=64),
    "TRITON_MLA": Backend(latent=True, eight_bits=_FP8),
}
"""Those that are worth trying: the others are for other hardware, or for what no faster one can do."""
_FIRST = {"FLASH_ATTN": 0, "FLASHINFER": 1, "TRITON_ATTN": 2}
_FIRST_ON_BLACKWELL = {"FLASHINFER": 0, "FLASH_ATTN": 1, "TRITON_ATTN": 2}
_BOTH_WAYS = ("gemma3", "gemma4", "paligemma")


@dataclass(frozen=True, slots=True)
class Attention:
    """What a backend is asked to do; ``None`` where it is not known.

    Attributes:
        latent: Whether attention is latent.
        sparse: Whether an indexer chooses the tokens, which has backends of its own.
        state: Whether other layers keep a state, for which blocks are lengthened.
        widths: Widths of the heads.
        nope: Width of a latent head's part without rotary embedding.
        sinks: Whether there are attention sinks.
        both_ways: Whether images are attended to in both directions.
        eight_bits: Whether the KV cache is in FP8.
        block: Tokens in a block as it was asked for; ``None`` where it is left to vLLM.
        card: Compute capability.
    """

    latent: bool
    sparse: bool
    state: bool
    widths: frozenset[int]
    nope: int | None
    sinks: bool
    both_ways: bool
    eight_bits: bool
    block: int | None
    card: tuple[int, int] | None


def attention_of(model: Architecture, demand: Demand, card: tuple[int, int] | None, block: int | None) -> Attention:
    """What this model's attention is under these demands.

    Args:
        model: The model.
        demand: What the settings ask for.
        card: Compute capability.
        block: ``block_size`` as it was asked for.
    """
    latent = model.mla if demand.use_mla else None
    family = model.family or ""
    return Attention(
        latent=latent is not None,
        sparse=bool(latent and latent.index),
        state=model.state is not None,
        widths=frozenset(heads.width for heads in (model.full, model.windowed) if heads),
        nope=latent.nope if latent else None,
        sinks=family == "gpt_oss",
        both_ways=bool(model.encoder) and family.startswith(_BOTH_WAYS) and at_least(demand.version, *_BOTH_WAYS_SINCE),
        eight_bits=demand.kv_cache_dtype.startswith("fp8"),
        block=None if model.state else block,
        card=card,
    )


def obstacle(name: str, attention: Attention) -> str | None:
    """Why a backend cannot do it; ``None`` where nothing is known against it."""
    return None if name not in BACKENDS or attention.sparse else next(_obstacles(BACKENDS[name], attention), None)


def runnable(attention: Attention) -> tuple[str, ...]:
    """The backends that can do it, vLLM's own choice first; none where attention is sparse."""
    if attention.sparse:
        return ()
    first = _FIRST_ON_BLACKWELL if attention.card and attention.card[0] == _BLACKWELL[0][0] else _FIRST
    found = [name for name in BACKENDS if obstacle(name, attention) is None and _keeps_blocks(name, attention)]
    return tuple(sorted(found, key=lambda name: first.get(name, 0)))


def asked(settings: Settings) -> str | None:
    """The backend that settings name, in capitals; ``None`` where it is left to vLLM."""
    args = settings.args
    nested = args.get(_NESTED)
    inner = nested.get("backend") if isinstance(nested, dict) else None
    name = args.get(FLAG) or args.get(f"{_NESTED}.backend") or inner or settings.env.get(VARIABLE)
    return None if name is None or str(name).lower() == "auto" else str(name).upper()


def named_elsewhere(settings: Settings) -> bool:
    """Whether a deployment configures attention in the flag that excludes ``--attention-backend``."""
    return any(name.split(".")[0] == _NESTED and value is not None for name, value in settings.args.items())


def has_variable(version: Release) -> bool:
    """Whether this version has no flag yet, and reads the variable without leaving V1."""
    first, last = _NAMED_BY_VARIABLE
    return version is not None and first <= version < last


def key(name: str) -> str:
    """A backend's name as all versions spell it: ``FLASH_ATTN``, ``Flash Attention``, ``FlashAttention``.

    >>> key("Flash Attention") == key("FLASH_ATTN"), key("Triton MLA") == key("TRITON_MLA")
    (True, True)
    """
    letters = "".join(each for each in name.lower() if each.isalnum()).replace("attention", "attn")
    letters = letters.removesuffix("vllmv1")
    return {"triton": "tritonattn", "flash": "flashattn", "flex": "flexattn"}.get(letters, letters)


def running(wanted: str | None, said: Iterable[str]) -> str | None:
    """The backend that runs, of all that a log names: the one that was asked for if it is among them."""
    names = tuple(said)
    return next((wanted for name in names if wanted and key(name) == key(wanted)), next(iter(names), None))


def _keeps_blocks(name: str, attention: Attention) -> bool:
    """Blocks that a state lengthens are multiples of 16 and of nothing else; FlashInfer's kernels take three sizes."""
    return not attention.state or (BACKENDS[name].block == Backend(latent=False).block and name != "FLASHINFER")


def _obstacles(backend: Backend, attention: Attention) -> Iterator[str]:
    if backend.latent != attention.latent:
        yield "MLA not supported" if attention.latent else "it is for MLA, which this model does not use"
    if attention.card is not None:
        yield from _obstacles_of_card(backend, attention, attention.card)
    if backend.widths and not attention.latent and (odd := attention.widths - {*backend.widths}):
        yield f"head_size {min(odd)} not supported"
    if backend.nope and attention.nope is not None and attention.nope not in backend.nope:
        yield f"qk_nope_head_dim {attention.nope} not supported"
    if attention.both_ways and not backend.both_ways:
        yield "partial multimodal token full attention not supported"
    if attention.block is not None and attention.block % backend.block:
        yield f"it takes blocks of {backend.block} tokens, not of {attention.block}"


def _obstacles_of_card(backend: Backend, attention: Attention, card: tuple[int, int]) -> Iterator[str]:
    if not _within(card, backend.cards):
        yield "compute capability {}.{} not supported".format(*card)
    if attention.eight_bits and not _within(card, backend.eight_bits):
        yield "kv_cache_dtype fp8 not supported on compute capability {}.{}".format(*card)
    if attention.sinks and not _within(card, backend.sinks):
        yield "sink setting not supported on compute capability {}.{}".format(*card)


def _within(card: tuple[int, int], cards: Cards) -> bool:
    return cards[0] <= card <= cards[1]
