"""Numba's own work, done in less time while this package compiles: other functions in place of its, with equal results.

Three quarters of what compiling takes is Python of Numba. What is here are those of its functions that are called most,
and that do for every call what could be done once, or need not be done.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from numba import types
from numba.core import event, ir, utils
from numba.core.base import BaseContext
from numba.core.compiler_lock import global_compiler_lock
from numba.core.lowering import Lower
from numba.core.postproc import PostProcessor, VariableLifetime
from numba.core.runtime.context import NRTContext
from numba.core.transforms import canonicalize_cfg
from numba.core.typeinfer import CallConstraint
from numba.core.typing.npydecl import NumpyRulesArrayOperator

__all__ = ["sparing"]

#: what stands in for what: the owner, the name and the function
_INSTEAD: list[tuple[Any, str, Callable[..., Any]]] = []


@contextlib.contextmanager
def sparing() -> Iterator[None]:
    """Have Numba work so. It may be called by one thread at a time."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _INSTEAD]
    for owner, name, function in _INSTEAD:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def _instead_of(owner: Any, name: str) -> Callable[[Any], Any]:
    def enter(function: Any) -> Any:
        _INSTEAD.append((owner, name, function))
        return function

    return enter


#: what is in most instructions, and has no variables in it
_PLAIN = frozenset({ir.Loc, str, int, bool, type(None)})
_list_vars = ir.Inst._rec_list_vars


@_instead_of(ir.Inst, "_rec_list_vars")
def _variables(instruction: Any, value: Any) -> list[Any]:
    """The variables in a part of an instruction, in order: Numba asks in each pass, and of what can have none, too."""
    parts = value.values() if type(value) is dict else value
    if type(value) not in (dict, list, tuple):
        return _list_vars(instruction, value)
    found: list[Any] = []
    for part in parts:
        kind = type(part)
        if kind is ir.Var:
            found.append(part)
        elif kind not in _PLAIN:
            found += _variables(instruction, part)
    return found


_resolve = CallConstraint.resolve
#: whose result may be another one though it is called with the same types
_UNSETTLED = (types.BoundFunction, types.Dispatcher, types.RecursiveCall)


@_instead_of(CallConstraint, "resolve")
def _resolve_once(call: Any, typeinfer: Any, typevars: Any, fnty: Any) -> None:
    """The types of a call: Numba looks for those of all calls of a function again, until nothing changes."""
    kinds = fnty, *(typevars[argument.name].type for argument in call.args)
    if vars(call).get("settled") == kinds:
        return
    _resolve(call, typeinfer, typevars, fnty)
    found = call.signature
    if found and found.return_type.is_precise() and not (call.kws or call.vararg or isinstance(fnty, _UNSETTLED)):
        call.settled = kinds


_type_of_operator = NumpyRulesArrayOperator.generic
_ARRAYS = (types.ArrayCompatible, types.Optional)


@_instead_of(NumpyRulesArrayOperator, "generic")
def _type_of_array_operator(template: Any, args: Any, kws: Any) -> Any:
    """The type of an operator on arrays; Numba looks for NumPy's function first, and then for an array."""
    if any(isinstance(arg, _ARRAYS) for arg in args):
        return _type_of_operator(template, args, kws)
    return None


_meminfos = NRTContext.get_meminfos


@_instead_of(NRTContext, "get_meminfos")
def _counted_in(nrt: Any, builder: Any, kind: Any, value: Any) -> Any:
    """What is counted of a value: Numba takes each tuple apart to see that there is nothing in it."""
    if not _contains_counted(nrt._context.data_model_manager[kind]):
        return []
    return _meminfos(nrt, builder, kind, value)


@functools.lru_cache(maxsize=1024)
def _contains_counted(model: Any) -> bool:
    return bool(model.contains_nrt_meminfo())


_delvar = Lower.delvar


@_instead_of(Lower, "delvar")
def _deleted(lower: Any, name: str) -> None:
    """Let go of a variable: of those in which nothing is counted, Numba has a zero stored in them."""
    if _contains_counted(lower.context.data_model_manager[lower.typeof(name)]):
        _delvar(lower, name)


_run = PostProcessor.run


@_instead_of(PostProcessor, "run")
def _processed(processor: Any, emit_dels: bool = False, extend_lifetimes: bool = False) -> None:
    """Note anew where variables live, after each pass: Numba looks at once, for all passes that will not ask."""
    function = processor.func_ir
    if function.is_generator:
        _run(processor, emit_dels, extend_lifetimes)
        return
    function.blocks = canonicalize_cfg(function.blocks)
    function.variable_lifetime = VariableLifetime(function.blocks)
    function.generator_info = None
    if emit_dels:
        processor._insert_var_dels(extend_lifetimes=extend_lifetimes)


_sizeof = BaseContext.get_abi_sizeof
_sizes: dict[tuple[int, str], int] = {}


@_instead_of(BaseContext, "get_abi_sizeof")
def _size_in_bytes(context: Any, kind: Any) -> int:
    """The size of an LLVM type: Numba has LLVM read a module for it, for each variable."""
    key = id(context.target_data), str(kind)
    if key not in _sizes:
        _sizes[key] = _sizeof(context, kind)
    return _sizes[key]


_instead_of(utils, "pysignature")(functools.lru_cache(maxsize=1024)(inspect.signature))


_start, _end = event.start_event, event.end_event


@_instead_of(event, "start_event")
def _start_event(kind: str, data: Any = None) -> None:
    """Tell listeners of an event: Numba tells all functions that are being compiled of each call of LLVM."""
    if not _is_of_a_lock_here(kind):
        _start(kind, data)


@_instead_of(event, "end_event")
def _end_event(kind: str, data: Any = None, exc_details: Any = None) -> None:
    if not _is_of_a_lock_here(kind):
        _end(kind, data, exc_details)


def _is_of_a_lock_here(kind: str) -> bool:
    """Whether the thread that compiles takes or releases a lock: what another one begins may end later."""
    return kind.endswith("_lock") and bool(global_compiler_lock.is_locked())
