"""Faults of a cell are told when it is declared: with the argument, and for one inside a formula with its line."""

import functools
import inspect
import math
import re

import numpy as np
import pytest

import numba_pack.cells as nc
from numba_pack.cells import cell, product, sigmoid, tanh, where
from numba_pack.layers.layer import Layer

# -- inside a formula: the line that ends in "# fault" is told ---------------------------------------------------------


def a_function_of_numpy():
    @cell(sums="a", state="h")
    def Own(a, h):
        a = a + 1
        return np.tanh(a)  # fault


def a_function_of_numpy_of_two():
    @cell(sums="a", state="h")
    def Own(a, h):
        return np.maximum(a, h)  # fault


def a_function_of_math():
    @cell(sums="a", state="h")
    def Own(a, h):
        return math.tanh(a)  # fault


def a_function_that_is_no_name():
    @cell(sums="a", state="h")
    def Own(a, h):
        return nc.tanhh(a)  # fault


def a_method():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a.tanh()  # fault


def a_branch():
    @cell(sums="a", state="h")
    def Own(a, h):
        if a > 0:  # fault
            return tanh(a)
        return h


def a_branch_on_a_number():
    @cell(sums="a", state="h")
    def Own(a, h):
        return h if a else tanh(a)  # fault


def an_and():
    @cell(sums="a b", state="h")
    def Own(a, b, h):
        return where(a > 0 and b > 0, a, h)  # fault


def a_not():
    @cell(sums="a b", state="h")
    def Own(a, b, h):
        return where(not a > 0, b, h)  # fault


def a_chain_of_comparisons():
    @cell(sums="a", state="h")
    def Own(a, h):
        return where(0 < a < 1, a, h)  # fault


def the_min_of_python():
    @cell(sums="a b", state="h")
    def Own(a, b, h):
        return min(a, b)  # fault


def a_loop():
    @cell(sums="a", state="h")
    def Own(a, h):
        while a > 0:  # fault
            a = a - 1
        return a


def a_range():
    @cell(sums="a", state="h")
    def Own(a, h):
        for _ in range(a):  # fault
            h = tanh(h)
        return h


def a_conversion():
    @cell(sums="a", state="h")
    def Own(a, h):
        return float(a)  # fault


def an_index():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a[0]  # fault


def an_array():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a * np.ones(3)  # fault


def a_text():
    @cell(sums="a", state="h")
    def Own(a, h):
        return tanh("a") + a  # fault


def a_fraction_as_a_power():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a**0.5  # fault


def a_number_as_a_power():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a**h  # fault


def a_power_of_a_constant():
    @cell(sums="a", state="h")
    def Own(a, h):
        return 2**a  # fault


def a_remainder():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a % 2  # fault


def a_choice_by_a_number():
    @cell(sums="a", state="h")
    def Own(a, h):
        return where(a, h, 0)  # fault


def a_condition_in_a_sum():
    @cell(sums="a", state="h")
    def Own(a, h):
        return h + (a > 0)  # fault


def a_condition_joined_with_a_number():
    @cell(sums="a", state="h")
    def Own(a, h):
        return where((a > 0) & h, a, h)  # fault


def a_second_product():
    @cell(sums="a", state="h")
    def Own(a, h):
        b = product(a * h)
        return b + product(h)  # fault


def a_product_of_the_product():
    @cell(sums="a", state="h")
    def Own(a, h):
        return product(tanh(product(a)))  # fault


def a_product_of_a_constant():
    @cell(sums="a", state="h")
    def Own(a, h):
        return a + product(1.0)  # fault


def a_number_of_another_formula():
    seen = []

    @cell(sums="a", state="h")
    def Other(a, h):
        seen.append(a)
        return tanh(a)

    @cell(sums="a", state="h")
    def Own(a, h):
        return a + seen[0]  # fault


