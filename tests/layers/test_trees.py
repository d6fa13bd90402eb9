"""Parameter trees of Flax's and Equinox's cells: layers that compute what those cells document, and what they compute.

The trees here are made by hand, and the equations are plain NumPy. The last section compares with the libraries
themselves, where they are installed.
"""

import re

import numpy as np
import pytest

import numba_pack as nbp

K, H, T = 3, 5, 6
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.uniform(-0.7, 0.7, shape).astype(np.float32)


def dense(inputs, units, bias):
    return {"kernel": normal(inputs, units)} | ({"bias": normal(units)} if bias else {})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(part, x):
    return x @ part["kernel"] + part.get("bias", 0)


def simple(tree, x, h):
    return (np.tanh(linear(tree["i"], x) + linear(tree["h"], h[0])),)


def lstm(tree, x, state):
    h, c = state
    forget = "if_" if "if_" in tree else "if"
    i, f, o = (
        sigmoid(linear(tree[a], x) + linear(tree[b], h)) for a, b in (("ii", "hi"), (forget, "hf"), ("io", "ho"))
    )
    c = f * c + i * np.tanh(linear(tree["ig"], x) + linear(tree["hg"], h))
    return o * np.tanh(c), c


def gru(tree, x, state):
    (h,) = state
    r, z = (sigmoid(linear(tree["i" + gate], x) + linear(tree["h" + gate], h)) for gate in "rz")
    return ((1 - z) * np.tanh(linear(tree["in"], x) + r * linear(tree["hn"], h)) + z * h,)


def in_one(step, gates_i, gates_h):
    """The same of a tree with one kernel for all gates."""

    def parts(part, names):
        kernels = np.split(part["kernel"], len(names), axis=1)
        biases = np.split(part["bias"], len(names)) if "bias" in part else [0.0] * len(names)
        return {n: {"kernel": k, "bias": b} for n, k, b in zip(names, kernels, biases, strict=True)}

    return lambda tree, x, state: step(parts(tree["dense_i"], gates_i) | parts(tree["dense_h"], gates_h), x, state)


LSTM_GATES = ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")
GRU_GATES = ("ir", "iz", "in"), ("hr", "hz", "hn")
CELLS = {
    "linen SimpleCell": (nbp.RNN, simple, lambda: {"i": dense(K, H, True), "h": dense(H, H, False)}),
    "linen LSTMCell": (
        nbp.LSTM,
        lstm,
        lambda: {n: dense(K, H, False) for n in LSTM_GATES[0]} | {n: dense(H, H, True) for n in LSTM_GATES[1]},
    ),
    "linen GRUCell": (
        nbp.GRU,
        gru,
        lambda: {n: dense(K, H, True) for n in GRU_GATES[0]} | {n: dense(H, H, n == "hn") for n in GRU_GATES[1]},
    ),
    "nnx LSTMCell": (
        nbp.LSTM,
        lstm,
        lambda: (
            {n: dense(K, H, False) for n in ("ii", "if_", "ig", "io")} | {n: dense(H, H, True) for n in LSTM_GATES[1]}
        ),
    ),
    "nnx OptimizedLSTMCell": (
        nbp.LSTM,
        in_one(lstm, *LSTM_GATES),
        lambda: {"dense_i": dense(K, 4 * H, False), "dense_h": dense(H, 4 * H, True)},
    ),
    "nnx GRUCell": (
        nbp.GRU,
        in_one(gru, *GRU_GATES),
        lambda: {"dense_i": dense(K, 3 * H, True), "dense_h": dense(H, 3 * H, False)},
    ),
    "nnx SimpleCell": (
        nbp.RNN,
        in_one(simple, ["i"], ["h"]),
        lambda: {"dense_i": dense(K, H, True), "dense_h": dense(H, H, False)},
    ),
    "without a bias": (
        nbp.GRU,
        in_one(gru, *GRU_GATES),
        lambda: {"dense_i": dense(K, 3 * H, False), "dense_h": dense(H, 3 * H, False)},
    ),
}


def run(step, tree, x, count):
    state, outputs = (np.zeros(H),) * count, []
    for row in x:
        state = step(tree, row, state)
        outputs.append(state[0])
    return np.stack(outputs)


