"""What may be tried of llama.cpp's server for one model on one machine, each setting with its reason."""

import os
from collections.abc import Iterator

from tuner.engines.foresight import KnownFlags, Question, SpaceProposal
from tuner.space import Choice, Range, SearchSpace

_RULE = "batch_size >= ubatch_size"
_ALL_LAYERS = 99


def proposal_of(question: Question, flags: KnownFlags | None) -> SpaceProposal:
    """Settings that this build has and that act on this machine; answers stay the same with each of them."""
    params: dict[str, Range | Choice] = {}
    remarks = ["cache_type_k, cache_type_v are left out: a quantized cache changes answers (space=llamacpp has them)"]
    for name, parameter in _levers(question, flags):
        if flags is not None and f"--{name.replace('_', '-')}" not in flags.flags:
            remarks.append(f"{name} is left out: this build has no --{name.replace('_', '-')}")
        else:
            params[name] = parameter
    rules = {"batch_covers_ubatch": _RULE} if {"batch_size", "ubatch_size"} <= params.keys() else {}
    return SpaceProposal(SearchSpace(params=params, rules=rules, remarks=tuple(remarks)))


def _levers(question: Question, flags: KnownFlags | None) -> Iterator[tuple[str, Range | Choice]]:
    slots = tuple(1 << power for power in range(max(question.workload.users, 8).bit_length() + 1))
    yield "parallel", _choice(slots, 1, "slots: as many requests are answered at once, and share the context")
    why = "tokens in a batch of prompts"
    yield "batch_size", Range(low=256, high=8192, scale="pow2", default=2048, why=why)
    why = "tokens that are computed at once: more take a larger buffer"
    yield "ubatch_size", Range(low=64, high=4096, scale="pow2", default=512, why=why)
    switch = flags is None or flags.choices.get("--flash-attn") == ()
    attention = Choice(choices=(False, True) if switch else ("on", "off"), why="attention without its whole matrix")
    yield "flash_attn", attention
    if question.hardware.gpus:
        yield "n_gpu_layers", Choice(choices=(0, _ALL_LAYERS), why="layers on the GPU: all, or none")
    else:
        cores = os.cpu_count() or 1
        threads = tuple(1 << power for power in range(cores.bit_length()))
        yield "threads", _choice((-1, *threads), -1, f"threads of a step; this machine has {cores} cores")
        yield "threads_batch", _choice((-1, *threads), -1, "threads while prompts are read")
    if question.hardware.gpus > 1:
        modes = ("layer", "row", "none")
        yield "split_mode", Choice(choices=modes, default="layer", why="how layers are dealt out among the GPUs")


def _choice(values: tuple[int, ...], default: int, why: str) -> Choice:
    return Choice(choices=values, default=default, why=why)