INSIDE = [
    (a_function_of_numpy, TypeError, "functions of numba_pack.cells"),
    (a_function_of_numpy_of_two, TypeError, "functions of numba_pack.cells"),
    (a_function_of_math, TypeError, "functions of numba_pack.cells"),
    (a_function_that_is_no_name, TypeError, "tanhh"),
    (a_method, TypeError, "tanh"),
    (a_branch, TypeError, "where("),
    (a_branch_on_a_number, TypeError, "where("),
    (an_and, TypeError, "& | ~"),
    (a_not, TypeError, "& | ~"),
    (a_chain_of_comparisons, TypeError, "& | ~"),
    (the_min_of_python, TypeError, "where("),
    (a_loop, TypeError, "branch"),
    (a_range, TypeError, "functions of numba_pack.cells"),
    (a_conversion, TypeError, "functions of numba_pack.cells"),
    (an_index, TypeError, "functions of numba_pack.cells"),
    (an_array, TypeError, "array"),
    (a_text, TypeError, "'a'"),
    (a_fraction_as_a_power, TypeError, "whole number as its exponent"),
    (a_number_as_a_power, TypeError, "whole number as its exponent"),
    (a_power_of_a_constant, TypeError, "formula"),
    (a_remainder, TypeError, "%"),
    (a_choice_by_a_number, TypeError, "condition must be a comparison"),
    (a_condition_in_a_sum, TypeError, "+"),
    (a_condition_joined_with_a_number, TypeError, "joined with conditions"),
    (a_second_product, ValueError, "product must be taken once"),
    (a_product_of_the_product, ValueError, "product must be taken once"),
    (a_product_of_a_constant, TypeError, "x must be a number of the formula"),
    (a_number_of_another_formula, TypeError, "of one formula"),
]


@pytest.mark.parametrize("declare, kind, told", INSIDE, ids=[declare.__name__ for declare, *_ in INSIDE])
def test_a_fault_in_a_formula_is_told_with_the_cell_and_the_line(declare, kind, told):
    lines, first = inspect.getsourcelines(declare)
    (line,) = [first + i for i, text in enumerate(lines) if text.rstrip().endswith("# fault")]
    with pytest.raises(kind, match=rf"^Own, line {line}: .*{re.escape(told)}"):
        declare()


def test_an_error_inside_a_function_that_a_formula_calls_tells_the_line_of_the_formula():
    """The line is one of the file of the formula."""

    def of_two(x, y):
        return x.no_such_thing + y

    with pytest.raises(TypeError, match=rf"^Own, line {inspect.getsourcelines(of_two)[1] + 1}: "):

        @cell(sums="a", state="h")
        def Own(a, h):
            return of_two(a, h)


# -- what is returned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, result, kind, told",
    [
        ("h", lambda a: (a, a), ValueError, "Own must return the state after the step, h; got 2 values"),
        ("h c", lambda a: a, ValueError, "Own must return the state after the step, h, c; got 1 values"),
        ("h c", lambda a: (a, a, a), ValueError, "got 3 values"),
        ("h c", lambda a: (a, a > 0), TypeError, "Own must return a number for c; got .*Condition"),
        ("h", lambda a: None, TypeError, "Own must return a number for h; got NoneType"),
        ("h", lambda a: "a", TypeError, "Own must return a number for h; got str"),
        ("h c", lambda a: [a, a], ValueError, "got 1 values"),
    ],
)
def test_what_is_returned_is_a_number_for_each_state(state, result, kind, told):
    def Own(a, **states):
        return result(a)

    def with_c(a, h, c):
        return result(a)

    def with_h(a, h):
        return result(a)

    function = with_c if "c" in state else with_h
    function.__name__ = "Own"
    with pytest.raises(kind, match=told):
        cell(sums="a", state=state)(function)


# -- arguments and their kinds -----------------------------------------------------------------------------------------


def of_a_h(a, h):
    return tanh(a)


def of_a_h_k(a, h, k=0.5):
    return tanh(a)


def without_default(a, h, k):
    return tanh(a)


def of_a_with_default(a=1.0, h=None):
    return tanh(a)


def of_any(a, *h):
    return tanh(a)


def of_any_names(a, h, **others):
    return tanh(a)


def of_places(a, /, h):
    return tanh(a)


def of_dropout(a, h, dropout=0.5):
    return tanh(a)


def with_text(a, h, k="0.5"):
    return tanh(a)


def with_bool(a, h, k=True):
    return tanh(a)


