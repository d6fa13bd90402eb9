"""What formulas are made of besides activations: on lanes and on scalars, against NumPy and SciPy in a wider type."""

import os
import re
from importlib.util import find_spec

import numpy as np
import pytest
from numba import njit, types
from scipy import special
from test_activations import every_exponent, on_lanes, on_scalars, ulps

from numba_pack.cells import activations
from numba_pack.simd.lanes import (
    lanes_of,
    larger,
    load,
    select_equal,
    select_less,
    select_less_equal,
    smaller,
    sqrt,
    store,
    width,
)
from numba_pack.simd.machine import MACHINE
from numba_pack.simd.memory import address
from numba_pack.simd.modes import put_back_mode, take_mode

#: In ulp. Seen: exp 1.05 and 1.58, expm1 1.59 and 3.12, log 0.88 and 0.82, erf 1.92 and 3.14, in float32 (every number)
#: and float64.
BOUNDS = {
    ("exp", np.float32): 1.1,
    ("exp", np.float64): 1.7,
    ("expm1", np.float32): 1.6,
    ("expm1", np.float64): 3.2,
    ("log", np.float32): 0.9,
    ("log", np.float64): 0.9,
    ("erf", np.float32): 2.0,
    ("erf", np.float64): 3.2,
}
#: what comes on top without fused multiply-adds
WITHOUT_FMA = 0.0 if MACHINE.fma else 0.7

UNARY = {name: getattr(activations, name) for name in ("exp", "expm1", "log", "erf", "sign", "nearest", "inverse")}
UNARY["sqrt"] = sqrt
BINARY = {"larger": larger, "smaller": smaller}
SELECTS = {"select_less": select_less, "select_less_equal": select_less_equal, "select_equal": select_equal}


