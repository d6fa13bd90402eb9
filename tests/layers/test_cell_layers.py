"""Layers of every published cell, and of cells of one's own, against plain loops in float64 and their differences."""

import naive_cells
import numpy as np
import pytest
from helpers import DTYPES, as_tuple, tolerance
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from plain_formulas import Formula, Plain, gradients, run
from random_formulas import formulas

import numba_pack as nbp
from numba_pack import cells

LENGTHS = (3, 0, 4, 1)
#: what differences of the oracle are off by: steps of 1e-5, losses of size 100
DIFFERENCES = 1e-7


def make_parameters(layer, rng):
    """Random numbers of size 1/2; time constants above the step, decays that are neither 0 nor 1."""
    vector = 0.5 * rng.standard_normal(layer.parameters.shape)
    views = layer.views(vector)
    for name in views:
        if name.startswith("tau"):
            views[name] += 4
    return vector.astype(layer.dtype)


def make_states(layer, rng, lengths=LENGTHS):
    """First states as the cell could have left them: the normalizer of an sLSTM is at least 1."""
    scans = layer.num_layers * layer.num_directions
    states = [rng.standard_normal((scans, len(lengths), layer.hidden_size)) for _ in range(layer.cell.states)]
    if isinstance(layer, cells.SLSTM):
        states[2] = 1 + np.abs(states[2])
    return [state.astype(layer.dtype) for state in states]


def as_hx(parts):
    return tuple(parts) if len(parts) > 1 else parts[0]


class Problem:
    """A layer, what goes into it and what came out, forward and backward."""

    def __init__(self, layer, lengths=LENGTHS):
        rng = np.random.default_rng(4)
        layer.parameters = make_parameters(layer, rng)
        self.layer, self.lengths, self.parameters = layer, lengths, layer.state_dict()
        width = layer.num_directions * layer.hidden_size
        self.sequences = [rng.standard_normal((n, layer.input_size)).astype(layer.dtype) for n in lengths]
        self.states = make_states(layer, rng, lengths)
        self.d_outputs = [rng.standard_normal((n, width)).astype(layer.dtype) for n in lengths]
        self.d_states = [rng.standard_normal(state.shape).astype(layer.dtype) for state in self.states]
        packed, hx = nbp.pack_sequence(self.sequences), as_hx(self.states)
        self.inferred, _ = layer(packed, hx)
        self.output, self.after, tape = layer.forward(packed, hx)
        self.gradients = layer.backward(tape, nbp.pack_sequence(self.d_outputs), as_hx(self.d_states))
        self.constants = {name: getattr(layer, name) for name in layer.cell.arguments.constants}

    def loss(self, outputs, states):
        """The loss whose gradients with respect to outputs and last states are those that came back."""
        pairs = zip([*outputs, *states], [*self.d_outputs, *self.d_states], strict=True)
        return sum((value * d).sum() for value, d in pairs)

    def assert_near(self, got, expected, what, least=0.0):
        scale = max(1.0, *(np.abs(value).max(initial=0) for value in expected))
        atol = max(tolerance(self.layer, self.lengths, scale), least * scale)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == self.layer.dtype
            np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=what)

    def assert_forward(self, outputs, states):
        self.assert_near(nbp.unpack_sequence(self.output), outputs, "output")
        self.assert_near(as_tuple(self.after), states, "state")
        np.testing.assert_array_equal(self.inferred.data, self.output.data)

    def assert_backward(self, parameters, sequences, states, least):
        got = self.layer.views(self.gradients.parameters)
        assert got.keys() == parameters.keys()
        for name in got:
            assert np.abs(parameters[name]).max() > 0.01 or got[name].size == 0, name  # a 0 would show nothing
            self.assert_near([got[name]], [parameters[name]], name, least)
        self.assert_near(nbp.unpack_sequence(self.gradients.input), sequences, "input", least)
        self.assert_near(as_tuple(self.gradients.hx), states, "hx", least)


