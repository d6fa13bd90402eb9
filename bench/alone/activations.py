"""The errors of sigmoid, tanh and their kin: over every float32, and over a dense sample of float64; and their time.

The second table is of the cheaper ones that cells have whose factors are of 8 bits, over every float32.

    python -m bench.alone.activations            ten minutes
    python -m bench.alone.activations --quick    every 63rd block of float32

Errors are in units in the last place (ulp), the distance between floats of the size of the exact value; those of the
cheaper ones are as they are, or parts of the exact value. Times are of one value, where vectors of them come from the
cache. Prints Markdown tables.
"""

import argparse
import math
import time

from bench.tools.environment import prepare

if __name__ == "__main__":
    prepare()

import numpy as np
from numba import njit
from tqdm import tqdm

from numba_pack.cells import activations, rough
from numba_pack.simd.lanes import load, store, width
from numba_pack.simd.memory import address

BLOCK = 1 << 22  # floats at a time
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan]
SPECIAL_VALUES = {
    "sigmoid": [0.5, 0.5, 1.0, 0.0, math.nan],
    "tanh": [0.0, -0.0, 1.0, -1.0, math.nan],
    "exp": [1.0, 1.0, math.inf, 0.0, math.nan],
    "expm1": [0.0, -0.0, math.inf, -1.0, math.nan],
    "log": [-math.inf, -math.inf, math.inf, math.nan, math.nan],
    "erf": [0.0, -0.0, 1.0, -1.0, math.nan],
}
ODD = ("tanh", "erf")
#: cheaper functions: the name of the exact one, and those of its errors that are bounded
ROUGH = {
    rough.tanh: ("tanh", ("absolute", "relative")),
    rough.tanh_as_quotient: ("tanh", ("absolute", "relative")),
    rough.sigmoid: ("sigmoid", ("absolute",)),
    rough.sigmoid_as_quotient: ("sigmoid", ("absolute",)),
    rough.exp: ("exp", ("relative",)),
}


#: of a quick run; odd, lest of each power of two the same blocks are seen
STRIDE = 63


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every 63rd block of float32")
    quick = parser.parse_args().quick
    header = (
        "function", "dtype", "values", "largest error", "at", "monotone", "odd", "at 0, ±infinity and NaN", "ns each",
    )  # fmt: skip
    rows = [
        row(name, dtype, blocks)
        for dtype, blocks in ((np.float32, every_float32(STRIDE if quick else 1)), (np.float64, float64_sample()))
        for name in SPECIAL_VALUES
    ]
    show(header, rows)
    header = ("cheaper function", "values", *_ROUGH_ERRORS, "falls by at most", "at 0, ±infinity and NaN", "ns each")
    show(header, [rough_row(function, *of, every_float32(STRIDE if quick else 1)) for function, of in ROUGH.items()])
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        print("\nlong double is no wider than float64 here: the errors of float64 mean nothing.")


def show(header, rows):
    print()
    for cells in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(map(str, cells)) + " |")


def row(name, dtype, blocks):
    """One line of the table: what holds over all blocks, each an ascending array, and each above the one before."""
    apply = on_lanes(getattr(activations, name))
    errors = {np.float32: errors_float32, np.float64: errors_float64}[dtype]
    count, worst, at, last, monotone, odd = 0, 0.0, 0.0, -math.inf, True, True
    for x in tqdm(blocks, f"{name} {dtype.__name__}"):
        y = apply(x)
        error, place = errors(name, x, y)
        if error > worst:
            worst, at = error, x[place]
        odd = odd and name in ODD and bool((apply(-x) == -y).all())
        count, y = count + len(x), y[~np.isnan(y)]
        if len(y):
            monotone &= bool(y[0] >= last and (y[1:] >= y[:-1]).all())
            last = y[-1]
    return (
        name,
        dtype.__name__,
        count,
        f"{worst:.3f} ulp",
        f"{at:.9g}",
        "yes" if monotone else "NO",
        "-" if name not in ODD else "yes" if odd else "NO",
        at_special(name, apply, dtype),
        f"{nanoseconds(getattr(activations, name), dtype):.2f}",
    )


