"""``python -m numba_pack``: what a bug report needs; and ``compile``, which fills the cache ahead."""

from __future__ import annotations

import argparse
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any

import numpy as np
from numba.core import config

import numba_pack
from numba_pack import cells

from ._backend import device
from ._cache import SHIPPED, keep_in, place_to_write
from .simd.lanes import lanes_of
from .simd.machine import DOTS, MACHINE


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _engine(kind: str) -> str:
    """What multiplies numbers of this kind."""
    engine: str = getattr(DOTS, kind)
    return f"{engine} in plain loops" if engine == "amx" and DOTS.plain_tiles else engine


def info() -> None:
    """Print versions, the CPU and its lanes, the backend and its device, the threads and the cache folder."""
    rows = {
        "numba_pack": _version("numba_pack"),
        "Python": f"{platform.python_version()} on {platform.platform()}",
        **{name: _version(name) for name in ("numpy", "numba", "llvmlite", "scipy")},
        "CPU": f"{MACHINE.cpu}, {MACHINE.register_bytes * 8}-bit vectors, {'' if MACHINE.fma else 'no '}fused products",
        "lanes": f"{lanes_of(np.float32)} float32, {lanes_of(np.float64)} float64",
        "short factors": ", ".join(f"{kind}: {_engine(kind)}" for kind in ("bfloat16", "int8")),
        "backend": numba_pack.backend,
        **(device.described() if device else {}),
        "threads": str(numba_pack.get_num_threads()),
        "cache": place_to_write() or "nowhere to write: set NUMBA_CACHE_DIR",
        "Numba settings": ", ".join(
            f"{name}={getattr(config, name)}" for name in ("DISABLE_JIT", "BOUNDSCHECK", "CPU_NAME", "CPU_FEATURES")
        ),
    }
    for name, value in rows.items():
        print(f"{name:15} {value}")


def _layers(kinds: Sequence[str], dtypes: Sequence[str]) -> Iterator[Any]:
    """A layer of each kind in each dtype, of the least sizes: what is compiled does not depend on them."""
    for kind in kinds:
        for dtype in dtypes:
            made = getattr(numba_pack, kind) if kind in _LAYERS else getattr(cells, kind)
            yield made(1, 1, dtype=dtype)


def _pack_and_unpack(dtype: str) -> None:
    """What packs and unpacks sequences of a dtype, on little."""
    sequences = [np.zeros((length, 1), dtype) for length in (2, 1)]
    packed = numba_pack.pack_sequence(sequences)
    numba_pack.unpack_sequence(packed)
    for batch_first in (False, True):
        padded, lengths = numba_pack.pad_packed_sequence(packed, batch_first=batch_first)
        numba_pack.pack_padded_sequence(padded, lengths, batch_first=batch_first)


def fill(kinds: Sequence[str], dtypes: Sequence[str], training: bool) -> None:
    """Compile what layers of these kinds run and what packs their input, or find it, and tell how long each took."""
    logging.getLogger("numba_pack").addHandler(logging.NullHandler())  # what follows says that it compiles

    def timed(name: str, dtype: Any, make: Callable[..., None], *arguments: Any, **options: Any) -> None:
        print(f"{name:16} {dtype}", end=" ", flush=True)
        start = perf_counter()
        make(*arguments, **options)
        print(f"{perf_counter() - start:7.1f} s", flush=True)

    for dtype in dtypes:
        timed("packing", dtype, _pack_and_unpack, dtype)
    for layer in _layers(kinds, dtypes):
        timed(layer.cell.name, layer.dtype, numba_pack.warmup, layer, training=training)
    print(f"kept in {place_to_write() or 'no place: set NUMBA_CACHE_DIR'}")


_LAYERS = ("LSTM", "GRU", "RNN")
_CELLS = sorted(name for name, value in vars(cells).items() if isinstance(value, cells.Cell))


_COMPILE = """
Compile ahead what layers run, and what packs their input. Any process finds it that has this version of numba_pack,
Numba and Python, and a CPU of this name and with these features: another user's, in a copy of the folder elsewhere, and
where that is read-only. Code for several kinds of CPU goes into one folder, by running this on each. What is in the
folder "compiled" of the package is found with no setting: so a wheel or an image can bring it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m numba_pack", description="Packed recurrent nets for NumPy.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("info", help="versions, CPU, threads and cache, for a bug report: what no command does, too")
    compiling = commands.add_parser(
        "compile",
        help="fill the cache ahead, as where an image is built, for the CPU that it runs on",
        description=_COMPILE,
    )
    kinds = sorted({*_LAYERS, *_CELLS})
    compiling.add_argument(
        "kinds", nargs="*", metavar="kind", help=f"LSTM, GRU and RNN if none is given; of {', '.join(kinds)}"
    )
    compiling.add_argument("--dtype", nargs="+", choices=("float32", "float64"), default=["float32"])
    compiling.add_argument(
        "--into",
        metavar="folder",
        help="the folder to fill, whatever is kept elsewhere: NUMBA_CACHE_DIR, if that is set, or that of the package, "
        f"{os.path.dirname(SHIPPED)}",
    )
    compiling.add_argument("--inference", action="store_true", help="leave out what training needs besides")
    given = parser.parse_args(arguments)
    if given.command == "compile":
        named = {kind.casefold(): kind for kind in kinds}
        given.kinds = [named.get(kind.casefold(), kind) for kind in given.kinds]
        unknown = sorted(set(given.kinds) - set(kinds))
        if unknown:
            compiling.error(f"kind must be of {', '.join(kinds)}; got {', '.join(unknown)}")
        folder = given.into or config.CACHE_DIR
        if folder:
            keep_in(folder)
        fill(given.kinds or _LAYERS, given.dtype, not given.inference)
    else:
        info()


if __name__ == "__main__":
    main()
