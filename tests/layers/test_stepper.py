"""Steps are those of the layer over the whole sequence, bit for bit; and calls that fail change nothing."""

import copy
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numba
import numpy as np
import pytest
from interrupts import interrupted

import numba_pack as nbp
from numba_pack.layers import stepper as module

B, I, T = 3, 5, 6  # noqa: E741

#: by a name, a layer of each kind
LAYERS = {
    "RNN": lambda: nbp.RNN(I, 20, nonlinearity="relu", rng=0),
    "LSTM": lambda: nbp.LSTM(I, 7, num_layers=2, dropout=0.5, rng=0),
    "GRU": lambda: nbp.GRU(I, 9, rng=0),
    "float64": lambda: nbp.GRU(I, 4, num_layers=3, dtype="f8", rng=0),
    "projection": lambda: nbp.LSTM(I, 7, num_layers=2, proj_size=2, batch_first=True, rng=0),
    "all states": lambda: nbp.LSTM(I, 7, return_states=True, rng=0),
    "widths": lambda: nbp.LSTM(I, [7, 4], return_states=True, dropout=0.5, rng=0),
    "widths, one state": lambda: nbp.GRU(I, [7, 4], rng=0),
    "normalised": lambda: nbp.GRU(I, 9, layer_norm=True, rng=0),
    "trained with noise": lambda: nbp.GRU(I, 9, zoneout=0.2, recurrent_dropout=0.5, rng=0),
    "heads": lambda: nbp.LSTM(I, 8, heads=2, rng=0),
    "high": lambda: nbp.LSTM(I, 9, matmul_precision="high", rng=0),
    "medium": lambda: nbp.GRU(I, 9, matmul_precision="medium", rng=0),
    "quantized": lambda: nbp.LSTM(I, 9, num_layers=2, rng=0).quantize("int8"),
    "widths, quantized": lambda: nbp.GRU(I, [7, 4], rng=0).quantize("int8"),
    "four states": lambda: nbp.cells.SLSTM(I, 4, rng=0),
    "two products": lambda: nbp.cells.GRUResetBefore(I, 4, num_layers=2, rng=0),
    "no product": lambda: nbp.cells.LRU(I, 4, rng=0),
    "own weights": lambda: nbp.cells.PeepholeLSTM(I, 4, rng=0),
}


def leaves(value):
    """All arrays of an output or a state, which may be in tuples and lists."""
    return [value] if isinstance(value, np.ndarray) else [array for part in value for array in leaves(part)]


def bits(value):
    return [(array.shape, array.dtype, array.tobytes()) for array in leaves(value)]


def assert_equal(found, expected):
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected)
    for got, right in zip(found, expected, strict=True):
        assert got.dtype == right.dtype
        assert np.array_equal(got, right, equal_nan=True)


def inputs(layer, steps=T, batch=B, rng=1):
    """(T, B, I), whatever the layer takes first."""
    return np.random.default_rng(rng).standard_normal((steps, batch, I)).astype(layer.dtype)


def as_padded(layer, x):
    return x.swapaxes(0, 1) if layer.batch_first else x


def whole(layer, x, hx=None):
    """The outputs of the layer over the whole sequences, (T, B, ...) each, and the state."""
    output, state = layer(as_padded(layer, x), hx)
    return [as_padded(layer, part) for part in leaves(output)], state


def taken(stepper, x):
    """The outputs of steps, (T, B, ...) each."""
    steps = [[part.copy() for part in leaves(stepper(row))] for row in x]
    return [np.stack(parts) for parts in zip(*steps, strict=True)]


@pytest.fixture
def stepper():
    """Of an LSTM, after some steps."""
    found = nbp.LSTM(I, 7, rng=0).stepper(B)
    found(inputs(found.layer, rng=2))
    return found


# ---- equal to the whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_steps_equal_the_layer_over_the_whole_sequence(kind):
    layer = LAYERS[kind]()
    stepper, x = layer.stepper(B), inputs(layer)
    outputs, state = whole(layer, x)
    assert_equal(taken(stepper, x), outputs)
    assert_equal(stepper.state, state)


@pytest.mark.parametrize("kind", LAYERS)
def test_steps_and_chunks_in_turn_equal_the_whole(kind):
    layer = LAYERS[kind]()
    stepper, x = layer.stepper(B), inputs(layer, 9)
    outputs, state = whole(layer, x)
    parts = [taken(stepper, x[:2])]
    parts.append([as_padded(layer, each) for each in leaves(stepper(as_padded(layer, x[2:6])))])
    parts.append(taken(stepper, x[6:]))
    stepper(as_padded(layer, x[:0]))  # of no steps
    assert_equal([np.concatenate(each) for each in zip(*parts, strict=True)], outputs)
    assert_equal(stepper.state, state)


