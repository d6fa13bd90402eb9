"""Nothing is written, and nothing that counts is read, beyond the ends of an array: guard values around every buffer.

Kernels are given arrays that lie between guards in larger buffers. After the call the guards are as they were, and the
results are those of arrays that stand alone; guards of NaN before and behind what is only read show that no result
depends on them. Sizes are those around multiples of the lanes and of a panel's columns, where masks begin and end.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import CELLS, DTYPES, assert_same_bits, make_case, make_layer

import numba_pack as nbp
from numba_pack.batch import States
from numba_pack.cells.dropout import Dropout
from numba_pack.cpu import engine, kernels
from numba_pack.cpu.drop import drop_of
from numba_pack.cpu.packer import back_packing, back_panels_of
from numba_pack.cpu.team import call_each
from numba_pack.layers.forms import form_of
from numba_pack.packing import rows as moves
from numba_pack.simd.lanes import lanes_of

NOT_SHOWN = 0  # no address: the states besides h are not put out
GUARD = 64  # elements on either side: more than any vector, or panel of vectors, holds


class Guards:
    """Makes arrays between guards, and looks whether the guards are still what they were."""

    def __init__(self):
        self.buffers = []

    def around(self, array, shift=0):
        """A copy between guards of NaN (or of the largest integer), ``shift`` elements off the start of the buffer."""
        fill = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        buffer = np.full(array.size + 2 * GUARD + shift, fill, array.dtype)
        inside = slice(GUARD + shift, GUARD + shift + array.size)
        buffer[inside] = array.ravel()
        self.buffers.append((buffer, inside, buffer.tobytes()))
        return buffer[inside].reshape(array.shape)

    def check(self):
        for buffer, inside, before in self.buffers:
            width = buffer.dtype.itemsize
            after = buffer.tobytes()
            assert after[: inside.start * width] == before[: inside.start * width], "written before an array"
            assert after[inside.stop * width :] == before[inside.stop * width :], "written behind an array"


def sizes_around(lanes):
    """Numbers of units around those that fill vectors, and panels of four vectors."""
    return sorted({1, 2, 3, lanes - 1, lanes, lanes + 1, 2 * lanes + 1, 4 * lanes - 1, 4 * lanes, 4 * lanes + 1} - {0})


def shapes():
    """(cell, dtype, I, H, L, D), every size once for each cell and dtype."""
    for cell in CELLS:
        for dtype in (np.float32, np.float64):
            sizes = sizes_around(lanes_of(np.dtype(dtype)))
            for i, units in enumerate(sizes):
                if cell != "lstm-proj" or units > 1:
                    yield cell, dtype, sizes[-1 - i], units, 1 + i % 2, 1 + i // 2 % 2


@pytest.mark.parametrize("symbols", [False, True], ids=["rows", "symbols"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_write_into_their_arrays_alone(cell, dtype, symbols):
    for shift, (_, _, inputs, units, layers, directions) in enumerate(
        shape for shape in shapes() if shape[:2] == (cell, dtype)
    ):
        layer = make_layer(
            cell,
            inputs,
            units,
            num_layers=layers,
            bidirectional=directions == 2,
            dtype=dtype,
            dropout=0.5 * (layers > 1),
        )
        run_between_guards(layer, (3, 0, 7, 1, 7, 2, 5), shift, symbols)


def run_between_guards(layer, lengths, shift, symbols):
    case = make_case(layer, lengths)
    packed = nbp.pack_sequence(case.sequences)
    if symbols:
        packed = packed.map(lambda rows: np.arange(len(rows)) % layer.input_size)
    form = form_of(packed, layer.input_size, layer.dtype, False)
    states, d_states = layer._states(form, case.hx, "hx"), layer._states(form, case.d_state, "d_state")
    d_out = nbp.pack_sequence(case.d_outputs).data
    dropout = Dropout(layer.dropout, np.uint32(1), np.uint32(2))
    drop = drop_of(dropout, layer.dtype)
    weights = layer.weights
    guards = Guards()

    def guarded(array):
        return guards.around(array, shift)

    def states_of(given):
        return States(guarded(given.h), guarded(given.others), given.given)

    def empty_like(arrays):
        return [guarded(np.zeros_like(array)) for array in arrays]

    B, last = len(form.batch.order), len(form.batch.order)
    batch = form.batch._replace(
        data=guarded(form.batch.data), batch_sizes=guarded(form.batch.batch_sizes), order=guarded(form.batch.order)
    )
    inside = weights._replace(parameters=guarded(weights.parameters), panels=guarded(weights.panels))
    states, d_states, d_out = states_of(states), states_of(d_states), guarded(d_out)

    expected = engine.infer(weights, form.batch, layer._states(form, case.hx, "hx"))[:3]
    out, h_n, others_n = empty_like(expected)
    head = (inside.parameters, inside.panels, inside.sizes, *batch[:3], *states)
    kernels.call_inference(kernels.kernel("forward", weights), *head, 0, B, out, NOT_SHOWN, h_n, others_n)
    assert_same_bits([out, h_n, others_n], list(expected), f"inference of {layer}")
    guards.check()

    expected, saved = engine.record(weights, form.batch, layer._states(form, case.hx, "hx"), dropout)
    record, (out, h_n, others_n) = empty_like(saved.record), empty_like(expected[:3])
    forward = kernels.kernel("forward", weights)
    trained = *head[:6], 0, *head[6:]  # with the steps before these
    kernels.call_forward(forward, *trained, drop, *record, 0, last, out, NOT_SHOWN, h_n, others_n)
    assert_same_bits([out, h_n, others_n], list(expected[:3]), f"forward pass of {layer}")
    guards.check()

    gradients = engine.replay_back(saved, d_out.copy(), layer._states(form, case.d_state, "d_state"), not symbols)
    L, D, P, N = layer.num_layers, layer.num_directions, layer.output_size, len(packed.data)
    panels = guarded(np.zeros(back_panels_of(weights), layer.dtype))
    zeros = guarded(np.ones(5, layer.dtype))
    call_each([back_packing(inside, panels.ctypes.data, not symbols, zeros).call], (0, 0))
    guards.check()
    d_between = guarded(np.zeros(min(2, L - 1) * N * D * P, layer.dtype))
    d_projected = guarded(np.zeros((L * D if layer.hidden_size != P else 0) * N * P, layer.dtype))
    padded = -(-layer.hidden_size // lanes_of(layer.dtype)) * lanes_of(layer.dtype)
    d_units = guarded(np.zeros(3 * L * D * layer.cell.units * len(packed.sorted_indices) * padded, layer.dtype))
    d_x, d_h, d_c = empty_like(gradients[:3])
    kernels.call_backward(
        kernels.kernel("backward", weights), *trained, drop, *record, out, NOT_SHOWN, 0, last, panels, d_out,
        *d_states, d_between, not symbols, d_x, d_h, d_c, d_projected, d_units,
    )  # fmt: skip
    guards.check()
    gradient = guarded(np.zeros(weights.parameters.size, layer.dtype))
    given = (kernels.kernel("gradients", weights), *trained, drop, *record, out, NOT_SHOWN, d_projected, d_units)
    for part in range(3):
        kernels.call_gradients(*given, True, gradient, gradient, 0, part, 3)
    guards.check()
    assert_same_bits([d_x, d_h, d_c, gradient], list(gradients), f"gradients of {layer}")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100])
def test_rows_of_any_size_are_moved_into_their_array_alone(size):
    """The copies of two halves that overlap, of fixed and of any size, over more steps than a tile of time has."""
    rng = np.random.default_rng(size)
    lengths = np.array([3, 40, 0, 17, 1, 16])
    values = rng.integers(0, 256, (lengths.sum(), size), np.uint8)
    packed = nbp.pack_ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
    steps = int(lengths.max())
    order, rank = packed.sorted_indices, packed.unsorted_indices
    for batch_first in (False, True):
        padded = nbp.pad_packed_sequence(packed, batch_first)[0]
        base, stride = moves.padded_layout(lengths, steps, batch_first, False)
        offsets = moves.offsets_of(lengths)
        places = {
            "packed": (packed.data, rank, 0),
            "padded": (padded, base, stride),
            "ragged": (values, offsets, 1),
        }
        for source, of_base, of_stride in places.values():
            for target, to_base, to_stride in places.values():
                guards = Guards()
                inside = guards.around(np.zeros(target.size, np.uint8), shift=size % 5)
                read = guards.around(source.ravel())
                of = read, of_base, of_stride, size
                moves.move_rows(inside, to_base, to_stride, *of, size, packed.batch_sizes, order)
                guards.check()
                np.testing.assert_array_equal(inside, target.ravel())


SELECTED = ["packing/test_packing.py", "packing/test_packing_errors.py", "packing/test_fuzz.py"]


@pytest.mark.slow
def test_results_are_right_with_the_bounds_of_arrays_checked():
    """NUMBA_BOUNDSCHECK has an index beyond an array raise: in all of packing.

    Kernels have everything by address: what looks after these are the guards above.
    """
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SELECTED],
        cwd=Path(__file__).parent.parent, env={**os.environ, "NUMBA_BOUNDSCHECK": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout


@pytest.mark.slow
def test_the_check_of_bounds_does_work_there():
    code = """
import numpy as np
from numba_pack.packing import rows as moves

try:
    moves.lengths_in_order(np.array([1]), np.array([7]))
except IndexError:
    print("out of bounds")
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.stdout == "out of bounds\n", process.stderr
