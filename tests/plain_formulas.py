"""Formulas of cells in NumPy, for float64 and complex128: each function from its definition, nets as plain loops, and
derivatives as difference quotients. Beside them what was derived of a formula, by its source in NumPy.

A complex step ``x + 1e-30 i`` leaves the real part as it is, and makes the imaginary part the slope times 1e-30: a
difference quotient without the rounding of a difference (W. Squire and G. Trapp, SIAM Review 40, 1998).
"""

from typing import NamedTuple

import numpy as np
import scipy.special

from numba_pack import cells

KINDS = ("sums", "of_input", "of_state", "state", "unit_weights", "constants")
COMPLEX_STEP = 1e-30j
#: Rounding a value costs eps / step, leaving out its third derivative step**2: the sum is least where they are alike.
REAL_STEP = np.finfo(np.float64).eps ** (1 / 3)


class Plain:
    """The functions that formulas are written with.

    The first run of a formula notes which way each branch goes; runs after `again` go the same ways, whatever they see.
    So there is a difference quotient at a kink, too: that of the branch which is said to hold there. And a number that
    is rounded is one that has a constant added, which is what "straight-through" says.
    """

    def __init__(self, product=None):
        self.product = product
        self._noted, self._at = [], None

    def again(self):
        self._at = 0
        return self

    def _note(self, value):
        if self._at is None:
            self._noted.append(value)
            return value
        self._at += 1
        return self._noted[self._at - 1]

    def where(self, condition, x, y):
        return np.where(self._note(condition), x, y)

    def relu(self, x):
        return self.where(x <= 0, 0, x)

    def leaky_relu(self, x, alpha=0.01):
        return self.where(x < 0, alpha * x, x)

    def elu(self, x, alpha=1.0):
        return self.where(x < 0, alpha * (np.exp(x) - 1), x)

    def selu(self, x):
        return 1.0507009873554805 * self.elu(x, 1.6732632423543772)

    def gelu(self, x):
        return x * (1 + scipy.special.erf(x / np.sqrt(2))) / 2

    def sigmoid(self, x):
        e, positive = _decaying(x)
        return np.where(positive, 1, e) / (1 + e)

    def silu(self, x):
        return x * self.sigmoid(x)

    def softplus(self, x):
        e, positive = _decaying(x)
        return np.where(positive, x, 0) + np.log1p(e)

    def softsign(self, x):
        return x / (1 + self.abs(x))

    def hard_sigmoid(self, x, alpha=1 / 6, beta=0.5):
        return self.clip(alpha * x + beta, 0, 1)

    def hard_tanh(self, x, low=-1.0, high=1.0):
        return self.clip(x, low, high)

    def clip(self, x, low, high):
        return self.where(x < low, low, self.where(x > high, high, x))

    def maximum(self, x, y):
        return self.where((x < y) | (y != y), y, x)

    def minimum(self, x, y):
        return self.where((x > y) | (y != y), y, x)

    def abs(self, x):
        return x * self._note(np.sign(x))

    def sign(self, x):
        return self._note(np.sign(x))

    def round(self, x):
        return x + self._note(np.rint(np.real(x)) - x)

    def reciprocal(self, x):
        return 1 / x

    def fma(self, x, y, z):
        return x * y + z

    exp, log, sqrt, tanh = map(staticmethod, (np.exp, np.log, np.sqrt, np.tanh))


def _decaying(x):
    """``exp(-abs(x))``, for both signs an analytic function, and the sign."""
    positive = np.real(x) > 0
    return np.exp(np.where(positive, -x, x)), positive


class Formula(NamedTuple):
    """A formula as text: lines of assignments, and the expressions that are returned."""

    #: names by kind, as `cell` takes them; constants and unit weights with their defaults, as "k=0.5"
    kinds: dict
    results: list
    lines: list = ()

    def names(self, kind):
        return [name.partition("=")[0] for name in self.kinds.get(kind, "").split()]

    @property
    def source(self):
        arguments = [name for kind in KINDS if kind != "constants" for name in self.kinds.get(kind, "").split()]
        constants = self.kinds.get("constants", "").split()
        head = ", ".join(arguments + ["*"] * bool(constants) + constants)
        body = "".join(f"    {line}\n" for line in self.lines)
        return f"def Own({head}):\n{body}    return {', '.join(self.results)}\n"

    def cell(self):
        """The cell of it."""
        namespace = {name: getattr(cells, name) for name in cells.__all__}
        exec(self.source, namespace)
        return cells.cell(**{kind: " ".join(self.names(kind)) for kind in self.kinds})(namespace["Own"])

    def run(self, plain, values):
        """The states after a step, and all numbers on the way to them."""
        space = {name: getattr(plain, name) for name in dir(plain) if not name.startswith("_")}
        space |= values
        with np.errstate(all="ignore"):
            exec("\n".join(self.lines), space)
            on_the_way = [space[line.partition(" =")[0]] for line in self.lines]
            return [eval(result, space) for result in self.results], on_the_way


def slopes(formula, values, d_states, step=COMPLEX_STEP, product=None):
    """Of ``sum(d * state)`` over the states after a step, the gradient of each of the values, by name."""
    plain = Plain(product)
    formula.run(plain, values)

    def after(name, by):
        states, _ = formula.run(plain.again(), {**values, name: values[name] + by})
        return sum(d * state for d, state in zip(d_states, states, strict=True))

    found = {}
    for name in values:
        if isinstance(step, complex):
            found[name] = np.imag(after(name, step)) / step.imag
        else:
            found[name] = (after(name, step) - after(name, -step)) / (2 * step)
    return found


# -- what was derived --------------------------------------------------------------------------------------------------

