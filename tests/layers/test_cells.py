"""The cells: one step of a layer, so that a loop of the user's own over a cell is that layer."""

import copy
import pickle

import helpers
import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, make_layer, normal

import numba_pack as nbp

CELLS = ["rnn-tanh", "rnn-relu", "lstm", "gru"]  # PyTorch's cells have no projection either
B, I, H = 5, 3, 19  # noqa: E741


def make_cell(cell, inputs=I, units=H, **options):
    if cell.startswith("rnn"):
        return nbp.RNNCell(inputs, units, nonlinearity=cell.removeprefix("rnn-"), **options)
    return {"lstm": nbp.LSTMCell, "gru": nbp.GRUCell}[cell](inputs, units, **options)


def make_pair(cell, bias, dtype):
    """A cell, and a layer of the same parameters."""
    one, layer = make_cell(cell, bias=bias, dtype=dtype), make_layer(cell, I, H, bias=bias, dtype=dtype)
    one.parameters = layer.parameters
    return one, layer


def as_hx(cell, parts):
    return tuple(parts) if helpers.has_c(cell) else parts[0]


def map_state(f, state):
    return tuple(map(f, state)) if isinstance(state, tuple) else f(state)


@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_and_its_gradients_are_those_of_a_layer_over_one_step(cell, dtype, bias, with_hx):
    one, layer = make_pair(cell, bias, dtype)
    rng = np.random.default_rng(2)
    x, h, c, d_h, d_c = (normal(rng, (B, columns), dtype) for columns in (I, H, H, H, H))
    hx, d_state = as_hx(cell, (h, c)) if with_hx else None, as_hx(cell, (d_h, d_c))

    _, expected, layer_tape = layer.forward(x[None], map_state(lambda part: part[None], hx) if with_hx else None)
    gradients = layer.backward(layer_tape, None, map_state(lambda part: part[None], d_state))
    state, tape = one.forward(x, hx)
    got = one.backward(tape, d_state)

    assert_same_bits(one(x, hx), state)
    assert_same_bits(state, map_state(lambda part: part[0], expected))
    assert_same_bits(got.input, gradients.input[0])
    assert_same_bits(got.hx, map_state(lambda part: part[0], gradients.hx))
    assert_same_bits(got.parameters, gradients.parameters)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_loop_over_a_cell_is_the_layer(cell, dtype):
    one, layer = make_pair(cell, True, dtype)
    T = 6
    case = helpers.make_case(layer, (T,) * B)
    x, d_output = np.stack(case.sequences, 1), np.stack(case.d_outputs, 1)
    output, after, layer_tape = layer.forward(x, case.hx)
    expected = layer.backward(layer_tape, d_output, case.d_state)

    state, tapes = map_state(lambda part: part[0], case.hx), []
    for t in range(T):
        state, tape = one.forward(x[t], state)
        tapes.append(tape)
        assert_same_bits(helpers.as_tuple(state)[0], output[t])
    assert_same_bits(state, map_state(lambda part: part[0], after))

    d_state, d_parameters = map_state(lambda part: part[0], case.d_state), 0
    for t in reversed(range(T)):
        parts = helpers.as_tuple(d_state)
        gradients = one.backward(tapes[t], as_hx(cell, (parts[0] + d_output[t], *parts[1:])))
        assert_same_bits(gradients.input, expected.input[t])
        d_state, d_parameters = gradients.hx, d_parameters + gradients.parameters
    assert_same_bits(d_state, map_state(lambda part: part[0], expected.hx))
    helpers.assert_near(layer, (T,) * B, [d_parameters], [expected.parameters], "d_parameters")


