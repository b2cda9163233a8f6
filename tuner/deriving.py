"""What a configuration leaves to this machine and to the engine: ``hardware=auto`` and ``space=auto``."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.config import Config
from tuner.engines.foresight import Question
from tuner.engines.hardware import found_hardware, stated_hardware
from tuner.expression import parse
from tuner.premises import foresight_of, make_engine
from tuner.schema import flag_names
from tuner.space import SearchSpace

AUTO = "auto"
"""The key of a section that is filled in."""
_RANGE = frozenset({"low", "high", "scale", "step"})


def machine(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``hardware`` as the driver says it, below what the user says."""
    own = {key: value for key, value in asked.items() if key != AUTO}
    found = found_hardware(own.get("gpus") or ()).model_dump(mode="json")
    return {**found, **own, "gpu": {**found["gpu"], **(own.get("gpu") or {})}}


def question_of(config: Config) -> Question:
    """What an engine is asked about a study: of its hardware what is configured, which need not be this host's."""
    hardware, checked = stated_hardware(config.hardware), bool(config.study.confirm.max and config.quality.asks())
    settings, engine = config.model.settings, config.engine
    return Question(settings, hardware, engine.version, config.workload, checked, engine.kernels)


def filled(raw: Mapping[str, Any], bare: Config, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole configuration with the space that the engine proposes, and what trial 0 needs.

    Args:
        raw: The configuration as it was composed.
        bare: The same, with an empty space.
        say: Told what is done otherwise than asked.
    """
    if not bare.launcher.starts_servers:
        return {**raw, "space": {"params": {}}}
    question = question_of(bare)
    foresight = foresight_of(bare, make_engine(bare), question.hardware, may_ask=True)
    proposal = foresight.proposed(question)
    args = {**proposal.args, **(raw["model"].get("args") or {})}
    known = frozenset(args) | frozenset(raw["model"].get("env") or {})
    space, workload = narrowed(proposal.space, raw["space"], known), raw["workload"]
    refused = () if bare.model.args else foresight.refused_requests(bare.workload, question.deployed, question.version)
    if any(refusal.place == "workload.tool_call" for refusal in refused):
        say("no tool call is measured: model.args names no parser for it")
        workload = {**workload, "tool_call": False}
    return {**raw, "model": {**raw["model"], "args": args}, "space": space, "workload": workload}


def narrowed(proposed: SearchSpace, asked: Mapping[str, Any], deployed: frozenset[str]) -> dict[str, Any]:
    """The section ``space``: the proposal, below what the user says of each parameter; null takes one out.

    Args:
        proposed: What the engine proposes.
        asked: The section as the user has it.
        deployed: The deployment's own flags and variables, of which rules may speak.
    """
    raw = proposed.model_dump(mode="json", exclude_defaults=True)
    asked_params = flag_names(asked.get("params") or {})
    every = {**raw["params"], **asked_params}
    params = {name: _merged(raw["params"].get(name), asked_params.get(name, {})) for name in every}
    kept = {name: each for name, each in params.items() if each is not None}
    acting = {name: each for name, each in kept.items() if name in asked_params or _holds(each.get("when"), {*kept})}
    rules = {name: rule for name, rule in proposed.rules.items() if _holds(rule, {*acting} | deployed)}
    own = {key: value for key, value in asked.items() if key not in (AUTO, "params", "rules")}
    return {**raw, **own, "params": acting, "rules": {**rules, **(asked.get("rules") or {})}}


def _merged(proposed: Mapping[str, Any] | None, asked: Any) -> Any:
    """A range may become a choice, and the other way round; what is no mapping is for the schema to refuse."""
    if proposed is None or not isinstance(asked, Mapping):
        return asked
    gone = _RANGE if asked.get("choices") is not None else {"choices"} if _RANGE & set(asked) else frozenset()
    return {**{key: value for key, value in proposed.items() if key not in gone}, **asked}


def _holds(text: str | None, names: set[str]) -> bool:
    """Whether an expression speaks only of what is there."""
    return text is None or parse(text, "space").names <= names
