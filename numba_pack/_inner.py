"""How functions are compiled whose code becomes part of their callers': to LLVM's code as written, and no further.

Numba would optimise each function twice, and make machine code of it, and with it once more of all that it calls, for
nobody to run: half of the time that a kernel takes to compile. Here LLVM's code of each function is made once, and is
optimised once, as part of the entry that calls it, by whatever way.

And making machine code would do harm. The last passes before it compute addresses as they please, and their code is
what callers would take in: ``null + address``, where an argument that is added to an address is the constant 0 in the
caller. Its optimisation then removes whatever is read or written there, since nothing lies at a null pointer. (So the
gradients of a peephole LSTM with a projection once were not computed.)

What the type of an argument tells, as how many unit weights a cell has, is a `fact`: a number, put in before branches
are pruned and functions typed. So what a cell does not have is not compiled.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

from llvmlite import binding
from numba import _dynfunc, types
from numba.core import ir
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, Flags
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.extending import _Intrinsic
from numba.core.ir_utils import get_definition, guard
from numba.core.untyped_passes import RewriteSemanticConstants
from numba.extending import intrinsic

from ._linked import machine_code

__all__ = ["EntryCompiler", "InnerCompiler", "fact"]


class _Library(JITCodeLibrary):
    """A library that drops the code which llvmlite has built when LLVM has read it.

    Its instructions know their blocks, and those their instructions: Python would search for such cycles, at length.
    """

    def add_ir_module(self, ir_module: Any) -> None:
        super().add_ir_module(ir_module)
        for function in ir_module.functions:
            for block in function.blocks:
                block.instructions.clear()
            function.blocks.clear()


class _InnerLibrary(_Library):
    """LLVM's code of one function, not optimised yet, for libraries to take in with that of what it calls."""

    _with_all: Any = None

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        """Close the library, without giving it to the engine that makes machine code."""
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        self._finalized = True

    def own_module(self) -> Any:
        """The function alone."""
        return super()._get_module_for_linking()

    def _get_module_for_linking(self) -> Any:
        """The function, and all that it calls: what libraries take in that know nothing of inner functions."""
        if self._with_all is None:
            self._with_all = self.own_module().clone()
            for library in _all_of(self._linking_libraries):
                if library is not self:
                    self._with_all.link_in(_module_of(library), preserve=True)
        return self._with_all


def _all_of(libraries: Iterable[Any]) -> list[Any]:
    """The libraries and, of inner functions, those that they call: each once."""
    found: dict[Any, None] = {}
    left = list(libraries)
    while left:
        library = left.pop()
        if library not in found:
            found[library] = None
            if isinstance(library, _InnerLibrary):
                left += library._linking_libraries
    return list(found)


def _module_of(library: Any) -> Any:
    return library.own_module() if isinstance(library, _InnerLibrary) else library._get_module_for_linking()


class _EntryLibrary(_Library):
    """The machine code of an entry, with all inner functions that it calls, which are optimised here, and only here."""

    def finalize(self) -> None:
        for library in _all_of(self._linking_libraries):
            if hasattr(library, "_reload_init"):  # which Numba 0.62 has not
                self._reload_init.update(library._reload_init)
            self._final_module.link_in(_module_of(library), preserve=True)
        self._linking_libraries.clear()
        super().finalize()

    def _finalize_final_module(self) -> None:
        """Have the engine take machine code that was looked at: its own it would link, whatever it finds nowhere."""
        made = self._compiled_object = machine_code(self._codegen, self._final_module)
        super()._finalize_final_module()
        self._compiled_object = made  # which the engine took away


#: of the flags that a function is compiled with, those that Numba hands on to the functions that it calls
_HANDED_ON = ("error_model", "fastmath", "forceinline", "nrt")