@pytest.mark.parametrize("kind", LAYERS)
def test_symbols_equal_the_whole(kind):
    layer = LAYERS[kind]()
    stepper, x = layer.stepper(B), np.random.default_rng(0).integers(0, I, (T, B))
    output, state = layer(nbp.symbols(as_padded(layer, x)))
    outputs = [as_padded(layer, part) for part in leaves(output)]
    assert_equal(taken(stepper, x.astype(np.int16)), outputs)
    assert_equal(stepper.state, state)
    stepper.reset()
    assert_equal([as_padded(layer, each) for each in leaves(stepper(nbp.symbols(as_padded(layer, x))))], outputs)
    assert_equal(stepper.state, state)


#: of all numbers of panels, and of those that are taken along with the input's
WIDTHS = [("LSTM", 1), ("LSTM", 16), ("LSTM", 33), ("LSTM", 256), ("GRU", 64), ("GRU", 192), ("RNN", 64), ("RNN", 192)]


@pytest.mark.parametrize(("kind", "H"), WIDTHS)
def test_one_sequence_equals_the_whole_whatever_its_width(kind, H):
    layer = getattr(nbp, kind)(I, H, num_layers=2, rng=0)
    x = inputs(layer, 30, 1)
    outputs, state = whole(layer, x)
    stepper = layer.stepper()
    assert_equal(taken(stepper, x), outputs)
    assert_equal(stepper.state, state)


def test_rows_in_any_memory_are_taken():
    layer = nbp.GRU(I, 4, rng=0)
    x = inputs(layer)
    expected = whole(layer, x)
    read_only = x.copy()
    read_only.flags.writeable = False
    for rows in (x[:, ::-1][:, ::-1], np.asfortranarray(x), x.astype(">f4"), read_only, x.view(np.memmap)):
        stepper = layer.stepper(B)
        assert_equal((taken(stepper, rows), stepper.state), expected)


def test_the_output_of_a_step_can_be_the_input_of_the_next():
    layer = nbp.GRU(I, I, rng=0)
    stepper, x = layer.stepper(), np.ones((1, I), np.float32)
    y, h, expected = x, None, x
    for _ in range(5):
        y = stepper(y)
        expected, h = layer(expected.reshape(1, 1, I), h)
    assert_equal(y, expected[0])


def test_nan_stays_in_its_sequence(stepper):
    x = inputs(stepper.layer)
    other = copy.copy(stepper)
    broken = x.copy()
    broken[2, 1] = np.nan
    for right, wrong in zip(taken(stepper, x), taken(other, broken), strict=True):
        assert_equal(wrong[:, [0, 2]], right[:, [0, 2]])
        assert np.isnan(wrong[2:, 1]).all()
    other.reset([1])
    assert np.isfinite(other(x[0])).all()


def test_parameters_that_are_assigned_hold_from_the_next_step_on(stepper):
    layer, x = stepper.layer, inputs(stepper.layer)
    stepper(np.zeros(B, np.int64))  # symbols, too
    state = stepper.state
    layer.parameters = layer.parameters * 2
    assert_equal(stepper(x[0]), layer(x[:1], state)[0][0])
    state = stepper.state
    assert_equal(stepper(np.ones(B, np.int64)), layer(nbp.symbols(np.ones((1, B), np.int64)), state)[0][0])


# ---- the state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_a_stepper_goes_on_from_a_state_that_is_assigned(kind):
    layer = LAYERS[kind]()
    x, first = inputs(layer), layer.stepper(B)
    first(x[0])
    expected = whole(layer, x, first.state)
    second = layer.stepper(B)
    second.state = first.state
    assert_equal((taken(second, x), second.state), expected)
    second.state = None
    assert_equal((taken(second, x), second.state), whole(layer, x))


def test_one_state_may_be_that_of_all_sequences(stepper):
    one = tuple(part[:, :1] for part in stepper.state)
    stepper.state = one
    assert_equal(stepper.state, [np.repeat(part, B, axis=1) for part in one])


def test_a_state_is_a_copy(stepper):
    state = stepper.state
    before = bits(state)
    stepper(inputs(stepper.layer)[0])
    assert bits(state) == before
    for part in state:
        part[...] = np.nan
    assert np.isfinite(stepper(inputs(stepper.layer)[0])).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_reset_lets_the_sequences_begin_again(kind):
    layer = LAYERS[kind]()
    x, stepper = inputs(layer), layer.stepper(B)
    begun, alone = whole(layer, x[:3])[1], layer.stepper(B)
    for rows in ([0, 2], np.array([True, False, True])):
        stepper.reset()
        taken(stepper, x[:3])
        stepper.reset(rows)
        for part, old in zip(leaves(stepper.state), leaves(begun), strict=True):
            assert not part[:, [0, 2]].any()
            assert_equal(part[:, 1], old[:, 1])
        stepper.reset(np.zeros(B, bool))  # of none
        alone.reset()
        assert_equal([y[:, [0, 2]] for y in taken(stepper, x)], [y[:, [0, 2]] for y in taken(alone, x)])


# ---- in compiled code ------------------------------------------------------------------------------------------------


