"""Formulas and what is derived of them, by their sources in NumPy: nothing is compiled here.

The reference is `plain_formulas`: each function from its definition, each derivative as a difference quotient.
"""

import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plain_formulas import COMPLEX_STEP, REAL_STEP, Derived, Formula, Plain, slopes
from random_formulas import formulas

import numba_pack.cells
from numba_pack.cells import GRU, LSTM, RGLRU, Cell, MinLSTM, RNNRelu, RNNTanh, cell, functions

#: points of both signs and all sizes that matter, none of them a kink of a formula below
POINTS = np.array([-41.3, -6.1, -2.9, -1.7, -0.8, -0.3, -1e-3, 2e-3, 0.2, 0.4, 0.7, 1.3, 2.2, 3.4, 7.7, 39.1])
POSITIVE = np.array([1e-3, 0.02, 0.3, 0.9, 1.1, 2.7, 14.0, 300.0])


def expression(text, points=POINTS):
    """A formula of this expression of a, b and h, and its arguments at points, each a with each b."""
    a, b = (part.ravel() for part in np.meshgrid(points, points))
    return Formula({"of_input": "a b", "state": "h"}, [text]), {"a": a, "b": b, "h": 0.5 * a + 0.25}


def scale_of(*arrays):
    return max(1.0, *(float(np.abs(array).max(initial=0)) for array in arrays))


def assert_derived(formula, values, step, rtol, W=1.0):
    """Of the step and its derivative: both are those of the definition. Returns the gradients."""
    derived = Derived(formula.cell(), W)
    after, on_the_way = formula.run(Plain(lambda x: W * x), values)
    size = scale_of(*after, *on_the_way)
    for got, expected in zip(derived.forward(values), after, strict=True):
        np.testing.assert_allclose(got + 0 * expected, expected, rtol=1e-12, atol=1e-14 * size)
    rng = np.random.default_rng(3)
    shape = np.broadcast_shapes(*(np.shape(value) for value in values.values()))
    d_states = [rng.uniform(0.5, 1.5, shape) for _ in after]
    got = derived.backward(d_states)
    expected = slopes(formula, values, d_states, step, lambda x: W * x)
    size = scale_of(*expected.values())
    for name in got.keys() & expected.keys():
        atol = rtol * size
        np.testing.assert_allclose(got[name] + 0 * expected[name], expected[name], rtol=rtol, atol=atol, err_msg=name)
    assert expected.keys() - got.keys() == set(formula.names("constants"))
    return got


# -- every function and operator ---------------------------------------------------------------------------------------

