"""What the processor offers: the width of its vector registers, how many it has, and whether it fuses multiply-adds.

LLVM is asked, not the operating system: a few lines are compiled for the CPU that Numba compiles for (so
``NUMBA_CPU_NAME`` counts), and the assembly shows what they became.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import llvmlite.binding as llvm
from numba.core import config
from numba.core.registry import cpu_target

__all__ = ["ARCHITECTURE", "DOTS", "MACHINE", "Dots", "Machine"]

_PROBE = """
define <{n} x float> @probe(<{n} x float> %x, <{n} x float> %y) {{
  %z = call <{n} x float> @llvm.fma.v{n}f32(<{n} x float> %x, <{n} x float> %x, <{n} x float> %y)
  ret <{n} x float> %z
}}
declare <{n} x float> @llvm.fma.v{n}f32(<{n} x float>, <{n} x float>, <{n} x float>)
"""


class Machine(NamedTuple):
    """The vector unit that kernels are compiled for."""

    cpu: str
    #: bytes of one vector register: 64 (AVX-512), 32 (AVX2) or 16 (anything else)
    register_bytes: int
    #: registers that a tile may fill with accumulators: what is left holds the weights and a broadcast
    accumulators: int
    #: whether a fused multiply-add is one instruction
    fma: bool


class Dots(NamedTuple):
    """The instructions that multiply short numbers and add up the products, by what these are."""

    #: "amx", "avx512_bf16", or "widened": each is made a float32, and multiplied so
    bfloat16: str
    #: "amx", "avx512_vnni", "avx_vnni", or "widened": in pairs of 16 bits
    int8: str


@functools.cache
def _target() -> tuple[str, str, str]:
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    if config.CPU_NAME is not None and config.CPU_FEATURES is None:
        features = ""  # a CPU named by the user stands for itself, without the features of the host
    return triple, cpu, features


def _assembly(lanes: int) -> str:
    triple, cpu, features = _target()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    return machine.emit_assembly(llvm.parse_assembly(_PROBE.format(n=lanes)))


def _probe() -> Machine:
    cpu = _target()[1]
    if "zmm" in _assembly(16):
        return Machine(cpu, 64, 24, True)
    code = _assembly(8)
    if "ymm" in code and "vfmadd" in code:
        return Machine(cpu, 32, 12, True)
    code = _assembly(4)
    fma = "fmla" in code or "vfmadd" in code  # NEON, or 128-bit FMA; elsewhere LLVM calls libm lane by lane
    return Machine(cpu, 16, 24 if "fmla" in code else 12, fma)


MACHINE = _probe()
#: as in LLVM's triples: "x86_64", "aarch64", ...
ARCHITECTURE = _target()[0].partition("-")[0]

DOTS = Dots("avx512_bf16", "avx512_vnni")