KINDS = [
    (of_a_h_k, dict(sums="a", state="h"), ValueError, "argument 'k' of of_a_h_k must be named in one of .*constants="),
    (of_a_h, dict(sums="a", of_input="a", state="h"), ValueError, "'a' must be of one kind; .* sums and in of_input"),
    (of_a_h, dict(sums="a h", state="h"), ValueError, "'h' must be of one kind; got it in sums and in state"),
    (of_a_h, dict(sums="a a", state="h"), ValueError, "'a' must be named once in sums; got it twice"),
    (of_a_h, dict(sums="a b", state="h"), ValueError, "'b', named in sums, must be an argument of of_a_h"),
    (of_a_h, dict(sums="a", state="h c"), ValueError, "'c', named in state, must be an argument of of_a_h"),
    (of_a_h, dict(sums="a", state=""), ValueError, "state must name at least one state"),
    (of_a_h, dict(of_state="a", state="h"), ValueError, "sums or of_input must name at least one argument"),
    (without_default, dict(sums="a", state="h", constants="k"), ValueError, "constant 'k' .*default.*got none"),
    (of_a_with_default, dict(sums="a", state="h"), ValueError, "argument 'a' .* of sums, must have no default"),
    (of_a_h_k, dict(sums="a", state="h", of_input="k"), ValueError, "argument 'k' .* of_input, must have no default"),
    (of_any, dict(sums="a", state="h"), ValueError, r"given by name; got \*h"),
    (of_any_names, dict(sums="a", state="h"), ValueError, r"given by name; got \*\*others"),
    (of_places, dict(sums="a", state="h"), ValueError, "given by name; got a"),
    (of_dropout, dict(sums="a", state="h", constants="dropout"), ValueError, "'dropout' in constants must have"),
    (with_text, dict(sums="a", state="h", constants="k"), TypeError, "default of 'k' must be a number; got '0.5'"),
    (with_bool, dict(sums="a", state="h", constants="k"), TypeError, "default of 'k' must be a number; got True"),
    (of_a_h, dict(sums=["a"], state="h"), TypeError, "sums must be a string of names, as 'i f g o'; got list"),
    (of_a_h, dict(sums="a", state=None), TypeError, "state must be a string of names.*got NoneType"),
    (of_a_h, dict(sums="a", state="h", back=3), TypeError, "back must be a function; got int"),
    (3, dict(sums="a", state="h"), TypeError, "a cell must be made of a function; got int"),
    (nc.LSTM, dict(sums="a", state="h"), TypeError, "a cell must be made of a function; got .*Cell"),
]  # fmt: skip


@pytest.mark.parametrize("function, kinds, kind, told", KINDS)
def test_every_argument_has_one_kind_and_what_that_takes(function, kinds, kind, told):
    with pytest.raises(kind, match=told):
        cell(**kinds)(function)


def declared_with(kind, name):
    space = {}
    exec(f"def Own(a, h, {name}=0.5): return a * {name}", space)
    return cell(sums="a", state="h", **{kind: name})(space["Own"])


#: options of layers, and what layers have as attributes
OF_LAYERS = sorted(
    {*inspect.signature(Layer).parameters, *(name for name in dir(Layer) if name[0] != "_")} - {"constants"}
)


@pytest.mark.parametrize("name", [*OF_LAYERS, "weights", "output_size", "_version"])
def test_a_constant_has_no_name_that_layers_have_already(name):
    with pytest.raises(ValueError, match=f"'{name}' in constants must have another name: layers have that one already"):
        declared_with("constants", name)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh"])
def test_a_unit_weight_has_no_name_that_a_state_dict_has_already(name):
    with pytest.raises(ValueError, match=f"'{name}' in unit_weights must have another name: layers have that one"):
        declared_with("unit_weights", name)


def test_all_other_names_are_free():
    """Also those of what layers are called with, and such as begin like the end of a parameter's name."""

    def Own(input, forget, cell, output, h, hx, p_l, p_lam=3.0, q_l0=2.0):
        return sigmoid(input) * tanh(cell) + forget * p_l * p_lam + q_l0 * output * hx

    layer = cell(sums="input forget cell output", state="h hx", unit_weights="p_l p_lam q_l0")(two_of(Own))(2, 3)
    parameters = layer.state_dict()
    np.testing.assert_array_equal(parameters["p_lam_l0"], [3.0, 3.0, 3.0])
    np.testing.assert_array_equal(parameters["q_l0_l0"], [2.0, 2.0, 2.0])
    assert np.unique(parameters["p_l_l0"]).size == 3