#: an expression for each operator and each public function, with every argument a number of the formula once
EXPRESSIONS = {
    "a + b": "a + b",
    "a - b": "a - b",
    "a * b": "a * b",
    "a / b": "a / b",
    "-a": "-a",
    "+a": "+a * b",
    "numbers on either side": "(2 + a) * (b - 3) + (3 - b) * (a * 0.7) + 2 / a + a / 3 + a / 4",
    "whole exponents": "a**0 + 0.5 * a**1 + a**2 - b**3 + b**4",
    "negative exponents": "a**-1 + b**-2",
    "an exponent that is a float": "a**2.0",
    "fma": "fma(a, b, h)",
    "product": "product(a * b) * h",
    "sigmoid": "sigmoid(a)",
    "tanh": "tanh(a)",
    "relu": "relu(a)",
    "leaky_relu": "leaky_relu(a) + leaky_relu(b, 0.2) + leaky_relu(h, alpha=b)",
    "elu": "elu(minimum(a, 4.0)) + elu(b, 0.7) + elu(h, alpha=a)",
    "selu": "selu(a)",
    "gelu": "gelu(a)",
    "silu": "silu(a)",
    "softplus": "softplus(a)",
    "softsign": "softsign(a)",
    "hard_sigmoid": "hard_sigmoid(a) + hard_sigmoid(b, 0.2, 0.5) + hard_sigmoid(a, alpha=b, beta=h)",
    "hard_tanh": "hard_tanh(a) + hard_tanh(b, -2.0, 2.5) + hard_tanh(a, low=-3.0, high=b * b)",
    "exp": "exp(minimum(a, 8.0))",
    "log": "log(a * a + 0.001)",
    "sqrt": "sqrt(a * a + 0.001)",
    "reciprocal": "reciprocal(a)",
    "abs": "abs(a)",
    "sign": "sign(a) * b",
    "round": "round(a) * b",
    "maximum": "maximum(a, b + 0.01) + maximum(b, 1.0) + maximum(-1.0, a)",
    "minimum": "minimum(a, b + 0.01) + minimum(b, 1.0) + minimum(-1.0, a)",
    "clip": "clip(a, -1.0, 1.0) + clip(b, -abs(a), abs(a) + 1.01)",
    "where": "where(a < b, a * a, b * h)",
}
CONDITIONS = [
    "a < b", "a <= b", "a > b", "a >= b", "a == b", "a != b", "a < 1", "1 > a", "1 >= a", "1 == a", "~(a < b)",
    "(a < b) & (b < 1)", "(a < b) | (b < 1)", "(a < b) & ~(b < 1)", "~((a < b) | (b < 1))",
    "(a < 0) & (b < 1) | (h >= 0.5) & ~(a == b)",
]  # fmt: skip


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_the_derivative_is_that_of_finite_differences(text):
    """Away from 0, where a quotient is curved more than a step of differences bears."""
    formula, values = expression(text, POINTS[np.abs(POINTS) > 0.15])
    assert_derived(formula, values, REAL_STEP, rtol=1e-8)


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_the_derivative_is_that_of_complex_steps_nearly_exactly(text):
    """Which tells whether a term is left out that finite differences would not show."""
    formula, values = expression(text)
    assert_derived(formula, values, COMPLEX_STEP, rtol=1e-13, W=-1.3)


@pytest.mark.parametrize("text", ["log(a)", "sqrt(a)", "a / sqrt(b)", "log(a / b)", "exp(-a) * log(b)"])
def test_so_it_is_where_numbers_are_positive_alone(text):
    formula, values = expression(text, POSITIVE)
    assert_derived(formula, values, COMPLEX_STEP, rtol=1e-13)


def test_every_function_has_an_expression_here():
    """So that a function that is added is tested."""
    assert [name for name in functions.__all__ if f"{name}(" not in EXPRESSIONS.get(name, "")] == []
    assert set(functions.__all__) <= set(numba_pack.cells.__all__)


def test_abs_and_round_of_python_are_those_of_cells():
    @cell(of_input="a b", state="h")
    def Builtin(a, b, h):
        return abs(a) + round(b)

    @cell(of_input="a b", state="h")
    def Own(a, b, h):
        return functions.abs(a) + functions.round(b)

    assert Builtin.digest == Own.digest


# -- where a function has a kink ---------------------------------------------------------------------------------------


def at_point(text, a, b=0.0):
    """The value and the gradients of a and b."""
    formula, _ = expression(text)
    derived = Derived(formula.cell())
    (value,) = derived.forward({name: np.float64(x) for name, x in zip("abh", (a, b, 0.0), strict=True)})
    d = derived.backward([np.float64(1.0)])
    return float(value), float(d["a"]), float(d["b"])


@pytest.mark.parametrize(
    "text, a, slope",
    [
        ("relu(a)", 0.0, 0.0),
        ("leaky_relu(a, 0.1)", 0.0, 1.0),
        ("elu(a, 0.3)", 0.0, 1.0),
        ("selu(a)", 0.0, 1.0507009873554805),
        ("abs(a)", 0.0, 0.0),
        ("abs(a)", -0.0, 0.0),
        ("sign(a)", 0.0, 0.0),
        ("sign(a)", 0.5, 0.0),
        ("softsign(a)", 0.0, 1.0),
        ("clip(a, -1.0, 2.0)", -1.0, 1.0),
        ("clip(a, -1.0, 2.0)", 2.0, 1.0),
        ("hard_tanh(a)", 1.0, 1.0),
        ("hard_tanh(a)", -1.0, 1.0),
        ("hard_sigmoid(a, 0.25, 0.5)", 2.0, 0.25),
        ("hard_sigmoid(a, 0.25, 0.5)", -2.0, 0.25),
        ("round(a)", 0.5, 1.0),
        ("round(a)", 0.3, 1.0),
    ],
)
def test_the_slope_at_a_kink_is_the_one_that_is_documented(text, a, slope):
    assert at_point(text, a)[1] == slope


