"""The cheaper sigmoid, tanh and exp: their errors, their shape, and which cells have them."""

import numpy as np
import pytest
from numba import njit
from test_activations import dense, every_exponent, on_lanes, on_scalars

from numba_pack import cells
from numba_pack.cells import activations, rough
from numba_pack.simd.lanes import lanes_of, load, store
from numba_pack.simd.machine import MACHINE
from numba_pack.simd.memory import address

WIDE = MACHINE.register_bytes == 64
PIECES = {"tanh": (7.0e-6, 3.9e-5), "sigmoid": (3.6e-6,)}
QUOTIENT = {"tanh": (1.22e-5, 1.22e-5), "sigmoid": (6.2e-6,)}
#: what is called here, and what other machines call: functions, and bounds of their absolute and relative errors
FORMS = {
    "tanh": ("tanh", rough.tanh, *(PIECES if WIDE else QUOTIENT)["tanh"]),
    "tanh as a quotient": ("tanh", rough.tanh_as_quotient, *QUOTIENT["tanh"]),
    "sigmoid": ("sigmoid", rough.sigmoid, *(PIECES if WIDE else QUOTIENT)["sigmoid"]),
    "sigmoid as a quotient": ("sigmoid", rough.sigmoid_as_quotient, *QUOTIENT["sigmoid"]),
}
MAPPED = {name: on_lanes(form[1]) for name, form in FORMS.items()} | {"exp": on_lanes(rough.exp)}
TANH = [name for name in FORMS if name.startswith("tanh")]
SIGMOID = [name for name in FORMS if name.startswith("sigmoid")]
#: how far they may fall from one number to a larger one; for exp, times the value
FALL = 5e-7
#: below, exp is 0
LEAST_EXP = 1.7e-38


@pytest.fixture(scope="module")
def sample():
    """Three million numbers, and every float32 of where a piece of tanh meets the next and errs most."""
    first = np.array(0.125, np.float32).view(np.uint32)
    binade = (first + np.arange(2**23, dtype=np.uint32)).view(np.float32)
    return np.unique(np.concatenate([dense(np.float32), binade, -binade]))


def exact(name, x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x.astype(float))) if name == "sigmoid" else getattr(np, name)(x.astype(float))


@pytest.mark.parametrize("form", FORMS)
def test_the_error_is_within_its_bound(form, sample):
    name, _, bound, *_ = FORMS[form]
    errors = np.abs(MAPPED[form](sample) - exact(name, sample))
    assert errors.max() <= bound, sample[errors.argmax()]


@pytest.mark.parametrize("form", TANH)
def test_the_error_of_tanh_is_small_beside_a_small_value_too(form, sample):
    x = sample[np.abs(sample) >= np.finfo(np.float32).tiny]
    errors = np.abs(MAPPED[form](x) / np.tanh(x.astype(float)) - 1)
    assert errors.max() <= FORMS[form][3], x[errors.argmax()]


def test_the_relative_error_of_exp_is_within_its_bound(sample):
    x = sample[(sample > -86.9) & (sample < 88.7)]
    errors = np.abs(MAPPED["exp"](x) / exact("exp", x) - 1)
    assert errors.max() <= 5e-6, x[errors.argmax()]


def test_exp_is_infinite_where_the_exact_one_is_and_0_where_that_is_tiny(sample):
    y, expected = MAPPED["exp"](sample), exact("exp", sample)
    top = float(np.finfo(np.float32).max)
    assert np.isinf(y[expected > top * 1.00001]).all() and np.isfinite(y[expected < top * 0.99999]).all()
    assert (y[expected < LEAST_EXP] <= LEAST_EXP).all() and (y[expected > LEAST_EXP] > 0).all()


@pytest.mark.parametrize("form", MAPPED)
def test_they_fall_from_one_number_to_a_larger_one_by_roundings_alone(form, sample):
    y = MAPPED[form](sample)
    y = y[np.isfinite(y)].astype(float)
    highest = np.maximum.accumulate(y)
    assert ((highest - y) <= FALL * (highest if form == "exp" else 1)).all()


@pytest.mark.parametrize("form", TANH)
def test_tanh_is_odd_with_the_sign_of_its_zero_and_never_beyond_1(form, sample):
    y = MAPPED[form](sample)
    np.testing.assert_array_equal(y, -MAPPED[form](-sample))
    assert y.min() == -1 and y.max() == 1
    zeros = MAPPED[form](np.array([0.0, -0.0], np.float32))
    np.testing.assert_array_equal(zeros, [0, 0])
    np.testing.assert_array_equal(np.signbit(zeros), [False, True])


@pytest.mark.parametrize("form", SIGMOID)
def test_sigmoid_is_a_half_at_0_and_from_0_to_1(form, sample):
    y = MAPPED[form](sample)
    assert y.min() == 0 and y.max() == 1
    assert not np.signbit(y).any()
    np.testing.assert_array_equal(MAPPED[form](np.array([0.0, -0.0], np.float32)), [0.5, 0.5])


