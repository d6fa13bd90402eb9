"""What a cell is: one step of a recurrent net, declared by one function of the numbers of one unit.

`cell` reads the function once, with symbols in place of numbers, and makes a `Cell` of it: the formula as a graph
(``graph.py``), its derivative (``derive.py``), what a forward pass keeps (``tape.py``), and both compiled
(``source.py``).

A row of sums has a block of H columns for each gate: those of the state alone first, then those of both, then those of
the input alone, and that of `product` last. So the products with the state are added to the first columns, and those
with the input to the columns from ``turn`` on.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from .._arguments import kind_of
from ..simd.machine import DOTS
from . import derive, tape
from .graph import Condition, Graph, Number, as_number, fused, reachable
from .source import compiled, lines_of, readable

if TYPE_CHECKING:
    from ..layers.layer import Layer

__all__ = ["FACTORS", "Cell", "cell", "variant_of"]

#: what the factors of the products of a step may be: floats of the layer's dtype; the nearest bfloat16; the sum of two
#: or of three of those; integers of 8 bits
FACTORS = ("float", "bfloat16", "bfloat16x2", "bfloat16x3", "int8")

#: more than any cell that was published has; the unrolled code of one unit grows with them
MOST_GATES, MOST_STATES = 16, 8
#: names of parameters that layers have beside the unit weights
_PARAMETERS = frozenset({"weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh", "gain_ih", "gain_hh"})


class Arguments(NamedTuple):
    """The names of a formula's arguments, by kind."""

    sums: tuple[str, ...]
    of_input: tuple[str, ...]
    of_state: tuple[str, ...]
    state: tuple[str, ...]
    unit_weights: tuple[str, ...]
    constants: tuple[str, ...]
    #: of a cell that is zoned out: 1 where a state takes its new value, 0 where it stays; no arguments of `cell`
    noises: tuple[str, ...] = ()


class _Back(NamedTuple):
    """The derivative of a formula, and what it is made of."""

    #: of each gate in the order of a row, unit weight and state before the step
    gates: list[Number]
    units: list[Number]
    states: list[Number]
    #: nodes of the forward pass that are kept
    kept: list[Number]
    #: states before the step that are kept, besides h
    kept_states: tuple[int, ...]
    #: whether h before the step is read
    reads_h: bool


