"""Conversations of agents, as far as they can be made before the clock starts: all but the answers."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from tuner.load import lengths
from tuner.load.prompts import TokenCalibration
from tuner.load.shapes import Agents, Length
from tuner.load.stage import Request, Segment
from tuner.load.workload import Workload

_CALL_TOKENS = 40
"""About what the call of a tool adds to the context, with its name, arguments and roles, in addition to its result."""


def conversations(
    workload: Workload,
    agents: Agents,
    least: int,
    *,
    seed: str,
    shape: str,
    calibration: TokenCalibration,
    clock_scale: float,
    held_out: bool,
) -> tuple[Request, ...]:
    """Whole conversations, one for each agent and ``least`` requests in all at least.

    Other arguments are as ``mixed`` and ``plan`` have them.
    """
    count = max(workload.users, ceil(least / lengths.typical(agents.turns)))
    system = Segment(f"{seed}/system", _words(agents.scaled(agents.system_tokens), calibration))
    turns = lengths.draw(agents.turns, count, f"{shape}/turns", held_out=held_out)

    def drawn(length: Length, name: str) -> Iterator[int]:
        return map(agents.scaled, lengths.draw(length, sum(turns), f"{shape}/{name}", held_out=held_out))

    outputs, results = drawn(workload.output_tokens, "output"), drawn(agents.result_tokens, "result")
    tasks, thinking = drawn(workload.prompt_tokens, "task"), drawn(agents.think_ms, "think")
    made: list[Request] = []
    for number, most in enumerate(turns):
        context = agents.scaled(agents.system_tokens)
        for turn in range(most):
            said, output = next(results if turn else tasks), max(2, next(outputs))
            context += said + (_CALL_TOKENS if turn else 0)
            if turn and context + output > agents.scaled(agents.context_tokens):
                break
            opening = Request(f"{seed}/{number}/{turn}", _words(said, calibration), context, output, system=system)
            think_ms = next(thinking) / clock_scale
            made.append(replace(opening, follows=True, think_ms=think_ms) if turn else opening)
            context += output
    return tuple(made)


def _words(tokens: int, calibration: TokenCalibration) -> int:
    return max(1, round(tokens / calibration.tokens_per_word))
