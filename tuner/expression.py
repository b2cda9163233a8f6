"""Safe expressions for conditions and rules: names, literals, comparisons, arithmetic, ``and``/``or``/``not``.

A small closed grammar, read with ``ast`` and evaluated by walking it: nothing is ever handed to ``eval``, and an
attribute, a call (but ``min``, ``max``, ``abs``, ``len``) or a subscript is refused when the configuration is read.

An expression about a setting that is not there says nothing: any arithmetic or ordering with ``None`` makes the whole
expression say nothing (a rule then holds, a condition does not). ``x == null`` and ``x != null`` ask for absence.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from tuner.errors import ConfigError

Value = JsonValue | tuple[JsonValue, ...]

_LITERALS: Mapping[str, JsonValue] = {"true": True, "false": False, "null": None, "none": None}
_FUNCTIONS: Mapping[str, Callable[..., JsonValue]] = {"min": min, "max": max, "abs": abs, "len": len}
_BINARY: Mapping[type[ast.operator], Callable[..., JsonValue]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_EQUALITY: Mapping[type[ast.cmpop], Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}
_ORDER: Mapping[type[ast.cmpop], Callable[..., bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_PARTS: frozenset[type[ast.AST]] = frozenset(
    {
        *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Call, ast.IfExp),
        *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Compare),
        *_BINARY,
        *_EQUALITY,
        *_ORDER,
    }
)


class _Vacuous(Exception):
    """Something in the expression is not set, so that it says nothing."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; build it with ``parse``.

    Attributes:
        text: As the user wrote it.
        names: The settings it speaks of.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr = field(compare=False, repr=False)

    def holds(self, settings: Mapping[str, JsonValue], *, vacuous: bool = True) -> bool:
        """Whether it is true of these settings.

        Args:
            settings: Values by name; a name that is not there is ``None``.
            vacuous: The answer when the expression says nothing of them.

        Raises:
            ConfigError: It compares things that cannot be compared, such as a word with a number.
        """
        try:
            return bool(self._value(self._tree, settings))
        except _Vacuous:
            return vacuous
        except (TypeError, ZeroDivisionError) as error:
            raise ConfigError(f"{self.text!r} cannot be worked out: {error}", fix="compare like with like") from error

    def _value(self, node: ast.expr, settings: Mapping[str, JsonValue]) -> Value:
        match node:
            case ast.Constant():
                return node.value  # type: ignore[return-value]  # only JSON scalars pass parse()
            case ast.Name():
                return _LITERALS[node.id] if node.id in _LITERALS else settings.get(node.id)
            case ast.List() | ast.Tuple():
                return [self._value(item, settings) for item in node.elts]  # type: ignore[misc]
            case ast.BoolOp():
                return self._combine(node, settings)
            case ast.Compare():
                return self._compare(node, settings)
            case ast.IfExp():
                return self._value(node.body if self._value(node.test, settings) else node.orelse, settings)
        return self._compute(node, settings)

    def _combine(self, node: ast.BoolOp, settings: Mapping[str, JsonValue]) -> Value:
        """``and``/``or`` with Python's short circuit."""
        stop_at = isinstance(node.op, ast.Or)
        value: Value = None
        for item in node.values:
            value = self._value(item, settings)
            if bool(value) is stop_at:
                break
        return value

    def _compare(self, node: ast.Compare, settings: Mapping[str, JsonValue]) -> bool:
        left = self._value(node.left, settings)
        for operation, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._value(right_node, settings)
            if type(operation) in _EQUALITY:
                holds = _EQUALITY[type(operation)](left, right)
            else:
                holds = _ORDER[type(operation)](_given(left), _given(right))
            if not holds:
                return False
            left = right
        return True

    def _compute(self, node: ast.expr, settings: Mapping[str, JsonValue]) -> Value:
        match node:
            case ast.UnaryOp(op=ast.Not()):
                return not self._value(node.operand, settings)
            case ast.UnaryOp():
                return -_given(self._value(node.operand, settings))  # type: ignore[operator]
            case ast.BinOp():
                left, right = (_given(self._value(side, settings)) for side in (node.left, node.right))
                return _BINARY[type(node.op)](left, right)
            case ast.Call(func=ast.Name(id=name)):
                return _FUNCTIONS[name](*(_given(self._value(argument, settings)) for argument in node.args))
        raise AssertionError(f"parse() let {ast.dump(node)} through")


def _given(value: Value) -> Value:
    if value is None:
        raise _Vacuous
    return value


def parse(text: str, place: str = "") -> Expression:
    """Read an expression and refuse whatever is outside the grammar.

    Args:
        text: The expression, Python syntax, with ``true``, ``false`` and ``null`` as in YAML.
        place: The config key it stands at, for the error.

    Raises:
        ConfigError: It does not parse, or holds something outside the grammar.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ConfigError(f"{text!r} is not an expression: {error.msg}", place=place, fix=_GRAMMAR) from error
    for node in ast.walk(tree):
        _refuse_foreign(node, text, place)
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Expression(text.strip(), frozenset(names - called - set(_LITERALS)), tree.body)


_GRAMMAR = "use names of settings, numbers, quoted words, == != < <= > >= in, + - * / // %, and or not, min max abs len"


def _refuse_foreign(node: ast.AST, text: str, place: str) -> None:
    known_call = not isinstance(node, ast.Call) or (
        isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    )
    plain_constant = not isinstance(node, ast.Constant) or isinstance(node.value, bool | int | float | str | None)
    if not (type(node) in _PARTS and known_call and plain_constant):
        raise ConfigError(f"{text!r} holds {type(node).__name__}, which no rule may", place=place, fix=_GRAMMAR)