class Cell:
    """One step of a recurrent net; call it to make a layer of such steps. `cell` makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import cell, tanh
    >>> @cell(sums="a", state="h")
    ... def Elman(a, h):
    ...     return tanh(a)
    >>> layer = Elman(3, 2, bidirectional=True, rng=0)
    >>> layer
    Elman(3, 2, bidirectional=True)
    >>> output, h_n = layer(np.ones((5, 4, 3), np.float32))
    >>> output.shape, h_n.shape
    ((5, 4, 4), (2, 4, 2))
    """

    #: makes a layer of a cell and the arguments that the cell was called with; the room of layers puts it here
    make_layer: Callable[..., Any]
    #: names of the options and attributes of layers; the room of layers puts them here
    names_of_layers: frozenset[str] = frozenset()

    #: the function and its arguments that give this cell, where it has no name of its own in a module
    made_by: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
    base: Cell
    variant: tuple[str, ...]

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Arguments,
        back: Callable[..., Any] | None,
        normed: bool = False,
        factors: str = "float",
    ) -> None:
        self.__name__ = self.name = function.__name__
        self.__qualname__, self.__module__ = function.__qualname__, function.__module__
        self.__doc__, self.__wrapped__ = function.__doc__, function
        self.arguments = arguments
        #: the cell that this is a variant of, and the properties that lead to this from there; itself and none for most
        self.base, self.variant = self, ()
        #: 1 if each product of a step is normalised before it is summed, else 0: see `normalised`
        self.normed = int(normed)
        #: one of ``FACTORS``: see `with_factors`
        self.factors = factors
        self._hand = back
        #: the value of each constant, and what a unit weight begins with, where the function has a default
        self.defaults = _checked(function, arguments)
        self._graph = Graph()
        self._read(function, back)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read(self, function: Callable[..., Any], back: Callable[..., Any] | None) -> None:
        graph, kinds = self._graph, self.arguments
        row = (*kinds.of_state, *kinds.sums, *kinds.of_input)
        self._gates = [graph.argument("gate", i, name) for i, name in enumerate(row)]
        self._states = [graph.argument("state", i, name) for i, name in enumerate(kinds.state)]
        self._units = [graph.argument("unit", i, name) for i, name in enumerate(kinds.unit_weights)]
        constants = [graph.argument("constant", i, name) for i, name in enumerate(kinds.constants)]
        noises = [graph.argument("noise", i, name) for i, name in enumerate(kinds.noises)]
        given = {str(node.value[2]): node for node in (*self._gates, *self._states, *self._units, *constants, *noises)}
        #: gradients of the state after the step, and of what `product` is of
        self._d_states = [graph.argument("d_state", i, f"d_{name}'") for i, name in enumerate(kinds.state)]
        self._d_factor = graph.argument("d_factor", 0, "d_factor")
        result = _called(self.name, function, given)
        outputs = list(result) if isinstance(result, tuple) else [result]
        if len(outputs) != len(kinds.state):
            raise ValueError(
                f"{self.name} must return the state after the step, {', '.join(kinds.state)}; got {len(outputs)} values"
            )
        for name, value in zip(kinds.state, outputs, strict=True):
            if isinstance(value, Condition) or not isinstance(value, (Number, Real)):
                raise TypeError(f"{self.name} must return a number for {name}; got {kind_of(value)}")
        new = [as_number(graph, value) for value in outputs]
        found = fused([*new, *([] if graph.factor is None else [graph.factor])])
        #: the state after the step, and what `product` is of, if it is there
        self._new, self._factors = found[: len(new)], found[len(new) :]
        if self._factors:
            self._gates.append(graph.argument("product", 0, "product"))
        self._by_hand: dict[str, Number] | None = None
        if back is not None:
            self._by_hand = self._read_back(back, given)
        #: products with the input, rows of ``weight_ih`` over H; and with the state, those of ``weight_hh`` but for the
        #: ones of `product`
        self.gates_ih, self.gates_hh = len(kinds.sums) + len(kinds.of_input), len(kinds.sums) + len(kinds.of_state)
        #: 1 if there is a `product`, else 0
        self.has_product = len(self._factors)
        #: products that are normalised, and kept so
        self.products = self.normed * (self.gates_ih + self.gates_hh + self.has_product)
        #: blocks of a row of sums, and those of them that the input has no part in, which stand first
        self.gates, self.turn = len(self._gates), len(kinds.of_state)
        #: states, and those besides h
        self.states, self.others = len(self._states), len(self._states) - 1
        #: unit weights, random numbers that every unit is given at every step, and constants
        self.units, self.noises, self.constants = len(self._units), len(kinds.noises), len(kinds.constants)
        if len(self._gates) > MOST_GATES or len(self._states) > MOST_STATES:
            raise ValueError(
                f"{self.name} must have at most {MOST_GATES} gates and {MOST_STATES} states; "
                f"got {len(self._gates)} and {len(self._states)}"
            )

    def _read_back(self, back: Callable[..., Any], given: dict[str, Number]) -> dict[str, Number]:
        """A derivative that was written by hand."""
        if self._factors:
            raise ValueError(f"back must be left out for a formula with a product; got one for {self.name}")
        gradients = {f"d_{name}": d for name, d in zip(self.arguments.state, self._d_states, strict=True)}
        found = _called(f"back of {self.name}", back, given | gradients)
        names = {str(node.value[2]) for node in (*self._gates, *self._states, *self._units)}
        if not isinstance(found, dict) or not found.keys() <= names:
            raise ValueError(
                f"back of {self.name} must return a dict of the gradients of {', '.join(sorted(names))}; got {found!r}"
            )
        for name, value in found.items():
            if not isinstance(value, (Number, Real)):
                raise TypeError(f"back of {self.name} must return a number for {name}; got {kind_of(value)}")
        return {name: as_number(self._graph, value) for name, value in found.items()}

    # -- what the engines read -----------------------------------------------------------------------------------------

    @cached_property
    def reads_h(self) -> bool:
        """Whether the formula itself reads h before the step."""
        return any(node is self._states[0] for node in reachable([*self._new, *self._factors]))

    @cached_property
    def kept_numbers(self) -> int:
        """Numbers of the forward pass that are kept, without states and the factor of `product`."""
        return len(self.back.kept)

    @cached_property
    def kept_states(self) -> int:
        """States besides h that are kept as they are before the step."""
        return len(self.back.kept_states)

    @cached_property
    def reads_h_back(self) -> bool:
        """Whether the derivative reads h before the step."""
        return self.back.reads_h

    @cached_property
    def digest(self) -> str:
        """Of all that code is compiled from: another for another formula, and for other instructions."""
        by_hand = self._by_hand or {}
        wanted = [*self._new, *self._factors, *by_hand.values()]
        nodes = [
            (node.place, node.op, [operand.place for operand in node.operands], repr(node.value))
            for node in reachable(wanted)
        ]
        factors = "float" if self.factors == "float" else (self.factors, *DOTS)
        said = (self.arguments, nodes, [node.place for node in wanted], sorted(by_hand), self.normed, factors)
        return hashlib.blake2b(repr(said).encode(), digest_size=12).hexdigest()

    @cached_property
    def back(self) -> _Back:
        """The derivative. Two threads that need it at once make it twice, to the same."""
        copy = self._graph.copied()

        def own(nodes: Iterable[Number]) -> list[Number]:
            return [copy[node.place] for node in nodes]

        before = own([*self._gates, *self._units, *self._states])
        found: list[Number | None]
        if self._by_hand is not None:
            by_hand = {name: copy[node.place] for name, node in self._by_hand.items()}
            found = [by_hand.get(str(node.value[2])) for node in before]
        else:
            found = derive.gradients(list(zip(own(self._new), own(self._d_states), strict=True)), before)
            for factor in own(self._factors):
                through = derive.gradients([(factor, copy[self._d_factor.place])], before)
                found = [y if x is None else x if y is None else x + y for x, y in zip(found, through, strict=True)]
        zero = copy[0].graph.constant(0.0)
        nodes = fused([zero if node is None else node for node in found])
        gates, units = len(self._gates), len(self._units)
        return _Back(nodes[:gates], nodes[gates : gates + units], nodes[gates + units :], *self._kept(nodes))

    def _kept(self, found: list[Number]) -> tuple[list[Number], tuple[int, ...], bool]:
        """What the backward pass is to be left: nodes, states besides h, and whether h is read."""
        of_gradient = {
            node.place
            for node in reachable(found)
            if node.op == "argument" and node.value[0] in ("d_state", "d_factor")
        }
        for node in reachable(found):
            if any(operand.place in of_gradient for operand in node.operands):
                of_gradient.add(node.place)
        needed = {
            operand.place: operand
            for node in reachable(found)
            if node.place in of_gradient
            for operand in node.operands
            if operand.place not in of_gradient
        }
        needed |= {node.place: node for node in found if node.place not in of_gradient}
        forward = reachable([*self._new, *self._factors])
        kept = tape.chosen(needed.values(), forward, len(self._gates))
        places = {node.place for node in kept}
        read = [
            node.value[1]
            for node in reachable(needed.values(), lambda node: node.place in places)
            if node.op == "argument" and node.value[0] == "state" and node.place not in places
        ]
        return kept, tuple(sorted(index for index in read if index > 0)), 0 in read

    @cached_property
    def kept(self) -> int:
        """Blocks of a row of the tape: room for what is kept, and then for the gradients of gates.

        The factor of `product` is in the last.
        """
        return max(len(self._gates), len(self.back.kept)) + self.has_product

    @cached_property
    def kept_with_units(self) -> int:
        """The same with room for the gradients of unit weights behind those of the gates."""
        return max(len(self._gates) + len(self._units), len(self.back.kept)) + self.has_product

    @cached_property
    def _fixed(self) -> list[Number]:
        after = [*self.back.gates, *self.back.units, *self.back.states]
        return tape.fixed([*self.back.kept, *self._new, *self._factors, *after])

    @cached_property
    def fixed_numbers(self) -> int:
        """Numbers that are made of unit weights and constants alone, once for all steps."""
        return len(self._fixed)

    # -- compiled ------------------------------------------------------------------------------------------------------

    @property
    def _roughly(self) -> bool:
        """Whether activations need no more accuracy than factors of 8 bits leave."""
        return self.factors in ("bfloat16", "int8")

    def _leaves(self) -> dict[int, str]:
        behind = len(self._units) + len(self.arguments.noises)
        return (
            {
                node.place: f"{kind}[{i}]"
                for kind, nodes in (("gates", self._gates), ("states", self._states), ("units", self._units))
                for i, node in enumerate(nodes)
            }
            | {node.place: f"units[{behind + i}]" for i, node in enumerate(self._fixed)}
            | {
                self._graph.argument("constant", i, name).place: f"constants[{i}]"
                for i, name in enumerate(self.arguments.constants)
            }
            | {
                self._graph.argument("noise", i, name).place: f"units[{len(self._units) + i}]"
                for i, name in enumerate(self.arguments.noises)
            }
        )

    @cached_property
    def step(self) -> Callable[..., Any]:
        """``step(gates, states, units, constants) -> (kept, kept_states, states)``, in compiled code.

        All are tuples of numbers: ``gates`` the sums in the order of a row, ``states`` those before and after the step,
        ``units`` the unit weights, then the noises, then what `fixed` gives.
        """
        kept_states = [self._states[index] for index in self.back.kept_states]
        results = (self.back.kept, kept_states, self._new)
        arguments = ("gates", "states", "units", "constants")
        return compiled("step", arguments, "gates[0]", self._leaves(), results, self._roughly)

    @cached_property
    def fixed(self) -> Callable[..., Any]:
        """``fixed(units, constants) -> numbers``: what is made of those alone, the same at every step.

        Exact with any factors: it costs nothing, and the error of a decay would grow from step to step.
        """
        leaves = self._leaves()
        for node in self._fixed:
            del leaves[node.place]
        return compiled("fixed", ("units", "constants"), "units[0]", leaves, (self._fixed,))

    @cached_property
    def factor(self) -> Callable[..., Any]:
        """``factor(gates, states, units, constants) -> (x,)``: what `product` is of."""
        arguments = ("gates", "states", "units", "constants")
        return compiled("factor", arguments, "states[0]", self._leaves(), (self._factors,), self._roughly)

    def _back_of(self, name: str, results: tuple[list[Number], ...]) -> Callable[..., Any]:
        leaves = self._leaves()
        for node in (*self._gates, *self._states):
            del leaves[node.place]
        leaves[self._states[0].place] = "h"
        for i, index in enumerate(self.back.kept_states):
            leaves[self._states[index].place] = f"states[{i}]"
        leaves |= {node.place: f"kept[{i}]" for i, node in enumerate(self.back.kept)}
        leaves |= {node.place: f"d_states[{i}]" for i, node in enumerate(self._d_states)}
        leaves[self._d_factor.place] = "d_factor"
        arguments = ("kept", "h", "states", "units", "constants", "d_states", "d_factor")
        return compiled(name, arguments, "d_states[0]", leaves, results, self._roughly)

    @cached_property
    def step_back(self) -> Callable[..., Any]:
        """``step_back(kept, h, states, units, constants, d_states, d_factor) -> (d_gates, d_states)``.

        ``kept`` and ``states`` as `step` left them, ``d_states`` the gradient of the state after the step, which leaves
        as that of the state before it; for h only the part that does not pass through the gates. The gradients of unit
        weights stand behind those of the gates. ``d_factor`` is that of the factor of `product`.
        """
        return self._back_of("step_back", ([*self.back.gates, *self.back.units], self.back.states))

    @cached_property
    def product_back(self) -> Callable[..., Any]:
        """The gradient of `product`, a tuple of one; arguments as of `step_back`, of which ``d_factor`` is not read."""
        return self._back_of("product_back", ([self.back.gates[-1]],))

    # -- what people call ----------------------------------------------------------------------------------------------

    def __call__(self, input_size: int, hidden_size: int | Sequence[int], **options: Any) -> Layer[Any]:
        """Make a layer of this cell; constants are options of it, and those of `numba_pack.LSTM`.

        Besides, ``reverse=True``, without ``bidirectional``, goes from the last step to the first.
        """
        made: Layer[Any] = Cell.make_layer(self, input_size, hidden_size, **options)
        return made

    @cached_property
    def zoned(self) -> Cell:
        """The cell whose states take their new values at random, and else stay: ``s' + (1 - m) (s - s')``.

        m is 1 with the probability ``1 - zoneout_s``, drawn anew for each unit and step; in inference it is its mean.

        D. Krueger et al., Zoneout: regularizing RNNs by randomly preserving hidden activations, ICLR (2017).
        """
        kinds, formula, back = self.arguments, self.__wrapped__, self._hand
        noises = tuple(f"keep_{name}" for name in kinds.state)
        constants = tuple(f"zoneout_{name}" for name in kinds.state)

        def zoned(**given: Any) -> Any:
            inner = {name: value for name, value in given.items() if name not in (*noises, *constants)}
            new = formula(**inner)
            new = new if isinstance(new, tuple) else (new,)
            old = [given[name] for name in kinds.state]
            kept = [given[name] for name in noises]
            return tuple(y + m * (x - y) for x, y, m in zip(new, old, kept, strict=True))

        plain = inspect.signature(formula).parameters.values()
        own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in noises]
        own += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=0.0) for name in constants]
        zoned.__signature__ = inspect.Signature([*plain, *own])  # type: ignore[attr-defined]
        zoned.__name__, zoned.__qualname__, zoned.__module__ = self.__name__, self.__qualname__, self.__module__
        if back is not None:
            raise ValueError(f"zoneout must be 0 for a cell whose derivative is by hand, as {self.name}")
        kinds = kinds._replace(constants=(*kinds.constants, *constants), noises=noises)
        return self._varied("zoned", Cell(zoned, kinds, None, bool(self.normed)))

    @cached_property
    def normalised(self) -> Cell:
        """The cell whose sums are of normalised products: ``LN(W_ih x) + b_ih + LN(W_hh h) + b_hh``.

        LN takes all rows of a product together: ``gain (y - mean(y)) / sqrt(var(y) + 1e-5)``, with a gain for each row.

        J. L. Ba, J. R. Kiros and G. E. Hinton, Layer normalization, arXiv:1607.06450 (2016).
        """
        return self._varied("normalised", Cell(self.__wrapped__, self.arguments, self._hand, True))

    def with_factors(self, factors: str) -> Cell:
        """The cell whose products are of such factors; the last of the variants that a cell may have."""
        found: Cell = self if factors == "float" else getattr(self, f"in_{factors}")
        return found

    def _in(self, factors: str) -> Cell:
        made = Cell(self.__wrapped__, self.arguments, self._hand, bool(self.normed), factors)
        return self._varied(f"in_{factors}", made)

    @cached_property
    def in_bfloat16(self) -> Cell:
        """Factors rounded to bfloat16; activations are accurate to what that leaves."""
        return self._in("bfloat16")

    @cached_property
    def in_bfloat16x2(self) -> Cell:
        """Each factor the sum of two numbers in bfloat16: 16 bits."""
        return self._in("bfloat16x2")

    @cached_property
    def in_bfloat16x3(self) -> Cell:
        """Each factor the sum of three: all bits of float32."""
        return self._in("bfloat16x3")

    @cached_property
    def in_int8(self) -> Cell:
        """Factors are integers of 8 bits times a scale of their row; activations as with bfloat16. Inference only."""
        return self._in("int8")

    def _varied(self, name: str, made: Cell) -> Cell:
        """A variant of this cell, which is the property of that name."""
        made.base, made.variant = self.base, (*self.variant, name)
        return made

    def __instancecheck__(self, layer: Any) -> bool:
        """Whether a layer is of this cell."""
        cell = getattr(layer, "cell", None)
        return isinstance(cell, Cell) and cell.base is self

    def __copy__(self) -> Cell:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Cell:
        return self

    def __reduce__(self) -> Any:
        if self.variant:
            return variant_of, (self.base, self.variant)
        if self.made_by:
            return self.made_by
        found: Any = sys.modules.get(self.__module__)
        for name in self.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is not self:
            raise pickle.PicklingError(
                f"{self.name} must be defined at the top of a module to be pickled, for it is found again by its name; "
                f"there is no {self.__qualname__} in {self.__module__}"
            )
        return self.__qualname__

    def __repr__(self) -> str:
        return "\n".join(self._told())

    def _told(self) -> Iterator[str]:
        kinds = self.arguments
        yield f"{self.name}: " + "; ".join(
            f"{kind.replace('_', ' ')} {' '.join(names)}" for kind, names in kinds._asdict().items() if names
        )
        names = self._names()
        formula = {f"{name}'": node for name, node in zip(kinds.state, self._new, strict=True)}
        formula |= dict(zip(["factor"], self._factors, strict=False))
        yield "formula"
        yield from (f"    {line}" for line in lines_of(formula, names))
        yield "gradient" if self._by_hand is None else "gradient, by hand"
        before = [*self._gates, *self._units, *self._states]
        after = (*self.back.gates, *self.back.units, *self.back.states)
        gradients = {f"d_{node.value[2]}": d for node, d in zip(before, after, strict=True)}
        yield from (f"    {line}" for line in lines_of(gradients, names))
        kept = [names.get(node.place) or readable(node, names) for node in self.back.kept]
        kept += [kinds.state[index] for index in self.back.kept_states]
        yield f"tape: {', '.join(kept) or 'nothing'}"

    def _names(self) -> dict[int, str]:
        """Names for what people would name: a function of a gate is the gate with a prime."""
        after = zip(self._new, self.arguments.state, strict=True)
        found = {node.place: f"{name}'" for node, name in after if node.operands}
        taken = set(found.values())
        for node in reachable([*self._new, *self._factors]):
            if len(node.operands) == 1 and node.op != "neg" and node.place not in found:
                gates = [x for x in reachable([node]) if x.op == "argument" and x.value[0] in ("gate", "product")]
                for gate in sorted(gates, key=lambda gate: -gate.place):
                    name = f"{gate.value[2]}'"
                    if name not in taken:
                        found[node.place] = name
                        taken.add(name)
                        break
        return found


