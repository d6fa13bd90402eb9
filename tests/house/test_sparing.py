"""What stands in for functions of Numba while this package compiles gives what those give."""

import operator
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.core import event, utils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing.npydecl import NumpyRulesArrayOperator

from numba_pack import _sparing


def both(result):
    """Something of Numba's own functions, and of those in their place."""
    own = result()
    with _sparing.sparing():
        return own, result()


def test_numbas_functions_are_back_afterwards():
    def there():
        return [getattr(owner, name) for owner, name, _ in _sparing._INSTEAD]

    before = there()
    with pytest.raises(KeyError), _sparing.sparing():
        assert not set(map(id, before)) & set(map(id, there()))
        raise KeyError
    assert there() == before


VECTOR = types.Array(types.float32, 1, "C")


@pytest.mark.parametrize(
    "args",
    [
        (types.int64, types.int64),
        (types.float64, types.IntegerLiteral(2)),
        (VECTOR, VECTOR),
        (types.float64, VECTOR),
        (types.Optional(VECTOR), types.float32),
        (types.unicode_type, types.unicode_type),
    ],
)
def test_operators_have_the_types_that_they_have(args):
    template = type("Add", (NumpyRulesArrayOperator,), {"key": operator.add})(cpu_target.typing_context)
    own, instead = both(lambda: template.generic(args, {}))
    assert own == instead
    assert (own is None) == (not any("array" in str(arg) for arg in args))


@pytest.mark.parametrize("kind", [types.int64, VECTOR, types.Tuple((types.int64, VECTOR)), types.UniTuple(VECTOR, 3)])
def test_of_a_value_what_is_counted_is_found(kind):
    context = cpu_target.target_context.subtarget(enable_nrt=True)  # a copy, which keeps what is made for it

    def counted():
        function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [context.get_value_type(kind)]), "f")
        builder = ir.IRBuilder(function.append_basic_block())
        return [of for of, _ in context.nrt.get_meminfos(builder, kind, function.args[0])]

    own, instead = both(counted)
    assert own == instead


@pytest.mark.parametrize(
    "kind",
    [
        ir.IntType(1),
        ir.DoubleType(),
        ir.LiteralStructType([ir.IntType(8), ir.IntType(64)]),
        ir.VectorType(ir.FloatType(), 8),
    ],
)
def test_types_have_the_size_that_they_have(kind):
    own, instead = both(lambda: cpu_target.target_context.get_abi_sizeof(kind))
    assert own == instead


def widened(n):
    total = 0
    for i in range(n):
        total = max(total, i) + 0.5
    return total


def recursive(n):
    if n < 2:
        return 1
    return n * recursive_part(n - 1)


@numba.njit
def recursive_part(n):
    if n < 2:
        return 1.5
    return n * recursive_part(n - 1)


def containers(n):
    made = []
    for i in range(n):
        made.append(np.round(i / 3, decimals=1))
    return made


@pytest.mark.parametrize("function", [widened, recursive, containers])
def test_functions_are_typed_as_they_are(function):
    def typed():
        if recursive_part.signatures:
            recursive_part.recompile()
        made = numba.njit(function)
        return made(5), made.nopython_signatures

    own, instead = both(typed)
    assert own == instead


def test_signatures_are_those_of_the_functions():
    def function(a, *, b=np.pi):
        return a, b

    own, instead = both(lambda: utils.pysignature(function))
    assert own == instead


@pytest.fixture
def heard():
    """The kinds of the events that begin, and the data of those that end."""
    found = []

    class Listener(event.Listener):
        def on_start(self, event):
            found.append(event.kind)

        def on_end(self, event):
            found.append(event.data)

    kinds = "numba:compile", "numba:llvm_lock"
    listener = Listener()
    for kind in kinds:
        event.register(kind, listener)
    yield found
    for kind in kinds:
        event.unregister(kind, listener)


def test_who_listens_hears_of_what_is_compiled_and_not_of_locks(heard):
    with global_compiler_lock, _sparing.sparing():
        for kind in ("numba:compile", "numba:llvm_lock"):
            event.start_event(kind)
            event.end_event(kind, "end")
    assert [what for what in heard if what] == ["numba:compile", "end"]


def test_who_listens_hears_of_the_locks_of_other_threads(heard):
    def begin():
        event.start_event("numba:llvm_lock")

    with ThreadPoolExecutor(1) as other, global_compiler_lock, _sparing.sparing():
        other.submit(begin).result()
    assert heard == ["numba:llvm_lock"]
