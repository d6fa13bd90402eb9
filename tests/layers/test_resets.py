"""Sequences that begin anew in their midst: against plain loops that reset the state, and against the pieces alone."""

import copy

import helpers
import naive
import numpy as np
import pytest
from helpers import (
    CELLS,
    DTYPES,
    LENGTHS,
    NAIVE_CELLS,
    Results,
    as_tuple,
    assert_results_near,
    assert_same_bits,
    cell_of,
    has_c,
    make_case,
    make_layer,
    normal,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack import cells

I = 3  # noqa: E741


def masks_of(lengths, rate=0.3, rng=5):
    """Of each sequence (T_i,), where it begins anew; the first step of some among them."""
    rng = np.random.default_rng(rng)
    return [rng.random(n) < rate for n in lengths]


def with_row(layer, hx, rng=6):
    """A state with one row more."""
    rng = np.random.default_rng(rng)
    rows = [np.concatenate([part, normal(rng, (len(part), 1, part.shape[2]), layer.dtype)], 1) for part in as_tuple(hx)]
    return tuple(rows) if isinstance(hx, tuple) else rows[0]


def train(layer, case, hx, resets):
    """A forward and a backward pass, packed, from other states."""
    return helpers.train(layer, case, hx=hx, resets=nbp.pack_sequence(resets))


def oracle(layer, case, hx, resets, masks=None):
    """The same in plain loops; ``hx`` has B + 1 rows, or is None."""
    cell, parameters = NAIVE_CELLS[cell_of(layer)], layer.state_dict()
    scans, B = layer.num_layers * layer.num_directions, len(case.sequences)

    def states(value, rows):
        h, c = np.zeros((scans, rows, layer.output_size)), np.zeros((scans, rows, layer.hidden_size))
        given = () if value is None else as_tuple(value)
        return (*given, *(h, c)[len(given) :])

    result = naive.forward(cell, parameters, case.sequences, *states(hx, B + 1), masks, resets)
    back = naive.backward(cell, parameters, result.kept, case.d_outputs, *states(case.d_state, B), masks, resets)
    n, rows = 2 if has_c(cell_of(layer)) else 1, B if hx is None else B + 1
    d_hx = (back.h_0[:, :rows], back.c_0[:, :rows])[:n]
    return Results(result.outputs, (result.h_n, result.c_n)[:n], back.inputs, d_hx, back.parameters)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [False, True], ids=["to-zero", "to-a-row-of-hx"])
@pytest.mark.parametrize("cell", CELLS)
def test_results_and_gradients_are_those_of_plain_loops_that_reset_the_state(cell, row, dtype):
    layer = make_layer(cell, I, 5, num_layers=2, bidirectional=True, dtype=dtype)
    case, resets = make_case(layer, LENGTHS), masks_of(LENGTHS)
    hx = with_row(layer, case.hx) if row else None
    assert sum(map(np.count_nonzero, resets)) > 4
    assert_results_near(layer, LENGTHS, train(layer, case, hx, resets), oracle(layer, case, hx, resets))


def test_hx_of_a_row_for_each_sequence_is_where_they_begin_and_resets_are_to_zero():
    layer = nbp.LSTM(I, 5, rng=0)
    case, resets = make_case(layer, LENGTHS), masks_of(LENGTHS)
    zero = tuple(np.pad(part, [(0, 0), (0, 1), (0, 0)]) for part in case.hx)
    got, expected = train(layer, case, case.hx, resets), oracle(layer, case, zero, resets)
    assert_results_near(layer, LENGTHS, got, expected._replace(d_hx=tuple(d[:, :-1] for d in expected.d_hx)))
    own = [not mask[:1].any() for mask in resets]  # the others never see theirs
    assert not all(own)
    for d in got.d_hx:
        assert ((d != 0).any((0, 2)) == own).all() or LENGTHS.count(0)
        assert (d[:, np.logical_not(own)] == 0).all()


def test_a_first_state_that_all_share_has_the_gradient_of_all_that_begin_with_it():
    layer = nbp.GRU(I, 5, rng=0)
    case, resets = make_case(layer, LENGTHS), masks_of(LENGTHS)
    shared = np.ascontiguousarray(case.hx[:, :1])
    got = train(layer, case, shared, resets)
    expected = train(layer, case, np.repeat(shared, len(LENGTHS), 1), resets)
    assert_same_bits(got.outputs, expected.outputs)
    np.testing.assert_array_equal(got.d_hx[0], expected.d_hx[0].sum(1, keepdims=True))


