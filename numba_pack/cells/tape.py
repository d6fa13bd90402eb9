"""What a forward pass keeps for its derivative: chosen from the formula, as little as possible.

The backward pass needs some numbers of the forward pass. Each is either there anyway (h before the step, weights,
constants, what is made of those two alone), or kept, or computed again from those. A row of the tape has room for the
gradient of each gate, which the backward pass puts there; until then as many numbers are kept at no cost. So the search
prefers few numbers beyond that room, then little to compute again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .graph import Number, reachable

__all__ = ["chosen", "fixed"]

#: what an operation costs, in additions; those that are not here cost 1
_COST = {
    "sigmoid": 14.0, "tanh": 16.0, "exp": 12.0, "expm1": 12.0, "log": 20.0, "sqrt": 8.0, "erf": 24.0, "softplus": 30.0,
    "softsign": 8.0, "div": 8.0, "inverse": 8.0, "const": 0.0, "argument": 0.0,
}  # fmt: skip
#: what it costs to keep a number where there is room, and where there is none
_IN_ROOM, _BEYOND = 1.0, 60.0
#: what it costs to load a number that is at hand
_LOAD = 2.0


def _is_gate(node: Number) -> bool:
    return node.op == "argument" and node.value[0] in ("gate", "product")


def _is_stored_state(node: Number) -> bool:
    """Whether this is a state before the step that is not in the output, as c."""
    return node.op == "argument" and node.value[0] == "state" and node.value[1] > 0


def _fixed_places(nodes: Sequence[Number]) -> frozenset[int]:
    """The places of those nodes, operands first, that are made of unit weights and constants alone."""
    found: set[int] = set()
    for node in nodes:
        if node.op == "argument":
            is_fixed = node.value[0] in ("unit", "constant")
        else:
            is_fixed = all(operand.place in found for operand in node.operands)
        if is_fixed:
            found.add(node.place)
    return frozenset(found)


def fixed(results: Sequence[Number]) -> list[Number]:
    """Of all that the results are made of, what is the same at every step: made of unit weights and constants alone.

    Of these the largest nodes, if they cost more to make than to load. Those of constants alone are left out: a
    compiler takes them out of its loops by itself.
    """
    nodes = reachable(results)
    places = _fixed_places(nodes)
    used = {operand.place for node in nodes if node.place not in places for operand in node.operands}
    used |= {node.place for node in results}
    found = []
    for node in nodes:
        if node.place in places & used:
            below = reachable([node])
            of_units = any(part.op == "argument" and part.value[0] == "unit" for part in below)
            if of_units and sum(_COST.get(part.op, 1.0) for part in below) > _LOAD:
                found.append(node)
    return found


def _cost(needed: Sequence[Number], kept: frozenset[int], there: frozenset[int], room: int) -> float:
    """What a choice costs; infinity if a sum that the backward pass needs would be gone."""
    total = _IN_ROOM * len(kept) + _BEYOND * max(0, len(kept) - room)
    for node in reachable(needed, lambda node: node.place in kept or node.place in there):
        if node.place in kept or node.place in there:
            continue
        if _is_gate(node):
            return float("inf")
        total += _BEYOND if _is_stored_state(node) else _COST.get(node.op, 1.0)
    return total


def chosen(needed: Iterable[Number], forward: Iterable[Number], room: int) -> list[Number]:
    """The nodes to keep, so that all that are needed are there or can be computed again.

    Parameters
    ----------
    needed : iterable of Number
        Nodes that the backward pass is made of and that do not depend on its gradients.
    forward : iterable of Number
        Nodes of the forward pass, of which some are chosen.
    room : int
        How many can be kept at no cost.
    """
    needed = list(needed)
    fixed_places = _fixed_places(reachable(needed))
    nodes = {node.place: node for node in reachable(needed) if node.place not in fixed_places}
    there = {node.place for node in forward if _is_gate(node) or node.op not in ("argument", "const")}
    candidates = [place for place in nodes if place in there]
    sums = frozenset(place for place in candidates if _is_gate(nodes[place]))
    costly = sums | {place for place in candidates if _COST.get(nodes[place].op, 1.0) > 5.0}
    found = [_improved(needed, start, fixed_places, candidates, nodes, room) for start in (costly, sums)]
    _, kept = min(found, key=lambda choice: choice[0])
    return [nodes[place] for place in sorted(kept)]


def _improved(
    needed: Sequence[Number],
    kept: frozenset[int],
    there: frozenset[int],
    candidates: Sequence[int],
    nodes: Mapping[int, Number],
    room: int,
) -> tuple[float, frozenset[int]]:
    """The best choice that steps from this one lead to, each of which improves it, and what it costs."""
    best = _cost(needed, kept, there, room)
    while True:
        choices = [kept - {place} for place in kept]
        choices += [kept | {place} for place in candidates if place not in kept]
        for place in kept:  # the value in place of what it is made of, or the other way round
            of = frozenset(operand.place for operand in nodes[place].operands if operand.place in candidates)
            choices.append(kept - {place} | of)
            for after in candidates:
                if any(operand.place == place for operand in nodes[after].operands):
                    choices.append(kept - {place} | {after})
        costs = [_cost(needed, choice, there, room) for choice in choices]
        if not costs or min(costs) >= best:
            return best, kept
        best = min(costs)
        kept = choices[costs.index(best)]
