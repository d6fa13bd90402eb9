"""What the machine can do at most: multiply-adds a second, matrix products, and bytes read from each cache."""

import numpy as np

from bench.tools.environment import Unavailable, caches
from bench.tools.environment import load as load_peer
from bench.tools.timing import interleave
from numba_pack._jit import jit
from numba_pack.simd.lanes import fma, lanes_of, load, store, width
from numba_pack.simd.memory import address

SIDE = 1024  # of the matrices whose product is the measure


def gemm(dtype):
    """The product of two square matrices by NumPy's BLAS, to be timed; it takes `gemm_operations`."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIDE, SIDE)).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    return lambda: np.dot(a, b, out=out)


def gemm_operations():
    return 2 * SIDE**3


def measure(seconds):
    """All ceilings, on one thread, best of many rounds: operations a second, and bytes a second by level of memory."""
    found = {}
    for dtype, letter in (("float32", "s"), ("float64", "d")):
        functions = {f"NumPy {letter}gemm": gemm(dtype), "peak": _peak(dtype)}
        functions |= _torch_mm(dtype, f"PyTorch {letter}gemm")
        operations = dict.fromkeys(functions, gemm_operations()) | {"peak": _PEAK_OPERATIONS * lanes_of(dtype)}
        for name, times in _settled(functions, seconds).items():
            found[f"{name} {dtype}" if name == "peak" else name] = operations[name] / float(times.min())
    return {"operations": found, "bytes": _bandwidths(seconds)}


def _settled(functions, seconds):
    for function in functions.values():
        function()
    return interleave(functions, seconds)


def _torch_mm(dtype, name):
    try:
        torch = load_peer("torch")
    except Unavailable:
        return {}
    a, b, out = (torch.rand(SIDE, SIDE, dtype=getattr(torch, dtype)) for _ in range(3))
    return {name: lambda: torch.mm(a, b, out=out)}


def _bandwidths(seconds):
    """Bytes a second that one core reads from an array of half a cache, and of four times the last."""
    sizes = {level: size // 2 for level, size in caches().items()}
    sizes["DRAM"] = 4 * caches()["L3"]
    functions, nbytes = {}, {}
    for level, size in sizes.items():
        array, repeats = _ones(size // 4, np.float32), max(1, (4 << 20) // size)
        functions[level] = lambda array=array, repeats=repeats: _read(array, repeats)
        nbytes[level] = array.nbytes * repeats
    return {level: nbytes[level] / float(t.min()) for level, t in _settled(functions, seconds).items()}


def _ones(count, dtype):
    """An array that begins with a cache line, so that no vector straddles two."""
    buffer = np.ones(count + 64, dtype)
    skip = (-buffer.ctypes.data % 64) // buffer.itemsize
    return buffer[skip : skip + count]


@jit
def _read(array, repeats):
    """Add up the array so many times, eight vectors at a time."""
    step = width(array)
    result = np.zeros(step, array.dtype)
    a = b = c = d = e = f = g = h = load(array, address(result, 0))
    for _ in range(repeats):
        for i in range(0, len(array) - 8 * step + 1, 8 * step):
            a = a + load(array, address(array, i))
            b = b + load(array, address(array, i + step))
            c = c + load(array, address(array, i + 2 * step))
            d = d + load(array, address(array, i + 3 * step))
            e = e + load(array, address(array, i + 4 * step))
            f = f + load(array, address(array, i + 5 * step))
            g = g + load(array, address(array, i + 6 * step))
            h = h + load(array, address(array, i + 7 * step))
    store(address(result, 0), a + b + c + d + e + f + g + h)
    return result[0]


_PEAK_LOOPS, _PEAK_CHAINS = 200_000, 12
_PEAK_OPERATIONS = 2 * _PEAK_LOOPS * _PEAK_CHAINS  # for each lane


def _peak(dtype):
    numbers = _ones((_PEAK_CHAINS + 2) * lanes_of(dtype), dtype)
    numbers *= 0.5
    return lambda: _multiply_add(numbers, _PEAK_LOOPS)


@jit
def _multiply_add(numbers, loops):
    """Twelve chains of multiply-adds that do not wait for each other."""
    size, at, end = width(numbers) * numbers.itemsize, address(numbers, 0), address(numbers, len(numbers))
    x, y = load(numbers, end - 2 * size), load(numbers, end - size)
    a, b, c, d = load(numbers, at), load(numbers, at + size), load(numbers, at + 2 * size), load(numbers, at + 3 * size)
    at += 4 * size
    e, f, g, h = load(numbers, at), load(numbers, at + size), load(numbers, at + 2 * size), load(numbers, at + 3 * size)
    at += 4 * size
    i, j, k, m = load(numbers, at), load(numbers, at + size), load(numbers, at + 2 * size), load(numbers, at + 3 * size)
    for _ in range(loops):
        a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
        e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
        i, j, k, m = fma(i, x, y), fma(j, x, y), fma(k, x, y), fma(m, x, y)
    result = np.empty(width(numbers), numbers.dtype)
    store(address(result, 0), a + b + c + d + e + f + g + h + i + j + k + m)
    return result[0]
