"""What the tests of the layers share: how layers and batches are made, the oracle on them, and how results compare."""

from typing import NamedTuple

import naive
import numpy as np
import pytest

import numba_pack as nbp

DTYPES = [pytest.param(np.float32, id="float32"), pytest.param(np.float64, id="float64")]
#: the layers that there are, by the name that test ids show; "lstm-proj" is an LSTM with a projection
CELLS = ["rnn-tanh", "rnn-relu", "lstm", "lstm-proj", "gru"]
NAIVE_CELLS = {"rnn-tanh": "RNN_TANH", "rnn-relu": "RNN_RELU", "lstm": "LSTM", "lstm-proj": "LSTM", "gru": "GRU"}
#: unsorted, two alike, two empty
LENGTHS = (4, 0, 9, 1, 4, 0, 6)


def has_c(cell):
    return cell.startswith("lstm")


def make_layer(cell, inputs, units, rng=0, **options):
    """A layer of one of CELLS. A projection has about two thirds as many outputs as units."""
    if cell.startswith("rnn"):
        return nbp.RNN(inputs, units, nonlinearity=cell.removeprefix("rnn-"), rng=rng, **options)
    if cell == "gru":
        return nbp.GRU(inputs, units, rng=rng, **options)
    proj_size = max(1, 2 * units // 3) if cell == "lstm-proj" else 0
    return nbp.LSTM(inputs, units, proj_size=proj_size, rng=rng, **options)


def cell_of(layer):
    """The name of a layer in CELLS."""
    name = type(layer).__name__.lower()
    return f"rnn-{layer.nonlinearity}" if name == "rnn" else name + "-proj" * (layer.output_size != layer.hidden_size)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


class Case(NamedTuple):
    """A batch of sequences, a state that it begins with, and the gradients that come back to it."""

    sequences: list  # of B arrays (T_i, I)
    hx: object  # as the layer takes it, or None
    d_outputs: list  # of B arrays (T_i, D * P)
    d_state: object  # as the layer takes it


def make_case(layer, lengths, rng=1, with_hx=True):
    """Random numbers of size 1 for all that goes into a layer's forward and backward pass."""
    rng, dtype, B = np.random.default_rng(rng), layer.dtype, len(lengths)
    scans, H, P = layer.num_layers * layer.num_directions, layer.hidden_size, layer.output_size

    def state():
        if has_c(cell_of(layer)):
            return normal(rng, (scans, B, P), dtype), normal(rng, (scans, B, H), dtype)
        return normal(rng, (scans, B, P), dtype)

    return Case(
        [normal(rng, (n, layer.input_size), dtype) for n in lengths],
        state() if with_hx else None,
        [normal(rng, (n, layer.num_directions * P), dtype) for n in lengths],
        state(),
    )


def of_sequences(case, chosen):
    """The case of some of the sequences alone."""
    chosen = list(chosen)

    def state(value):
        if value is None:
            return None
        return tuple(part[:, chosen] for part in value) if isinstance(value, tuple) else value[:, chosen]

    return Case(
        [case.sequences[i] for i in chosen],
        state(case.hx),
        [case.d_outputs[i] for i in chosen],
        state(case.d_state),
    )


class Results(NamedTuple):
    """All that comes out of a forward and a backward pass, by sequence; states are tuples (h,) or (h, c)."""

    outputs: list  # of B arrays (T_i, D * P)
    state: tuple
    d_inputs: list  # of B arrays (T_i, I)
    d_hx: tuple
    d_parameters: dict


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def infer(layer, case):
    """Outputs and states of a plain call, packed."""
    output, state = layer(nbp.pack_sequence(case.sequences), case.hx)
    return nbp.unpack_sequence(output), as_tuple(state)


def train(layer, case, **given):
    """A forward and a backward pass, packed; ``given`` is for `forward`, besides or in place of what the case has."""
    output, state, tape = layer.forward(nbp.pack_sequence(case.sequences), **{"hx": case.hx, **given})
    gradients = layer.backward(tape, nbp.pack_sequence(case.d_outputs), case.d_state)
    return Results(
        nbp.unpack_sequence(output),
        as_tuple(state),
        nbp.unpack_sequence(gradients.input),
        as_tuple(gradients.hx),
        layer.views(gradients.parameters),
    )


def oracle(layer, case, masks=None):
    """The same from the definition, in float64 (see naive.py)."""
    cell, parameters = NAIVE_CELLS[cell_of(layer)], layer.state_dict()
    scans, B = layer.num_layers * layer.num_directions, len(case.sequences)

    def states(value):
        h, c = np.zeros((scans, B, layer.output_size)), np.zeros((scans, B, layer.hidden_size))
        given = () if value is None else as_tuple(value)
        return (*given, *(h, c)[len(given) :])

    result = naive.forward(cell, parameters, case.sequences, *states(case.hx), masks)
    back = naive.backward(cell, parameters, result.kept, case.d_outputs, *states(case.d_state), masks)
    n = 2 if has_c(cell_of(layer)) else 1
    return Results(result.outputs, (result.h_n, result.c_n)[:n], back.inputs, (back.h_0, back.c_0)[:n], back.parameters)


# -- how near results must be ------------------------------------------------------------------------------------------


def tolerance(layer, lengths, scale):
    """How far a result may lie from the exact one: ``5 eps sqrt(roundings) scale``.

    One step of one layer rounds once for each of the ``I + P`` products and 2 biases of a gate's sum, some 16 times in
    the formulas of the cell, and once for each of the up to 4 H products of its backward pass; what it errs goes on
    into the T steps and L layers that follow; and the gradient of a parameter sums over N rows besides. Of n roundings
    of either sign, each of at most eps / 2, the sum exceeds ``5 sqrt(n) eps / 2`` once in 10**5 times (N. J. Higham and
    T. Mary, SIAM J. Sci. Comput. 41, 2019); the other half is for cells that magnify what comes in. ``scale`` is the
    size of what is summed: the largest of the expected results, or 1.
    """
    inputs = max(layer.input_size, layer.num_directions * layer.output_size)
    products = inputs + layer.output_size + 2 + 16 + 4 * layer.hidden_size
    roundings = layer.num_layers * max([1, *lengths]) * products + sum(lengths)
    return 5 * np.finfo(layer.dtype).eps * np.sqrt(roundings) * max(1.0, scale)


def largest(arrays):
    return max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0)