@pytest.mark.parametrize("cell", CELLS)
def test_one_input_needs_no_axis_for_the_batch(cell):
    one = make_cell(cell, rng=0)
    x, h, c = (normal(np.random.default_rng(3), (1, columns), np.float32) for columns in (I, H, H))
    hx = as_hx(cell, (h, c))
    alone = map_state(lambda part: part[0], hx)
    assert_same_bits(one(x[0]), map_state(lambda part: part[0], one(x)))
    assert_same_bits(one(x[0], alone), map_state(lambda part: part[0], one(x, hx)))
    batch = one.backward(one.forward(x, hx)[1], hx)
    single = one.backward(one.forward(x[0], alone)[1], alone)
    assert_same_bits(single.input, batch.input[0])
    assert_same_bits(single.hx, map_state(lambda part: part[0], batch.hx))
    assert_same_bits(single.parameters, batch.parameters)


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_of_none_gives_none(cell):
    one = make_cell(cell)
    state, tape = one.forward(np.zeros((0, I), np.float32))
    assert all(part.shape == (0, H) for part in helpers.as_tuple(state))
    gradients = one.backward(tape, state)
    assert gradients.input.shape == (0, I)
    assert not gradients.parameters.any()


# -- symbols -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_symbols_give_what_one_hot_rows_give(cell, dtype):
    one = make_cell(cell, dtype=dtype, rng=0)
    rng = np.random.default_rng(4)
    symbols, (h, c, d_h, d_c) = rng.integers(0, I, B), normal(rng, (4, B, H), dtype)
    hx, d_state, rows = as_hx(cell, (h, c)), as_hx(cell, (d_h, d_c)), np.eye(I, dtype=dtype)[symbols]
    expected, expected_tape = one.forward(rows, hx)
    state, tape = one.forward(symbols, hx)
    assert_same_bits(state, expected)
    assert_same_bits(one(symbols.astype(np.uint8), hx), expected)
    assert_same_bits(one(symbols), one(rows))
    gradients, expected = one.backward(tape, d_state), one.backward(expected_tape, d_state)
    assert gradients.input is None
    assert_same_bits(gradients.hx, expected.hx)
    assert_same_bits(gradients.parameters, expected.parameters)


@pytest.mark.parametrize("symbol", [2, np.int64(2), np.array(2)], ids=["int", "int64", "array"])
def test_one_symbol_is_an_integer(symbol):
    one, h = make_cell("gru", rng=0), normal(np.random.default_rng(3), (H,), np.float32)
    assert_same_bits(one(symbol, h), one(np.array([2]), h[None])[0])
    after, tape = one.forward(symbol, h)
    assert one.backward(tape, after).hx.shape == (H,)


def test_symbols_may_change_once_forward_has_seen_them():
    one, symbols, d = make_cell("rnn-tanh", rng=0), np.array([0, 2]), np.ones((2, H), np.float32)
    expected = one.backward(one.forward(symbols)[1], d)
    _, tape = one.forward(symbols)
    symbols[:] = 99
    assert_same_bits(one.backward(tape, d).parameters, expected.parameters)