class _Flags(Flags):
    """Numba's flags, equal where what a function calls is compiled alike.

    Numba compiles what is called once more for callers of other flags, such as whether they release the GIL. And it
    compares the flags for each call in a function: these four sooner than all thirty.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return _HASH

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Flags):
            return all(getattr(self, name) == getattr(other, name) for name in _HANDED_ON)
        return super().__eq__(other)


#: of all flags, as Numba computes it of their names
_HASH = hash(Flags())


class EntryCompiler(Compiler):
    """The pipeline of an entry."""

    def _compile_bytecode(self) -> Any:
        state = self.state
        state.flags = _Flags(state.flags)
        state.library = _EntryLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super()._compile_bytecode()


#: what facts tell of the type of their argument
_FACTS: dict[Any, Callable[[Any], int]] = {}


def fact(of: Callable[[Any], int]) -> Any:
    """Make a function for compiled code: a number that the type of its argument tells, by the function given."""

    @intrinsic
    def number(typingctx: Any, argument: Any) -> Any:
        value = int(of(argument))
        return types.IntegerLiteral(value)(argument), lambda context, *_: context.get_constant(types.intp, value)

    _FACTS[number] = of
    return number


@register_pass(mutates_CFG=False, analysis_only=False)
class _PutInFacts(FunctionPass):
    """Numbers in place of the facts of a function's arguments, for branches to be pruned by."""

    _name = "put_in_facts"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Numba's name for it."""
        for block in state.func_ir.blocks.values():
            for assign in block.find_insts(ir.Assign):
                value = _number_of(state, assign.value)
                if value is not None:
                    assign.value = ir.Const(value, assign.loc)
                    state.func_ir._definitions[assign.target.name] = [assign.value]
        return True


def _number_of(state: Any, call: Any) -> int | None:
    """The number, if this is the fact of an argument."""
    if not (isinstance(call, ir.Expr) and call.op == "call" and len(call.args) == 1):
        return None
    function, argument = (guard(get_definition, state.func_ir, one) for one in (call.func, call.args[0]))
    if not (isinstance(function, ir.Global | ir.FreeVar) and isinstance(function.value, _Intrinsic)):
        return None
    of = _FACTS.get(function.value)
    return int(of(state.args[argument.index])) if of and isinstance(argument, ir.Arg) else None


#: passes for what inner functions do not have: arrays in expressions, functions to be put in as Python, and, but for
#: some of them, closures, as comprehensions are, and tuples of several types
_UNNEEDED = (
    "FindLiterallyCalls",
    "InlineClosureLikes",
    "InlineInlinables",
    "InlineOverloads",
    "LiteralPropagationSubPipelinePass",
    "LiteralUnroll",
    "MakeFunctionToJitFunction",
    "NopythonRewrites",
    "WithLifting",
)


class InnerCompiler(Compiler):
    """The pipeline of an inner function."""

    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.add_pass_after(_PutInFacts, RewriteSemanticConstants)
            pipeline.finalize()
        code = self.state.func_id.code
        if "literal_unroll" in code.co_names or any(isinstance(constant, CodeType) for constant in code.co_consts):
            return pipelines
        for pipeline in pipelines:
            pipeline.passes = [one for one in pipeline.passes if one[0].__name__ not in _UNNEEDED]
            pipeline._ENFORCING = False  # the last pass before lowering computes anew what each pass could have changed
        return pipelines

    def _compile_bytecode(self) -> Any:
        state = self.state
        state.flags = _Flags(state.flags)
        state.library = _InnerLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        return super()._compile_bytecode()

    def _compile_core(self) -> Any:
        """As Numba does it, and note the function as one to be called, by an object that stands for it in Python."""
        made: Any = super()._compile_core()
        descriptor, name = made.fndesc, made.fndesc.qualname.split(".")[-1]
        module, text = descriptor.lookup_module(), f"inner function {descriptor.qualname}"
        nowhere = _dynfunc.make_function(module, name, text, 0, made.environment, (made.library,))
        made.target_context.insert_user_function(nowhere, descriptor, [made.library])
        if any(step.opname == "RAISE_VARARGS" for step in dis.get_instructions(self.state.func_id.code)):
            _put_environment(made)
        return made._replace(entry_point=nowhere)


def _put_environment(made: Any) -> None:
    """Have code find the function's environment, from which errors take what they say.

    It looks for a variable of that name, which otherwise is in the module of the function's machine code.
    """
    codegen, name = made.library.codegen, made.environment.env_name
    codegen._add_module(binding.parse_assembly(f'@"{name}" = common global ptr null'))
    codegen._engine.finalize_object()
    codegen.set_env(name, made.environment)
