"""Whether an answer is right, and if not, why."""

import json
import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from tuner.quality.asking import Completion
from tuner.quality.cases import Ask, Tool

_LEAKED = re.compile(r"</?think>|</?tool_call>|<\|[a-z_]+\|>|<arg_key>|\[TOOL_CALLS\]")
"""What a parser should have taken out of an answer."""
_LOOP = re.compile(r"(.{2,80}?)\1{7,}", re.DOTALL)
"""The same eight times in a row."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def fault(ask: Ask, answer: Completion) -> str | None:
    """What is wrong with an answer, in a few words; ``None`` if it is right."""
    return next(_faults(ask, answer), None)


def _faults(ask: Ask, answer: Completion) -> Iterator[str]:
    case = ask.case
    if answer.error:
        yield answer.error
    if leaked := _LEAKED.search(answer.content):
        yield f"{leaked.group()} stands in the answer: the parsers do not fit the model, or none is set"
    if loop := _LOOP.search(answer.content):
        yield f"it repeats {loop.group(1)[:40]!r} without end"
    if case.call:
        yield from _faults_of_calls(ask, answer)
    elif not answer.content.strip():
        yield "the answer is empty"
    elif (pattern := ask.answer) and not pattern.search(answer.content):
        yield f"{answer.content.strip()[:60]!r} does not hold {pattern.pattern!r}"
    if case.ends and answer.finish_reason == "length":
        yield f"it did not end within {case.max_tokens} tokens"


def _faults_of_calls(ask: Ask, answer: Completion) -> Iterator[str]:
    call = ask.case.call
    assert call is not None
    if not answer.calls:
        yield "no tool was called"
        return
    name, text = answer.calls[0]
    if len(answer.calls) > 1:
        yield f"{len(answer.calls)} tools were called, one is right"
    if name != call.name:
        yield f"{name!r} was called instead of {call.name!r}"
        return
    try:
        arguments = json.loads(text)
    except ValueError:
        yield f"the arguments are no JSON: {text[:60]}"
        return
    tool = next(tool for tool in ask.case.tools if tool.name == name)
    yield from _against_schema(tool, arguments)
    for key, value in ask.arguments.items():
        if not _same(arguments.get(key), value):
            yield f"{key} is {arguments.get(key)!r}, not {value!r}"


def _against_schema(tool: Tool, arguments: object) -> Iterator[str]:
    """The part of JSON Schema that function calls are written in."""
    if not isinstance(arguments, dict):
        yield "the arguments are no object"
        return
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    known = properties if isinstance(properties, dict) else {}
    yield from (
        (f"{key} is missing" for key in required or () if key not in arguments) if isinstance(required, list) else ()
    )
    for key, value in arguments.items():
        schema = known.get(key)
        if not isinstance(schema, dict):
            yield f"{key} is no argument of it"
        elif not _fits(value, schema):
            yield f"{key} is {value!r}, against its schema"


def _fits(value: object, schema: Mapping[str, JsonValue]) -> bool:
    kind, choices = schema.get("type"), schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        return False
    if isinstance(value, bool) and kind != "boolean":
        return kind is None
    return not isinstance(kind, str) or kind not in _TYPES or isinstance(value, _TYPES[kind])


def _same(value: object, wanted: JsonValue) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value.strip().casefold() == wanted.strip().casefold()
    return value == wanted