@pytest.mark.parametrize("cell", CELLS)
def test_a_folded_embedding_gives_the_cell_what_looking_up_gave_it(cell):
    one = make_cell(cell, dtype=np.float64, rng=0)
    table, symbols = normal(np.random.default_rng(5), (7, I), np.float64), np.array([6, 0, 3])
    folded = nbp.fold_embedding(one, table)
    assert (type(folded), folded.input_size, one.input_size) == (type(one), 7, I)
    assert {name for name, value in folded.state_dict().items() if value.shape != one.state_dict()[name].shape} == {
        "weight_ih"
    }
    for found, expected in zip(*map(helpers.as_tuple, (folded(symbols), one(table[symbols]))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_none_for_a_part_of_the_gradient_means_zero():
    lstm = make_cell("lstm", rng=0)
    x, d = np.ones((B, I), np.float32), np.ones((B, H), np.float32)
    zero = np.zeros_like(d)
    for given, whole in (((d, None), (d, zero)), ((None, d), (zero, d))):
        one, other = (lstm.backward(lstm.forward(x)[1], d_state) for d_state in (given, whole))
        assert_same_bits(one, other)


@pytest.mark.parametrize("cell", CELLS)
def test_names_and_shapes_are_those_of_pytorch_without_the_number_of_a_layer(cell):
    one, layer = make_cell(cell), make_layer(cell, I, H)
    assert {name + "_l0": value.shape for name, value in one.state_dict().items()} == {
        name: value.shape for name, value in layer.state_dict().items()
    }
    one.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    np.testing.assert_array_equal(one.parameters, layer.parameters)


@pytest.mark.parametrize("cell", CELLS)
def test_a_pickled_cell_comes_back_as_it_was(cell):
    one = make_cell(cell)
    x = np.ones((B, I), np.float32)
    for twin in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        assert repr(twin) == repr(one)
        assert_same_bits(twin(x), one(x))


@pytest.mark.parametrize("cell", CELLS)
def test_arguments_are_not_changed_and_may_be_read_only(cell):
    one = make_cell(cell)
    x, h = np.ones((B, I), np.float32), np.ones((B, H), np.float32)
    x.flags.writeable = h.flags.writeable = False
    hx = as_hx(cell, (h, h))
    state, tape = one.forward(x, hx)
    gradients = one.backward(tape, hx)
    assert (x == 1).all() and (h == 1).all()
    for result in (*helpers.as_tuple(state), gradients.input, *helpers.as_tuple(gradients.hx)):
        assert not np.shares_memory(result, h) and not np.shares_memory(result, x)


# -- errors ------------------------------------------------------------------------------------------------------------

X, STATE = np.ones((B, I), np.float32), np.ones((B, H), np.float32)


@pytest.mark.parametrize("make", [nbp.RNNCell, nbp.LSTMCell, nbp.GRUCell], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "input_size must be at least 1; got 0"),
        ({"input_size": 3.0}, TypeError, r"input_size must be an integer; got 3\.0"),
        ({"hidden_size": -1}, ValueError, "hidden_size must be at least 1; got -1"),
        ({"hidden_size": True}, TypeError, "hidden_size must be an integer; got True"),
        ({"bias": 1}, TypeError, "bias must be a bool; got 1"),
        ({"dtype": "f2"}, TypeError, "dtype must be float32 or float64; got 'f2'"),
        ({"rng": "a"}, TypeError, r"rng must be what numpy\.random\.default_rng takes; got 'a'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_of_a_cell_are_named(make, argument, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make(**{"input_size": I, "hidden_size": H, **argument})


@pytest.mark.parametrize(("value", "error"), [("sigmoid", ValueError), (None, TypeError)])
def test_a_wrong_nonlinearity_is_named(value, error):
    with pytest.raises(error, match=f"nonlinearity must be 'tanh' or 'relu'; got {value!r}"):
        nbp.RNNCell(I, H, nonlinearity=value)


@pytest.mark.parametrize(
    ("input", "hx", "error", "message"),
    [
        (X.tolist(), None, TypeError, "input must be a NumPy array; got list"),
        (None, None, TypeError, "input must be a NumPy array; got NoneType"),
        (X[None], None, ValueError, r"input must have shape \(B, 3\) or \(3,\); got \(1, 5, 3\)"),
        (X[:, :2], None, ValueError, r"input must have shape \(B, input_size\) = \(5, 3\); got \(5, 2\)"),
        (X[0, :2], None, ValueError, r"input must have shape \(input_size,\) = \(3,\); got \(2,\)"),
        (X.astype(float), None, TypeError, "input must have dtype float32; got float64"),
        (np.ma.array(X), None, TypeError, "input must be an array without a mask"),
        (X, (STATE, STATE), TypeError, "hx must be a NumPy array; got tuple"),
        (X, STATE[:4], ValueError, r"hx must have shape \(B, H\) = \(5, 19\); got \(4, 19\)"),
        (X, np.ones((6, H), np.float32), ValueError, r"hx must have shape \(B, H\) = \(5, 19\); got \(6, 19\)"),
        (X, STATE[:, :7], ValueError, r"hx must have shape \(B, H\) = \(5, 19\); got \(5, 7\)"),
        (X, STATE[None], ValueError, r"hx must have shape \(B, H\) = \(5, 19\); got \(1, 5, 19\)"),
        (X, STATE.astype(float), TypeError, "hx must have dtype float32; got float64"),
        (X[0], STATE[:1], ValueError, r"hx must have shape \(H,\) = \(19,\); got \(1, 19\)"),
    ],
    ids=[
        "list", "none", "axes", "columns", "columns-single", "float64", "masked", "hx-pair", "hx-fewer", "hx-more",
        "hx-units", "hx-axes", "hx-float64", "hx-single",
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_wrong_input_and_state_are_named(call, input, hx, error, message):
    with pytest.raises(error, match=f"^{message}"):
        getattr(make_cell("gru"), call)(input, hx)


@pytest.mark.parametrize(
    ("hx", "error", "message"),
    [
        (STATE, TypeError, "hx must be a tuple of two arrays, h and c; got numpy.ndarray"),
        ((STATE,), TypeError, "hx must be a tuple of two arrays, h and c; got tuple"),
        ((STATE, STATE[:4]), ValueError, r"hx\[1\] must have shape \(B, H\) = \(5, 19\); got \(4, 19\)"),
        ((STATE[:, :4], STATE), ValueError, r"hx\[0\] must have shape \(B, H\) = \(5, 19\); got \(5, 4\)"),
        ((STATE.astype(int), STATE), TypeError, r"hx\[0\] must have dtype float32; got int64"),
    ],
    ids=["array", "one", "fewer", "units", "integers"],
)
def test_a_wrong_state_of_an_lstm_is_named(hx, error, message):
    lstm = make_cell("lstm")
    with pytest.raises(error, match=f"^{message}"):
        lstm(X, hx)
    tape = lstm.forward(X)[1]
    with pytest.raises(error, match=f"^{message.replace('hx', 'd_state')}"):
        lstm.backward(tape, hx)
    lstm.backward(tape, (STATE, STATE))  # the tape is still good


def test_a_missing_part_of_the_state_is_refused():
    with pytest.raises(TypeError, match=r"^hx\[1\] must be a NumPy array; got NoneType"):
        make_cell("lstm")(X, (STATE, None))


def test_a_wrong_tape_is_named():
    gru = make_cell("gru")
    state, tape = gru.forward(X)
    for wrong, error, message in (
        (None, TypeError, "tape must be what forward returned second; got NoneType"),
        ((state, tape), TypeError, "tape must be what forward returned second; got tuple"),
        (nbp.GRU(I, H).forward(X[None])[2], ValueError, "tape must come from a forward call of this GRUCell; got one"),
        (make_cell("gru").forward(X)[1], ValueError, "tape must come from a forward call of this GRUCell; got one of"),
    ):
        with pytest.raises(error, match=message):
            gru.backward(wrong, state)
    gru.backward(tape, state)
    with pytest.raises(ValueError, match="tape must not have been used: backward uses it up; got one"):
        gru.backward(tape, state)
    with pytest.raises(ValueError, match="tape must come from a forward call of this GRU; got one of another layer"):
        nbp.GRU(I, H).backward(gru.forward(X)[1])


def test_an_array_of_a_class_that_tells_another_length_is_what_it_holds():
    class Longer(np.ndarray):
        def __len__(self):
            return 99

    for make in (nbp.RNNCell, nbp.LSTMCell, nbp.GRUCell):
        cell, rows = make(3, 4, rng=0), np.ones((5, 3), np.float32)
        expected, got = np.asarray(cell(rows)), np.asarray(cell(rows.view(Longer)))
        assert got.tobytes() == expected.tobytes()