def variant_of(cell: Cell, names: tuple[str, ...]) -> Cell:
    """The variant that these properties lead to, one after the other."""
    for name in names:
        cell = getattr(cell, name)
    return cell


def _called(name: str, function: Callable[..., Any], given: dict[str, Number]) -> Any:
    """What a function of a formula returns; an error tells the line."""
    try:
        return function(**given)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == function.__code__.co_filename]
        line = frames[-1].lineno if frames else function.__code__.co_firstlineno
        kind = ValueError if isinstance(error, ValueError) else TypeError
        hint = "" if "formula" in str(error) else " (a formula has operators and the functions of numba_pack.cells)"
        raise kind(f"{name}, line {line}: {error}{hint}") from error


def _checked(function: Callable[..., Any], arguments: Arguments) -> dict[str, float]:
    """The defaults of a function whose arguments are of one kind each; a ValueError if they are not."""
    name = function.__name__
    kind_by_name: dict[str, str] = {}
    for kind, names in arguments._asdict().items():
        for one in names:
            if kind_by_name.get(one) == kind:
                raise ValueError(f"{one!r} must be named once in {kind}; got it twice")
            if one in kind_by_name:
                raise ValueError(f"{one!r} must be of one kind; got it in {kind_by_name[one]} and in {kind}")
            if one in _PARAMETERS if kind == "unit_weights" else kind == "constants" and _is_of_layers(one):
                raise ValueError(f"{one!r} in {kind} must have another name: layers have that one already")
            kind_by_name[one] = kind
    if not arguments.state:
        raise ValueError(f"state must name at least one state of {name}, whose output is the first; got none")
    if not arguments.sums and not arguments.of_input:
        raise ValueError(f"sums or of_input must name at least one argument of {name}; got none")
    defaults = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValueError(f"arguments of {name} must be given by name; got {parameter}")
        kind = kind_by_name.pop(parameter.name, "")
        if not kind:
            kinds = "= ".join(Arguments._fields)
            raise ValueError(f"argument {parameter.name!r} of {name} must be named in one of {kinds}=; got it in none")
        if parameter.default is parameter.empty:
            if kind == "constants":
                raise ValueError(f"constant {parameter.name!r} of {name} must have a default value; got none")
        elif kind not in ("constants", "unit_weights"):
            raise ValueError(f"argument {parameter.name!r} of {name}, of {kind}, must have no default; got one")
        elif isinstance(parameter.default, bool) or not isinstance(parameter.default, Real):
            raise TypeError(f"the default of {parameter.name!r} must be a number; got {parameter.default!r}")
        else:
            defaults[parameter.name] = float(parameter.default)
    for missing, kind in kind_by_name.items():
        raise ValueError(f"{missing!r}, named in {kind}, must be an argument of {name}; it has none of that name")
    return defaults