def test_the_gradients_of_first_states_are_those_of_finite_differences():
    layer = nbp.LSTM(I, 2, bidirectional=True, dtype=np.float64, rng=0)
    lengths = (4, 0, 3)
    case, resets = make_case(layer, lengths), [np.array([0, 0, 1, 0]) > 0, np.zeros(0) > 0, np.array([1, 0, 1]) > 0]
    packed, mask, hx = nbp.pack_sequence(case.sequences), nbp.pack_sequence(resets), with_row(layer, case.hx)

    def loss(hx):
        output, state = layer(packed, hx, mask)
        return sum((a * b).sum() for a, b in zip(
            [*nbp.unpack_sequence(output), *state], [*case.d_outputs, *case.d_state], strict=True))  # fmt: skip

    found, step = train(layer, case, hx, resets).d_hx, np.finfo(np.float64).eps ** (1 / 3)
    for part, d in enumerate(found):
        for index in np.ndindex(d.shape):
            ends = [copy.deepcopy(hx) for _ in range(2)]
            ends[0][part][index] += step
            ends[1][part][index] -= step
            difference = (loss(ends[0]) - loss(ends[1])) / (2 * step)
            np.testing.assert_allclose(d[index], difference, rtol=0, atol=1e-8)


# -- pieces ------------------------------------------------------------------------------------------------------------

KINDS = {
    "lstm": lambda **options: nbp.LSTM(I, 5, rng=0, **options),
    "gru-bidirectional": lambda **options: nbp.GRU(I, 5, num_layers=2, bidirectional=True, rng=0, **options),
    "rnn-reverse": lambda **options: cells.RNNTanh(I, 5, reverse=True, rng=0, **options),
    "stack": lambda **options: nbp.GRU(I, [5, 4], rng=0, **options),
}


def pieces_of(sequence, mask):
    return np.split(sequence, [t for t in np.flatnonzero(mask) if t > 0])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6), rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_a_piece_is_to_the_bit_what_it_is_alone(kind, lengths, rate, seed):
    layer, rng = KINDS[kind](), np.random.default_rng(seed)
    sequences, resets = [normal(rng, (n, I), np.float32) for n in lengths], masks_of(lengths, rate, seed)
    output, _ = layer(nbp.pack_sequence(sequences), resets=nbp.pack_sequence(resets))
    for sequence, mask, got in zip(sequences, resets, nbp.unpack_sequence(output), strict=True):
        alone = [layer(piece)[0] for piece in pieces_of(sequence, mask)]
        assert_same_bits(got, np.concatenate(alone))


def test_the_gradient_of_the_input_of_a_piece_is_to_the_bit_that_of_it_alone():
    layer, lengths = nbp.LSTM(I, 5, num_layers=2, rng=0), (9, 4)
    case, resets = make_case(layer, lengths), masks_of(lengths)
    d_inputs = train(layer, case._replace(d_state=None), None, resets).d_inputs
    for i, sequence in enumerate(case.sequences):
        d_outputs, alone = pieces_of(case.d_outputs[i], resets[i]), []
        for piece, d_output in zip(pieces_of(sequence, resets[i]), d_outputs, strict=True):
            alone.append(layer.backward(layer.forward(piece)[2], d_output).input)
        assert len(alone) > 1
        assert_same_bits(d_inputs[i], np.concatenate(alone))


def test_a_rollout_in_two_parts_is_that_in_one():
    layer, rng = nbp.LSTM(I, 5, num_layers=2, rng=0), np.random.default_rng(0)
    x, resets = normal(rng, (12, 4, I), np.float32), rng.random((12, 4)) < 0.2
    whole, last = layer(x, resets=resets)
    first, state = layer(x[:7], resets=resets[:7])
    second, state = layer(x[7:], state, resets[7:])
    assert_same_bits(np.concatenate([first, second]), whole)
    assert_same_bits(state, last)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_reset_all_is_as_without_a_mask(kind):
    layer, x = KINDS[kind](), normal(np.random.default_rng(0), (6, 3, I), np.float32)
    passes = []
    for options in ({}, {"resets": np.zeros((6, 3), bool)}):
        output, state, tape = layer.forward(x, **options)
        assert not output.flags.writeable
        passes.append((output, state, *layer.backward(tape, output, state), *layer(x, **options)))
    assert_same_bits(*passes)


