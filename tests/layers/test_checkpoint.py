"""Training with ``checkpoint``: what is computed again has the same bits, and memory does not grow with the steps."""

import copy
import itertools
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same_bits

import numba_pack as nbp
from numba_pack import cells
from numba_pack.cpu import engine
from numba_pack.cpu.checkpoints import pieces_of
from numba_pack.cpu.scan_back import BLOCK_ROWS, PIECE_ROWS, SPAN_ROWS

#: several pieces, whose ends are in the midst of blocks of rows counted from the first; two empty, one of a step
LENGTHS = (1700, 0, 2500, 1, 640, 2499, 0, 129)


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def packed_rows(layer, lengths=LENGTHS):
    return nbp.pack_sequence([normal(n, layer.input_size, dtype=layer.dtype) for n in lengths])


def arrays_of(value):
    """All arrays in results, one after the other."""
    if isinstance(value, nbp.PackedSequence):
        value = value.data
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in arrays_of(part)]
    return [] if value is None else [value]


def gradients_like(value):
    """Random numbers in the form of some results."""
    if isinstance(value, nbp.PackedSequence):
        return value.map(gradients_like)
    if isinstance(value, (tuple, list)):
        return type(value)(map(gradients_like, value))
    return normal(*value.shape, dtype=value.dtype)


def trained(layer, *arguments, input_grad=True, **options):
    """All that a forward and a backward pass return, and the bytes of the tape."""
    output, state, tape = layer.forward(*arguments, **options)
    nbytes = tape.nbytes
    gradients = layer.backward(tape, gradients_like(output), gradients_like(state), input_grad)
    return arrays_of([output, state, tuple(gradients)]), nbytes


def assert_same_in_pieces(layer, *arguments, checkpoint=1, **options):
    """Training in pieces gives what training at once gives; the layer and a copy of it drop the same units."""
    expected, at_once = trained(copy.deepcopy(layer), *arguments, **options)
    found, in_pieces = trained(copy.deepcopy(layer), *arguments, checkpoint=checkpoint, **options)
    assert_same_bits(found, expected)
    assert in_pieces < at_once / 2


# -- which pieces there are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 40, 300, 10**6])
@pytest.mark.parametrize("B", [1, 33, 128, 5000])
def test_pieces_are_whole_steps_and_whole_blocks_and_have_as_many_steps_as_asked_for(B, every):
    batch_sizes = np.sort(np.random.default_rng(0).integers(1, B + 1, 700))[::-1].copy()
    ends, pieces = np.cumsum(batch_sizes), pieces_of(batch_sizes, every)
    assert pieces[0][:2] == (slice(0, pieces[0].steps.stop), slice(0, pieces[0].rows.stop))
    assert pieces[-1].steps.stop == len(batch_sizes) and pieces[-1].rows.stop == ends[-1]
    for piece, following in itertools.pairwise(pieces):
        assert following.steps.start == piece.steps.stop and following.rows.start == piece.rows.stop
        assert piece.rows.stop == ends[piece.steps.stop - 1]
        assert piece.steps.stop - piece.steps.start >= every
        assert piece.rows.stop - piece.rows.start >= PIECE_ROWS
        assert following.blocks - piece.blocks >= (piece.rows.stop - piece.rows.start) // BLOCK_ROWS
    if every == 1:  # then a piece ends as soon as it may
        for piece in pieces[:-1]:
            assert ends[piece.steps.stop - 1] - batch_sizes[piece.steps.stop - 1] - piece.rows.start < PIECE_ROWS


# -- the same bits -----------------------------------------------------------------------------------------------------

OPTIONS = {
    "one-layer": {},
    "reverse-stack": {"num_layers": 2, "reverse": True},
    "stack-with-dropout": {"num_layers": 3, "dropout": 0.3},
    "both-directions": {"bidirectional": True},
    "stack-of-both-directions-with-dropout": {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
    "recurrent-dropout": {"num_layers": 2, "bidirectional": True, "recurrent_dropout": 0.2},
    "projection": {"num_layers": 2, "bidirectional": True, "proj_size": 6, "dropout": 0.3},
    "all-states-returned": {"num_layers": 2, "bidirectional": True, "return_states": True},
    "heads": {"num_layers": 2, "heads": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_lstm_in_pieces_has_the_bits_of_one_at_once(name):
    layer = cells.LSTM(5, 18, rng=0, **OPTIONS[name])
    assert_same_in_pieces(layer, packed_rows(layer))


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        pytest.param(cells.GRU, {}, id="GRU"),
        pytest.param(cells.SRU, {}, id="SRU"),
        pytest.param(cells.SRU, {"dtype": np.float64}, id="SRU-float64", marks=pytest.mark.slow),
        pytest.param(cells.IndRNN, {}, id="IndRNN"),
        pytest.param(cells.GRUResetBefore, {"dtype": np.float64}, id="a-product-of-its-own", marks=pytest.mark.slow),
        pytest.param(cells.SLSTM, {"dtype": np.float64}, id="four-states", marks=pytest.mark.slow),
        pytest.param(cells.LSTM, {"zoneout": 0.2}, id="zoneout", marks=pytest.mark.slow),
        pytest.param(cells.LSTM, {"layer_norm": True}, id="layer-norm", marks=pytest.mark.slow),
        pytest.param(cells.LSTM, {"matmul_precision": "high"}, id="high", marks=pytest.mark.slow),
        pytest.param(cells.LSTM, {"matmul_precision": "medium"}, id="medium", marks=pytest.mark.slow),
    ],
)
def test_layers_of_any_cell_in_pieces_have_the_bits_of_those_at_once(cell, options):
    """Unit weights, too, which each sequence sums over its own steps, in blocks that know nothing of pieces."""
    for directions in ({}, {"num_layers": 2, "bidirectional": True}):
        layer = cell(5, 18, rng=0, **directions, **options)
        assert_same_in_pieces(layer, packed_rows(layer))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=str)
