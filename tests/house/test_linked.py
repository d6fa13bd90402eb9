"""What machine code calls is there; else it is not made, and an error says what is missing."""

import pytest
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numba_pack import _cache
from numba_pack._jit import by_address, inner, jit


def calls(name):
    """A function that calls the C function of that name, which takes a number and returns one."""

    @intrinsic
    def call(typingctx, x):
        def codegen(context, builder, sig, args):
            kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

        return types.float64(types.float64), codegen

    return call


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setattr(_cache, "PLACES", [str(tmp_path)])


def test_a_function_that_is_found_nowhere_is_an_error_that_names_it_and_no_crash():
    missing, found = calls("of_no_library"), calls("cosh")

    @inner
    def within(x):
        return missing(x) if x > 0 else x

    @jit
    def entry(x):
        return within(x)

    @jit
    def other(x):
        return found(x)

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"machine code for this processor \(.+\) calls of_no_library, which"):
            entry(-1.0)
    with pytest.raises(RuntimeError, match="of_no_library"):
        by_address(types.float64(types.float64))(lambda x: within(x))
    assert other(0.0) == 1.0, "what was refused is not left in Numba's engine"