def test_what_came_before_a_reset_does_not_reach_beyond_it():
    """Not even by ``NaN * 0``, which is what a mask that multiplies the state makes of it."""
    layer, x = nbp.GRU(I, 5, num_layers=2, bidirectional=True, rng=0), np.ones((6, 2, I), np.float32)
    x[2, 0] = np.nan
    resets = np.zeros((6, 2), bool)
    resets[[2, 3], 0] = True
    output, state, tape = layer.forward(x, resets=resets)
    assert np.isnan(output[2, 0]).all()
    assert np.isfinite(np.delete(output, 2, 0)).all() and np.isfinite(output[2, 1]).all() and np.isfinite(state).all()
    d_input = layer.backward(tape, np.ones_like(output)).input
    assert np.isfinite(np.delete(d_input, 2, 0)).all() and np.isfinite(d_input[2, 1]).all()


# -- forms -------------------------------------------------------------------------------------------------------------


def in_form(form, array):
    """Of (T, B, *) the input in another form."""
    if form == "batch_first":
        return np.ascontiguousarray(array.swapaxes(0, 1))
    return nbp.pack_sequence(list(array.swapaxes(0, 1))) if form == "packed" else array


def from_form(form, value):
    if form == "batch_first":
        return value.swapaxes(0, 1)
    return np.stack(nbp.unpack_sequence(value), 1) if form == "packed" else value


@pytest.mark.parametrize("symbols", [False, True], ids=["features", "symbols"])
def test_all_forms_have_the_same_bits(symbols):
    rng = np.random.default_rng(0)
    x = rng.integers(0, I, (7, 4)) if symbols else normal(rng, (7, 4, I), np.float32)
    resets, d_output = rng.random((7, 4)) < 0.3, normal(rng, (7, 4, 5), np.float32)
    hx = tuple(normal(rng, (1, 5, 5), np.float32) for _ in range(2))
    results = {}
    for form in ("padded", "batch_first", "packed"):
        layer = nbp.LSTM(I, 5, batch_first=form == "batch_first", rng=0)
        input = in_form(form, x)
        input = nbp.symbols(input) if symbols and form != "packed" else input
        output, state, tape = layer.forward(input, hx, in_form(form, resets))
        d_input, d_hx, d_parameters = layer.backward(tape, in_form(form, d_output), state)
        assert symbols == (d_input is None)
        arrays = [from_form(form, value) for value in (output, d_input) if value is not None]
        results[form] = [*arrays, *state, *d_hx, d_parameters]
    assert_same_bits(results["padded"], results["batch_first"])
    assert_same_bits(results["padded"], results["packed"])
    layer, (whole, *_, h_n, c_n, _, _, _) = nbp.LSTM(I, 5, rng=0), results["padded"]
    for b in range(4):
        of_b = tuple(np.ascontiguousarray(part[:, [b, 4]]) for part in hx)
        output, state, tape = layer.forward(x[:, b].copy(), of_b, resets[:, b])
        assert_same_bits([output, *state], [whole[:, b], h_n[:, b], c_n[:, b]])
        assert [d.shape for d in layer.backward(tape, output).hx] == [(1, 2, 5)] * 2
    rows = nbp.pack_sequence(list(resets.T)).data  # a plain array in packed order will do
    assert_same_bits(layer(in_form("packed", x), hx, rows)[0].data, in_form("packed", whole).data)


def test_return_states_quantized_layers_and_threads():
    rng = np.random.default_rng(0)
    x, resets = normal(rng, (40, 30, I), np.float32), rng.random((40, 30)) < 0.1
    layer = nbp.LSTM(I, 64, return_states=True, rng=0)
    (h, c), _, tape = layer.forward(x, resets=resets)
    pieces = pieces_of(x[:, 0], resets[:, 0])
    assert_same_bits(c[:, 0], np.concatenate([layer(piece.copy())[0][1] for piece in pieces]))
    found = layer.backward(tape, (h, c))
    for n in (2, 5):
        with nbp.threads(n):
            (again, shown), _, tape = layer.forward(x, resets=resets)
            assert_same_bits([again, shown, found], [h, c, layer.backward(tape, (h, c))])
    small = nbp.LSTM(I, 64, rng=0).quantize("int8")
    output, _ = small(x, resets=resets)
    assert_same_bits(output[:, 0], np.concatenate([small(piece.copy())[0] for piece in pieces]))


@pytest.mark.parametrize("T, B", [(0, 3), (3, 0), (1, 1)])
def test_small_batches(T, B):
    layer, resets = nbp.GRU(I, 5, rng=0), np.ones((T, B), bool)
    hx = np.ones((1, B, 5), np.float32)
    output, state, tape = layer.forward(np.ones((T, B, I), np.float32), hx, resets)
    assert output.shape == (T, B, 5)
    gradients = layer.backward(tape, output, state)
    assert gradients.input.shape == (T, B, I) and gradients.hx.shape == (1, B, 5)
    assert_same_bits(state, layer(np.ones((T, B, I), np.float32))[1] if T else hx)


