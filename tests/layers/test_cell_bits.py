"""Bits of cells that are no LSTM: as `test_bits.py` and `test_bits_layouts.py` say of the plain layers."""

import numba
import numpy as np
import pytest
from helpers import Case, as_tuple, assert_same_bits, infer, of_sequences, train
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import LENGTHS, LONG, of_results, per_sequence, used  # noqa: F401  (a fixture)
from test_bits_layouts import divided
from test_cell_layers import FIVE, WIDE, as_hx, make_parameters, make_states

import numba_pack as nbp
from numba_pack import cells

QUICK = ["PeepholeLSTM", "GRUResetBefore", "MinGRU", "SLSTM"]
OWN = {"8-gates-4-states": WIDE.cell(), "5-gates": FIVE.cell()}
#: what `test_cell_layers` compiles, too, and what takes its time
LAYERS = [
    *((name, np.float64) for name in QUICK),
    *(pytest.param((name, dtype), marks=pytest.mark.slow) for name, dtype in [
        *((name, np.float32) for name in (*QUICK, *OWN)), ("8-gates-4-states", np.float64),
    ]),
]  # fmt: skip


def make_layer(name, inputs=5, units=21, num_layers=2, dtype=np.float64, **options):
    made = OWN.get(name) or getattr(cells, name)
    layer = made(inputs, units, num_layers=num_layers, dtype=dtype, rng=0, **options)
    layer.parameters = make_parameters(layer, np.random.default_rng(2))
    return layer


def make_case(layer, lengths, rng=1, with_hx=True):
    """As that of helpers, for any number of states."""
    rng = np.random.default_rng(rng)

    def normal(*shape):
        return rng.standard_normal(shape).astype(layer.dtype)

    states = make_states(layer, rng, lengths)
    return Case(
        [normal(n, layer.input_size) for n in lengths],
        as_hx(states) if with_hx else None,
        [normal(n, layer.num_directions * layer.hidden_size) for n in lengths],
        as_hx([normal(*state.shape) for state in states]),
    )


@pytest.fixture(params=LAYERS, ids=lambda p: f"{p[0]}-{p[1].__name__}")
def made(request):
    """Makes layers of the cell and dtype of this test."""
    name, dtype = request.param
    return lambda **options: make_layer(name, dtype=dtype, **options)


@pytest.fixture
def layer(made):
    return made(bidirectional=True)


@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
def test_a_sequence_alone_equals_the_same_sequence_in_a_batch(layer, with_hx):
    case = make_case(layer, LENGTHS, with_hx=with_hx)
    batch, plain = train(layer, case), infer(layer, case)
    for i in range(len(LENGTHS)):
        alone = of_sequences(case, [i])
        assert_same_bits(per_sequence(train(layer, alone)), of_results(batch, [i]), f"sequence {i}")
        assert_same_bits(infer(layer, alone), ([plain[0][i]], tuple(part[:, [i]] for part in plain[1])))


def test_sequences_in_another_order_give_the_same_in_that_order(layer):
    case = make_case(layer, LENGTHS)
    order = np.random.default_rng(4).permutation(len(LENGTHS))
    assert_same_bits(per_sequence(train(layer, of_sequences(case, order))), of_results(train(layer, case), order))


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(QUICK),
    lengths=st.lists(st.sampled_from([0, 0, 1, 2, 3, 3, 5, 8, 8, 13]), min_size=1, max_size=14),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 3)),
    both=st.booleans(),
    bias=st.booleans(),
    threads=st.integers(2, 5),
    data=st.data(),
)
def test_neighbours_order_and_threads_change_no_bit(name, lengths, sizes, both, bias, threads, data):
    layer = make_layer(name, *sizes, bidirectional=both, bias=bias)
    case = make_case(layer, lengths)
    whole = train(layer, case)
    assert_same_bits(divided(train, layer, case, threads=threads), whole)  # the gradients of the parameters, too
    assert_same_bits(divided(infer, layer, case, threads=threads), infer(layer, case))
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True), label="chosen")
    some = divided(train, layer, of_sequences(case, chosen), threads=data.draw(st.integers(1, 3), label="threads"))
    assert_same_bits(per_sequence(some), of_results(whole, chosen))