def assert_computes(layer, x, expected):
    np.testing.assert_allclose(layer(x)[0], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", CELLS)
def test_a_tree_of_flax_is_the_layer_that_runs_its_cell(name):
    kind, step, make = CELLS[name]
    tree, x = make(), normal(T, K)
    layer = nbp.from_state_dict({"params": {"encoder": {"cell": tree}, "out": dense(H, 2, True)}})
    assert type(layer) is kind
    assert layer.bias == any("bias" in part for part in tree.values())
    assert_computes(layer, x, run(step, tree, x, 1 + (kind is nbp.LSTM)))


def test_names_may_be_flat_with_dots_or_tuples_and_a_prefix_tells_one():
    trees = {"a": CELLS["linen GRUCell"][2](), "b": CELLS["linen LSTMCell"][2]()}
    flat = {
        (cell, gate, what): v for cell, of in trees.items() for gate, part in of.items() for what, v in part.items()
    }
    dotted = {".".join(name): value for name, value in flat.items()}
    for mapping in (trees, flat, dotted):
        assert type(nbp.from_state_dict(mapping, "a")) is nbp.GRU
        assert type(nbp.from_state_dict(mapping, "b.")) is nbp.LSTM
        with pytest.raises(ValueError, match=r"prefix must tell .*: one of 'a\.', 'b\.'; got none"):
            nbp.from_state_dict(mapping)


def test_both_directions_of_flax_are_one_layer():
    make, step = CELLS["linen GRUCell"][2], CELLS["linen GRUCell"][1]
    forward, backward, x = make(), make(), normal(T, K)
    layer = nbp.from_state_dict({"bi": {"forward_rnn": {"cell": forward}, "backward_rnn": {"cell": backward}}}, "bi")
    assert layer.bidirectional
    both = run(step, forward, x, 1), run(step, backward, x[::-1], 1)[::-1]
    assert_computes(layer, x, np.concatenate(both, axis=1))


def equinox(gates, bias=True):
    return {
        "weight_ih": normal(gates * H, K), "weight_hh": normal(gates * H, H),
        "bias": normal(gates * H) if bias else None, "input_size": K, "hidden_size": H, "use_bias": bias,
    } | ({"bias_n": normal(H) if bias else None} if gates == 3 else {})  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_an_equinox_lstm_cell_is_a_layer(bias):
    cell, x = equinox(4, bias), normal(T, K)
    layer = nbp.from_state_dict(cell)
    assert (type(layer), layer.bias) == (nbp.LSTM, bias)
    b = cell["bias"] if bias else np.zeros(4 * H)
    tree = {
        "dense_i": {"kernel": cell["weight_ih"].T, "bias": b}, "dense_h": {"kernel": cell["weight_hh"].T},
    }  # fmt: skip
    assert_computes(layer, x, run(in_one(lstm, *LSTM_GATES), tree, x, 2))


@pytest.mark.parametrize("bias", [True, False])
def test_an_equinox_gru_cell_is_a_layer(bias):
    cell, x = equinox(3, bias), normal(T, K)
    layer = nbp.from_state_dict({"encoder": cell}, "encoder")
    assert (type(layer), layer.bias) == (nbp.GRU, bias)
    b, b_n = (cell["bias"], cell["bias_n"]) if bias else (np.zeros(3 * H), np.zeros(H))
    of_state = {"kernel": cell["weight_hh"].T, "bias": np.concatenate([np.zeros(2 * H), b_n])}
    tree = {"dense_i": {"kernel": cell["weight_ih"].T, "bias": b}, "dense_h": of_state}
    assert_computes(layer, x, run(in_one(gru, *GRU_GATES), tree, x, 1))


def test_sixteen_bits_are_taken_and_integers_are_not():
    tree = {"i": dense(K, H, True), "h": dense(H, H, False)}
    tree["i"]["kernel"] = tree["i"]["kernel"].astype(np.float16)
    assert nbp.from_state_dict(tree).dtype == np.float32
    tree["h"]["kernel"] = np.ones((H, H), int)
    with pytest.raises(
        TypeError, match=re.escape("state_dict['h.kernel'] must be of floats; got numpy.ndarray of int")
    ):
        nbp.from_state_dict(tree)


def test_gates_of_different_shapes_are_refused_by_name():
    tree = CELLS["linen GRUCell"][2]()
    tree["iz"]["kernel"] = normal(K + 1, H)
    with pytest.raises(ValueError, match=r"state_dict must have ir.kernel, iz.kernel, in.kernel of one shape; got"):
        nbp.from_state_dict(tree)


# -- the libraries themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell"])
@pytest.mark.parametrize("door", ["linen", "nnx"])
def test_flax_computes_the_same(door, name):
    jax = pytest.importorskip("jax", reason="Flax is the reference here")
    flax = pytest.importorskip("flax", reason="Flax is the reference here")
    x = normal(2, T, K)
    if door == "linen":
        rnn = flax.linen.RNN(getattr(flax.linen, name)(H))
        parameters = rnn.init(jax.random.key(0), x)
        expected = rnn.apply(parameters, x)
    else:
        nnx = pytest.importorskip("flax.nnx", reason="Flax is the reference here")
        rnn = nnx.RNN(getattr(nnx, name)(K, H, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
        expected = rnn(x)
        parameters = nnx.to_pure_dict(nnx.state(rnn, nnx.Param))
    parameters = jax.tree.map(lambda value: value + 0.1, parameters)  # biases begin as zeros
    if door == "linen":
        expected = rnn.apply(parameters, x)
    else:
        nnx.update(rnn, nnx.State(parameters))
        expected = rnn(x)
    assert_computes(nbp.from_state_dict(parameters, batch_first=True), x, np.asarray(expected))


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_equinox_computes_the_same(name, bias):
    jax = pytest.importorskip("jax", reason="Equinox is the reference here")
    eqx = pytest.importorskip("equinox", reason="Equinox is the reference here")
    cell, x = getattr(eqx.nn, name)(K, H, use_bias=bias, key=jax.random.key(0)), normal(T, K)
    state, outputs = (np.zeros(H, np.float32),) * 2 if name == "LSTMCell" else np.zeros(H, np.float32), []
    for row in x:
        state = cell(row, state)
        outputs.append(np.asarray(state[0] if name == "LSTMCell" else state))
    assert_computes(nbp.from_state_dict(vars(cell)), x, np.stack(outputs))
