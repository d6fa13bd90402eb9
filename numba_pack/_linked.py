"""Whether this process has what machine code calls.

Where a processor has no instruction for something, as some have none that rounds to bfloat16, LLVM calls a function of
the compiler's library, which a process need not have. A name that is found nowhere is linked as address 0: the first
call of it would end the process, and so would the next code that is linked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding

__all__ = ["machine_code"]

#: a row of an ELF file's table of symbols, for 64 bits; section 0 says that it is defined elsewhere
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


def machine_code(codegen: Any, module: Any) -> bytes:
    """The object file of a module, all of whose names Numba's engine will find; or a RuntimeError."""
    made: bytes = codegen._tm.emit_object(module)
    missing = [name for name in _from_elsewhere(made) if not _is_there(name, codegen._engine)]
    if missing:
        raise RuntimeError(
            f"machine code for this processor ({codegen._get_host_cpu_name()}) calls {', '.join(missing)}, which this "
            "process does not have: set NUMBA_CPU_NAME to another name, and report this"
        )
    return made


def _is_there(name: str, engine: Any) -> bool:
    return bool(engine.is_symbol_defined(name) or binding.address_of_symbol(name) is not None)


def _from_elsewhere(code: bytes) -> list[str]:
    """The symbols that an object file uses and does not define; none are known of files that are not ELF."""
    tables = {}
    for section in binding.ObjectFileRef.from_data(code).sections():
        if section.name() in (b".symtab", b".strtab"):
            tables[section.name()] = section.data()
    if len(tables) < 2:
        return []
    symbols, names = np.frombuffer(tables[b".symtab"], _SYMBOL), tables[b".strtab"]
    starts = symbols["name"][(symbols["section"] == 0) & (symbols["name"] != 0)].tolist()
    return [names[start : names.index(b"\0", start)].decode() for start in starts]