# -- the cells that are published --------------------------------------------------------------------------------------

#: the others take a while to compile
QUICK = {"RNNTanh", "RNNRelu", "LSTM", "GRU", "PeepholeLSTM", "GRUResetBefore", "MinGRU", "SLSTM"}
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in naive_cells.CELLS]


def published(name, dtype, H=3, **options):
    return getattr(cells, name)(
        2, H, num_layers=2, bidirectional=True, dtype=dtype, rng=0, **naive_cells.CONSTANTS.get(name, {}), **options
    )


def test_the_oracle_knows_every_published_cell():
    assert naive_cells.CELLS.keys() == {name for name in cells.__all__ if isinstance(getattr(cells, name), cells.Cell)}


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_and_all_its_gradients_are_those_of_plain_loops(name):
    problem = Problem(published(name, np.float64))
    given = problem.parameters, problem.sequences, problem.states, problem.constants
    problem.assert_forward(*naive_cells.run(name, *given))
    problem.assert_backward(*naive_cells.gradients(problem.loss, name, *given), least=DIFFERENCES)


@pytest.mark.parametrize("H", [1, 19, 40])
@pytest.mark.parametrize("name", NAMES)
def test_layers_of_any_size_are_plain_loops(name, H):
    """Fewer units than a vector has lanes, and some more than whole vectors."""
    problem = Problem(published(name, np.float64, H), lengths=(2, 5, 0, 3, 3, 1, 7))
    problem.assert_forward(*naive_cells.run(name, problem.parameters, problem.sequences, problem.states,
                                            problem.constants))  # fmt: skip