@pytest.mark.parametrize("function", ["maximum", "minimum"])
def test_where_both_are_equal_the_gradient_goes_to_the_first(function):
    assert at_point(f"{function}(a, b)", 0.7, 0.7) == (0.7, 1.0, 0.0)
    assert at_point(f"{function}(b, a)", 0.7, 0.7) == (0.7, 0.0, 1.0)
    assert at_point(f"{function}(a, 0.7)", 0.7)[1] == 1.0
    assert at_point(f"{function}(0.7, a)", 0.7)[1] == 0.0


def test_numbers_are_rounded_to_the_even_one():
    assert [at_point("round(a)", a)[0] for a in (0.5, 1.5, 2.5, -0.5, -1.5, 0.49)] == [0, 2, 2, 0, -2, 0]


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_at_kinks_the_derivative_is_that_of_the_branch_that_was_taken(text):
    formula, values = expression(text, np.array([-3.0, -2.5, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 2.5, 3.0]))
    assert_derived(formula, values, COMPLEX_STEP, rtol=1e-13, W=-1.3)


# -- conditions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", CONDITIONS)
def test_where_chooses_by_any_condition_and_so_does_its_derivative(condition):
    formula, values = expression(f"where({condition}, a * h, b - 2 * h)", np.array([-1.5, 0.0, 0.5, 1.0, 1.5]))
    assert_derived(formula, values, COMPLEX_STEP, rtol=1e-14)
    states, _ = formula.run(Plain(), values)
    assert {True, False} == set(states[0] == values["a"] * values["h"])  # both are taken


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("a, b", [(np.nan, 0.5), (0.5, np.nan), (np.nan, np.nan)], ids=["a", "b", "both"])
def test_a_comparison_with_nan_is_as_in_python(condition, a, b):
    formula, _ = expression(f"where({condition}, 1.0 + h, 2.0 + h)")
    (value,) = Derived(formula.cell()).forward({"a": np.float64(a), "b": np.float64(b), "h": np.float64(0.0)})
    expected = eval(condition, {"a": np.bool_(0) + np.float64(a), "b": np.float64(b), "h": np.float64(0.0)})
    assert value == (1.0 if expected else 2.0)


def test_nan_is_chosen_by_maximum_and_minimum_and_kept_by_clip():
    for text in ("maximum(a, b)", "minimum(a, b)", "maximum(b, a)", "clip(a, -1.0, 1.0)", "relu(a)", "maximum(1.0, a)"):
        assert np.isnan(at_point(text, np.nan, 0.5)[0]), text


def test_a_nan_that_is_not_chosen_goes_nowhere():
    value, d_a, d_b = at_point("where(a == a, a, b)", np.nan, 0.5)
    assert (value, d_a, d_b) == (0.5, 0.0, 1.0)
    assert at_point("where(a < 0, b, sqrt(maximum(a, 0.0)) + b)", -4.0, 0.5)[:2] == (0.5, 0.0)


# -- formulas at random ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(formula=formulas(), seed=st.integers(0, 99), whole=st.booleans())
def test_of_a_formula_at_random_what_is_derived_is_its_gradient(formula, seed, whole):
    """Whole arguments make ties, and meet kinks."""
    rng = np.random.default_rng(seed)
    values = {
        name: rng.integers(-2, 3, 16).astype(float) if whole else 1.5 * rng.standard_normal(16)
        for kind in formula.kinds
        for name in formula.names(kind)
    }
    states, on_the_way = formula.run(Plain(lambda x: -0.7 * x), values)
    assume(scale_of(*states, *on_the_way) < 1e3)
    assert_derived(formula, values, COMPLEX_STEP, rtol=1e-10, W=-0.7)


