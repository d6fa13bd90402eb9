"""The derivative of a formula, as a formula: reverse mode on its graph.

From the last node to the first, each gives its gradient to its operands, times its slope with respect to them. A slope
is written with the value of the node where that is enough, as for sigmoid and tanh, so that not the operand but the
value need be kept (see ``tape.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .graph import Number, apply, reachable

__all__ = ["gradients"]

_Rule = Callable[[Number, Number], tuple["Number | None", ...]]
_TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)


def _choose(name: str, *operands: Any) -> Number:
    return apply(f"select_{name}", *operands)


def _select(name: str) -> _Rule:
    """Of a choice: the gradient goes where the value came from."""

    def rule(node: Number, d: Number) -> tuple[Number | None, ...]:
        x, y = node.operands[:2]
        return None, None, _choose(name, x, y, d, 0.0), _choose(name, x, y, 0.0, d)

    return rule


#: for each operation, from its node and the gradient of that, the gradient of each operand; None for no gradient
_RULES: dict[str, _Rule] = {
    "add": lambda node, d: (d, d),
    "sub": lambda node, d: (d, -d),
    "neg": lambda node, d: (-d,),
    "mul": lambda node, d: (d * node.operands[1], d * node.operands[0]),
    "fma": lambda node, d: (d * node.operands[1], d * node.operands[0], d),
    "div": lambda node, d: (d / node.operands[1], -(d * node / node.operands[1])),
    "inverse": lambda node, d: (-(d * node * node),),
    "sigmoid": lambda node, d: (d * apply("fma", -node, node, node),),
    "tanh": lambda node, d: (d * apply("fma", -node, node, 1.0),),
    "relu": lambda node, d: (_choose("less", 0.0, node, d, 0.0),),
    "exp": lambda node, d: (d * node,),
    "expm1": lambda node, d: (d * (node + 1.0),),
    "log": lambda node, d: (d / node.operands[0],),
    "sqrt": lambda node, d: (d * (0.5 / node),),
    "erf": lambda node, d: (d * (_TWO_OVER_ROOT_PI * apply("exp", -(node.operands[0] * node.operands[0]))),),
    "softplus": lambda node, d: (d * apply("sigmoid", node.operands[0]),),
    "softsign": lambda node, d: (d * _square(1.0 - apply("absolute", node)),),
    "absolute": lambda node, d: (d * apply("sign", node.operands[0]),),
    "sign": lambda node, d: (None,),
    "nearest": lambda node, d: (d,),
    "larger": lambda node, d: (_choose("less", *node.operands, 0.0, d), _choose("less", *node.operands, d, 0.0)),
    "smaller": lambda node, d: (
        _choose("less", *node.operands[::-1], 0.0, d),
        _choose("less", *node.operands[::-1], d, 0.0),
    ),
    "select_less": _select("less"),
    "select_less_equal": _select("less_equal"),
    "select_equal": _select("equal"),
}


def _square(x: Number) -> Number:
    return x * x


def gradients(outputs: Sequence[tuple[Number, Number]], wanted: Sequence[Number]) -> list[Number | None]:
    """The gradient of each wanted node, from that of each output; None where no output is made of it."""
    so_far: dict[int, Number] = {}

    def add(node: Number, gradient: Number | None) -> None:
        if gradient is not None and node.op != "const":
            before = so_far.get(node.place)
            so_far[node.place] = gradient if before is None else before + gradient

    nodes = reachable([output for output, _ in outputs])
    leads: set[int] = {node.place for node in wanted}  # nodes that something wanted is in
    for node in nodes:
        if any(operand.place in leads for operand in node.operands):
            leads.add(node.place)
    for output, gradient in outputs:
        add(output, gradient)
    for node in reversed(nodes):
        d = so_far.get(node.place)
        if d is None or node.place not in leads or not node.operands:
            continue
        for operand, of_operand in zip(node.operands, _RULES[node.op](node, d), strict=True):
            if operand.place in leads:
                add(operand, of_operand)
    return [so_far.get(node.place) for node in wanted]
