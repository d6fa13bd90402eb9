"""The instructions that all contenders are held to, to see how they compare on a CPU that has no others.

``hold`` comes before anything is imported that computes. `bench.compare.scaling.held` measures what it comes to.
"""

import os
import re

#: what holds each library but this one, by name of the instructions
_VARIABLES = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # PyTorch's and OpenVINO's
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    }
}
NAMES = tuple(_VARIABLES)
#: who looks at the CPU itself, and cannot be held
LOOSE = ("ONNX Runtime",)
#: what else may have been set, and makes OpenBLAS take other kernels than it would
_OF_OPENBLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
#: LLVM's names of what is beyond AVX2
_BEYOND = re.compile("avx512|avx10|amx|evex512")


def hold(isa):
    """Hold every library to these instructions; without any, to what it chooses itself."""
    for name in _OF_OPENBLAS:
        os.environ.pop(name, None)
    os.environ.update(variables(isa))


def variables(isa):
    """The environment's variables by name; none if ``isa`` is None."""
    return _VARIABLES[isa] | _of_numba() if isa else {}


def _of_numba():
    """A CPU without the features beyond: named alone, it would still be given all that this one has."""
    import llvmlite.binding as llvm

    present = sorted(llvm.get_host_cpu_features().items())
    features = [("-" if _BEYOND.match(name) or not has else "+") + name for name, has in present]
    cpu = "znver3" if llvm.get_host_cpu_name().startswith("znver") else "haswell"
    return {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ",".join(features)}