# -- dropout, stacks ---------------------------------------------------------------------------------------------------


def test_dropout_takes_pieces_for_sequences():
    layer = nbp.GRU(I, 5, num_layers=2, dropout=0.4, rng=0)
    case, resets = make_case(layer, LENGTHS), masks_of(LENGTHS)
    calls = copy.copy(layer)._training_calls.next(0.4)
    pieces = [[len(piece) for piece in pieces_of(*both)] for both in zip(case.sequences, resets, strict=True)]
    numbered = [of[0] for of in pieces] + [length for of in pieces for length in of[1:]]
    masks = naive.dropout_masks(0.4, calls.seed, calls.call, numbered, 2, 5)[0]
    further, of_sequences = iter(masks[len(pieces) :]), []
    for i, of in enumerate(pieces):
        of_sequences.append(np.concatenate([masks[i], *[next(further) for _ in of[1:]]]))
    hx = with_row(layer, case.hx)
    got, expected = train(layer, case, hx, resets), oracle(layer, case, hx, resets, [of_sequences])
    assert_results_near(layer, LENGTHS, got, expected)


def test_a_stack_of_equal_widths_is_one_layer():
    layer, stack = nbp.LSTM(I, 5, num_layers=2, dropout=0.3, rng=0), nbp.LSTM(I, [5, 5], dropout=0.3, rng=0)
    case, resets = make_case(layer, LENGTHS), nbp.pack_sequence(masks_of(LENGTHS))
    hx = with_row(layer, case.hx)
    packed, d_output = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)

    def listed(state):
        return [tuple(part[i : i + 1] for part in state) for i in range(2)]

    output, state, tape = layer.forward(packed, hx, resets)
    expected = layer.backward(tape, d_output, case.d_state)
    of_stack, state_of_stack, tape = stack.forward(packed, listed(hx), resets)
    found = stack.backward(tape, d_output, listed(case.d_state))
    assert_same_bits(of_stack.data, output.data)
    assert_same_bits(list(state_of_stack), listed(state))
    assert_same_bits([found.input.data, found.parameters], [expected.input.data, expected.parameters])
    assert_same_bits(list(found.hx), listed(expected.hx))


# -- what others do ----------------------------------------------------------------------------------------------------


def test_it_is_what_masking_the_state_step_by_step_gives_in_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    T, B, H = 12, 5, 7
    layer, twin = nbp.LSTM(I, H, rng=0), torch.nn.LSTM(I, H)
    twin.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    x, d_output = normal(rng, (T, B, I), np.float32), normal(rng, (T, B, H), np.float32)
    resets, hx = rng.random((T, B)) < 0.2, tuple(normal(rng, (1, B, H), np.float32) for _ in range(2))
    theirs, first = torch.tensor(x, requires_grad=True), tuple(torch.tensor(s, requires_grad=True) for s in hx)
    outputs, state = [], first
    for t in range(T):
        keep = torch.tensor(~resets[t, :, None])
        out, state = twin(theirs[t : t + 1], tuple(s * keep for s in state))
        outputs.append(out)
    expected = torch.cat(outputs)
    (expected * torch.tensor(d_output)).sum().backward()
    output, last, tape = layer.forward(x, hx, resets)
    gradients = layer.backward(tape, d_output)
    pairs = [
        (output, expected), *zip(last, state, strict=True), (gradients.input, theirs.grad),
        *zip(gradients.hx, [s.grad for s in first], strict=True),
        *[(layer.views(gradients.parameters)[name], value.grad) for name, value in twin.named_parameters()],
    ]  # fmt: skip
    for got, value in pairs:
        atol = helpers.tolerance(layer, [T] * B, float(value.detach().abs().max()))
        np.testing.assert_allclose(got, value.detach().numpy(), rtol=0, atol=atol)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_hx_has_a_row_for_resets_in_all_its_arrays_or_in_none():
    layer, x, resets = nbp.LSTM(I, 5, rng=0), np.ones((4, 3, I), np.float32), np.zeros((4, 3), bool)
    h, c = np.zeros((1, 4, 5), np.float32), np.zeros((1, 3, 5), np.float32)
    with pytest.raises(ValueError, match=r"hx must have a row for resets in each .* hx\[1\] has none"):
        layer(x, (h, c), resets)
    with pytest.raises(ValueError, match=r"hx\[0\] must have shape .* = \(1, 3, 5\); got \(1, 4, 5\)"):
        layer(x, (h, c))
