"""Symbols, integers in place of one-hot rows: what a layer makes of them equals what it makes of those rows."""

import copy

import helpers
import numba
import numpy as np
import pytest
from helpers import CELLS, DTYPES, LENGTHS, assert_near, make_case, make_layer, oracle
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack.cpu import engine

V = 11
INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def draw(lengths=LENGTHS, count=V, rng=2):
    """Sequences of symbols."""
    rng = np.random.default_rng(rng)
    return [rng.integers(0, count, n) for n in lengths]


def one_hot(symbols, layer):
    return np.eye(layer.input_size, dtype=layer.dtype)[symbols]


def everything(layer, case):
    """All that inference, forward and backward pass return but the gradient of the input, as a list; and that."""
    packed = nbp.pack_sequence(case.sequences)
    inferred, inferred_state = layer(packed, case.hx)
    output, state, tape = layer.forward(packed, case.hx)
    gradients = layer.backward(tape, nbp.pack_sequence(case.d_outputs), case.d_state)
    states = [part for value in (inferred_state, state, gradients.hx) for part in helpers.as_tuple(value)]
    return [inferred.data, output.data, *states, gradients.parameters], gradients.input


def assert_equal(one, other):
    assert len(one) == len(other)
    for mine, expected in zip(one, other, strict=True):
        assert mine.dtype == expected.dtype
        np.testing.assert_array_equal(mine, expected)


# -- equal to one-hot rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, False, True), (2, True, True), (3, False, False)], ids=["one", "both", "three"])
def test_symbols_give_what_one_hot_rows_give(cell, dtype, shape):
    layers, both, bias = shape
    layer = make_layer(cell, V, 37, num_layers=layers, bidirectional=both, bias=bias, dtype=dtype)
    symbols = draw()
    case = make_case(layer, LENGTHS)._replace(sequences=[one_hot(sequence, layer) for sequence in symbols])
    expected, d_input = everything(layer, case)
    assert d_input is not None
    found, d_input = everything(layer, case._replace(sequences=symbols))
    assert d_input is None
    assert_equal(found, expected)


def test_symbols_agree_with_the_definition(cell, dtype):
    layer = make_layer(cell, V, 9, num_layers=2, bidirectional=True, dtype=dtype)
    symbols = draw()
    case = make_case(layer, LENGTHS)
    expected = oracle(layer, case._replace(sequences=[one_hot(sequence, layer) for sequence in symbols]))
    output, _, tape = layer.forward(nbp.pack_sequence(symbols), case.hx)
    gradient = layer.backward(tape, nbp.pack_sequence(case.d_outputs), case.d_state).parameters
    assert_near(layer, LENGTHS, nbp.unpack_sequence(output), expected.outputs, "outputs")
    for name, value in layer.views(gradient).items():
        assert_near(layer, LENGTHS, [value], [expected.d_parameters[name]], f"d_{name}")


@settings(deadline=None, max_examples=60)
@given(
    cell=st.sampled_from(CELLS),
    sizes=st.tuples(st.integers(1, 300), st.integers(2, 70)),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=14),
)
def test_any_sizes_give_what_one_hot_rows_give(cell, sizes, lengths):
    layer = make_layer(cell, *sizes)
    symbols = draw(lengths, layer.input_size)
    case = make_case(layer, lengths)
    expected, _ = everything(layer, case._replace(sequences=[one_hot(sequence, layer) for sequence in symbols]))
    assert_equal(everything(layer, case._replace(sequences=symbols))[0], expected)


@pytest.mark.parametrize("integers", INTEGERS + [dtype.newbyteorder() for dtype in INTEGERS[1:]], ids=str)
def test_any_integers_will_do_in_any_form(integers):
    gru = nbp.GRU(100, 5, rng=0)
    last = np.array([[0, 99, 1], [3, 99, 0]])  # (T, B)
    symbols = last.astype(integers)
    rows = one_hot(last, gru)
    for found, expected in (
        (gru(nbp.symbols(symbols)), gru(rows)),
        (gru(nbp.symbols(np.asfortranarray(symbols)[:, ::-1])), gru(rows[:, ::-1])),
        (gru(symbols[:, 1]), gru(rows[:, 1])),
        (gru(nbp.symbols(symbols[:, 1])), gru(rows[:, 1])),
    ):
        assert_equal(found, expected)
    first = nbp.GRU(100, 5, rng=0, batch_first=True)
    assert_equal(first(nbp.symbols(symbols.T)), first(rows.swapaxes(0, 1)))
    packed, of_rows = (nbp.pack_sequence(list(batch.swapaxes(0, 1))) for batch in (symbols, rows))
    assert_equal([gru(packed)[0].data], [gru(of_rows)[0].data])