@pytest.mark.parametrize("lengths", [LENGTHS, LONG], ids=["one-block", "three-blocks"])
def test_two_threads_give_the_same_gradients_of_the_weights_too(layer, used, lengths):  # noqa: F811
    case = make_case(layer, lengths)
    with nbp.threads(1):
        expected, plain = train(layer, case), infer(layer, case)
    assert not [call for call in used if call != (1, 1)]
    with nbp.threads(2):
        assert_same_bits(train(layer, case), expected)
        assert_same_bits(infer(layer, case), plain)
    assert used[-4:] == [(2, 2)] * 4


@pytest.mark.parametrize("cut", [1, 8], ids=lambda cut: f"cut-at-{cut}")
def test_chunks_with_the_state_carried_equal_the_whole(made, cut):
    layer = made()
    case = make_case(layer, LENGTHS)
    whole = train(layer, case)

    def chunk(part, **others):
        cut = dict(sequences=[x[part] for x in case.sequences], d_outputs=[d[part] for d in case.d_outputs])
        return case._replace(**cut, **others)

    outputs, state = infer(layer, chunk(slice(cut)))
    later = train(layer, chunk(slice(cut, None), hx=as_hx(state)))
    earlier = train(layer, chunk(slice(cut), d_state=as_hx(later.d_hx)))
    assert_same_bits([np.concatenate(pair) for pair in zip(outputs, later.outputs, strict=True)], whole.outputs)
    assert_same_bits(later.state, whole.state)
    d_inputs = [np.concatenate(pair) for pair in zip(earlier.d_inputs, later.d_inputs, strict=True)]
    assert_same_bits(d_inputs, whole.d_inputs)
    assert_same_bits(earlier.d_hx, whole.d_hx)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_packed_padded_and_single_input_give_the_same(made, batch_first):
    layer = made(bidirectional=True, batch_first=batch_first)
    case = make_case(layer, (6, 6, 6))
    packed, axis = train(layer, case), 0 if batch_first else 1
    output, state, tape = layer.forward(np.stack(case.sequences, axis), case.hx)
    gradients = layer.backward(tape, np.stack(case.d_outputs, axis), case.d_state)
    assert_same_bits(list(np.moveaxis(output, axis, 0)), packed.outputs)
    assert_same_bits(as_tuple(state), packed.state)
    assert_same_bits(list(np.moveaxis(gradients.input, axis, 0)), packed.d_inputs)
    assert_same_bits(as_tuple(gradients.hx), packed.d_hx)
    assert_same_bits(layer.views(gradients.parameters), packed.d_parameters)

    def first(state):
        return as_hx([part[:, 0] for part in as_tuple(state)])

    output, state, tape = layer.forward(case.sequences[0], first(case.hx))
    gradients = layer.backward(tape, case.d_outputs[0], first(case.d_state))
    assert_same_bits(output, packed.outputs[0])
    assert_same_bits(as_tuple(state), tuple(part[:, 0] for part in packed.state))
    assert_same_bits(gradients.input, packed.d_inputs[0])


def test_inference_equals_forward_and_a_second_call_the_first(layer):
    case = make_case(layer, LENGTHS)
    results = train(layer, case)
    assert_same_bits(infer(layer, case), (results.outputs, results.state))
    assert_same_bits(train(layer, case), results)


def test_symbols_equal_one_hot_rows(made):
    layer = made(inputs=7)
    rng = np.random.default_rng(0)
    symbols = [rng.integers(0, 7, n) for n in LENGTHS]
    case = make_case(layer, LENGTHS)._replace(sequences=[np.eye(7, dtype=layer.dtype)[s] for s in symbols])
    results = train(layer, case)
    output, state, tape = layer.forward(nbp.pack_sequence(symbols), case.hx)
    gradients = layer.backward(tape, nbp.pack_sequence(case.d_outputs), case.d_state)
    assert_same_bits(nbp.unpack_sequence(output), results.outputs)
    assert_same_bits(as_tuple(state), results.state)
    assert_same_bits(as_tuple(gradients.hx), results.d_hx)
    assert_same_bits(layer.views(gradients.parameters), results.d_parameters)