def as_printed(one, values, d_states):
    """All that the lines of a cell's repr say, by name, computed; a prime is an underscore here."""
    plain = Plain()
    space = {name: getattr(plain, name) for name in dir(plain) if not name.startswith("_")}
    space |= {"erf": scipy.special.erf, "expm1": np.expm1} | values
    space |= {f"d_{name}_": d for name, d in zip(one.arguments.state, d_states, strict=True)}
    lines = repr(one).replace("'", "_").splitlines()
    assert lines[0].startswith("Own: ") and lines[1] == "formula" and lines[-1].startswith("tape: ")
    with np.errstate(all="ignore"):
        exec("\n".join(line.strip() for line in lines[1:-1] if line.startswith(" ")), space)
    return space


@settings(deadline=None, max_examples=200)
@given(formula=formulas(), seed=st.integers(0, 99))
def test_what_is_printed_of_a_formula_at_random_is_what_is_computed(formula, seed):
    """Constants are printed with six digits."""
    assume(not any("product(" in line for line in formula.lines))
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(8) for kind in formula.kinds for name in formula.names(kind)}
    states, on_the_way = formula.run(Plain(), values)
    assume(scale_of(*states, *on_the_way) < 30)
    d_states = [rng.uniform(0.5, 1.5, 8) for _ in states]
    one = formula.cell()
    printed, derived = as_printed(one, values, d_states), Derived(one)
    for name, expected in zip(one.arguments.state, derived.forward(values), strict=True):
        np.testing.assert_allclose(printed[f"{name}_"], expected, rtol=1e-4, atol=1e-4)
    expected = derived.backward(d_states)
    for name, value in expected.items():
        np.testing.assert_allclose(printed[f"d_{name}"] + 0 * value, value, rtol=1e-4, atol=1e-4 * scale_of(value))


# -- what is kept, and what is done ------------------------------------------------------------------------------------


def operations(compiled):
    """Names of the operations in the source of a function; none are loads, constants and negations."""
    found = []
    for line in compiled.__doc__.splitlines()[1:-1]:
        value = line.split(" = ")[1]
        if "(" in value:
            found.append(value.partition("(")[0])
        elif " " in value:
            found.append(value.split(" ")[1])
    return [name for name in found if name != "like"]


def test_a_tape_keeps_no_more_than_what_a_cell_is_known_to_need():
    assert (LSTM.kept, LSTM.kept_numbers, LSTM.kept_states) == (4, 4, 1)  # i f g o as activated, and c
    assert (GRU.kept, GRU.kept_numbers, GRU.kept_states) == (4, 4, 0)  # r z n, and the product that r multiplies
    for rnn in (RNNTanh, RNNRelu):
        assert (rnn.kept, rnn.kept_numbers, rnn.kept_states) == (1, 1, 0)


PUBLISHED = [found for name in numba_pack.cells.__all__ if isinstance(found := getattr(numba_pack.cells, name), Cell)]


#: numbers that are kept beyond the room, where to compute them again would take more than one function
BEYOND = {"SLSTM": 1}


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)
def test_published_cells_keep_what_there_is_room_for_in_a_row_of_their_gradients(one):
    room = one.gates
    assert one.kept_numbers <= room + BEYOND.get(one.name, 0)
    assert one.kept == max(room, one.kept_numbers) + one.has_product


def test_an_activated_value_is_kept_in_place_of_its_sum():
    for function in ("sigmoid", "tanh", "relu", "softsign"):
        formula, _ = expression(f"{function}(a) * b")
        one = formula.cell()
        assert f"tape: b, {'a' + chr(39)}" in repr(one), repr(one)
        assert function not in operations(one.step_back)


def test_what_an_lstm_does_is_what_its_equations_say():
    forward, backward = operations(LSTM.step), operations(LSTM.step_back)
    assert sorted(forward) == sorted(["sigmoid"] * 3 + ["tanh"] * 2 + ["*", "fma", "*"])
    # of c again, which is not kept, its tanh; then five slopes, and a product for each factor of each gate
    assert [name for name in backward if name not in ("*", "fma")] == ["tanh"]
    assert backward.count("fma") == 1 + 5 + 1
    assert backward.count("*") == 1 + 2 + 4 + 4