def test_integers_of_two_axes_are_asked_for():
    """They may be features (T, I) of one sequence, or padded symbols (T, B)."""
    gru, counts = nbp.GRU(3, 4, rng=0), np.array([[0, 2, 1], [1, 1, 0]])
    for call in (gru, gru.forward):
        with pytest.raises(TypeError, match=r"input must .*x\.astype\(numpy.float32\).*symbols\(x\).*got int64"):
            call(counts)
    assert gru(counts.astype(np.float32))[0].shape == (2, 4)
    assert gru(nbp.symbols(counts))[0].shape == (2, 3, 4)
    assert gru.forward(nbp.symbols(counts))[0].shape == (2, 3, 4)


def test_symbols_may_be_what_numpy_takes_for_an_array_and_are_not_copied():
    array = np.array([[0, 2], [1, 1]])
    assert nbp.symbols(array).array is array
    gru = nbp.GRU(3, 4, rng=0)
    assert_equal(gru(nbp.symbols([[0, 2], [1, 1]])), gru(nbp.symbols(array)))
    assert repr(nbp.symbols([1, 2])) == "symbols(array([1, 2]))"


def test_batches_without_symbols_have_the_state_they_began_with():
    gru = nbp.GRU(V, 3, rng=0)
    h_0 = np.ones((1, 2, 3), np.float32)
    output, h_n, tape = gru.forward(nbp.pack_sequence([np.zeros(0, int)] * 2), h_0)
    assert output.data.shape == (0, 3)
    gradients = gru.backward(tape, None, h_n)
    assert_equal([h_n, gradients.hx, gradients.parameters], [h_0, h_0, np.zeros_like(gru.parameters)])
    assert gru(nbp.symbols(np.zeros((0, 4), int)))[0].shape == (0, 4, 3)


# -- independent of all but the sequence -------------------------------------------------------------------------------


def test_a_sequence_of_symbols_alone_equals_itself_in_a_batch_and_in_chunks(cell):
    layer = make_layer(cell, V, 37)
    symbols = draw()
    outputs = nbp.unpack_sequence(layer(nbp.pack_sequence(symbols))[0])
    for sequence, expected in zip(symbols, outputs, strict=True):
        helpers.assert_same_bits(layer(sequence)[0], expected)
        start, state = layer(sequence[:3])
        helpers.assert_same_bits(np.concatenate([start, layer(sequence[3:], state)[0]]), expected)


