"""What the processor offers: the width of its vector registers, how many it has, and whether it fuses multiply-adds.

LLVM is asked, not the operating system: a few lines are compiled for the CPU that Numba compiles for (so
``NUMBA_CPU_NAME`` counts), and the assembly shows what they became. A CPU that lowers its clock for vectors of 512 bits
is held to 256 by ``NUMBA_CPU_FEATURES=-avx512f``.

And which instructions multiply short numbers, bfloat16 and integers of 8 bits. ``NUMBA_PACK_DOTS`` chooses among those
that the machine has, for tests: ``amx``, ``avx512``, ``avx2``, or ``widened``, by no such instruction. ``amx`` runs
everywhere: where the matrix unit is missing, plain loops do the same, as they do anywhere with ``amx_plain``.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import NamedTuple

import llvmlite.binding as llvm
from numba.core import config
from numba.core.registry import cpu_target

from .._cache import MADE_FOR

__all__ = ["ARCHITECTURE", "DOTS", "MACHINE", "Dots", "Machine", "rounds_to_bfloat16"]

_PROBE = """
define <{n} x float> @probe(<{n} x float> %x, <{n} x float> %y) {{
  %z = call <{n} x float> @llvm.fma.v{n}f32(<{n} x float> %x, <{n} x float> %x, <{n} x float> %y)
  ret <{n} x float> %z
}}
declare <{n} x float> @llvm.fma.v{n}f32(<{n} x float>, <{n} x float>, <{n} x float>)
"""

_ROUNDING = """
define <{n} x bfloat> @probe(<{n} x float> %x) {{
  %y = fptrunc <{n} x float> %x to <{n} x bfloat>
  ret <{n} x bfloat> %y
}}
"""

#: a function that is compiled for a feature becomes part of one that is not, unless the CPU lacks that feature
_FEATURE = """
define internal i32 @within(i32 %x) "target-cpu"="x86-64" "target-features"="+{feature}" {{
  %y = mul i32 %x, %x
  ret i32 %y
}}
define i32 @probe(i32 %x) {{
  %y = call i32 @within(i32 %x)
  ret i32 %y
}}
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
    #: whether plain loops do what AMX's instructions do: those are missing, or not to be used
    plain_tiles: bool


@functools.cache
def _target() -> tuple[str, str, str]:
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    if config.CPU_NAME is not None and config.CPU_FEATURES is None:
        # a CPU named by the user stands for itself: it has no more than its own features, and none that the host lacks
        features = ",".join(feature for feature in features.split(",") if feature.startswith("-"))
    return triple, cpu, features


def _machine() -> llvm.TargetMachine:
    triple, cpu, features = _target()
    return llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)


def _assembly(lanes: int, probe: str = _PROBE) -> str:
    return _machine().emit_assembly(llvm.parse_assembly(probe.format(n=lanes)))


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


def _has(feature: str) -> bool:
    """Whether the CPU, an x86-64, has a feature, by LLVM's name."""
    machine, module = _machine(), llvm.parse_assembly(_FEATURE.format(feature=feature))
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    return "call" not in str(module.get_function("probe"))


@functools.cache
def rounds_to_bfloat16() -> bool:
    """Whether LLVM rounds floats to bfloat16 by instructions.

    On an x86-64 without one for it, it calls a function of the compiler's library, which a process need not have.
    """
    return "__truncsfbf2" not in _assembly(MACHINE.register_bytes // 4, _ROUNDING)


def _vectors_of(size: int) -> bool:
    """Whether the CPU is an x86-64 with vectors of so many bytes."""
    return ARCHITECTURE == "x86_64" and MACHINE.register_bytes == size


def _permitted() -> bool:
    """Whether Linux lets this process use the matrix unit, which it has to be asked.

    What it permits holds for the threads of the process, and for the processes that are forked from it.
    """
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    numbers = map(ctypes.c_long, (arch_prctl, request_permission, tile_data))
    return sys.platform == "linux" and int(ctypes.CDLL(None).syscall(*numbers)) == 0


def _engines() -> dict[str, tuple[str, str]]:
    """What multiplies bfloat16 and what multiplies int8, by the name of the vector unit; the best one first."""
    found = {}
    if _vectors_of(64) and _has("avx512vnni"):
        found["avx512"] = "avx512_bf16" if _has("avx512bf16") else "widened", "avx512_vnni"
    if _vectors_of(32) and _has("avxvnni"):
        found["avx2"] = "widened", "avx_vnni"
    return {**found, "widened": ("widened", "widened")}


def _dots(asked: str | None) -> Dots:
    """The instructions of the engine that is asked for, or else of the best one."""
    if asked == "amx_plain":
        return Dots("amx", "amx", True)
    if not asked or asked == "amx":
        tiles = _vectors_of(64) and _has("amx-bf16") and _has("amx-int8") and _permitted()
        if asked or tiles:
            return Dots("amx", "amx", not tiles)
    engines = _engines()
    if asked and asked not in engines:
        names = ", ".join(["amx", "amx_plain", *engines])
        raise ValueError(f"the environment variable NUMBA_PACK_DOTS must be one of {names} on this CPU; got {asked!r}")
    return Dots(*(engines[asked] if asked else next(iter(engines.values()))), True)


DOTS = _dots(os.environ.get("NUMBA_PACK_DOTS"))
# other code is compiled for other instructions, of which the name of the processor does not tell
MADE_FOR.append(repr(DOTS))
