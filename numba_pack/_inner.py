"""How functions are compiled whose code becomes part of their callers': to LLVM's code, and no further.

Numba would make machine code of each, and with it once more of all that it calls, for nobody to run: a quarter of the
time that a kernel takes to compile. And it would do harm. The last passes before machine code compute addresses as they
please, and their code is what callers would take in: ``null + address``, where an argument that is added to an address
is the constant 0 in the caller. Its optimisation then removes whatever is read or written there, since nothing lies at
a null pointer. (So the gradients of a peephole LSTM with a projection once were not computed.)
"""

from __future__ import annotations

import dis
from typing import Any

from llvmlite import binding
from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

__all__ = ["InnerCompiler"]


class _InnerLibrary(JITCodeLibrary):
    """LLVM's code of a function and of what it calls, for libraries to take in."""

    def _finalize_final_module(self) -> None:
        """Close the library, without giving it to the engine that makes machine code."""
        self._finalize_dynamic_globals()
        self._finalized = True


class InnerCompiler(Compiler):
    """The pipeline of an inner function."""

    def _compile_bytecode(self) -> Any:
        state = self.state
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