@pytest.mark.parametrize("n", [2, 3])
def test_gradients_do_not_depend_on_the_number_of_threads(cell, n, monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = make_layer(cell, V, 37, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)._replace(sequences=draw())
    with nbp.threads(1):
        expected, _ = everything(layer, case)
    with nbp.threads(n):
        helpers.assert_same_bits(everything(layer, case)[0], expected)


# -- bounds ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(data=st.data(), integers=st.sampled_from(INTEGERS), form=st.sampled_from(["packed", "padded", "single"]))
def test_a_symbol_is_refused_if_and_only_if_it_is_no_column(data, integers, form):
    """With the first of those that are refused named; what is not refused equals the look-up, so nothing is missed."""
    limits = np.iinfo(integers)
    near = st.integers(max(-2, limits.min), V + 1)
    values = data.draw(st.lists(st.one_of(near, near, st.integers(limits.min, limits.max)), min_size=2, max_size=6))
    symbols = np.array(values, integers)
    rnn = nbp.RNN(V, 2, rng=0)
    wrong = [i for i, value in enumerate(values) if not 0 <= value < V]
    given, name, where = {
        "single": (symbols, "input", "{}"),
        "padded": (nbp.symbols(symbols[:, None]), "input", r"\({}, 0\)"),
        "packed": (nbp.pack_sequence([symbols]), r"input\.data", "{}"),
    }[form]
    if wrong:
        position = where.format(wrong[0])
        message = rf"{name} must hold symbols .* input_size = {V}; got {values[wrong[0]]} at index {position}$"
        for call in (rnn, rnn.forward):
            with pytest.raises(ValueError, match=message):
                call(given)
    else:
        assert_equal(rnn(symbols), rnn(one_hot(symbols, rnn)))


def test_symbols_changed_between_the_passes_do_not_matter():
    """They are copied, since an index is not to be trusted twice."""
    lstm = nbp.LSTM(V, 5, rng=0)
    packed = nbp.pack_sequence(draw())
    expected = lstm.backward(lstm.forward(packed)[2], np.ones((len(packed.data), 5), np.float32))
    tape = lstm.forward(packed)[2]
    packed.data[:] = 2**40
    found = lstm.backward(tape, np.ones((len(packed.data), 5), np.float32))
    assert_equal([found.parameters], [expected.parameters])


# -- in compiled code --------------------------------------------------------------------------------------------------


@numba.njit
def lstm_passes(packed, weights, d_output):
    output, state, tape = nbp.lstm_forward(packed, weights)
    gradients = nbp.lstm_backward(tape, d_output)
    return nbp.lstm(packed, weights)[0].data, output.data, state, gradients


@pytest.mark.parametrize("integers", [np.int64, pytest.param(np.uint8, marks=pytest.mark.slow)])
def test_compiled_code_takes_symbols(integers):
    layer = make_layer("lstm-proj", V, 7, num_layers=2, bidirectional=True)
    packed = nbp.pack_sequence(draw()).astype(integers)
    d_output = np.ones((len(packed.data), 2 * layer.output_size), np.float32)
    inferred, output, state, found = lstm_passes(packed, layer.weights, d_output)
    expected, expected_state, tape = layer.forward(packed)
    gradients = layer.backward(tape, d_output)
    assert found.input is None
    assert_equal(
        [inferred, output, *state, *found.hx, found.parameters],
        [expected.data, expected.data, *expected_state, *gradients.hx, gradients.parameters],
    )


def test_symbols_changed_on_a_tape_of_compiled_code_are_refused():
    gru = nbp.GRU(V, 3, rng=0)
    tape = nbp.gru_forward(nbp.pack_sequence(draw()), gru.weights)[2]
    tape.packed.data[1] = V
    with pytest.raises(ValueError, match=rf"tape.packed.data must hold symbols .* {V}; got {V} at index 1"):
        nbp.gru_backward(tape, None)


# -- embeddings --------------------------------------------------------------------------------------------------------

E = 6


@pytest.fixture
def table():
    return np.random.default_rng(3).standard_normal((V, E))


def test_a_folded_layer_gives_what_the_layer_gives_of_embeddings(cell, dtype, table):
    layer = make_layer(cell, E, 9, num_layers=2, bidirectional=True, dtype=dtype)
    symbols = draw()
    folded = nbp.fold_embedding(layer, table)
    assert (type(folded), folded.input_size, folded.dtype) == (type(layer), V, layer.dtype)
    found = nbp.unpack_sequence(folded(nbp.pack_sequence(symbols))[0])
    embedded = nbp.pack_sequence([table[sequence].astype(dtype) for sequence in symbols])
    assert_near(layer, LENGTHS, found, nbp.unpack_sequence(layer(embedded)[0]), "outputs")


def test_folding_changes_the_input_weights_alone(cell, dtype, table):
    layer = make_layer(cell, E, 9, num_layers=2, bidirectional=True, dtype=dtype, batch_first=True, dropout=0.25)
    before = copy.deepcopy(layer)
    folded = nbp.fold_embedding(layer, table)
    assert repr(folded) == repr(layer).replace(f"({E}, ", f"({V}, ")
    theirs = folded.state_dict()
    for name, value in layer.state_dict().items():
        if name.startswith("weight_ih_l0"):
            value = (value.astype(np.float64) @ table.T).astype(dtype)
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)
    np.testing.assert_array_equal(layer.parameters, before.parameters)


def test_a_folded_layer_drops_what_the_layer_drops(table):
    layer = make_layer("gru", E, 9, num_layers=2, dropout=0.5, dtype=np.float64)
    symbols = draw((7,))[0]
    dropped = nbp.fold_embedding(layer, table).forward(symbols)[0]
    assert_near(layer, (7,), [dropped], [layer.forward(table[symbols])[0]], "outputs")


def test_an_embedding_of_pytorch_can_be_folded(table):
    torch = pytest.importorskip("torch", reason="what is tested here takes a tensor")
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(table), freeze=False)
    layer = make_layer("lstm", E, 9)
    folded, expected = nbp.fold_embedding(layer, embedding.weight), nbp.fold_embedding(layer, table)
    np.testing.assert_array_equal(folded.parameters, expected.parameters)
