"""Recognises the simple forms among a bundle's expressions; nothing is evaluated by Python."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from typing import Any

# MONAI: `@` stands for another item's value, `%` for its text; `::` (once `#`) enters it.
REFERENCE = re.compile(r"[@%](\w+(?:(?:::|#)\w+)*)")
_LONGEST = 500
_MOST_ITEMS = 1000
_LARGEST_NUMBER = 1e9
_SHAPING: dict[str, Callable[[Any], Any]] = {
    **{kind.__name__: kind for kind in (float, int, len, list)},
    "tuple": list,
}
"""Calls that are recognised, with one argument, and what they give here."""
_NAMES = ("Norm", "Act", "CommonKeys", "GridSampleMode", "BlendMode", "Method")
"""Classes of MONAI whose members stand for their names in lower case: `Norm.BATCH`."""


def read_expression(text: str, look_up: Callable[[str], Any]) -> Any:
    """The value of an expression of one of a few forms, as plain data.

    Literals (`$[1, 2]`), references (`$@x`, `$@x[0]`), `len`, `list`, `tuple`, `int` and
    `float` of them, names of MONAI's (`$Norm.BATCH`, `$CommonKeys.IMAGE`), a choice (`$@a if @b
    else @c`), sums, differences and products of numbers, and a list times a number. Its text is parsed; no part of it is run.

    Raises:
        ValueError: it has another form.
    """
    if len(text) > _LONGEST:
        raise ValueError("a long expression")
    names: list[str] = []

    def replaced(reference: re.Match[str]) -> str:
        names.append(reference[1])
        return f" _item{len(names) - 1} "

    try:
        tree = ast.parse(REFERENCE.sub(replaced, text).strip(), mode="eval")
        return _value(tree.body, lambda name: look_up(names[int(name.removeprefix("_item"))]))
    except (
        SyntaxError,
        RecursionError,
        MemoryError,
        TypeError,
        LookupError,
        ArithmeticError,
    ) as error:
        raise ValueError("an expression of another form") from error


# -------------------------------------------------------------------- internals
def _value(node: ast.expr, look_up: Callable[[str], Any]) -> Any:
    match node:
        case ast.Constant(value) if value is None or isinstance(value, (bool, int, float, str)):
            return value
        case ast.List(parts) | ast.Tuple(parts):
            return [_value(part, look_up) for part in parts]
        case ast.Name(name) if re.fullmatch(r"_item\d+", name):
            return look_up(name)
        case ast.Attribute(ast.Name(kind) | ast.Attribute(_, kind), name) if kind in _NAMES:
            return name.casefold()
        case ast.Subscript(of, place):
            found, index = _value(of, look_up), _value(place, look_up)
            suited = isinstance(found, list) and type(index) is int
            return found[index] if suited else _refuse()
        case ast.Call(ast.Name(name), [argument], []) if name in _SHAPING:
            given = _value(argument, look_up)
            kinds = (list, str) if name in ("len", "list", "tuple") else (int, float)
            return _SHAPING[name](given) if isinstance(given, kinds) else _refuse()
        case ast.UnaryOp(ast.USub(), operand):
            return -_number(_value(operand, look_up))
        case ast.IfExp(test, first, second):
            chosen = _value(test, look_up)
            return (
                _value(first if chosen else second, look_up) if type(chosen) is bool else _refuse()
            )
        case ast.BinOp(left, operator, right):
            return _combined(_value(left, look_up), operator, _value(right, look_up))
    return _refuse()


def _combined(left: Any, operator: ast.operator, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list) and isinstance(operator, ast.Add):
        return left + right
    if isinstance(left, list) and isinstance(operator, ast.Mult):
        times = _number(right)
        return left * int(times) if len(left) * times <= _MOST_ITEMS else _refuse()
    first, second = _number(left), _number(right)
    match operator:
        case ast.Add():
            return first + second
        case ast.Sub():
            return first - second
        case ast.Mult():
            return first * second
    return _refuse()


def _number(value: Any) -> float:
    """A finite number of moderate size."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or abs(value) > _LARGEST_NUMBER:
        raise ValueError("an operand that is no number")
    number: float = value
    return number


def _refuse() -> Any:
    raise ValueError("an expression of another form")
