"""Interpreters and Numba as others set them: without docstrings and assertions, or by the variables of Numba."""

import os
import subprocess
import sys

import pytest

import numba_pack as nbp

# Imports every module of the package, but those of CUDA, and those of which the library is not installed.
IMPORT = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("error", RuntimeWarning)
import numba_pack as nbp
for module in pkgutil.walk_packages(nbp.__path__, "numba_pack."):
    if module.name.startswith("numba_pack.cuda"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        assert error.name and not error.name.startswith("numba_pack"), error
        print("no", error.name, file=sys.stderr)
print(sys.flags.optimize, nbp.LSTM.__doc__ is None)
"""

# A part of everything, and a digest of what comes out of it.
WORK = """
import copy, hashlib, os, pickle, tempfile
import numba
import numpy as np
import numba_pack as nbp
from numba_pack.interop._onnx_cells import Composition, cell_of

found = []
sequences = [np.linspace(-1, 1, n * 3, dtype="f4").reshape(n, 3) for n in (4, 0, 2)]
packed = nbp.pack_sequence(sequences)
layer = nbp.GRU(3, 5, 2, bidirectional=True, dropout=0.5, rng=0)
output, state, tape = layer.forward(packed)
gradients = layer.backward(tape, output, state)
layer.parameters = nbp.optim.Adam().step(layer.parameters, gradients.parameters)
output, state, tape = pickle.loads(pickle.dumps(layer)).forward(packed)
found += [output.data, state, gradients.parameters, nbp.fold_embedding(layer, np.ones((7, 3)))(np.arange(7))[0]]
cell = nbp.GRUCell(3, 5, rng=0)
h, tape = cell.forward(np.ones((2, 3), "f4"))
found += [h, cell.backward(tape, h).parameters]

@numba.njit
def compiled(values, offsets, weights):
    packed = nbp.pack_ragged(values, offsets)
    output, h_n = nbp.gru(packed, weights)
    return nbp.pad_packed_sequence(output)[0], h_n

found += compiled(np.ones((6, 3), "f4"), np.array([0, 2, 6]), layer.weights)
found += cell_of(Composition("GRU", ("HardSigmoid", "Softsign")))(3, 2, rng=0)(packed[0])
try:
    import safetensors
except ImportError:
    pass
else:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "layer.safetensors")
        nbp.save(path, layer)
        assert nbp.load(path).parameters.tobytes() == layer.parameters.tobytes()
for bad, error in (((packed, 3), TypeError), ((np.ones((4, 2), "f4"),), ValueError)):
    try:
        layer(*bad)
    except error as caught:
        found.append(np.frombuffer(str(caught).encode(), np.uint8))
nbp.warmup(layer, training=True)
print(hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in found)).hexdigest())
"""

# A digest of what a variable of Numba might change: packing, a layer forward and backward, a user's function.
PART = """
import hashlib
import numba
import numpy as np
import numba_pack as nbp

@numba.njit
def compiled(values, offsets, weights):
    output, h_n = nbp.rnn(nbp.pack_ragged(values, offsets), weights)
    return nbp.pad_packed_sequence(output)[0], h_n

layer = nbp.RNN(3, 5, 2, bidirectional=True, rng=0)
packed = nbp.pack_sequence([np.linspace(-1, 1, n * 3, dtype="f4").reshape(n, 3) for n in (4, 0, 2)])
output, state, tape = layer.forward(packed)
gradients = layer.backward(tape, output, state)
found = [output.data, state, gradients.input.data, gradients.parameters]
found += compiled(np.ones((6, 3), "f4"), np.array([0, 2, 6]), layer.weights)
print(hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in found)).hexdigest())
"""


def run(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def printed(*arguments, **environment):
    process = run(*arguments, **environment)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.parametrize("option, optimized", [("-O", ["1", "False"]), ("-OO", ["2", "True"])])
def test_every_module_can_be_imported_without_docstrings_and_assertions(option, optimized):
    assert printed(option, "-c", IMPORT) == optimized


def test_the_report_can_be_printed_without_docstrings():
    assert printed("-OO", "-m", "numba_pack")[:2] == ["numba_pack", nbp.__version__]


def test_the_backend_of_devices_can_be_imported_without_docstrings():
    settings = {"NUMBA_PACK_BACKEND": "cuda", "NUMBA_ENABLE_CUDASIM": "1"}
    assert printed("-OO", "-c", "import numba_pack; print(numba_pack.backend)", **settings) == ["cuda"]


@pytest.mark.slow
def test_everything_gives_the_same_without_docstrings_and_assertions():
    assert printed("-c", WORK, PYTHONOPTIMIZE="2") == printed("-c", WORK)


# -- Numba's variables -------------------------------------------------------------------------------------------------


def test_with_the_compiler_disabled_users_functions_are_python_and_ours_are_compiled():
    script = """
import numba, numpy as np, numba_pack as nbp

@numba.njit
def users(values, offsets):
    return nbp.pack_ragged(values, offsets)

assert not hasattr(users, "py_func")
print(*users(np.arange(6.0).reshape(6, 1), np.array([0, 2, 6])).data.ravel().astype(int))
print(numba.config.DISABLE_JIT)
"""
    assert printed("-c", script, NUMBA_DISABLE_JIT="1") == ["2", "0", "3", "1", "4", "5", "1"]


VARIABLES = {
    "NUMBA_DISABLE_JIT": "1",
    "NUMBA_BOUNDSCHECK": "1",
    "NUMBA_CAPTURED_ERRORS": "old_style",
    "NUMBA_DEBUGINFO": "1",
    "NUMBA_DEVELOPER_MODE": "1",
    "NUMBA_DISABLE_INTEL_SVML": "1",
    "NUMBA_FULL_TRACEBACKS": "1",
}


@pytest.fixture(scope="module")
def expected():
    return printed("-c", PART)


@pytest.mark.slow
@pytest.mark.parametrize("variable", VARIABLES)
def test_results_are_the_same_whatever_variable_of_numba_is_set(expected, variable):
    assert printed("-c", PART, **{variable: VARIABLES[variable]}) == expected
