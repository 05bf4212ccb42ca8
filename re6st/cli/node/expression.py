"""The expression of --test, which can calculate and nothing more (wire.md 11.2).

The older software evaluated it as Python, with the options as variables. Here it is parsed with Python's grammar, and
only constants, names of options, comparisons, `in`, `not`, `and` and `or` are evaluated; everything else is refused.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

LENGTH_LIMIT = 1000

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


class ExpressionError(ValueError):
    """An expression that is invalid, or uses something that we do not evaluate."""


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression over some names. Raises ExpressionError."""
    if len(text) > LENGTH_LIMIT:
        raise ExpressionError(f"longer than {LENGTH_LIMIT} characters")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, names)
    except SyntaxError as error:
        raise ExpressionError(f"{text!r}: {error.msg}") from None
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text!r}: {error}") from None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name) if name in names:
            return names[name]
        case ast.List(items) | ast.Tuple(items):
            return [_value(item, names) for item in items]
        case ast.UnaryOp(ast.Not(), operand):
            return not _value(operand, names)
        case ast.BoolOp(connective, operands):
            result: Any = None
            for operand in operands:
                result = _value(operand, names)
                if bool(result) is isinstance(connective, ast.Or):
                    break
            return result
        case ast.Compare(left, operators, others):
            value = _value(left, names)
            for op, other in zip(operators, others, strict=True):
                following = _value(other, names)
                if not _COMPARISONS[type(op)](value, following):
                    return False
                value = following
            return True
        case ast.Name(name):
            raise ExpressionError(f"there is no option {name!r}")
    raise ExpressionError(f"{ast.unparse(node)[:100]!r} is not supported: use names of options, ==, in, and, or, not")
