"""What every backend must do alike: run by test_cuda.py in a process for each of them. Real sizes are in device.py.

The shapes are tiny, since in Numba's simulator each thread of a kernel is one of Python. Four units are what one block
of the simulator has: up to there its scans are persistent, beyond they go step by step.
"""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import helpers
import naive
import numpy as np
import pytest
from helpers import CELLS, assert_results_near, assert_same_bits, make_case, make_layer

import numba_pack as nbp
import numba_pack.cpu.engine
import numba_pack.layers.layer
from numba_pack import cells

BACKEND = os.environ.get("NUMBA_PACK_TESTED_BACKEND", "cpu")
LENGTHS = (3, 0, 5, 1)
BOTH_FORMS = [pytest.param(3, np.float64, id="persistent"), pytest.param(6, np.float32, id="stepwise")]

pytestmark = pytest.mark.skipif(BACKEND == "cuda" and nbp.backend != "cuda", reason="no device")


@pytest.fixture(autouse=True, scope="module")
def switch_often():
    """The simulator's threads wait for each other by asking again and again."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def on_device(value):
    """The same on the device: of arrays, and of tuples and lists of them."""
    from numba import cuda

    if isinstance(value, nbp.PackedSequence):
        return value._replace(data=cuda.to_device(value.data))
    if isinstance(value, (tuple, list)):
        return type(value)(map(on_device, value))
    return None if value is None else cuda.to_device(value)


def on_host(value):
    if isinstance(value, dict):
        return {name: on_host(part) for name, part in value.items()}
    if isinstance(value, (nbp.PackedSequence, nbp.Gradients)):
        return value._replace(**on_host(value._asdict()))
    if isinstance(value, (tuple, list)):
        return type(value)(map(on_host, value))
    return value.copy_to_host() if hasattr(value, "copy_to_host") else value


def go_stepwise(monkeypatch):
    """No blocks can meet at a barrier from now on: scans go step by step."""
    from numba_pack.cuda import device

    monkeypatch.setattr(device.Kernel, "resident", lambda *_: 0)


def use_the_cpu(monkeypatch):
    """Layers run on the CPU from now on, whatever the backend."""
    for module in (numba_pack.layers.layer, numba_pack.layers.module):
        monkeypatch.setattr(module, "engine", numba_pack.cpu.engine)


needs_cuda = pytest.mark.skipif(BACKEND == "cpu", reason="the CPU backend takes NumPy's arrays only")


def test_the_backend_is_the_one_that_was_asked_for():
    assert nbp.backend == ("cpu" if BACKEND == "cpu" else "cuda")
    assert ("numba_pack.cuda" in sys.modules) == (BACKEND != "cpu")


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "dtype"), BOTH_FORMS)
@pytest.mark.parametrize("cell", CELLS)
def test_layers_directions_states_and_gradients_are_those_of_the_definition(cell, units, dtype):
    layer = make_layer(cell, 3, units, num_layers=2, bidirectional=True, dtype=dtype)
    case = make_case(layer, LENGTHS)
    results = helpers.train(layer, case)
    assert_results_near(layer, LENGTHS, results, helpers.oracle(layer, case))
    assert_same_bits(helpers.infer(layer, case), (results.outputs, results.state))


@pytest.mark.parametrize("cell", ["rnn-relu", "lstm-proj", "gru"])
def test_a_layer_without_biases_or_first_states(cell):
    layer = make_layer(cell, 2, 3, bias=False, dtype=np.float64)
    case = make_case(layer, LENGTHS, with_hx=False)
    assert_results_near(layer, LENGTHS, helpers.train(layer, case), helpers.oracle(layer, case))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_dropout_has_the_masks_of_the_generator(cell):
    layer = make_layer(cell, 2, 5, num_layers=3, dropout=0.4, bidirectional=cell == "lstm", dtype=np.float64)
    case = make_case(layer, LENGTHS)
    for call in range(2):
        columns = layer.num_directions * layer.output_size
        masks = naive.dropout_masks(0.4, layer._training_calls.seed, call, LENGTHS, 3, columns)
        assert_results_near(layer, LENGTHS, helpers.train(layer, case), helpers.oracle(layer, case, masks))


@pytest.mark.parametrize("units", [3, 6], ids=["persistent", "stepwise"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_alone_has_the_bits_it_has_in_a_batch(cell, units):
    layer = make_layer(cell, 5, units, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)
    outputs, state = helpers.infer(layer, case)
    for i in (0, 2):
        alone = helpers.infer(layer, helpers.of_sequences(case, [i]))
        assert_same_bits(alone, ([outputs[i]], tuple(part[:, [i]] for part in state)))


@needs_cuda
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_both_forms_of_the_scans_give_the_same_bits(cell, monkeypatch):
    layer = make_layer(cell, 3, 4)
    case = make_case(layer, LENGTHS)
    persistent = helpers.train(layer, case)
    go_stepwise(monkeypatch)
    assert_same_bits(tuple(helpers.train(layer, case)), tuple(persistent))


def test_symbols_stand_for_one_hot_rows():
    layer, symbols = nbp.GRU(3, 2, dtype=np.float64), np.array([2, 0, 1, 1])
    rows = np.eye(3)[symbols]
    output, h_n, tape = layer.forward(symbols)
    helpers.assert_near(layer, (4,), [output], [layer(rows)[0]], "output")
    expected = layer.backward(layer.forward(rows)[2], output, h_n, input_grad=False)
    gradients = layer.backward(tape, output, h_n)
    assert gradients.input is None
    helpers.assert_near(layer, (4,), [gradients.parameters], [expected.parameters], "d_parameters")


def test_nan_in_one_sequence_does_not_reach_another():
    layer = make_layer("lstm", 3, 5, num_layers=2)
    case = make_case(layer, LENGTHS)
    expected, _ = helpers.infer(layer, case)
    case.sequences[2][1] = np.nan
    outputs, _ = helpers.infer(layer, case)
    assert np.isnan(outputs[2][1:]).all()
    assert_same_bits([outputs[i] for i in (0, 1, 3)], [expected[i] for i in (0, 1, 3)])


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_padded_input_is_a_batch_of_equal_lengths(batch_first):
    layer = make_layer("gru", 2, 3, batch_first=batch_first, dtype=np.float64)
    case, axis = make_case(layer, (4, 4)), 0 if batch_first else 1
    stacked, d_stacked = np.stack(case.sequences, axis), np.stack(case.d_outputs, axis)
    expected = helpers.train(layer, case)
    output, state, tape = layer.forward(stacked, case.hx)
    gradients = layer.backward(tape, d_stacked, case.d_state)
    assert_same_bits(np.ascontiguousarray(output), np.stack(expected.outputs, axis))
    assert_same_bits((state,), expected.state)
    assert_same_bits(gradients.input, np.stack(expected.d_inputs, axis))
    assert_same_bits(layer.views(gradients.parameters), expected.d_parameters)


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (0, 2)], ids=str)
def test_input_without_steps_or_sequences_keeps_the_state(shape):
    layer = nbp.LSTM(2, 3, num_layers=2)
    batch = shape[1:-1]
    hx = np.ones((2, *batch, 3), np.float32), np.full((2, *batch, 3), 2, np.float32)
    output, state, tape = layer.forward(np.zeros(shape, np.float32), hx)
    assert output.shape == (*shape[:-1], 3)
    assert_same_bits(state, hx)
    gradients = layer.backward(tape, output, hx)
    assert_same_bits(gradients.hx, hx)
    assert not gradients.parameters.any()


@pytest.mark.parametrize("kind", [nbp.RNNCell, nbp.LSTMCell, nbp.GRUCell])
def test_a_cell_is_one_step_of_a_layer(kind):
    cell = kind(3, 4, rng=0)
    layer = getattr(nbp, kind.__name__.removesuffix("Cell"))(3, 4, rng=0)
    layer.parameters = cell.parameters
    rng = np.random.default_rng(0)
    x, h = helpers.normal(rng, (2, 3), np.float32), helpers.normal(rng, (2, 4), np.float32)
    hx = (h, -h) if kind is nbp.LSTMCell else h
    expected = layer(x[None], tuple(part[None] for part in hx) if isinstance(hx, tuple) else hx[None])[1]
    state, tape = cell.forward(x, hx)
    assert_same_bits(helpers.as_tuple(state), tuple(part[0] for part in helpers.as_tuple(expected)))
    assert cell.backward(tape, state).input.shape == x.shape


def test_the_results_of_forward_are_read_only_and_a_tape_tells_its_size():
    layer = nbp.GRU(2, 3, num_layers=2)
    output, _, tape = layer.forward(np.ones((4, 2), np.float32))
    assert not output.flags.writeable
    assert tape.nbytes >= 4 * (2 * 4 * 3 + 3) * 4  # rows of the gates of two layers and of one output


def test_assigned_parameters_take_effect_and_a_tape_keeps_those_it_was_made_with():
    layer = nbp.GRU(2, 3, rng=0)
    x = np.ones((4, 2), np.float32)
    output, _, tape = layer.forward(x)
    expected = layer.backward(layer.forward(x)[2], output)
    layer.parameters = layer.parameters * 2
    assert not np.array_equal(layer(x)[0], output)
    assert_same_bits(layer.backward(tape, output), expected)


@needs_cuda
def test_products_by_cublas_are_the_same_products(monkeypatch):
    """NumPy stands in for CuPy where there is no device."""
    from types import SimpleNamespace

    from numba_pack.cuda import products

    if os.environ.get("NUMBA_ENABLE_CUDASIM"):
        streams = SimpleNamespace(ExternalStream=lambda pointer: contextlib.nullcontext())
        cupy = SimpleNamespace(asarray=lambda array: array._ary, cuda=streams)
        monkeypatch.setattr(products, "stream", lambda: 0)  # the simulator's streams have no pointers
    else:
        cupy = pytest.importorskip("cupy")
    layer = make_layer("gru", 3, 5, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)
    expected = helpers.train(layer, case)
    monkeypatch.setattr(products, "CUPY", cupy)
    monkeypatch.setattr(products, "LARGE", 1)
    assert_results_near(layer, LENGTHS, helpers.train(layer, case), expected)


# -- cells of any formula ----------------------------------------------------------------------------------------------

#: cell, units, dtype and options: with and without a projection, a second product, states besides h, unit weights,
#: constants, and products with the state
FORMULAS = {
    "GRU persistent": (cells.GRU, 3, np.float64, {}),
    "PeepholeLSTM persistent": (cells.PeepholeLSTM, 3, np.float64, {}),
    "SLSTM persistent": (cells.SLSTM, 3, np.float64, {}),
    "SLSTM stepwise": (cells.SLSTM, 6, np.float32, {}),
    "LSTM projected": (cells.LSTM, 6, np.float32, {"proj_size": 2}),
    "GRUResetBefore": (cells.GRUResetBefore, 6, np.float32, {}),
    "MGU": (cells.MGU, 3, np.float64, {}),
    "MinGRU": (cells.MinGRU, 6, np.float32, {}),
    "RGLRU": (cells.RGLRU, 3, np.float64, {}),
    "QRNN projected": (cells.QRNN, 3, np.float64, {"proj_size": 2}),
}


class AnyCase(NamedTuple):
    """What goes into a layer of any cell: packed, and states as it takes them."""

    input: nbp.PackedSequence
    hx: object
    d_output: object  # packed, of each state that the layer returns
    d_state: object


def any_case(layer, lengths=LENGTHS):
    rng, scans = np.random.default_rng(0), layer.num_layers * layer.num_directions
    sizes = [layer.output_size, *[layer.hidden_size] * layer.cell.others]

    def rows(columns):
        return nbp.pack_sequence([helpers.normal(rng, (n, columns), layer.dtype) for n in lengths])

    def state():  # above 0, as the n of an sLSTM is
        parts = tuple(np.abs(helpers.normal(rng, (scans, len(lengths), size), layer.dtype)) for size in sizes)
        return parts if len(parts) > 1 else parts[0]

    d_outputs = tuple(rows(layer.num_directions * n) for n in sizes)
    return AnyCase(rows(layer.input_size), state(), d_outputs if layer.return_states else d_outputs[0], state())


def all_results(layer, case):
    """Outputs, states and gradients, each a list of arrays, by name; of a plain call and of a training one."""

    def data(output):
        return [part.data for part in (output if layer.return_states else (output,))]

    plain, plain_state = layer(case.input, case.hx)
    outputs, state, tape = layer.forward(case.input, case.hx)
    gradients = layer.backward(tape, case.d_output, case.d_state)
    return {
        "inferred": [*data(plain), *helpers.as_tuple(plain_state)],
        "outputs": data(outputs),
        "state": list(helpers.as_tuple(state)),
        "d_input": [gradients.input.data],
        "d_hx": list(helpers.as_tuple(gradients.hx)),
        "d_parameters": [gradients.parameters],
    }


@needs_cuda
@pytest.mark.parametrize("name", FORMULAS)
def test_a_cell_has_the_results_and_gradients_that_it_has_on_the_cpu(name, monkeypatch):
    cell, units, dtype, options = FORMULAS[name]
    layer = cell(3, units, bidirectional=True, return_states=True, dtype=dtype, rng=0, **options)
    case = any_case(layer)
    got = all_results(layer, case)
    use_the_cpu(monkeypatch)
    for what, expected in all_results(layer, case).items():
        helpers.assert_near(layer, LENGTHS, got[what], expected, what)


@needs_cuda
@pytest.mark.parametrize("cell", [cells.GRUResetBefore, cells.MinGRU], ids=["GRUResetBefore", "MinGRU"])
def test_a_sequence_alone_has_its_bits_whatever_products_the_cell_has(cell):
    layer = cell(2, 3, rng=0)
    sequences = [helpers.normal(np.random.default_rng(i), (n, 2), np.float32) for i, n in enumerate(LENGTHS)]
    together = nbp.unpack_sequence(layer(nbp.pack_sequence(sequences))[0])
    assert_same_bits(nbp.unpack_sequence(layer(nbp.pack_sequence(sequences[2:3]))[0]), together[2:3])


@needs_cuda
def test_a_cell_without_products_with_the_state_is_scanned_by_one_kernel(monkeypatch):
    from numba_pack.cuda import scan, scan_back

    layer = cells.MinGRU(2, 3, bidirectional=True, return_states=True)
    case, launched = any_case(layer), []
    kernels = {
        "forward": scan.cell_kernel(layer.cell, layer.dtype),
        "backward": scan_back.cell_back_kernel(layer.cell, layer.dtype, False),
    }
    names = {id(kernel): name for name, kernel in kernels.items()}
    launch = type(kernels["forward"]).launch

    def noted(self, *arguments, **options):
        launched.append(names.get(id(self)))
        launch(self, *arguments, **options)

    monkeypatch.setattr(type(kernels["forward"]), "launch", noted)
    _, _, tape = layer.forward(case.input, case.hx)
    assert launched.count("forward") == 2  # one for each direction
    layer.backward(tape, case.d_output, case.d_state)
    assert launched.count("backward") == 2


@needs_cuda
def test_a_cell_of_four_states_on_the_device_shows_them_there():
    layer = cells.SLSTM(2, 3, return_states=True, rng=0)
    case = any_case(layer, (2, 1))
    expected = all_results(layer, case)
    d_case = AnyCase(*(on_device(part) for part in case))
    got = {what: on_host(arrays) for what, arrays in all_results(layer, d_case).items()}
    assert_same_bits(got, expected)


# -- resets ------------------------------------------------------------------------------------------------------------


def test_a_piece_between_resets_has_the_bits_it_has_alone():
    layer, x = nbp.LSTM(2, 3, bidirectional=True), helpers.normal(np.random.default_rng(0), (5, 2, 2), np.float32)
    resets = np.zeros((5, 2), bool)
    resets[2:4, 0] = True
    output, state, tape = layer.forward(x, resets=resets)
    pieces = [layer(piece.copy())[0] for piece in np.split(x[:, 0], [2, 3])]
    assert_same_bits(output[:, 0], np.concatenate([*pieces]))
    assert_same_bits(output[:, 1], layer(x[:, 1].copy())[0])
    d_input = layer.backward(tape, output, state).input
    resets[4, 1] = True
    _, state, tape = layer.forward(x, resets=resets)
    assert_same_bits(layer.backward(tape, output, state).input[:2, 0], d_input[:2, 0])


@needs_cuda
def test_resets_of_device_arrays_are_refused():
    with pytest.raises(TypeError, match="input must be in the memory of the host where there are resets"):
        nbp.GRU(2, 3)(on_device(np.ones((3, 2), np.float32)), resets=np.zeros(3, bool))


# -- device arrays -----------------------------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm-proj"])
def test_device_arrays_give_device_arrays_and_the_same_bits(cell):
    layer = make_layer(cell, 3, 5, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)
    expected = helpers.train(layer, case)
    output, state, tape = layer.forward(nbp.pack_sequence(on_device(case.sequences)), on_device(case.hx))
    d_output = nbp.pack_sequence(on_device(case.d_outputs))
    gradients = layer.backward(tape, d_output, on_device(case.d_state))
    for array in (output.data, *helpers.as_tuple(state), gradients.input.data, gradients.parameters):
        assert not isinstance(array, np.ndarray)
    got = helpers.Results(
        on_host(nbp.unpack_sequence(output)), on_host(helpers.as_tuple(state)),
        on_host(nbp.unpack_sequence(gradients.input)), on_host(helpers.as_tuple(gradients.hx)),
        layer.views(on_host(gradients.parameters)),
    )  # fmt: skip
    assert_same_bits(tuple(got), tuple(expected))


@needs_cuda
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("shape", [(3, 2, 2), (4, 2)], ids=str)
def test_padded_and_single_device_arrays(shape, batch_first):
    layer = nbp.LSTM(2, 3, batch_first=batch_first)
    x = helpers.normal(np.random.default_rng(0), shape, np.float32)
    assert_same_bits(on_host(layer(on_device(x))), layer(x))
    output, state, tape = layer.forward(on_device(x))
    d_output, d_state = on_device(on_host((output, state)))
    gradients = on_host(layer.backward(tape, d_output, (None, d_state[1])))
    output, state, tape = layer.forward(x)
    assert_same_bits(gradients, layer.backward(tape, output, (None, state[1])))


@needs_cuda
def test_a_list_of_widths_on_the_device_has_gradients_there():
    layer, x = nbp.GRU(2, [3, 2]), np.ones((3, 2), np.float32)
    output, _, tape = layer.forward(x)
    expected = layer.backward(tape, output)
    output, _, tape = layer.forward(on_device(x))
    gradients = layer.backward(tape, output)
    assert not isinstance(gradients.parameters, np.ndarray)
    assert_same_bits(on_host(gradients.parameters), expected.parameters)


@needs_cuda
def test_calls_are_enqueued_on_the_stream_in_use():
    from numba import cuda

    layer, x = nbp.GRU(2, 3), np.ones((4, 2), np.float32)
    expected, _, tape = layer.forward(x)
    d_expected = layer.backward(tape, expected)
    stream = cuda.stream()
    with nbp.cuda.use_stream(stream):
        output, _, tape = layer.forward(on_device(x))
        assert output.stream is stream
        assert_same_bits(on_host(output), expected)
    assert_same_bits(on_host(layer.backward(tape, output)), d_expected)  # behind that stream


@needs_cuda
def test_the_guide_shows_what_runs():
    guide = Path(__file__).parent.parent / "examples" / "guides" / "gpu.md"
    (block,) = re.findall(r"```py\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {"nbp": nbp, "lstm": nbp.LSTM(2, 3), "sequences": [np.ones((n, 2), np.float32) for n in LENGTHS]}
    exec(compile(block, "gpu.md", "exec"), names)
    assert not isinstance(names["h_n"], np.ndarray)


@needs_cuda
def test_cells_take_device_arrays():
    cell = nbp.LSTMCell(3, 4)
    x, h = np.ones((2, 3), np.float32), np.full((2, 4), 0.5, np.float32)
    expected, tape = cell.forward(x, (h, h))
    d_expected = cell.backward(tape, (h, None))
    state, tape = cell.forward(on_device(x), on_device((h, h)))
    assert_same_bits(on_host(state), expected)
    assert_same_bits(on_host(cell.backward(tape, (on_device(h), None))), d_expected)


@needs_cuda
@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "f4", "f8", "c16"])
@pytest.mark.parametrize("trailing", [(), (3,), (2, 2)], ids=str)
def test_packing_on_the_device_is_packing_on_the_host(dtype, trailing):
    rng = np.random.default_rng(0)
    assert_packing_is_that_of_the_host([rng.integers(0, 2, (n, *trailing)).astype(dtype) for n in LENGTHS])


def assert_packing_is_that_of_the_host(sequences):
    packed, d_packed = nbp.pack_sequence(sequences), nbp.pack_sequence(on_device(sequences))
    assert_same_arrays(on_host(d_packed), packed)
    assert_same_arrays(on_host(nbp.unpack_sequence(d_packed)), nbp.unpack_sequence(packed))
    values, offsets = nbp.unpack_ragged(packed)
    assert_same_arrays(on_host(nbp.unpack_ragged(d_packed)), (values, offsets))
    assert_same_arrays(on_host(nbp.pack_ragged(on_device(values), offsets)), packed)
    for first in (False, True):
        steps = max(map(len, sequences)) + 1
        padded, lengths = nbp.pad_packed_sequence(packed, first, 1, steps)
        assert_same_arrays(on_host(nbp.pad_packed_sequence(d_packed, first, 1, steps)), (padded, lengths))
        assert_same_arrays(on_host(nbp.pack_padded_sequence(on_device(padded), lengths, first)), packed)
        got = nbp.unpad_sequence(on_device(padded), lengths, first)
        assert_same_arrays(on_host(got), nbp.unpad_sequence(padded, lengths, first))
    got = nbp.pad_sequence(on_device(sequences), padding_side="left")
    assert_same_arrays(on_host(got), nbp.pad_sequence(sequences, padding_side="left"))


def assert_same_arrays(one, other):
    if isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same_arrays(*pair)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


# -- errors ------------------------------------------------------------------------------------------------------------


@needs_cuda
def test_host_and_device_arguments_do_not_mix_and_the_layer_goes_on():
    layer, double = nbp.GRU(2, 3), nbp.GRU(2, 3, dtype=np.float64)
    x = nbp.pack_sequence([np.ones((2, 2), np.float32)])
    h = np.ones((1, 1, 3), np.float32)
    with pytest.raises(TypeError, match=r"hx must be on the device, as the input is; got numpy.ndarray"):
        layer(on_device(x), h)
    with pytest.raises(TypeError, match="hx must be a NumPy array; got"):
        layer(x, on_device(h))
    with pytest.raises(TypeError, match="sequences must be all on the device or all on the host"):
        nbp.pack_sequence([x.data, on_device(x.data)])
    with pytest.raises(TypeError, match=r"input.data must have dtype float64; got float32"):
        double(on_device(x))
    with pytest.raises(ValueError, match=r"hx must have shape .* = \(1, 1, 3\); got \(1, 3\)"):
        layer(on_device(x), on_device(h[0]))
    with pytest.raises(ValueError, match="input must be C-contiguous on the device"):
        layer(on_device(np.ones((3, 4), np.float32))[:, :2])
    assert_same_bits(on_host(layer(on_device(x), on_device(h))), layer(x, h))


class Foreign:
    """An array of another library."""

    def __init__(self, array):
        self.array = array  # the simulator's arrays do not know the interface
        self.__cuda_array_interface__ = getattr(array, "__cuda_array_interface__", {"data": (0, False)})


@needs_cuda
def test_arrays_of_other_libraries_are_taken_from_this_device_only(monkeypatch):
    from numba import cuda

    from numba_pack.cuda import arrays

    layer, x = nbp.GRU(2, 3), np.ones((4, 2), np.float32)
    if os.environ.get("NUMBA_ENABLE_CUDASIM"):
        monkeypatch.setattr(cuda, "as_cuda_array", lambda value, sync: value.array, raising=False)
    assert_same_bits(on_host(layer(Foreign(on_device(x)))), layer(x))
    monkeypatch.setattr(arrays, "can_read", lambda address: False)
    with pytest.raises(ValueError, match=r"input must be on the device of the current context; got the address \d+"):
        layer(Foreign(on_device(x)))


@needs_cuda
def test_an_axis_of_length_one_may_have_any_stride():
    from numba_pack.cuda.arrays import _is_contiguous

    rows, cube = np.ones((3, 4)), np.ones((3, 4, 2))
    for array in (rows, rows.T, rows[:, 1:], rows[:, :1].T, cube[1:2], cube[:, 1:2], cube[:, :0, ::-1], rows[0, 0]):
        assert _is_contiguous(array, array.strides) == array.flags.c_contiguous
    layer = nbp.LSTM(2, 3, num_layers=2)
    x, h = np.ones((4, 1, 2), np.float32), np.ones((3, 2, 1, 3), np.float32)
    d_h = on_device(h)
    assert_same_bits(on_host(layer(on_device(x), (d_h[1], d_h[2]))), layer(x, (h[1], h[2])))


@needs_cuda
def test_no_room_on_the_device_is_a_memory_error_and_the_layer_goes_on(monkeypatch):
    from numba_pack.cuda import device

    def refuse(*arguments):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    layer, x = nbp.GRU(2, 3), np.ones((4, 2), np.float32)
    expected = layer(x)
    with monkeypatch.context() as patch:
        patch.setattr(device, "_allocated", refuse)
        with pytest.raises(MemoryError, match=r"no room for an array of shape .*, \d+ bytes"):
            layer(x)
    assert_same_bits(layer(x), expected)