#: what the source of a cell's step and of its derivative is written with
_PRIMITIVES = {
    "absolute": np.abs, "erf": scipy.special.erf, "exp": np.exp, "expm1": np.expm1, "larger": np.maximum, "log": np.log,
    "maximum": np.maximum, "minimum": np.minimum, "nearest": np.rint, "sigmoid": scipy.special.expit, "sign": np.sign,
    "smaller": np.minimum, "sqrt": np.sqrt, "tanh": np.tanh,
    "fma": lambda x, y, z: x * y + z,
    "inverse": lambda x: 1 / x,
    "like": lambda x, value: np.full_like(x, value),
    "relu": lambda x: np.maximum(x, 0),
    "select_equal": lambda x, y, yes, no: np.where(x == y, yes, no),
    "select_less": lambda x, y, yes, no: np.where(x < y, yes, no),
    "select_less_equal": lambda x, y, yes, no: np.where(x <= y, yes, no),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
}  # fmt: skip


def _function(compiled):
    space = {**_PRIMITIVES, "_inf": np.inf, "_nan": np.nan}
    exec(compiled.__doc__, space)
    return space[compiled.__name__]


class Derived:
    """A cell's step and its derivative from their source, on arrays; ``product`` is a number W times what it is of."""

    def __init__(self, cell, W=1.0):
        self.cell, self.W = cell, W
        self._names = cell.arguments

    def forward(self, values):
        """The states after the step."""
        of, names = values.__getitem__, self._names
        gates = tuple(map(of, (*names.of_state, *names.sums, *names.of_input)))
        states = tuple(map(of, names.state))
        units, constants = tuple(map(of, names.unit_weights)), tuple(map(of, names.constants))
        with np.errstate(all="ignore"):
            self._given = (*units, *_function(self.cell.fixed)(units, constants)), constants
            if self.cell.has_product:
                like = np.zeros_like(states[0])  # the product itself, which its factor is not made of
                (x,) = _function(self.cell.factor)((*gates, like), states, *self._given)
                gates = (*gates, self.W * x)
            kept, kept_states, after = _function(self.cell.step)(gates, states, *self._given)
        assert (len(kept), len(kept_states)) == (self.cell.kept_numbers, self.cell.kept_states)
        h = states[0] if self.cell.reads_h_back else None
        self._saved = kept, h, kept_states
        return list(after)

    def backward(self, d_states):
        """The gradient of each argument but the constants, by name."""
        given = (*self._saved, *self._given, tuple(d_states))
        with np.errstate(all="ignore"):
            d_factor = None
            if self.cell.has_product:
                (d_product,) = _function(self.cell.product_back)(*given, None)
                d_factor = self.W * d_product
            d_gates, d_before = _function(self.cell.step_back)(*given, d_factor)
        names = self._names
        gates = [*names.of_state, *names.sums, *names.of_input, *["product"] * self.cell.has_product]
        return dict(zip((*gates, *names.unit_weights, *names.state), (*d_gates, *d_before), strict=True))


# -- nets of one layer, as plain loops ---------------------------------------------------------------------------------


def run(formula, parameters, sequences, states, constants, plain):
    """Outputs (T_i, H), and the states after the last steps, (1, B, H) each, of one layer in one direction."""
    W_ih, b_ih = parameters["weight_ih_l0"], parameters["bias_ih_l0"]
    sums, of_input, of_state = map(formula.names, ("sums", "of_input", "of_state"))
    H = len(b_ih) // (len(sums) + len(of_input))
    W_hh, b_hh = parameters.get("weight_hh_l0", np.zeros((0, H))), parameters.get("bias_hh_l0", np.zeros(0))
    given = {name: parameters[name + "_l0"] for name in formula.names("unit_weights")} | constants
    plain.product = lambda v: W_hh[-H:] @ v + b_hh[-H:]
    outputs, ends = [], []
    for b, sequence in enumerate(sequences):
        state, steps = [part[0, b] for part in states], []
        for x in sequence:
            of_x, of_h = (W_ih @ x + b_ih).reshape(-1, H), (W_hh @ state[0] + b_hh).reshape(-1, H)
            values = {name: of_x[i] + of_h[i] for i, name in enumerate(sums)}
            values |= {name: of_x[len(sums) + i] for i, name in enumerate(of_input)}
            values |= {name: of_h[len(sums) + i] for i, name in enumerate(of_state)}
            values |= dict(zip(formula.names("state"), state, strict=True))
            state, _ = formula.run(plain, values | given)
            steps.append(state[0])
        outputs.append(np.array(steps).reshape(len(steps), H))
        ends.append(state)
    return outputs, [np.array(parts)[None] for parts in zip(*ends, strict=True)]


def gradients(formula, parameters, sequences, states, constants, d_outputs, d_states):
    """Of ``sum(d * value)`` over outputs and last states, the gradients of parameters, sequences and states."""
    plain = Plain()
    run(formula, parameters, sequences, states, constants, plain)

    def loss(parameters, sequences, states):
        outputs, ends = run(formula, parameters, sequences, states, constants, plain.again())
        return sum((d * value).sum() for d, value in zip([*d_outputs, *d_states], [*outputs, *ends], strict=True))

    given = dict(parameters=dict(parameters), sequences=list(sequences), states=list(states))

    def of(kind, key):
        array = given[kind][key]
        found = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            given[kind][key] = moved = array.astype(complex)
            moved[place] += COMPLEX_STEP
            found[place] = np.imag(loss(**given)) / COMPLEX_STEP.imag
        given[kind][key] = array
        return found

    return (
        {key: of("parameters", key) for key in parameters},
        [of("sequences", i) for i in range(len(sequences))],
        [of("states", i) for i in range(len(states))],
    )
