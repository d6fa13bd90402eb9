"""Where compiled code finds the kernels: a table of their addresses, which each process fills for itself.

Machine code is kept on disk, also that of users, and runs in other processes, where every address is another. So no
address of a kernel may be a constant in it, nor lie in ``layer.weights``. Code names the table by a symbol, which is
resolved when it is loaded, and reads from it at each call. (Code that was compiled from other sources of this package
is not loaded: see `WeightsType`.)
"""

from __future__ import annotations

from itertools import product

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cells.parameters import WEIGHTS
from ..simd.lanes import I64

__all__ = ["PASSES", "backward_entry", "enter", "entry", "forward_entry", "gradients_entry"]

#: of what a layer is trained with, each a kernel of its own
PASSES = ("forward", "backward", "gradients")
_SYMBOL = "numba_pack_table"
_DTYPES = ("float32", "float64")
_NAMES = [
    *product(("tile", "gather"), _DTYPES),
    *product(PASSES, [kind.__name__ for kind in WEIGHTS], _DTYPES),
]
_PLACES = {name: place for place, name in enumerate(_NAMES)}
_table = np.zeros(len(_NAMES), np.int64)
llvm.add_symbol(_SYMBOL, _table.ctypes.data)


def enter(*name: str, address: int) -> None:
    """Tell compiled code the address of ``tile`` or ``gather`` for a dtype, or of a pass for weights and a dtype."""
    _table[_PLACES[name]] = address


def entry(builder, *name):
    """In LLVM: the address of that name; 0 if this process has not entered it."""
    kind, place = ir.ArrayType(I64, 0), _PLACES[name]
    table = builder.module.globals.get(_SYMBOL) or ir.GlobalVariable(builder.module, kind, _SYMBOL)
    return builder.load(builder.gep(table, [ir.Constant(I64, 0), ir.Constant(I64, place)]))


def _entry_of(name):
    @intrinsic
    def read(typingctx, weights):
        """The address of a pass for these weights, in compiled code."""
        key = name, weights.instance_class.__name__, weights[0].dtype.name
        return types.int64(weights), lambda context, builder, sig, args: entry(builder, *key)

    return read


forward_entry, backward_entry, gradients_entry = map(_entry_of, PASSES)
