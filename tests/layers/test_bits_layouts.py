"""Bit equality, by hypothesis, over what `test_bits.py` leaves fixed: dtype, layers, directions, bias, the division
into chunks, the number of threads, how the arrays lie in memory, and the form in which the same sequences come."""

import itertools

import helpers
import numpy as np
from helpers import CELLS, assert_same_bits, infer, make_case, make_layer, of_sequences, train
from hypothesis import given, settings
from hypothesis import strategies as st
from test_arrays import LAYOUTS

import numba_pack as nbp
from numba_pack.cpu import engine

MANY_WORKERS = 1.0  # operations that are worth a thread: any work is divided

layers = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(CELLS),
        "inputs": st.integers(1, 20),
        "units": st.integers(2, 40),
        "num_layers": st.integers(1, 3),
        "bias": st.booleans(),
        "dtype": st.sampled_from([np.float32, np.float64]),
    }
)
#: zeros and ties come often
lengths = st.lists(st.sampled_from([0, 0, 1, 2, 3, 3, 5, 8, 8, 13]), min_size=1, max_size=14)


def divided(function, *arguments, threads):
    """The same call with its work divided among threads, however little it is."""
    before = engine.WORTH_A_THREAD
    engine.WORTH_A_THREAD = MANY_WORKERS
    try:
        with nbp.threads(threads):
            return function(*arguments)
    finally:
        engine.WORTH_A_THREAD = before


def of_some(results, chosen):
    chosen = list(chosen)
    return (
        [results.outputs[i] for i in chosen], tuple(part[:, chosen] for part in results.state),
        [results.d_inputs[i] for i in chosen], tuple(part[:, chosen] for part in results.d_hx),
    )  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(
    options=layers,
    lengths=lengths,
    both=st.booleans(),
    with_hx=st.booleans(),
    threads=st.integers(2, 5),
    data=st.data(),
)
def test_neighbours_order_and_threads_change_no_bit(options, lengths, both, with_hx, threads, data):
    layer = make_layer(**options, bidirectional=both)
    case = make_case(layer, lengths, with_hx=with_hx)
    whole = train(layer, case)
    shared = divided(train, layer, case, threads=threads)
    assert_same_bits(shared, whole)  # the gradients of the parameters, too
    assert_same_bits(divided(infer, layer, case, threads=threads), infer(layer, case))
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True), label="chosen")
    some = divided(train, layer, of_sequences(case, chosen), threads=data.draw(st.integers(1, 3), label="threads"))
    assert_same_bits(tuple(some[:4]), of_some(whole, chosen))


@settings(deadline=None, max_examples=60)
@given(options=layers, lengths=lengths, cuts=st.sets(st.integers(1, 12), max_size=4), data=st.data())
def test_any_chunks_with_the_state_carried_give_the_whole_and_so_do_their_gradients(options, lengths, cuts, data):
    layer = make_layer(**options)
    case = make_case(layer, lengths, with_hx=data.draw(st.booleans(), label="with_hx"))
    whole = train(layer, case)
    edges = [0, *sorted(cuts), max(lengths, default=0) + 1]
    pieces = [slice(a, b) for a, b in itertools.pairwise(edges) if a < b]

    carried, tapes, outputs = case.hx, [], [[] for _ in lengths]
    for piece in pieces:
        packed = nbp.pack_sequence([x[piece] for x in case.sequences])
        output, state, tape = layer.forward(packed, carried)
        for collected, part in zip(outputs, nbp.unpack_sequence(output), strict=True):
            collected.append(part)
        carried = state
        tapes.append(tape)
    assert_same_bits([np.concatenate(parts) for parts in outputs], whole.outputs)
    assert_same_bits(helpers.as_tuple(carried), whole.state)

    d_carried, d_inputs = case.d_state, [[] for _ in lengths]
    for piece, tape in zip(reversed(pieces), reversed(tapes), strict=True):
        gradients = layer.backward(tape, nbp.pack_sequence([d[piece] for d in case.d_outputs]), d_carried)
        for collected, part in zip(d_inputs, nbp.unpack_sequence(gradients.input), strict=True):
            collected.insert(0, part)
        d_carried = gradients.hx
    assert_same_bits([np.concatenate(parts) for parts in d_inputs], whole.d_inputs)
    assert_same_bits(helpers.as_tuple(d_carried), whole.d_hx)


