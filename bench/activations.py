"""The errors of sigmoid and tanh: over every float32, and over a dense sample of float64.

    python bench/activations.py            some minutes
    python bench/activations.py --quick    every 64th block of float32

Errors are in units in the last place (ulp): the distance between floats of the size of the exact value. Prints a
Markdown table.
"""

import argparse
import math

from environment import prepare

if __name__ == "__main__":
    prepare()

import numpy as np
from numba import njit
from tqdm import tqdm

from numba_pack.cells import activations
from numba_pack.simd.lanes import load, store, width
from numba_pack.simd.memory import address

BLOCK = 1 << 22  # floats at a time
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan]
SPECIAL_VALUES = {"sigmoid": [0.5, 0.5, 1.0, 0.0, math.nan], "tanh": [0.0, -0.0, 1.0, -1.0, math.nan]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every 64th block of float32")
    quick = parser.parse_args().quick
    header = ("function", "dtype", "values", "largest error", "at", "monotone", "odd", "at 0, ±infinity and NaN")
    rows = [
        row(name, dtype, blocks)
        for dtype, blocks in ((np.float32, every_float32(64 if quick else 1)), (np.float64, float64_sample()))
        for name in ("sigmoid", "tanh")
    ]
    for cells in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(map(str, cells)) + " |")
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        print("\nlong double is no wider than float64 here: the errors of float64 mean nothing.")


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
        monotone &= bool(y[0] >= last and (y[1:] >= y[:-1]).all())
        odd &= bool((apply(-x) == -y).all())
        count, last = count + len(x), y[-1]
    special = apply(np.array(SPECIAL, dtype).repeat(16))[::16]
    expected = np.array(SPECIAL_VALUES[name], dtype)
    signs = np.signbit(special[:4]) == np.signbit(expected[:4])
    return (
        name,
        dtype.__name__,
        count,
        f"{worst:.3f} ulp",
        f"{at:.9g}",
        "yes" if monotone else "NO",
        "-" if name == "sigmoid" else "yes" if odd else "NO",
        "right" if np.array_equal(special, expected, equal_nan=True) and signs.all() else "WRONG",
    )


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
    return (_sigmoid_errors if name == "sigmoid" else _tanh_errors)(x, y)


def _errors(exact):
    @njit(error_model="numpy")
    def largest(x, y):
        worst, place = 0.0, 0
        for i in range(len(x)):
            reference = exact(np.float64(x[i]))
            error = abs(np.float64(y[i]) - reference)
            if error > 0:
                error = math.ldexp(error, 24 - max(math.frexp(reference)[1], -125))  # below: the subnormal numbers
                if error > worst:
                    worst, place = error, i
        return worst, place

    return largest


_sigmoid_errors = _errors(njit(error_model="numpy")(lambda x: 1.0 / (1.0 + math.exp(-x))))
_tanh_errors = _errors(njit(lambda x: math.tanh(x)))


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
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        reference = np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))
    errors = np.ldexp(np.abs(y - reference), 53 - np.maximum(np.frexp(reference)[1], -1021))
    place = int(errors.argmax())
    return float(errors[place]), place


if __name__ == "__main__":
    main()