def rough_row(function, name, bounded, blocks):
    """One line of the table of cheaper functions."""
    apply, largest = on_lanes(function), _ROUGH_LARGEST[name]
    count, worst, highest, fall = 0, (0.0, 0.0), -math.inf, 0.0
    for x in tqdm(blocks, function.__name__):
        *errors, highest, fallen = largest(x, apply(x), highest)
        count, worst, fall = count + len(x), tuple(map(max, worst, errors)), max(fall, fallen)
    errors = [f"{error:.3g}" if kind in bounded else "-" for kind, error in zip(_ROUGH_ERRORS, worst, strict=True)]
    right, time_of_one = at_special(name, apply, np.float32), nanoseconds(function, np.float32)
    return (function.__name__, count, *errors, f"{fall:.3g}", right, f"{time_of_one:.2f}")


def at_special(name, apply, dtype):
    """Whether the values where they are known are right."""
    special = apply(np.array(SPECIAL, dtype).repeat(16))[::16]
    expected = np.array(SPECIAL_VALUES[name], dtype)
    signs = np.signbit(special[:4]) == np.signbit(expected[:4])
    return "right" if np.array_equal(special, expected, equal_nan=True) and signs.all() else "WRONG"


def nanoseconds(function, dtype):
    """The least time of one value, of thirty tries."""

    @njit(error_model="numpy")
    def repeat(x, y, times):
        for _ in range(times):
            for i in range(0, len(x), width(x)):
                store(address(y, i), function(load(x, address(x, i))))

    x, times, tries = np.linspace(0.1, 3, 2048).astype(dtype), 50, []
    y = np.empty_like(x)
    repeat(x, y, 1)
    for _ in range(30):
        start = time.perf_counter()
        repeat(x, y, times)
        tries.append(time.perf_counter() - start)
    return min(tries) / times / len(x) * 1e9


def on_lanes(function):
    """The function over arrays of whole vectors, computed as the kernels do."""

    @njit(error_model="numpy")
    def apply(x):
        y = np.empty_like(x)
        for i in range(0, len(x), width(x)):
            store(address(y, i), function(load(x, address(x, i))))
        return y

    return apply


# -- float32: all of them ----------------------------------------------------------------------------------------------


class every_float32:
    """Blocks of all finite float32 in ascending order, or every ``stride``-th of the blocks."""

    def __init__(self, stride):
        # Ordered numbers n: 0, 1, 2 ... are +0.0 and the floats above; -1, -2 ... are -0.0 and those below.
        finite = int(np.float32(np.inf).view(np.int32))
        self.starts = range(-finite, finite, BLOCK)[::stride]  # BLOCK divides the range

    def __len__(self):
        return len(self.starts)

    def __iter__(self):
        for start in self.starts:
            ordered = np.arange(start, start + BLOCK)
            yield np.where(ordered < 0, (-1 - ordered) | (1 << 31), ordered).astype(np.uint32).view(np.float32)


def errors_float32(name, x, y):
    """The largest error in ulp, and where, against the C library in double precision."""
    return _LARGEST[name](x, y)


def _errors(exact):
    @njit(error_model="numpy")
    def largest(x, y):
        worst, place = 0.0, 0
        for i in range(len(x)):
            reference = exact(np.float64(x[i]))
            if math.isfinite(np.float32(reference)):
                error = abs(np.float64(y[i]) - reference)
                if error > 0:
                    error = math.ldexp(error, 24 - max(math.frexp(reference)[1], -125))  # below: the subnormal numbers
            else:
                same = y[i] == np.float32(reference) or (math.isnan(y[i]) and math.isnan(reference))
                error = 0.0 if same else math.inf
            if not error <= worst:
                worst, place = error, i
        return worst, place

    return largest


_ROUGH_ERRORS = ("absolute", "relative")