def test_what_leads_to_no_state_is_not_done():
    @cell(sums="a b", state="h")
    def Wasteful(a, b, h):
        b = functions.exp(functions.tanh(b)) * h
        return functions.sigmoid(a)

    assert operations(Wasteful.step) == ["sigmoid"]
    assert operations(Wasteful.step_back) == ["fma", "*"]


def test_what_is_written_twice_is_done_once():
    formula, _ = expression("sigmoid(a + b) * h + sigmoid(a + b) * tanh(a + b)")
    assert sorted(operations(formula.cell().step)) == sorted(["+", "sigmoid", "tanh", "*", "fma"])


def test_what_is_made_of_unit_weights_alone_is_made_apart_from_the_steps():
    assert "softplus" not in operations(RGLRU.step) + operations(RGLRU.step_back)
    assert sorted(operations(RGLRU.fixed)) == ["*", "sigmoid", "softplus"]


def test_what_is_made_of_unit_weights_alone_is_not_kept():
    assert repr(RGLRU).endswith("tape: x, r', i'")


def test_what_is_loaded_no_sooner_than_made_is_made_at_every_step():
    @cell(of_input="a", state="h", unit_weights="u")
    def Decay(a, h, u):
        return a + (1.0 - u) * h

    assert Decay.fixed_numbers == 0


def test_constants_are_folded():
    formula, _ = expression("a * (2.0 * 3.0 - 5.0) + b * (1 - 2) + (h - -a) / (1 + 1)")
    plain, _ = expression("a - b + (h + a) * 0.5")
    assert operations(formula.cell().step) == operations(plain.cell().step)


# -- the cells that were published -------------------------------------------------------------------------------------


def test_the_gates_of_a_minimal_lstm_add_up_to_1_however_far_they_are_closed():
    ends = np.array([-1000.0, -120, -90, -60, -50, -41, -39, -20, -1, 0, 1, 20, 50, 90, 1000])
    f, i = (part.ravel() for part in np.meshgrid(ends, ends))
    derived = Derived(MinLSTM)
    (share,) = derived.forward({"f": f, "i": i, "n": np.zeros_like(f), "h": np.ones_like(f)})
    between = np.logaddexp(0, -i) - np.logaddexp(0, -f)
    of_i = scipy.special.expit(-between)
    np.testing.assert_allclose(share, scipy.special.expit(between), rtol=1e-12, atol=4e-18)
    gradients = derived.backward([np.ones_like(f)])
    np.testing.assert_allclose(gradients["f"], share * of_i * scipy.special.expit(-f), rtol=1e-12, atol=1e-17)
    # what is left of 1 - share is off by a rounding of 1
    np.testing.assert_allclose(gradients["i"], -share * of_i * scipy.special.expit(-i), rtol=1e-12, atol=2.5e-16)


# -- derivatives by hand -----------------------------------------------------------------------------------------------


def by_hand(slope):
    def back(a, h, d_h):
        return {"a": slope(d_h, functions.tanh(a))}

    @cell(sums="a", state="h", back=back)
    def ByHand(a, h):
        return functions.tanh(a)

    return ByHand


def gradient_of(one):
    a = np.linspace(-3, 3, 13)
    derived = Derived(one)
    derived.forward({"a": a, "h": 0.3 * a})
    return derived.backward([1.5 - a])


def test_a_derivative_by_hand_is_used_as_it_is():
    right = gradient_of(by_hand(lambda d, y: d * (1 - y * y)))
    np.testing.assert_allclose(right["a"], gradient_of(RNNTanh)["a"], rtol=1e-14)
    np.testing.assert_array_equal(right["h"], np.zeros(13))
    wrong = gradient_of(by_hand(lambda d, y: d * (1 - y)))
    assert np.abs(wrong["a"] - right["a"]).max() > 0.1
    assert "gradient, by hand" in repr(by_hand(lambda d, y: d))


def test_it_keeps_what_it_reads_and_has_a_digest_of_its_own():
    one, other = by_hand(lambda d, y: d * (1 - y * y)), by_hand(lambda d, y: d)
    assert (one.kept_numbers, other.kept_numbers) == (1, 0)
    assert len({one.digest, other.digest, RNNTanh.digest}) == 3