def _is_of_layers(name: str) -> bool:
    return name in Cell.names_of_layers or name.startswith("_")


def _names(text: Any, kind: str) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise TypeError(f"{kind} must be a string of names, as 'i f g o'; got {kind_of(text)}")
    return tuple(text.replace(",", " ").split())


def cell(
    *,
    state: str,
    sums: str = "",
    of_input: str = "",
    of_state: str = "",
    unit_weights: str = "",
    constants: str = "",
    back: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Cell]:
    """Make a cell of a function: one step of a recurrent net, written for the numbers of one unit.

    The function is read once. It is written with operators and the functions of `numba_pack.cells`; what it returns is
    the state after the step, one number or a tuple of them in the order of ``state``. Its derivative follows from it.

    Parameters
    ----------
    state : str
        Names of the arguments that are the state before the step; the first is h: the output, and what the products
        with the state are taken of.
    sums : str
        Names of the arguments that are a row of ``W_ih x + b_ih + W_hh h + b_hh`` each.
    of_input, of_state : str
        Names of those that are a row of ``W_ih x + b_ih``, or of ``W_hh h + b_hh``, alone. The rows of ``weight_ih``
        are those of ``sums``, then ``of_input``; of ``weight_hh`` those of ``sums``, then ``of_state``.
    unit_weights : str
        Names of parameters of one number a unit, vectors in the state dict. They begin with the default that the
        argument has, or else as the other parameters.
    constants : str
        Names of numbers that are options of the layer and not trained, with their defaults.
    back : callable, optional
        A derivative by hand: a function of the same arguments and, for each state, its gradient after the step,
        ``d_h``; it returns a dict of gradients by the name of the argument.

    Returns
    -------
    callable
        The decorator.

    Raises
    ------
    TypeError, ValueError
        If an argument has no kind, or more than one; if the function is not a formula, or returns another number of
        states.

    Examples
    --------
    >>> from numba_pack.cells import cell, sigmoid, tanh
    >>> @cell(of_input="z n", state="h")
    ... def MinGRU(z, n, h):
    ...     return h + sigmoid(z) * (n - h)
    >>> print(MinGRU)
    MinGRU: of input z n; state h
    formula
        z' = sigmoid(z)
        h' = z' * (n - h) + h
    gradient
        z' = sigmoid(z)
        d_n = d_h' * z'
        d_h = d_h' - d_n
        d_z = d_h' * (n - h) * (z' - z' * z')
    tape: z', n - h
    """
    texts = (sums, of_input, of_state, state, unit_weights, constants)
    arguments = Arguments(*(_names(text, kind) for kind, text in zip(Arguments._fields, texts, strict=False)))
    if back is not None and not callable(back):
        raise TypeError(f"back must be a function; got {kind_of(back)}")

    def decorate(function: Callable[..., Any]) -> Cell:
        if not inspect.isfunction(function):
            raise TypeError(f"a cell must be made of a function; got {kind_of(function)}")
        return Cell(function, arguments, back)

    return decorate
