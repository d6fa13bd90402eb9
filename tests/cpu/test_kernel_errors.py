"""What goes wrong in a kernel is raised where the kernel was called, from Python and in users' compiled code."""

import numba
import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.batch import Batch, States
from numba_pack.cpu import kernels
from numba_pack.cpu.team import call_each
from numba_pack.simd.machine import MACHINE

ROWS, H_0, OTHERS = np.zeros((2, 1), np.float32), np.zeros((1, 2, 1), np.float32), np.empty((0, 1, 2, 1), np.float32)
NOWHERE = 0
#: of whose states, a vector each, the bytes are more than an integer counts
TOO_MANY = (1 << 63) // MACHINE.register_bytes


@numba.njit
def scan(address, weights, sequences):
    """A forward pass over as many sequences as it is told, of which there are two."""
    kernels.call_inference(
        address, weights.parameters, weights.panels, weights.sizes, ROWS, np.array([2]), np.array([0, 1]), H_0, OTHERS,
        False, 0, sequences, ROWS.copy(), NOWHERE, H_0.copy(), OTHERS.copy(),
    )  # fmt: skip


def scan_from_python(address, weights, sequences):
    """The same as the engine calls it."""
    batch, states = Batch(ROWS, np.array([2]), np.array([0, 1]), rows=2), States(H_0, OTHERS, False)
    given, h_n, others_n = kernels.Pass(weights, batch, states, None, (), ROWS.copy()), H_0.copy(), OTHERS.copy()
    call_each([kernels.forward_call(given, h_n, others_n, kernels.Apart(1, np.array([0, sequences]), None))], (0, 0))


@pytest.mark.parametrize("call", [scan, scan_from_python], ids=["njit", "Python"])
@pytest.mark.parametrize(
    ("sequences", "error", "words"),
    [(1 << 50, MemoryError, "Allocation failed"), (TOO_MANY, ValueError, "too big|negative dimensions")],
    ids=["memory", "another"],
)
def test_an_error_in_a_kernel_reaches_its_caller_as_it_is(call, sequences, error, words, recwarn, capfd):
    weights = nbp.GRU(1, 1, rng=0).weights
    with pytest.raises(error, match=words):
        call(kernels.kernel("forward", weights), weights, sequences)
    assert not recwarn
    assert capfd.readouterr().err == ""
