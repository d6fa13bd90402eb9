"""Machine code for another processor, made at this one's speed for a process that is emulated.

The emulated process, a pytest that has this module for a plugin, asks for what its cache does not hold; the process
that started it (`run`), which `become` has turned into a compiler for that processor, answers with what the cache is to
hold. Both have the same Python, Numba and sources. Where code is made it never runs: an address there is that of zeros.
"""

import ctypes
import importlib
import os
import pickle
import subprocess
import sys
import threading
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection

#: the variable that tells the emulated process where to ask
_ASK = "NUMBA_PACK_CROSS"
#: what the emulated pytest is to load, after all others
PLUGIN = __name__
#: what was compiled here, in the order in which it was done
_MADE = []


class _Engine:
    """What Numba takes for LLVM's engine: it makes machine code, and links none."""

    def __init__(self, module, machine, **options):
        self._machine, self.target_data = machine, machine.target_data
        self._new, self._places = [], {}

    def add_module(self, module):
        self._new.append(module)

    def set_object_cache(self, made, wanted):
        self._made = made

    def finalize_object(self):
        while self._new:
            module = self._new.pop()
            self._made(module, self._machine.emit_object(module))

    def is_symbol_defined(self, name):
        return name.startswith(("NRT_", "numba_")) or hasattr(ctypes.CDLL(None), name)  # as it is everywhere

    def add_global_mapping(self, variable, address):
        pass

    def _place(self, name):
        return ctypes.addressof(self._places.setdefault(name, ctypes.create_string_buffer(64)))

    get_function_address = get_global_value_address = _place


def become(cpu, triple):
    """Have this process, which has not imported Numba yet, compile for a processor and never run what it compiled.

    What it sets in the environment is for the emulated process, too.
    """
    if "numba" in sys.modules:
        raise RuntimeError("Numba was imported before it could be told what to compile for")
    # a name that is given stands for all the features of that processor
    os.environ.update(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="", NUMBA_PACK_AHEAD="0", NUMBA_PACK_BACKEND="cpu")
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.get_process_triple = binding.get_default_triple = lambda: triple
    binding.Target.from_default_triple = classmethod(lambda kind: kind.from_triple(triple))
    binding.create_mcjit_compiler = _Engine
    from numba.core import codegen

    codegen.JitEngine = lambda engine: engine
    from numba_pack import _cache

    _cache.found = lambda file: iter(())
    _cache.Cache.save_overload = lambda cache, signature, code: _MADE.append(code)


def run(command, **options):
    """Run an emulated pytest, compile what it asks for, and return its exit status."""
    here, there = Pipe()
    environment = {**options.pop("env"), _ASK: str(there.fileno())}
    with subprocess.Popen(command, env=environment, pass_fds=[there.fileno()], **options) as process:
        there.close()
        _serve(here)
    return process.returncode


def _serve(connection):
    """Compile what is asked for, until nobody asks any more."""
    while True:
        try:
            asked = connection.recv_bytes()
        except (EOFError, ConnectionError):
            return
        try:
            made = _made(*pickle.loads(asked))
        except Exception:
            traceback.print_exc()
            made = b""  # then it is compiled where it is needed
        connection.send_bytes(made)


def _made(asked, signature):
    """The code of an entry, which is asked for by its place or its function, or of what is called by its address."""
    from numba.core.serialize import dumps

    from numba_pack import _jit

    if isinstance(signature, tuple):
        entry = _named(*asked) if isinstance(asked, tuple) else _jit.jit(asked)
        entry.compile(signature)
        code = entry.overloads[signature]
    else:
        _jit.by_address(signature)(asked)
        code = _MADE[-1]
    return dumps((signature, code._reduce()))


def _named(module, name):
    return getattr(importlib.import_module(module), name, None)


def _place(entry):
    """A module that has this entry, and its name there; None if there is none.

    Of an entry that holds a function, the other process has the same one only where the entry is.
    """
    for module in [*sys.modules.values()]:
        for name, value in [*getattr(module, "__dict__", {}).items()]:
            if value is entry:
                return module.__name__, name
    return None


def _asking(connection):
    """Have this process's cache ask for what it does not hold."""
    from numba.core.extending import _Intrinsic
    from numba.core.serialize import dumps

    from numba_pack import _cache, _jit

    asking = threading.Lock()

    def ask(cache, wanted, signature, context):
        file = cache._file(signature, context.codegen())
        if any(True for _ in _cache.found(file)):
            return
        with asking:
            connection.send_bytes(dumps((wanted, signature)))
            code = connection.recv_bytes()
        if code:
            _cache.keep(file, code)

    def reduced(self):
        # Numba takes it apart, and forgets its options
        name = self._defn.__module__, self._defn.__qualname__
        return (_named, name) if _named(*name) is self else reduce(self)

    reduce, _Intrinsic.__reduce__ = _Intrinsic.__reduce__, reduced
    compile_entry, compile_by_address = _jit._Entry.compile, _jit._ByAddress.compile

    def entry(self, signature):
        ask(self._cache, _place(self) or self.py_func, signature, self.targetctx)
        return compile_entry(self, signature)

    def by_address(self):
        ask(self._cache, self._pyfunc, self._sig, self._targetdescr.target_context)
        return compile_by_address(self)

    _jit._Entry.compile, _jit._ByAddress.compile = entry, by_address


def pytest_configure():
    """As a plugin of the emulated pytest."""
    _asking(Connection(int(os.environ[_ASK])))