def test_sums_of_many_spans_of_blocks_go_on_from_piece_to_piece(options):
    layer = nbp.GRU(2, 4, rng=0, **options)
    x = normal(3 * SPAN_ROWS // 5, 5, 2)
    assert_same_in_pieces(layer, x, checkpoint=10)
    assert_same_in_pieces(layer, x, checkpoint=3000)


def test_a_state_that_is_given_and_input_of_any_form_give_the_same():
    layer = nbp.LSTM(5, 18, bidirectional=True, batch_first=True, rng=0)
    of_each, shared = (normal(2, 4, 18), normal(2, 4, 18)), (normal(2, 1, 18), normal(2, 1, 18))
    padded = normal(4, 1500, 5)
    assert_same_in_pieces(layer, padded, of_each)
    assert_same_in_pieces(layer, padded, shared)
    assert_same_in_pieces(layer, padded, input_grad=False)
    assert_same_in_pieces(layer, normal(5000, 5), (normal(2, 18), normal(2, 18)))
    text = np.random.default_rng(0).integers(5, size=(4, 1500))
    assert_same_in_pieces(layer, nbp.symbols(text))
    begins = np.random.default_rng(0).random((4, 1500)) < 0.001
    assert_same_in_pieces(layer, padded, of_each, begins)


def test_layers_of_several_widths_in_pieces_have_the_same_bits():
    layer = nbp.LSTM(5, [18, 7], dropout=0.3, recurrent_dropout=0.2, bidirectional=True, rng=0)
    expected, _ = trained(copy.deepcopy(layer), packed_rows(layer))
    found, _ = trained(copy.deepcopy(layer), packed_rows(layer), checkpoint=1)
    assert_same_bits(found, expected)


def test_any_number_of_threads_gives_the_same_in_pieces(monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = cells.SRU(5, 18, num_layers=2, bidirectional=True, dropout=0.3, rng=0)
    expected, _ = trained(copy.deepcopy(layer), packed_rows(layer))
    for number in (1, 2, 3):
        with nbp.threads(number):
            found, _ = trained(copy.deepcopy(layer), packed_rows(layer), checkpoint=1)
        assert_same_bits(found, expected)


@pytest.mark.parametrize("lengths", [(0, 0), (1,), (3, 0, 2)], ids=str)
def test_a_batch_of_one_piece_or_of_no_rows_gives_the_same(lengths):
    layer = nbp.LSTM(5, 18, 2, bidirectional=True, rng=0)
    packed = packed_rows(layer, lengths)
    expected, _ = trained(layer, packed)
    found, _ = trained(layer, packed, checkpoint=2)
    assert_same_bits(found, expected)


def test_a_tape_in_pieces_is_used_up_and_tells_its_bytes():
    layer = nbp.GRU(2, 4, rng=0)
    x = normal(3 * PIECE_ROWS, 2)
    output, _, tape = layer.forward(x, checkpoint=50)
    assert tape.nbytes == 2 * 4 * 4  # of the states between three pieces
    assert repr(tape) == f"Tape of {layer!r}, 32 bytes"
    layer.backward(tape, output)
    with pytest.raises(ValueError, match="tape must not have been used"):
        layer.backward(tape, output)


# -- memory ------------------------------------------------------------------------------------------------------------

# Peak resident memory is of a whole process: see `cpu/test_memory.py`.
SCRIPT = """
import resource, sys
import numpy as np
import numba_pack as nbp

def train(T, checkpoint):
    x = np.ones((T, 1, 16), np.float32)
    output, state, tape = layer.forward(x, checkpoint=checkpoint)
    d_output = np.ones_like(output)
    return x, output, d_output, layer.backward(tape, d_output)

layer = nbp.LSTM(16, 64, num_layers=int(sys.argv[1]), rng=0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
train(5000, 1)
before = peak()
x, output, d_output, gradients = train(100_000, 300)
callers = x.nbytes + output.nbytes + d_output.nbytes + gradients.input.nbytes
print((peak() - before - callers) / 2**20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module, which tells the peak, is of POSIX")
@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_hundred_thousand_steps_train_in_less_than_16_mb_beyond_what_is_the_callers(num_layers):
    """At once they would keep 135 MB for each layer."""
    command = [sys.executable, "-c", SCRIPT, str(num_layers)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 16


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nbp.GRU(2, 3, rng=0), nbp.GRU(2, [3, 4], rng=0)], ids=["layer", "of-widths"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "checkpoint must be at least 1; got 0"),
        (-3, ValueError, "checkpoint must be at least 1; got -3"),
        (2.5, TypeError, "checkpoint must be an integer; got 2.5"),
        (True, TypeError, "checkpoint must be an integer; got True"),
    ],
)
def test_what_is_no_number_of_steps_is_named(layer, value, error, message):
    with pytest.raises(error, match=message):
        layer.forward(np.ones((4, 2), "f4"), checkpoint=value)


def test_the_gpu_keeps_all_and_says_so(monkeypatch):
    monkeypatch.setattr("numba_pack.layers.tape.backend", "cuda")
    with pytest.raises(ValueError, match="checkpoint must be None where the backend is cuda; got 10"):
        nbp.GRU(2, 3, rng=0).forward(np.ones((4, 2), "f4"), checkpoint=10)