@numba.njit
def run(stepper, x):
    output = np.empty((len(x), *stepper.output.shape), stepper.output.dtype)
    for t in range(len(x)):
        output[t] = nbp.step(stepper, x[t])
    return output


#: of one width; most take long, since the loop is compiled for each
COMPILED = [
    pytest.param(kind, marks=[] if kind in ("LSTM", "float64", "quantized") else pytest.mark.slow)
    for kind in LAYERS
    if "widths" not in kind
]


@pytest.mark.parametrize("kind", COMPILED)
def test_steps_in_compiled_code_equal_the_whole(kind):
    layer = LAYERS[kind]()
    x, stepper = inputs(layer), layer.stepper(B)
    outputs, state = whole(layer, x)
    stepper(x[0])
    middle = run(stepper.compiled, x[1:4])
    stepper(x[4])
    last = run(stepper.compiled, x[5:])
    assert_equal(np.concatenate([middle, last]), np.concatenate([outputs[0][1:4], outputs[0][5:]]))
    assert_equal(stepper.state, state)


def test_symbols_in_compiled_code_equal_the_whole():
    layer, x = nbp.GRU(I, 4, rng=0), np.random.default_rng(0).integers(0, I, (T, B))
    assert_equal(run(layer.stepper(B).compiled, x), layer(nbp.symbols(x))[0])


def test_a_step_of_compiled_code_can_be_called_from_python(stepper):
    x, other = inputs(stepper.layer), copy.copy(stepper)
    assert_equal(nbp.step(stepper.compiled, x[0]), other(x[0]))
    assert_equal(nbp.step(stepper.compiled, x[1][:, ::-1][:, ::-1]), other(x[1]))
    assert_equal(stepper.state, other.state)


def test_what_compiled_code_has_keeps_its_parameters(stepper):
    x, other = inputs(stepper.layer), copy.copy(stepper)
    expected, compiled = other(x[0]).copy(), stepper.compiled
    stepper.layer.parameters = stepper.layer.parameters * 2
    assert_equal(nbp.step(compiled, x[0]), expected)


# ---- copies, threads, interruptions ----------------------------------------------------------------------------------

WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda stepper: pickle.loads(pickle.dumps(stepper))}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["LSTM", "widths", "quantized"])
def test_a_copy_goes_on_from_the_same_state_on_its_own(kind, way):
    layer = LAYERS[kind]()
    stepper, x = layer.stepper(B), inputs(layer)
    taken(stepper, x)
    twin, before = WAYS[way](stepper), bits(stepper.state)
    assert repr(twin) == repr(stepper) and (twin.layer is layer) == (way == "copy")
    expected = whole(layer, x, stepper.state)
    assert_equal((taken(twin, x), twin.state), expected)
    assert bits(stepper.state) == before


def test_many_threads_take_steps_one_after_the_other():
    layer = nbp.GRU(I, 33, rng=0)
    stepper, x = layer.stepper(), inputs(layer, 1, 1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: stepper(x if i % 7 == 0 else x[0]).shape, range(400)))
    assert_equal(stepper.state, layer(np.repeat(x, 400, axis=0))[1])


CALLS = {
    "step": lambda stepper, x: stepper(x[0]),
    "chunk": lambda stepper, x: stepper(x[:1]),
    "symbols": lambda stepper, x: stepper(np.zeros(B, np.int64)),
    "assign": lambda stepper, x: setattr(stepper, "state", None),
    "reset": lambda stepper, x: stepper.reset([1]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_interrupted_anywhere_is_not_done_or_done_as_a_whole(stepper, name):
    x, call = inputs(stepper.layer), CALLS[name]
    done = copy.copy(stepper)
    call(done, x)
    before, after, seen = bits(stepper.state), bits(done.state), set()
    begun = stepper.state
    for at in range(1, 400):
        stepper.state = begun
        if not interrupted(lambda: call(stepper, x), at, module):
            break
        found = bits(stepper.state)
        assert found in (before, after)
        seen.add(found == after)
        stepper.state = begun
        call(stepper, x)
        assert bits(stepper.state) == after  # nothing is left locked
    else:
        raise AssertionError("it did not come to an end")
    assert False in seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_is_in_a_call_goes_on_from_before_it(stepper, monkeypatch):
    inside, forked, called = Event(), Event(), module.call_prepared
    x, before, done = inputs(stepper.layer)[0], bits(stepper.state), copy.copy(stepper)
    expected = bits(done(x))

    def slow(at):
        inside.set()
        forked.wait()
        return called(at)

    monkeypatch.setattr(module, "call_prepared", slow)
    other = Thread(target=stepper, args=(x,))
    other.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        right = False
        try:
            signal.alarm(60)
            monkeypatch.undo()
            right = bits(stepper.state) == before and bits(stepper(x)) == expected
        finally:
            os._exit(0 if right else 1)
    forked.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0
    assert bits(stepper.state) == bits(done.state)