@settings(deadline=None, max_examples=60)
@given(
    options=layers, lengths=lengths, both=st.booleans(),
    layouts=st.lists(st.sampled_from(sorted(LAYOUTS)), min_size=4, max_size=4),
)  # fmt: skip
def test_strides_byte_order_and_alignment_change_no_bit(options, lengths, both, layouts):
    layer = make_layer(**options, bidirectional=both)
    case = make_case(layer, lengths)
    expected = train(layer, case)
    of_data, of_states, of_indices, of_gradients = (LAYOUTS[name] for name in layouts)

    def states(value, layout):
        return tuple(layout(part) for part in value) if isinstance(value, tuple) else layout(value)

    packed = nbp.pack_sequence(case.sequences)
    packed = nbp.PackedSequence(of_data(packed.data), *(of_indices(index) for index in packed[1:]))
    d_output = nbp.pack_sequence(case.d_outputs)
    d_output = d_output._replace(data=of_gradients(d_output.data))
    output, state, tape = layer.forward(packed, states(case.hx, of_states))
    gradients = layer.backward(tape, d_output, states(case.d_state, of_gradients))
    got = helpers.Results(
        nbp.unpack_sequence(output), helpers.as_tuple(state), nbp.unpack_sequence(gradients.input),
        helpers.as_tuple(gradients.hx), layer.views(gradients.parameters),
    )  # fmt: skip
    assert_same_bits(got, expected)


@settings(deadline=None, max_examples=40)
@given(options=layers, B=st.integers(1, 9), T=st.integers(0, 9), both=st.booleans(), batch_first=st.booleans())
def test_padded_packed_and_single_input_give_the_same_bits(options, B, T, both, batch_first):
    layer = make_layer(**options, bidirectional=both, batch_first=batch_first)
    case = make_case(layer, (T,) * B)
    outputs, state = infer(layer, case)
    axis = 0 if batch_first else 1
    padded, padded_state = layer(np.stack(case.sequences, axis), case.hx)
    assert_same_bits(list(np.moveaxis(padded, axis, 0)), outputs)
    assert_same_bits(helpers.as_tuple(padded_state), state)
    first = tuple(part[:, 0] for part in helpers.as_tuple(case.hx))
    single, single_state = layer(case.sequences[0], first if len(first) == 2 else first[0])
    assert_same_bits(single, outputs[0])
    assert_same_bits(helpers.as_tuple(single_state), tuple(part[:, 0] for part in state))


@settings(deadline=None, max_examples=30)
@given(lengths=lengths, cell=st.sampled_from(["lstm", "gru", "rnn-tanh"]), both=st.booleans())
def test_compiled_code_gives_the_bits_that_a_layer_gives(lengths, cell, both):
    layer = make_layer(cell, 5, 19, num_layers=2, bidirectional=both)
    case = make_case(layer, lengths)
    packed, d_output = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
    name = type(layer).__name__.lower()
    output, state = getattr(nbp, name)(packed, layer.weights, case.hx)
    assert_same_bits((nbp.unpack_sequence(output), helpers.as_tuple(state)), infer(layer, case))
    _, _, tape = getattr(nbp, f"{name}_forward")(packed, layer.weights, case.hx)
    gradients = getattr(nbp, f"{name}_backward")(tape, d_output, case.d_state)
    expected = train(layer, case)
    assert_same_bits(nbp.unpack_sequence(gradients.input), expected.d_inputs)
    assert_same_bits(helpers.as_tuple(gradients.hx), expected.d_hx)
    assert_same_bits(layer.views(gradients.parameters), expected.d_parameters)