def of_arrays(function, form):
    """The function of as many arrays as it has arguments, two or four: by vectors, or one number at a time."""

    def lanes(x, y, a, b):
        out = np.empty_like(x)
        for i in range(0, x.size, width(x)):
            at = load(x, address(x, i)), load(x, address(y, i)), load(x, address(a, i)), load(x, address(b, i))
            store(address(out, i), call(*at))
        return out

    def scalars(x, y, a, b):
        out = np.empty_like(x)
        for i in range(x.size):
            out[i] = call(x[i], y[i], a[i], b[i])
        return out

    call = njit(lambda x, y, a, b: function(x, y)) if function in BINARY.values() else function
    kernel = njit(lanes if form == "lanes" else scalars)

    def padded(*arrays):
        count = len(arrays[0])
        whole = -(-count // lanes_of(arrays[0].dtype)) * lanes_of(arrays[0].dtype)
        four = [*arrays, *arrays][:4]
        return kernel(*(np.resize(array, whole) for array in four))[:count]

    return padded


FORMS = {"lanes": on_lanes, "scalars": on_scalars}
MAPPED = {(name, form): FORMS[form](function) for name, function in UNARY.items() for form in FORMS}
MAPPED |= {(name, form): of_arrays(function, form) for name, function in (BINARY | SELECTS).items() for form in FORMS}


@pytest.fixture(params=["lanes", "scalars"])
def form(request):
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def sample(request):
    """Two million numbers in ascending order: over all exponents, and over where the functions bend."""
    parts = every_exponent(request.param, 400_000), np.linspace(0, 6, 400_000), np.linspace(0, 800, 300_000)
    positive = np.unique(np.concatenate([part.astype(request.param) for part in parts]))
    return np.concatenate([-positive[::-1], positive])


def wide(x):
    """Float64 for float32, long double for float64."""
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


def wide_erf(x):
    """SciPy has it in float64; for long double, 2 / sqrt(pi) exp(-x**2) (x + 2 x**3 / 3 + 4 x**5 / 15 + ...)."""
    if x.dtype == np.float64:
        return special.erf(x)
    x = np.clip(x, -7, 7)
    term = total = x
    for k in range(1, 200):
        term = term * (2 * x * x / (2 * k + 1))
        total = total + term
    return total * np.exp(-x * x) * 2 / np.sqrt(4 * np.arctan(np.longdouble(1)))


EXACT = {"exp": np.exp, "expm1": np.expm1, "log": np.log, "erf": wide_erf}


def largest_error(name, form, x):
    """In ulp, where number and exact result are of normal size."""
    info = np.finfo(x.dtype)
    x = x[(np.abs(x) >= info.tiny) & ((x > 0) | (name != "log"))]
    if name == "erf" and x.dtype == np.float64:
        x = x[::10]  # the series takes long
    with np.errstate(over="ignore"):
        expected = EXACT[name](wide(x))
    within = (np.abs(expected) >= info.tiny) & (np.abs(expected) <= info.max)
    y = MAPPED[name, form](x)
    errors = ulps(y[within], expected[within])
    return errors.max(), x[within][errors.argmax()]


@pytest.mark.parametrize("name", EXACT)
def test_the_error_is_within_its_bound(name, form, sample):
    if sample.dtype == np.float64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is no wider than float64 here: nothing to measure it by")
    error, at = largest_error(name, form, sample)
    assert error <= BOUNDS[name, sample.dtype.type] + WITHOUT_FMA, at


#: where each errs most: where the reduction passes to the next power of two, or an ulp of the result is small
WORST = {
    "exp": [(0.3, 0.4), (4.5, 4.6), (20.4, 20.5)],
    "expm1": [(0.34, 0.36), (-0.36, -0.34)],
    "log": [(0.7, 0.72), (1.39, 1.42), (0.99, 1.01)],
    "erf": [(0.21, 0.23), (0.0, 0.01), (1.0, 4.0)],
}


@pytest.mark.parametrize("name", EXACT)
def test_the_error_is_within_its_bound_where_it_is_largest(name, form, dtype):
    if dtype == np.float64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is no wider than float64 here: nothing to measure it by")
    rng = np.random.default_rng(0)
    for low, high in WORST[name]:
        error, at = largest_error(name, form, rng.uniform(low, high, 500_000).astype(dtype))
        assert error <= BOUNDS[name, dtype] + WITHOUT_FMA, at


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_the_error_is_within_its_bound_for_every_64th_float32(name):
    for first in range(0, 512, 64):
        positive = np.arange(first, 2**31, 512, dtype=np.uint32).view(np.float32)
        positive = positive[np.isfinite(positive)]
        error, at = largest_error(name, "lanes", np.concatenate([positive, -positive]))
        assert error <= BOUNDS[name, np.float32] + WITHOUT_FMA, at


@pytest.mark.skipif(not MACHINE.fma, reason="scalars have fused multiply-adds by a function, and lanes do not")
@pytest.mark.parametrize("name", UNARY)
def test_lanes_equal_scalars_bit_for_bit(name, sample):
    integer = f"i{sample.itemsize}"
    x = np.concatenate([sample, np.array([np.nan, np.inf, -np.inf], sample.dtype)])
    a, b = (MAPPED[name, form](x) for form in FORMS)
    numbers = ~np.isnan(a)
    np.testing.assert_array_equal(numbers, ~np.isnan(b))
    np.testing.assert_array_equal(a[numbers].view(integer), b[numbers].view(integer))


def assert_equal_with_signs(y, expected):
    np.testing.assert_array_equal(y, expected)
    numbers = ~np.isnan(y)
    np.testing.assert_array_equal(np.signbit(y[numbers]), np.signbit(expected[numbers]))


LIMITS = {  # at -infinity, the least number, -0, 0, the largest number, infinity
    "exp": [0, 0, 1, 1, np.inf, np.inf],
    "expm1": [-1, -1, -0.0, 0, np.inf, np.inf],
    "erf": [-1, -1, -0.0, 0, 1, 1],
    "sign": [-1, -1, -0.0, 0, 1, 1],
    "log": [np.nan, np.nan, -np.inf, -np.inf, None, np.inf],
    "sqrt": [np.nan, np.nan, -0.0, 0, None, np.inf],
    "nearest": [-np.inf, None, -0.0, 0, None, np.inf],
    "inverse": [-0.0, None, -np.inf, np.inf, None, 0],
}


@pytest.mark.parametrize("name", UNARY)
def test_the_limits_are_met_with_their_signs(name, form, dtype):
    last = np.finfo(dtype).max
    ends = np.array([-np.inf, -last, -0.0, 0.0, last, np.inf], dtype)
    given = [i for i, limit in enumerate(LIMITS[name]) if limit is not None]
    y = MAPPED[name, form](ends)
    assert_equal_with_signs(y[given], np.array(LIMITS[name], dtype=float)[given].astype(dtype))
    assert np.isfinite(np.delete(y, given)).all()


@pytest.mark.parametrize("name", UNARY)
def test_nan_stays_nan(name, form, dtype):
    """Whatever its sign and payload: functions that read the bits must not make a number of it."""
    x = np.array([np.nan, 1, -np.nan, 1, 1, 1, 1], dtype)
    bits = x.view(f"u{x.itemsize}")
    bits[3:] = bits[0] + np.array([1, 2**10 + 1, 2**20 + 3, 2**22 - 1], bits.dtype)
    np.testing.assert_array_equal(np.isnan(MAPPED[name, form](x)), [True, False] + [True] * 5)


def test_exp_overflows_where_the_result_does(form, dtype):
    around = np.array(np.log(np.finfo(dtype).max), dtype)
    bits = around.view(f"i{around.itemsize}") + np.arange(-1000, 1000)
    x = bits.astype(f"i{around.itemsize}").view(dtype)
    for name in ("exp", "expm1"):
        y = MAPPED[name, form](x)
        with np.errstate(over="ignore"):
            expected = EXACT[name](wide(x)).astype(dtype)
        # the largest numbers are an ulp or two from infinity
        sure = (expected == np.inf) | (expected < np.finfo(dtype).max * (1 - 2 * np.finfo(dtype).eps))
        np.testing.assert_array_equal(np.isinf(y[sure]), np.isinf(expected[sure]))


def test_exp_goes_down_to_0_by_subnormal_numbers_or_at_once(form, dtype):
    tiny = np.finfo(dtype).tiny
    x = np.linspace(np.log(tiny) - 60, np.log(tiny), 100_000).astype(dtype)
    y = MAPPED["exp", form](x)
    exact = EXACT["exp"](wide(x))
    error = np.abs(wide(y) - exact)
    assert ((error <= 2 * np.spacing(tiny)) | ((y == 0) & (exact < tiny))).all()
    assert (np.diff(y) >= 0).all() and y[0] == 0


@pytest.mark.parametrize("start", [1e-3, 0.34, 0.35, 0.7, 0.9999, 1.03, 1.41, 2.0, 5.5, 40.0], ids=str)
@pytest.mark.parametrize("name", ["exp", "expm1", "log"])
def test_it_is_monotone_from_one_number_to_the_next(name, form, dtype, start):
    """Each is about where a reduction passes to the next power of two, or where the function bends."""
    bits = np.array(start, dtype).view(f"u{np.dtype(dtype).itemsize}")
    x = (bits + np.arange(50_000, dtype=bits.dtype)).view(dtype)
    for argument in (x,) if name == "log" else (x, -x[::-1]):
        assert (np.diff(MAPPED[name, form](argument)) >= 0).all()


def test_erf_is_odd(form, sample):
    y = MAPPED["erf", form](sample)
    np.testing.assert_array_equal(y, -MAPPED["erf", form](-sample))


def test_expm1_has_the_sign_of_x_and_its_relative_accuracy_near_0(form, dtype):
    x = every_exponent(dtype, 100_000)
    x = x[(x >= np.finfo(dtype).tiny) & (x < np.finfo(dtype).eps)]
    for side in (x, -x):
        y = MAPPED["expm1", form](side)
        assert_equal_with_signs(np.sign(y), np.sign(side))
        assert ulps(y, wide(side)).max() <= 1  # x + x**2 / 2 is x


def test_log_of_0_and_of_subnormal_numbers_is_minus_infinity(form, dtype):
    info = np.finfo(dtype)
    x = np.array([0, info.smallest_subnormal, np.nextafter(info.tiny, dtype(0)), info.tiny], dtype)
    y = MAPPED["log", form](x)
    np.testing.assert_array_equal(y[:3], -np.inf)
    assert y[3] == pytest.approx(np.log(float(info.tiny)))


@pytest.mark.parametrize("name", UNARY)
def test_in_the_mode_of_kernels_only_subnormal_numbers_differ_and_are_0(name, sample):
    function = UNARY[name]

    @njit
    def as_kernels_do(x):
        y = np.empty_like(x)
        former = take_mode()
        for i in range(0, x.size, width(x)):
            store(address(y, i), function(load(x, address(x, i))))
        put_back_mode(former)
        return y

    tiny = np.finfo(sample.dtype).tiny
    x = sample[np.abs(sample) >= (tiny if MACHINE.fma else 16 * tiny)]  # without, products of their own are 0
    x = x[: len(x) // 16 * 16]
    y = MAPPED[name, "lanes"](x)
    np.testing.assert_array_equal(as_kernels_do(x), np.where(np.abs(y) < tiny, 0, y))


def test_values_that_are_whole_are_exact(form, dtype):
    ones = np.ones(1, dtype)
    assert MAPPED["log", form](ones) == 0
    assert MAPPED["exp", form](0 * ones) == 1


def test_sqrt_and_inverse_are_rounded_correctly(form, sample):
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(MAPPED["sqrt", form](sample), np.sqrt(sample))
        assert_equal_with_signs(MAPPED["inverse", form](sample), 1 / sample)


def test_sign_is_that_of_numpy(form, sample):
    np.testing.assert_array_equal(MAPPED["sign", form](sample), np.sign(sample))


def test_nearest_is_that_of_numpy(form, sample):
    dtype = sample.dtype
    whole = 1 / np.finfo(dtype).eps  # from here on, no float has a fraction
    halves = np.arange(-1000.5, 1001)
    ends = [np.linspace(s * whole * f - 500, s * whole * f + 500, 4001) for s in (-1, 1) for f in (0.25, 0.5, 1, 2)]
    for x in (sample, *(part.astype(dtype) for part in (halves, *ends))):
        for argument in (x, np.nextafter(x, dtype.type(0))):
            assert_equal_with_signs(MAPPED["nearest", form](argument), np.rint(argument))


def every_pair(dtype):
    info = np.finfo(dtype)
    values = [-np.inf, info.min, -1.5, -info.tiny, -0.0, 0.0, info.tiny, 1.0, 1.5, info.max, np.inf, np.nan]
    x, y = np.meshgrid(np.array(values, dtype), np.array(values, dtype))
    return x.ravel(), y.ravel()


@pytest.mark.parametrize(("name", "expected"), [("larger", np.maximum), ("smaller", np.minimum)])
def test_the_larger_and_the_smaller_are_nan_where_either_is(name, expected, form, dtype):
    x, y = every_pair(dtype)
    np.testing.assert_array_equal(MAPPED[name, form](x, y), expected(x, y))


@pytest.mark.parametrize(
    ("name", "compare"), [("select_less", np.less), ("select_less_equal", np.less_equal), ("select_equal", np.equal)]
)
def test_a_selection_takes_the_second_where_either_is_nan(name, compare, form, dtype):
    x, y = every_pair(dtype)
    a = np.arange(len(x)).astype(dtype)
    np.testing.assert_array_equal(MAPPED[name, form](x, y, a, -a), np.where(compare(x, y), a, -a))


@pytest.mark.skipif(
    find_spec("numba_cuda") is None or "NUMBA_ENABLE_CUDASIM" in os.environ, reason="numba-cuda is not installed"
)
@pytest.mark.parametrize("dtype", [types.float32, types.float64], ids=str)
def test_all_compile_in_a_cuda_thread_without_a_call_and_in_their_dtype(dtype):
    from numba import cuda

    from numba_pack.cuda.device import Kernel
    from numba_pack.cuda.resources import ptx_of

    exp, expm1, log, erf, sign = (UNARY[name] for name in ("exp", "expm1", "log", "erf", "sign"))
    nearest, inverse = UNARY["nearest"], UNARY["inverse"]

    @cuda.jit
    def kernel(x, y):
        i = cuda.grid(1)
        a, b = x[i], y[i]
        a = larger(exp(a) + log(b), expm1(a)) + smaller(erf(a), sqrt(b))
        a = select_less_equal(a, b, sign(a), nearest(b))
        y[i] = select_equal(a, b, inverse(a), b)

    ptx = ptx_of(Kernel(kernel, (dtype[::1], dtype[::1])), (8, 0))
    assert ".entry" in ptx and "sqrt.rn" in ptx and "rcp.rn" in ptx
    assert not re.findall(r"^\s*call", ptx, re.MULTILINE)
    assert (".f64" in ptx) == (dtype == types.float64)
