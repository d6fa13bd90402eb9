"""Formulas as graphs: what a cell's function makes when it is called with `Number` in place of numbers.

Every operation on a `Number` is a node of its `Graph`, which holds each expression once: a node that is asked for again
is the one that is there. Constants are folded. The graph is all that the derivative (``derive.py``) and the compiled
code (``source.py``) are made of.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NoReturn

from .._arguments import kind_of
from .plain import of_arrays

__all__ = ["Condition", "Graph", "Number", "apply", "fused", "reachable"]

#: what is computed of constants when a formula is read; all other operations wait
_FOLDED: dict[str, Callable[..., float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "div": operator.truediv,
}


class Graph:
    """The expressions of one formula, each once."""

    #: what `product` is of, if it is in the formula
    factor: Number | None = None

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Number] = {}

    def node(self, op: str, operands: tuple[Number, ...] = (), value: Any = None) -> Number:
        """The node of this operation: a constant or an argument with its value, else one with operands."""
        key = (op, value, math.copysign(1.0, value) if op == "const" else 0, *map(id, operands))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Number(self, op, operands, value, len(self._known))
        return found

    def copied(self) -> list[Number]:
        """The nodes of a copy, by their places: who adds to it, disturbs no other thread."""
        graph, nodes = Graph(), list[Number]()
        for node in self._known.values():
            nodes.append(graph.node(node.op, tuple(nodes[operand.place] for operand in node.operands), node.value))
        return nodes

    def argument(self, kind: str, index: int, name: str) -> Number:
        """A number that the formula is given."""
        return self.node("argument", value=(kind, index, name))

    def constant(self, value: float) -> Number:
        """A number that is written in the formula."""
        return self.node("const", value=float(value))

    def product_of(self, x: Number) -> Number:
        """The number that is W x."""
        if self.factor is not None and self.factor is not x:
            raise ValueError("product must be taken once in a formula; got a second one")
        self.factor = x
        return self.argument("product", 0, "product")


class Condition:
    """A comparison of two numbers, or what ``&``, ``|`` and ``~`` make of such: for `where`."""

    __slots__ = ("negated", "op", "parts")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, op: str, parts: tuple[Any, ...]) -> None:
        #: "less", "less_equal" or "equal" of two numbers; "and" of two conditions, "not" of one
        self.op, self.parts = op, parts

    def __and__(self, other: Condition) -> Condition:
        return Condition("and", (self, _as_condition(other)))

    __rand__ = __and__

    def __or__(self, other: Condition) -> Condition:
        return ~(~self & ~_as_condition(other))

    __ror__ = __or__

    def __invert__(self) -> Condition:
        return self.parts[0] if self.op == "not" else Condition("not", (self,))

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a formula must have no branch on a value (if, while, and, or, not, min, max): it is read once, before any "
            "number is there; where(condition, a, b) is the way, with & | ~ between conditions"
        )

    def choose(self, graph: Graph, yes: Number, no: Number) -> Number:
        """``yes`` where the condition holds, ``no`` elsewhere."""
        if self.op == "not":
            return self.parts[0].choose(graph, no, yes)
        if self.op == "and":
            return self.parts[0].choose(graph, self.parts[1].choose(graph, yes, no), no)
        return yes if yes is no else graph.node(f"select_{self.op}", (*self.parts, yes, no))


def _as_condition(value: Any) -> Condition:
    if not isinstance(value, Condition):
        raise TypeError(f"conditions must be joined with conditions; got {kind_of(value)}")
    return value


def _binary(op: str) -> Any:
    def method(self: Number, other: Any) -> Any:
        return apply(op, self, other) if isinstance(other, (Number, Real)) else NotImplemented

    return method


def _binary_reversed(op: str) -> Any:
    def method(self: Number, other: Any) -> Any:
        return apply(op, other, self) if isinstance(other, (Number, Real)) else NotImplemented

    return method


def _comparison(op: str, swapped: bool, negated: bool = False) -> Any:
    def method(self: Number, other: Any) -> Any:
        if not isinstance(other, (Number, Real)):
            return NotImplemented
        parts = (self, as_number(self.graph, other))
        condition = Condition(op, parts[::-1] if swapped else parts)
        return ~condition if negated else condition

    return method


class Number:
    """A number of one unit in a formula: an argument, a constant, or what an operation makes of others."""

    __slots__ = ("graph", "op", "operands", "place", "value")
    __array_ufunc__ = None  # so that a NumPy scalar leaves arithmetic to this class
    __hash__ = object.__hash__

    def __init__(self, graph: Graph, op: str, operands: tuple[Number, ...], value: Any, place: int) -> None:
        self.graph, self.op, self.operands, self.value = graph, op, operands, value
        #: its number in the graph; operands have lower ones
        self.place = place

    __add__, __radd__ = _binary("add"), _binary_reversed("add")
    __sub__, __rsub__ = _binary("sub"), _binary_reversed("sub")
    __mul__, __rmul__ = _binary("mul"), _binary_reversed("mul")
    __truediv__, __rtruediv__ = _binary("div"), _binary_reversed("div")
    __lt__, __gt__ = _comparison("less", False), _comparison("less", True)
    __le__, __ge__ = _comparison("less_equal", False), _comparison("less_equal", True)
    __eq__, __ne__ = _comparison("equal", False), _comparison("equal", False, negated=True)

    def __neg__(self) -> Number:
        return apply("neg", self)

    def __pos__(self) -> Number:
        return self

    def __abs__(self) -> Number:
        return apply("absolute", self)

    def __pow__(self, exponent: Any) -> Number:
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)) or exponent != int(exponent):
            raise TypeError(
                f"a power must have a whole number as its exponent, written in the formula; got {exponent!r}"
            )
        power, factor, left = self.graph.constant(1.0), self, abs(int(exponent))
        while left:
            power, factor, left = (
                power * factor if left & 1 else power,
                factor * factor if left > 1 else factor,
                left >> 1,
            )
        return 1.0 / power if exponent < 0 else power

    def __round__(self, digits: None = None) -> Number:
        return apply("nearest", self)

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(
            "a formula must be written with operators and the functions of numba_pack.cells: "
            "it is read once, before any number is there"
        )

    __float__ = __int__ = __index__ = __complex__ = __len__ = __iter__ = __getitem__ = _refuse  # math.tanh, ...

    def __bool__(self) -> NoReturn:
        Condition.__bool__(self)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        if self.op == "argument":
            return str(self.value[2])
        return f"{self.value:g}" if self.op == "const" else f"{self.op}({', '.join(map(repr, self.operands))})"


def as_number(graph: Graph, value: Any) -> Number:
    """A number of the formula: itself, or a constant."""
    if isinstance(value, Number):
        if value.graph is not graph:
            raise TypeError("numbers must be of one formula; got one of another")
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        return graph.constant(float(value))
    raise TypeError(f"a formula must be of numbers; got {kind_of(value)}")


def apply(op: str, *values: Any) -> Any:
    """The node of an operation on numbers; or what it is of arrays, if none of them is a number of a formula."""
    graph = next((value.graph for value in values if isinstance(value, Number)), None)
    if graph is None:
        return of_arrays(op, *values)
    return _simplified(graph, op, tuple(as_number(graph, value) for value in values))


def _is(number: Number, value: float) -> bool:
    return number.op == "const" and number.value == value


def _simplified(graph: Graph, op: str, operands: tuple[Number, ...]) -> Number:
    """The node of an operation, or a simpler one that is the same for every value, NaN and infinities among them."""
    if op in _FOLDED and all(operand.op == "const" for operand in operands):
        try:
            return graph.constant(_FOLDED[op](*(operand.value for operand in operands)))
        except ZeroDivisionError:
            pass  # infinity, or NaN, when it runs
    if op == "neg" and operands[0].op == "neg":
        return operands[0].operands[0]
    if len(operands) == 2:
        x, y = operands
        if op == "mul":
            for one, other in ((x, y), (y, x)):
                if _is(one, 1.0):
                    return other
                if _is(one, -1.0):
                    return _simplified(graph, "neg", (other,))
                if one.op == "neg":
                    return _simplified(graph, "neg", (_simplified(graph, "mul", (one.operands[0], other)),))
        elif op == "div" and y.op == "const" and y.value and math.frexp(y.value)[0] in (0.5, -0.5):
            return _simplified(graph, "mul", (x, graph.constant(1.0 / y.value)))  # exact
        elif op == "div" and _is(x, 1.0):
            return graph.node("inverse", (y,))
        elif op in ("add", "sub") and y.op == "neg":
            return _simplified(graph, "sub" if op == "add" else "add", (x, y.operands[0]))
        elif op == "add" and x.op == "neg":
            return _simplified(graph, "sub", (y, x.operands[0]))
    return graph.node(op, operands)


# -- products that are rounded with the sum that they are part of ------------------------------------------------------


def reachable(outputs: Iterable[Number], stop: Callable[[Number], bool] = lambda node: False) -> list[Number]:
    """All nodes that the outputs are made of, operands first; nothing below those at which ``stop`` says so."""
    found: dict[int, Number] = {}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node.place not in found:
            found[node.place] = node
            if not stop(node):
                waiting += node.operands
    return [found[place] for place in sorted(found)]


def fused(outputs: list[Number]) -> list[Number]:
    """The same outputs, with ``fma(x, y, z)`` for ``x * y + z`` wherever the product is used nowhere else.

    Of two products that are added the first is taken, so that ``f * c + i * g`` is ``fma(f, c, i * g)``.
    """
    nodes = reachable(outputs)
    uses = dict.fromkeys((node.place for node in nodes), 0)
    for node in nodes:
        for operand in node.operands:
            uses[operand.place] += 1
    for output in outputs:
        uses[output.place] += 1
    made: dict[int, Number] = {}

    def product(node: Number) -> tuple[Number, ...] | None:
        return node.operands if node.op == "mul" and uses[node.place] == 1 else None

    for node in nodes:
        graph, operands = node.graph, tuple(made[operand.place] for operand in node.operands)
        made[node.place] = graph.node(node.op, operands, node.value)
        if node.op in ("add", "sub"):
            x, y = node.operands
            negative = node.op == "sub"
            if not negative and (factors := product(x)):
                a, b = (made[factor.place] for factor in factors)
                made[node.place] = graph.node("fma", (a, b, operands[1]))
            elif factors := product(y):
                a, b = (made[factor.place] for factor in factors)
                made[node.place] = graph.node(
                    "fma", (_simplified(graph, "neg", (a,)) if negative else a, b, operands[0])
                )
            elif factors := product(x):
                a, b = (made[factor.place] for factor in factors)
                made[node.place] = graph.node("fma", (a, b, _simplified(graph, "neg", (operands[1],))))
    return [made[output.place] for output in outputs]