def two_of(function):
    """A function of the same arguments that returns its result twice."""

    @functools.wraps(function)
    def twice(**given):
        return (function(**given),) * 2

    return twice


def test_names_may_stand_with_commas():
    def Own(a, b, h):
        return a * b

    assert cell(sums="a, b", state="h")(Own).digest == cell(sums="a b", state="h")(Own).digest


@pytest.mark.parametrize("gates, states", [(17, 1), (1, 9)], ids=["gates", "states"])
def test_more_gates_or_states_than_there_may_be_are_told(gates, states):
    with pytest.raises(ValueError, match=f"Own must have at most 16 gates and 8 states; got {gates} and {states}"):
        many(gates, states)


def test_as_many_as_there_may_be_are_taken():
    assert (many(16, 8).gates, many(16, 8).states) == (16, 8)


def many(gates, states):
    sums, names = [f"a{i}" for i in range(gates)], [f"h{i}" for i in range(states)]
    space = {}
    exec(f"def Own({', '.join(sums + names)}): return ({' + '.join(sums)},{' a0,' * (states - 1)})", space)
    function = space["Own"] if states > 1 else lambda **given: None
    if states == 1:
        exec(f"def Own({', '.join(sums + names)}): return {' + '.join(sums)}", space)
        function = space["Own"]
    return cell(sums=" ".join(sums), state=" ".join(names))(function)


# -- derivatives by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "back, kind, told",
    [
        (lambda a, h, d_h: d_h, ValueError, "back of Own must return a dict of the gradients of a, h; got"),
        (lambda a, h, d_h: {"b": d_h}, ValueError, "back of Own must return a dict of the gradients of a, h; got"),
        (lambda a, h, d_h: {"a": d_h > 0}, TypeError, "back of Own"),
        (lambda a, h, d_h: {"a": "d_h"}, TypeError, "back of Own"),
        (lambda a, h, d_h: {"a": np.tanh(d_h)}, TypeError, "back of Own, line"),
        (lambda a, h: {}, TypeError, "back of Own, .*d_h"),
    ],
)
def test_a_derivative_by_hand_gives_numbers_by_the_names_of_arguments(back, kind, told):
    with pytest.raises(kind, match=told):

        @cell(sums="a", state="h", back=back)
        def Own(a, h):
            return tanh(a)


def test_a_formula_with_a_product_has_no_derivative_by_hand():
    with pytest.raises(ValueError, match="back must be left out for a formula with a product; got one for Own"):

        @cell(sums="a", state="h", back=lambda a, h, d_h: {})
        def Own(a, h):
            return tanh(a + product(h))


# -- a layer of a cell -------------------------------------------------------------------------------------------------


def test_a_layer_refuses_what_is_no_option_or_no_number():
    with pytest.raises(TypeError, match="JANET has no option 'gamma'"):
        nc.JANET(3, 2, gamma=1.0)
    with pytest.raises(TypeError, match=r"beta must be a .*number; got '1'"):
        nc.JANET(3, 2, beta="1")
    with pytest.raises(ValueError, match=r"beta must be .*; got nan"):
        nc.JANET(3, 2, beta=math.nan)
    with pytest.raises(ValueError, match="proj_size must be 0 where the formula reads h itself, as that of MinGRU"):
        nc.MinGRU(3, 5, proj_size=2)


def test_a_state_is_told_by_its_names():
    layer = nc.PeepholeLSTM(3, 2)
    with pytest.raises(TypeError, match=r"hx must be a tuple of two arrays, h and c; got numpy\.ndarray"):
        layer(np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32))
    with pytest.raises(TypeError, match="hx must be a tuple of four arrays, h, c, n and m; got tuple of 2"):
        nc.SLSTM(3, 2)(np.ones((1, 1, 3), np.float32), (np.ones((1, 1, 2), np.float32),) * 2)