def test_exp_is_1_at_0():
    np.testing.assert_array_equal(MAPPED["exp"](np.array([0.0, -0.0, 1e-30], np.float32)), [1, 1, 1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", MAPPED)
def test_the_limits_are_exact_and_nan_stays_nan(form):
    last = np.finfo(np.float32).max
    ends = np.array([-np.inf, -last, -800, 800, last, np.inf], np.float32)
    low, high = (-1, 1) if form in TANH else (0, 1) if form in SIGMOID else (0, np.inf)
    np.testing.assert_array_equal(MAPPED[form](ends), [low] * 3 + [high] * 3)
    nans = np.array([np.nan, 1, -np.nan], np.float32)
    np.testing.assert_array_equal(np.isnan(MAPPED[form](nans)), [True, False, True])


@pytest.mark.parametrize("form", MAPPED)
def test_a_number_has_the_same_bits_in_every_lane(form):
    x = every_exponent(np.float32, 1001)
    lanes = lanes_of(np.float32)
    whole = MAPPED[form](np.repeat(x, lanes)).reshape(-1, lanes)
    np.testing.assert_array_equal(whole, whole[:, :1].repeat(lanes, 1))


@pytest.mark.parametrize("name", rough.__all__)
def test_numbers_of_float64_and_scalars_have_the_exact_functions(name):
    x = np.linspace(-20, 20, 4001)
    plain, cheap = getattr(activations, name), getattr(rough, name)
    np.testing.assert_array_equal(on_lanes(cheap)(x), on_lanes(plain)(x))
    for dtype in (np.float32, np.float64):
        y = x.astype(dtype)
        np.testing.assert_array_equal(on_scalars(cheap)(y), on_scalars(plain)(y))


# -- which cells have them ---------------------------------------------------------------------------------------------


def after_a_step(cell, dtype=np.float32):
    """The states of 64 units after a step from sums and states at random, by vectors."""
    step, lanes = cell.step, lanes_of(dtype)

    @njit(error_model="numpy")
    def one(i, f, g, o, c, h_after, c_after):
        for u in range(0, 64, lanes):
            at = u * i.itemsize
            gates = (
                load(i, address(i, 0) + at), load(i, address(f, 0) + at), load(i, address(g, 0) + at),
                load(i, address(o, 0) + at),
            )  # fmt: skip
            before = load(i, address(c, 0) + at)
            _, _, states = step(gates, (before, before), (), ())
            store(address(h_after, 0) + at, states[0])
            store(address(c_after, 0) + at, states[1])

    rng = np.random.default_rng(0)
    given, found = rng.standard_normal((5, 64)).astype(dtype), np.zeros((2, 64), dtype)
    one(*given, *found)
    return given, found


@pytest.mark.parametrize("factors", ["bfloat16", "int8"])
def test_cells_of_factors_of_8_bits_have_the_cheaper_functions(factors):
    (i, f, g, o, c), (h_after, c_after) = after_a_step(cells.LSTM.with_factors(factors))
    sigmoid, tanh = MAPPED["sigmoid"], MAPPED["tanh"]
    in_two_roundings = sigmoid(f) * c + sigmoid(i) * tanh(g)
    np.testing.assert_allclose(c_after, in_two_roundings, rtol=0, atol=np.spacing(np.float32(2)))
    np.testing.assert_array_equal(h_after, sigmoid(o) * tanh(c_after))
    _, plain = after_a_step(cells.LSTM)
    assert 1e-7 < np.abs(plain - [h_after, c_after]).max() < 5e-5


@pytest.mark.parametrize("factors", ["bfloat16x2", "bfloat16x3"])
def test_cells_of_other_factors_have_the_exact_functions(factors):
    np.testing.assert_array_equal(after_a_step(cells.LSTM.with_factors(factors))[1], after_a_step(cells.LSTM)[1])


def test_in_float64_every_cell_has_the_exact_functions():
    in_float64 = after_a_step(cells.LSTM.in_bfloat16, np.float64)[1]
    np.testing.assert_array_equal(in_float64, after_a_step(cells.LSTM, np.float64)[1])


def test_what_a_product_is_of_has_the_cheaper_functions_too():
    factor = cells.GRUResetBefore.in_bfloat16.factor

    def of(r):
        return factor((r, r, r), (r, r), (), ())[0]

    x = np.linspace(-5, 5, 64, dtype=np.float32)
    np.testing.assert_array_equal(on_lanes(njit(of))(x), MAPPED["sigmoid"](x) * x)


def test_what_is_made_of_weights_alone_is_exact_with_any_factors():
    """A decay that is off by a millionth is off by a thousandth after a thousand steps."""
    x = np.linspace(-3, 3, 64, dtype=np.float32)

    def of(cell):
        fixed, count = cell.fixed, cell.fixed_numbers

        def total(x):
            made = fixed((x, x, x, x), ())
            whole = made[0]
            for i in range(1, count):
                whole = whole + made[i]
            return whole

        return on_lanes(njit(total))(x)

    assert cells.LRU.fixed_numbers
    np.testing.assert_array_equal(of(cells.LRU.in_bfloat16), of(cells.LRU))