def _rough_errors(exact, relative):
    """Of blocks in ascending order: both errors where the exact value is a float of normal size; the highest value, and
    by how much a later one was below it, or by what part of it."""

    @njit(error_model="numpy")
    def largest(x, y, highest):
        of_value, of_relative, fall = 0.0, 0.0, 0.0
        for i in range(len(x)):
            reference, value = exact(np.float64(x[i])), np.float64(y[i])
            error = abs(value - reference)
            if math.isfinite(np.float32(reference)):
                of_value = max(of_value, error)
                if abs(reference) > 1.7e-38:
                    of_relative = max(of_relative, error / abs(reference))
                elif error > 1.7e-38:
                    of_relative = math.inf
            elif np.float32(reference) != y[i]:
                of_value = of_relative = math.inf
            if value > highest:
                highest = value
            elif math.isfinite(highest):
                fall = max(fall, (highest - value) / (highest if relative else 1.0) if value < highest else 0.0)
        return of_value, of_relative, highest, fall

    return largest


_SMALLEST = float(np.finfo(np.float32).tiny)
_EXACT = {
    "sigmoid": njit(error_model="numpy")(lambda x: 1.0 / (1.0 + math.exp(-x))),
    "tanh": njit(lambda x: math.tanh(x)),
    "exp": njit(lambda x: math.exp(x)),
    "expm1": njit(lambda x: math.expm1(x)),
    # a subnormal number is taken as 0
    "log": njit(lambda x: math.log(x) if x >= _SMALLEST else -math.inf if x >= 0 else math.nan),
    "erf": njit(lambda x: math.erf(x)),
}
_LARGEST = {name: _errors(exact) for name, exact in _EXACT.items()}
_ROUGH_LARGEST = {name: _rough_errors(_EXACT[name], name == "exp") for name, _ in ROUGH.values()}


# -- float64: a sample -------------------------------------------------------------------------------------------------


def float64_sample():
    """Ascending blocks: points spread evenly, points spread over all magnitudes, and runs of neighbouring floats."""
    rng = np.random.default_rng(0)
    even = rng.uniform(-40, 40, 2 * BLOCK)
    magnitudes = np.exp(rng.uniform(np.log(1e-300), np.log(1000), BLOCK)) * rng.choice([-1.0, 1.0], BLOCK)
    starts = np.concatenate([rng.uniform(-40, 40, 1 << 10), rng.uniform(-1e-3, 1e-3, 1 << 10)])
    runs = (starts.view(np.int64)[:, None] + np.arange(1 << 11)).view(np.float64)  # the next floats away from 0
    return np.split(np.sort(np.concatenate([even, magnitudes, runs.ravel()])), 4)


def errors_float64(name, x, y):
    """The largest error in ulp, and where, against NumPy in long double."""
    with np.errstate(all="ignore"):
        reference = _WIDE[name](x.astype(np.longdouble))
        expected = reference.astype(np.float64)
        errors = np.ldexp(np.abs(y - reference), 53 - np.maximum(np.frexp(reference)[1], -1021))
    same = (y == expected) | (np.isnan(y) & np.isnan(expected))
    errors = np.where(np.isfinite(expected) & np.isfinite(y), errors, np.where(same, 0, np.inf))
    place = int(errors.argmax())
    return float(errors[place]), place


def _erf(x):
    """2 / sqrt(pi) exp(-x**2) (x + 2 x**3 / 3 + 4 x**5 / 15 + ...): the terms have one sign, and nothing cancels."""
    x = np.clip(x, -7, 7)
    term = total = x
    for k in range(1, 200):
        term = term * (2 * x * x / (2 * k + 1))
        total = total + term
    return total * np.exp(-x * x) * 2 / np.sqrt(4 * np.arctan(np.longdouble(1)))


_WIDE = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": lambda x: np.where((0 <= x) & (x < np.finfo(np.float64).tiny), -np.inf, np.log(x)),
    "erf": _erf,
}


if __name__ == "__main__":
    main()
