"""Where compiled code finds the kernels: tables of their addresses, which each process fills for itself.

Machine code is kept on disk, also that of users, and runs in other processes, where every address is another. So no
address of a kernel may be a constant in it, nor lie in ``layer.weights``. Code names a table by a symbol, which is
resolved when it is loaded, and reads from it at each call: one table for what all cells share, and one for each cell,
named by the digest of its formula. (Code that was compiled from other sources of this package is not loaded: see
`WeightsType`.)
"""

from __future__ import annotations

import functools
from itertools import product

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cells.cell import FACTORS
from ..simd.lanes import I64

__all__ = ["PASSES", "SHARED", "backward_entry", "enter", "entry", "forward_entry", "gradients_entry"]

#: the passes of training, each a kernel of its own
PASSES = ("forward", "backward", "gradients")
#: the table of what all cells share
SHARED = ""
_DTYPES = ("float32", "float64")
#: what all cells share, for each kind of factors
_OF_ALL = [*(f"{name} {factors}" for name in ("tile", "gather", "pack_back") for factors in FACTORS), "scatter"]
_PLACES = {key: place for names in (PASSES, _OF_ALL) for place, key in enumerate(product(names, _DTYPES))}
_ENTRIES = len(_OF_ALL) * len(_DTYPES)


def _symbol(table: str) -> str:
    return f"numba_pack_{table or 'shared'}"


@functools.cache
def _table(table: str) -> np.ndarray:
    """The table of a cell, by its digest, or the shared one. It is there as long as the process."""
    entries = np.zeros(_ENTRIES, np.int64)
    llvm.add_symbol(_symbol(table), entries.ctypes.data)
    return entries


_table(SHARED)


def enter(table: str, name: str, dtype: str, address: int) -> None:
    """Tell compiled code an address: of a pass of a cell, or of what all cells share."""
    _table(table)[_PLACES[name, dtype]] = address


def entry(builder, table, name, dtype):
    """In LLVM: the address of that name; 0 if this process has not entered it."""
    _table(table)
    kind, place, symbol = ir.ArrayType(I64, 0), _PLACES[name, dtype], _symbol(table)
    found = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, kind, symbol)
    return builder.load(builder.gep(found, [ir.Constant(I64, 0), ir.Constant(I64, place)]))


def _entry_of(name):
    @intrinsic
    def read(typingctx, weights):
        """The address of a pass for these weights, in compiled code."""
        key = weights.instance_class.cell.digest, name, weights[0].dtype.name
        return types.int64(weights), lambda context, builder, sig, args: entry(builder, *key)

    return read


forward_entry, backward_entry, gradients_entry = map(_entry_of, PASSES)