def assert_near(layer, lengths, got, expected, what):
    """Each array of a list is as near to the expected one as `tolerance` says."""
    atol = tolerance(layer, lengths, largest(expected))
    assert len(got) == len(expected), what
    for i, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.dtype == layer.dtype, what
        assert one.shape == other.shape, what
        np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=f"{what}[{i}]")


def assert_results_near(layer, lengths, got, expected):
    for name in ("outputs", "state", "d_inputs", "d_hx"):
        assert_near(layer, lengths, getattr(got, name), getattr(expected, name), name)
    assert got.d_parameters.keys() == expected.d_parameters.keys()
    for name, value in expected.d_parameters.items():
        assert_near(layer, lengths, [got.d_parameters[name]], [value], f"d_{name}")


def assert_same_bits(one, other, what=""):
    """Equal bit for bit, signs of zeros and NaN included; lists, tuples and dicts entry by entry."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), what
        for name in one:
            assert_same_bits(one[name], other[name], f"{what} {name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), what
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same_bits(*pair, f"{what} {i}")
    else:
        assert (one.dtype, one.shape) == (other.dtype, other.shape), what
        bits = np.dtype(f"u{one.dtype.itemsize}")
        np.testing.assert_array_equal(
            np.ascontiguousarray(one).view(bits), np.ascontiguousarray(other).view(bits), err_msg=what
        )
