"""Where compiled code finds the kernels: a table of their addresses, which each process fills for itself.

Machine code is kept on disk, also that of users, and runs in other processes, where every address is another, or beside
other sources of this package. So no address may be a constant in it, nor lie in what can become a constant, as
``layer.weights`` does when it is a global variable of a function. Code names the table by a symbol, which is resolved
when it is loaded, and reads from it at each call. The first entry tells of which state the sources are.
"""

from __future__ import annotations

from itertools import product

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._jit import SOURCES, inner
from ..parameters import WEIGHTS
from .lanes import I64

__all__ = ["PASSES", "backward_entry", "enter", "entry", "forward_entry", "gradients_entry"]

#: of what a layer is trained with, each a kernel of its own
PASSES = ("forward", "backward", "gradients")
_SYMBOL = "numba_pack_table"  # never another: code of all states of the sources looks for it
_DTYPES = ("float32", "float64")
_NAMES = [
    "sources",
    *product(("tile", "gather"), _DTYPES),
    *product(PASSES, [kind.__name__ for kind in WEIGHTS], _DTYPES),
]
_PLACES = {name: place for place, name in enumerate(_NAMES)}
_table = np.zeros(len(_NAMES), np.int64)
_table[0] = SOURCES
llvm.add_symbol(_SYMBOL, _table.ctypes.data)


def enter(*name: str, address: int) -> None:
    """Tell compiled code the address of ``tile`` or ``gather`` for a dtype, or of a pass for weights and a dtype."""
    _table[_PLACES[name]] = address


def entry(builder, *name):
    """In LLVM: the address of that name; 0 if this process has not entered it."""
    kind, place = ir.ArrayType(I64, 0), _PLACES[name if len(name) > 1 else name[0]]
    table = builder.module.globals.get(_SYMBOL) or ir.GlobalVariable(builder.module, kind, _SYMBOL)
    return builder.load(builder.gep(table, [ir.Constant(I64, 0), ir.Constant(I64, place)]))


@intrinsic
def _sources(typingctx):
    return types.int64(), lambda context, builder, sig, args: entry(builder, "sources")


def _entry_of(name):
    @intrinsic
    def read(typingctx, weights):
        key = name, weights.instance_class.__name__, weights[0].dtype.name
        return types.int64(weights), lambda context, builder, sig, args: entry(builder, *key)

    @inner
    def kernel_entry(weights):
        """The address of a pass for these weights, in compiled code, which may be out of a disk cache."""
        if _sources() != SOURCES:
            raise RuntimeError("numba_pack has changed since this function was compiled: remove it from Numba's cache")
        address = read(weights)
        if address == 0:  # where weights that are a constant are not those that this process has made
            raise RuntimeError("these weights are another process's, compiled into this function: pass them to it")
        return address

    return kernel_entry


forward_entry, backward_entry, gradients_entry = map(_entry_of, PASSES)