def test_what_earlier_calls_left_in_memory_does_not_matter(layer):
    """Buffers are used again: here they are full of NaN."""
    case = make_case(layer, LENGTHS)
    expected, plain = train(layer, case), infer(layer, case)
    for lengths in (LENGTHS, [n + 2 for n in LENGTHS]):
        spoilt = make_case(layer, lengths)
        for array in (*spoilt.sequences, *spoilt.d_outputs, *as_tuple(spoilt.hx)):
            array[...] = np.nan
        train(layer, spoilt)
        assert_same_bits(train(layer, case), expected)
        infer(layer, spoilt)
        assert_same_bits(infer(layer, case), plain)


@pytest.mark.parametrize("where", ["input", "hx"])
def test_nan_and_infinity_stay_in_their_sequence(layer, where):
    case = make_case(layer, LENGTHS)
    clean, plain = train(layer, case), infer(layer, case)
    for i, bad in ((3, np.nan), (8, np.inf)):
        if where == "input":
            case.sequences[i][1] = bad
        else:
            for part in as_tuple(case.hx):
                part[:, i] = bad
    others = [i for i in range(len(LENGTHS)) if i not in (3, 8)]
    results = train(layer, case)
    assert_same_bits(of_results(results, others), of_results(clean, others))
    outputs, state = infer(layer, case)
    assert_same_bits([outputs[i] for i in others], [plain[0][i] for i in others])
    assert_same_bits(tuple(part[:, others] for part in state), tuple(part[:, others] for part in plain[1]))
    assert np.isnan(results.outputs[3]).any() and np.isnan(outputs[3]).any()


# -- in compiled code --------------------------------------------------------------------------------------------------


@numba.njit
def compiled_pass(packed, weights, hx, d_output, d_state):
    inferred, state = nbp.run(packed, weights, hx)
    output, _, tape = nbp.run_forward(packed, weights, hx)
    return inferred.data, state, output.data, nbp.run_backward(tape, d_output, d_state)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, "8-gates-4-states"])
def test_a_layer_in_compiled_code_equals_the_layer(name):
    layer = make_layer(name, bidirectional=True)
    case = make_case(layer, LENGTHS)
    packed, d_output = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
    expected = train(layer, case)
    inferred, state, output, gradients = compiled_pass(packed, layer.weights, case.hx, d_output, case.d_state)
    assert_same_bits(nbp.unpack_sequence(packed._replace(data=inferred)), expected.outputs)
    assert_same_bits(output, inferred)
    assert_same_bits(as_tuple(state), expected.state)
    assert_same_bits(nbp.unpack_sequence(gradients.input), expected.d_inputs)
    assert_same_bits(as_tuple(gradients.hx), expected.d_hx)
    assert_same_bits(layer.views(gradients.parameters), expected.d_parameters)


def test_the_compiled_functions_called_from_python_equal_the_layer():
    """Of the one cell here that has neither a product with its state nor a second state."""
    layer = make_layer("MinGRU")
    case = make_case(layer, LENGTHS)
    packed, d_output = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
    expected = train(layer, case)
    output, state, tape = nbp.run_forward(packed, layer.weights, case.hx)
    gradients = nbp.run_backward(tape, d_output, case.d_state)
    assert_same_bits(nbp.unpack_sequence(output), expected.outputs)
    assert_same_bits(nbp.run(packed, layer.weights, case.hx)[0].data, output.data)
    assert_same_bits(as_tuple(state), expected.state)
    assert_same_bits(nbp.unpack_sequence(gradients.input), expected.d_inputs)
    assert_same_bits(gradients.parameters, np.concatenate([d.ravel() for d in expected.d_parameters.values()]))