#: those of each form that the scans have, and of the functions that are not exact
IN_FLOAT32 = ("LSTM", "GRU", "PeepholeLSTM", "GRUResetBefore", "MinLSTM", "IndRNN", "LRU", "SLSTM", "RGLRU")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("LSTM", "GRU") else pytest.mark.slow) for name in IN_FLOAT32]
)
def test_in_float32_it_is_the_same_but_for_its_rounding(name):
    wide, narrow = Problem(published(name, np.float64, 19)), Problem(published(name, np.float32, 19))
    narrow.assert_forward(*naive_cells.run(name, narrow.parameters, narrow.sequences, narrow.states, narrow.constants))
    # the same numbers but for rounding, of which the first states and parameters have one more
    expected = (
        wide.layer.views(wide.gradients.parameters),
        nbp.unpack_sequence(wide.gradients.input),
        as_tuple(wide.gradients.hx),
    )
    narrow.assert_backward(*expected, least=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GRUResetBefore", "MinGRU", "IndRNN"])
def test_a_layer_without_biases_is_one_whose_biases_are_zeros(name):
    layer = published(name, np.float64, bias=False)
    problem = Problem(layer)
    assert not [key for key in problem.parameters if key.startswith("bias")]
    problem.assert_forward(*naive_cells.run(name, problem.parameters, problem.sequences, problem.states))


@pytest.mark.parametrize(
    "name", [pytest.param(*p.values, marks=p.marks) for p in NAMES if naive_cells.CELLS[p.values[0]].state_rows]
)
def test_a_product_in_heads_is_that_of_plain_loops(name):
    problem = Problem(published(name, np.float64, H=4, heads=2))
    given = problem.parameters, problem.sequences, problem.states, problem.constants
    problem.assert_forward(*naive_cells.run(name, *given))
    problem.assert_backward(*naive_cells.gradients(problem.loss, name, *given), least=DIFFERENCES)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_what_check_says_of_them(name):
    assert cells.check(getattr(cells, name), **naive_cells.CONSTANTS.get(name, {})).passed


@pytest.mark.slow
def test_a_derivative_by_hand_that_is_wrong_is_found_by_check_and_one_that_is_right_is_that_of_the_formula():
    def by_hand(slope):
        def back(a, h, d_h):
            y = cells.tanh(a)
            return {"a": d_h * slope(y)}

        @cells.cell(sums="a", state="h", back=back)
        def Elman(a, h):
            return cells.tanh(a)

        return Elman

    right, wrong = by_hand(lambda y: 1 - y * y), by_hand(lambda y: 1 - y)
    assert cells.check(right).passed
    assert not cells.check(wrong).passed and "WRONG" in repr(cells.check(wrong))
    expected = Problem(cells.RNNTanh(2, 5, bidirectional=True, dtype=np.float64, rng=0)).gradients
    for one, same in ((right, True), (wrong, False)):
        got = Problem(one(2, 5, bidirectional=True, dtype=np.float64, rng=0)).gradients
        assert np.allclose(got.parameters, expected.parameters, rtol=1e-12, atol=1e-13) == same
        assert np.allclose(got.input.data, expected.input.data, rtol=1e-12, atol=1e-13) == same


# -- cells of one's own ------------------------------------------------------------------------------------------------

#: 8 gates of all kinds, and 4 states
WIDE = Formula(
    {
        "sums": "a b c d", "of_input": "p q", "of_state": "u v", "state": "h k m n", "unit_weights": "w",
        "constants": "s=0.7",
    },
    ["sigmoid(d) * tanh(k1)", "k1", "m1", "softsign(n + s * u)"],
    ["k1 = sigmoid(a) * k + sigmoid(b + w * m) * tanh(p)", "m1 = m + sigmoid(c) * (tanh(q + v * h) - m)"],
)  # fmt: skip
#: 5 gates and one state
FIVE = Formula(
    {"sums": "a b c", "of_input": "p", "of_state": "u", "state": "h"},
    ["tanh(sigmoid(a) * h + sigmoid(b) * tanh(p + u) + relu(c) * 0.3)"],
)


def check_own(formula, dtype=np.float64, H=5):
    problem = Problem(formula.cell()(3, H, dtype=dtype, rng=0), lengths=(3, 0, 2))
    given = formula, problem.parameters, problem.sequences, problem.states, problem.constants
    problem.assert_forward(*run(*given, Plain()))
    problem.assert_backward(*gradients(*given, problem.d_outputs, problem.d_states), least=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("formula", [WIDE, FIVE], ids=["8-gates-4-states", "5-gates"])
def test_a_cell_of_ones_own_is_its_formula_and_its_gradients_those_of_it(formula, dtype):
    check_own(formula, dtype)


@pytest.mark.slow
@settings(deadline=None, max_examples=4, derandomize=True, database=None, phases=[Phase.generate])
@given(formula=formulas(most_lines=8, bounded=True), H=st.integers(1, 6))
def test_a_layer_of_a_formula_at_random_is_that_formula(formula, H):
    with_all = formula._replace(results=[f"{x} + 0.3 * tanh({sum_of(formula)})" for x in formula.results])
    check_own(with_all, H=H)


def sum_of(formula):
    """Of all arguments, so that each has a gradient."""
    return " + ".join(name for kind in formula.kinds for name in formula.names(kind))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_compared_and_chosen_in_compiled_code_as_in_formulas(dtype):
    formula = Formula(
        {"of_input": "p", "state": "h k m n"},
        [
            "where((h < k) & ~(k > 1) | (h == 0), 1.0, 2.0) + p",
            "maximum(h, k)",
            "minimum(k, h)",
            "clip(relu(m), 0.5, 2.0) + maximum(0.25, n)",
        ],
    )
    rng = np.random.default_rng(0)
    values = np.array([np.nan, -np.inf, -1.0, 0.0, 0.7, 1.0, np.inf], dtype)
    states = list(rng.choice(values, (4, 1, 1, 300)))
    layer = formula.cell()(1, 300, bias=False, dtype=dtype)
    _, after = layer(np.zeros((1, 1, 1), dtype), tuple(states))
    expected, _ = formula.run(Plain(), {"p": dtype(0)} | dict(zip("hkmn", states, strict=True)))
    for got, value in zip(after, expected, strict=True):
        np.testing.assert_array_equal(got, value)
