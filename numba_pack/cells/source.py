"""Formulas as text: Python source, compiled for vectors, scalars and CUDA threads; and as people read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._jit import inner
from ..simd import lanes
from . import activations, rough
from .graph import Number, reachable

__all__ = ["compiled", "lines_of", "readable"]

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_FUNCTIONS: dict[str, Any] = {
    **{name: getattr(activations, name) for name in (
        "erf", "exp", "expm1", "inverse", "log", "nearest", "relu", "sigmoid", "sign", "softplus", "softsign", "tanh",
    )},
    **{name: getattr(lanes, name) for name in (
        "absolute", "fma", "larger", "like", "maximum", "minimum", "select_equal", "select_less", "select_less_equal",
        "smaller", "sqrt",
    )},
}  # fmt: skip
#: what is cheaper where the factors of products are of 8 bits
_ROUGH: dict[str, Any] = {name: getattr(rough, name) for name in rough.__all__}
#: where one operand is a constant, and so not NaN
_WITH_CONSTANT = {"larger": "maximum", "smaller": "minimum"}


def _python(node: Number, name: Callable[[Number], str]) -> str:
    operands = list(node.operands)
    op = node.op
    if op in _WITH_CONSTANT and any(operand.op == "const" for operand in operands):
        op = _WITH_CONSTANT[op]
        operands.sort(key=lambda operand: operand.op == "const")
    names = [name(operand) for operand in operands]
    if op in _INFIX:
        return f"{names[0]} {_INFIX[op]} {names[1]}"
    return f"-{names[0]}" if op == "neg" else f"{op}({', '.join(names)})"


def compiled(
    name: str,
    arguments: Sequence[str],
    like: str,
    leaves: Mapping[int, str],
    results: Sequence[Sequence[Number]],
    roughly: bool = False,
) -> Callable[..., Any]:
    """A function of these arguments that returns tuples of nodes.

    Parameters
    ----------
    name : str
        Of the function.
    arguments : sequence of str
        Its arguments.
    like : str
        An expression that gives a number, of the dtype that constants are to have.
    leaves : mapping of int to str
        For the place of each node that is given, the expression that gives it.
    results : sequence of sequence of Number
        What it returns: for each a tuple of numbers.
    roughly : bool, default=False
        Whether functions are those of ``rough.py``, as far as there are.
    """
    lines = [f"def {name}({', '.join(arguments)}):"]
    wanted = [node for result in results for node in result]
    for node in reachable(wanted, lambda node: node.place in leaves):
        if node.place in leaves:
            value = leaves[node.place]
        elif node.op == "const":
            value = f"like({like}, {node.value!r})".replace("inf)", "_inf)").replace("nan)", "_nan)")
        else:
            value = _python(node, lambda operand: f"v{operand.place}")
        lines.append(f"    v{node.place} = {value}")
    tuples = ["(" + "".join(f"v{node.place}, " for node in result).rstrip() + ")" for result in results]
    lines.append(f"    return {', '.join(tuples)}")  # one tuple alone is that tuple
    source = "\n".join(lines)
    functions = _FUNCTIONS | _ROUGH if roughly else _FUNCTIONS
    namespace: dict[str, Any] = {**functions, "_inf": float("inf"), "_nan": float("nan")}
    exec(compile(source, f"<{name}>", "exec"), namespace)
    function = namespace[name]
    function.__doc__ = source
    return inner(function)


# -- for people --------------------------------------------------------------------------------------------------------

_READABLE = {"absolute": "abs", "nearest": "round", "larger": "maximum", "smaller": "minimum", "inverse": "reciprocal"}
_LOOSE, _TIGHT, _ATOM = range(3)


def _readable(node: Number, name: Callable[[Number], tuple[str, int]]) -> tuple[str, int]:
    """An operation as people write it, and how tightly it binds."""

    def bound(operand: Number, least: int) -> str:
        text, binding = name(operand)
        return text if binding >= least else f"({text})"

    x = node.operands
    if node.op == "add":
        return f"{bound(x[0], _LOOSE)} + {bound(x[1], _LOOSE)}", _LOOSE
    if node.op == "sub":
        return f"{bound(x[0], _LOOSE)} - {bound(x[1], _TIGHT)}", _LOOSE
    if node.op == "fma":
        if x[0].op == "neg":
            return f"{bound(x[2], _LOOSE)} - {bound(x[0].operands[0], _TIGHT)} * {bound(x[1], _TIGHT)}", _LOOSE
        return f"{bound(x[0], _TIGHT)} * {bound(x[1], _TIGHT)} + {bound(x[2], _LOOSE)}", _LOOSE
    if node.op == "mul":
        return f"{bound(x[0], _TIGHT)} * {bound(x[1], _TIGHT)}", _TIGHT
    if node.op == "div":
        return f"{bound(x[0], _TIGHT)} / {bound(x[1], _ATOM)}", _TIGHT
    if node.op == "neg":
        return f"-{bound(x[0], _TIGHT)}", _LOOSE
    inside = [name(operand)[0] for operand in x]
    if node.op.startswith("select_"):
        sign = {"select_less": "<", "select_less_equal": "<=", "select_equal": "=="}[node.op]
        return f"where({inside[0]} {sign} {inside[1]}, {inside[2]}, {inside[3]})", _ATOM
    return f"{_READABLE.get(node.op, node.op)}({', '.join(inside)})", _ATOM


def readable(node: Number, known: Mapping[int, str]) -> str:
    """An expression in one line, with the names that are known."""

    def name(node: Number) -> tuple[str, int]:
        if node.place in known:
            return known[node.place], _ATOM
        if node.op in ("argument", "const"):
            return repr(node), _ATOM
        return _readable(node, name)

    return _readable(node, name)[0] if node.operands else repr(node)


def lines_of(results: Mapping[str, Number], known: Mapping[int, str]) -> list[str]:
    """Assignments that give the results, by their names; what is used twice, or has a known name, has a line."""
    nodes = reachable(list(results.values()), lambda node: node.place in known and node.op == "argument")
    uses: dict[int, int] = {}
    for node in nodes:
        for operand in node.operands:
            uses[operand.place] = uses.get(operand.place, 0) + 1
    own = {node.place: name for name, node in reversed(list(results.items()))}
    names: dict[int, str] = {}
    lines: list[str] = []

    def name(node: Number) -> tuple[str, int]:
        if node.place in names:
            return names[node.place], _ATOM
        if node.op == "argument":
            return known.get(node.place, str(node.value[2])), _ATOM
        if node.op == "const":
            return f"{node.value:.6g}", _ATOM if node.value >= 0 else _LOOSE
        return _readable(node, name)

    for node in nodes:
        if node.op in ("argument", "const"):
            continue
        called = own.get(node.place) or known.get(node.place)
        if called is None and uses.get(node.place, 0) > 1 and node.op != "neg":
            called = f"t{sum(line.startswith('t') for line in lines) + 1}"
        if called is not None:
            lines.append(f"{called} = {name(node)[0]}")
            names[node.place] = called
    for result, node in results.items():
        if names.get(node.place) != result:
            lines.append(f"{result} = {name(node)[0]}")
    return lines
