"""Layers of one direction that goes from the last step to the first: they are that half of a bidirectional layer."""

import copy
import pickle

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal
from numba import njit

import numba_pack as nbp
from numba_pack import cells

I, H = 3, 5  # noqa: E741
LENGTHS = (4, 0, 9, 1, 4, 0, 6)


def pair(cell, dtype):
    """A reverse layer, and a bidirectional one whose second direction has its parameters."""
    reverse = cell(I, H, reverse=True, dtype=dtype, rng=0)
    both = cell(I, H, bidirectional=True, dtype=dtype, rng=1)
    own = {name + "_reverse": value for name, value in reverse.state_dict().items()}
    both.load_state_dict(both.state_dict() | own)
    return reverse, both


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRU], ids=lambda cell: cell.name)
def test_it_is_the_second_half_of_a_bidirectional_layer(cell, dtype):
    reverse, both = pair(cell, dtype)
    packed = nbp.pack_sequence([normal(np.random.default_rng(n), (n, I), dtype) for n in LENGTHS])
    padded = normal(np.random.default_rng(0), (6, 2, I), dtype)
    for input in (packed, padded, padded[:, 0], nbp.pack_sequence([np.array([2, 0, 1]), np.array([1])])):
        rows, expected = (output.data if isinstance(output, nbp.PackedSequence) else output
                          for output in (reverse(input)[0], both(input)[0]))  # fmt: skip
        assert_same_bits(rows, np.ascontiguousarray(expected[..., H:]))
    output, _, tape = reverse.forward(packed)
    d_both = np.concatenate([np.zeros_like(output.data), output.data], axis=1)
    expected = both.backward(both.forward(packed)[2], d_both)
    found = reverse.backward(tape, output.data)
    assert_same_bits(found.parameters, expected.parameters[found.parameters.size :])
    np.testing.assert_array_equal(found.input.data, expected.input.data)  # to which the other half adds zeros


def test_it_is_what_a_forward_layer_makes_of_the_steps_in_reverse():
    reverse, forward = cells.LSTM(I, H, reverse=True, rng=0), nbp.LSTM(I, H, rng=0)
    x = normal(np.random.default_rng(0), (6, 2, I), np.float32)
    (output, state), (expected, last) = reverse(x), forward(np.ascontiguousarray(x[::-1]))
    assert_same_bits(output, np.ascontiguousarray(expected[::-1]))
    assert_same_bits(state, last)


def test_stacks_of_it_go_in_reverse_in_each_layer():
    stack = cells.GRU(I, H, num_layers=2, reverse=True, rng=0)
    x = normal(np.random.default_rng(0), (6, 2, I), np.float32)
    below, above = cells.GRU(I, H, reverse=True), cells.GRU(H, H, reverse=True)
    for k, layer in enumerate((below, above)):
        layer.load_state_dict({name: stack.state_dict()[name.replace("_l0", f"_l{k}")] for name in layer.state_dict()})
    assert_same_bits(stack(x)[0], above(below(x)[0])[0])


@njit
def compiled(packed, weights):
    return nbp.run(packed, weights)


def test_compiled_code_and_copies_go_in_reverse_too():
    layer = cells.LSTM(I, H, reverse=True, rng=0)
    packed = nbp.pack_sequence([normal(np.random.default_rng(n), (n, I), np.float32) for n in LENGTHS])
    expected = layer(packed)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert_same_bits(again(packed)[0].data, expected[0].data)
    for weights in (layer.weights, pickle.loads(pickle.dumps(layer.weights))):
        output, state = compiled(packed, weights)
        assert_same_bits((output.data, state), (expected[0].data, expected[1]))


def test_it_is_an_option_that_is_checked_and_shown():
    assert repr(cells.LSTM(I, H, reverse=True)) == "LSTM(3, 5, reverse=True)"
    assert type(cells.LSTM(I, H, reverse=False)) is nbp.LSTM
    with pytest.raises(ValueError, match="reverse must be False for a bidirectional layer"):
        cells.SRU(I, H, bidirectional=True, reverse=True)
    with pytest.raises(TypeError, match="reverse must be a bool"):
        cells.LSTM(I, H, reverse=1)
