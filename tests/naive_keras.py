"""The oracle of the layers from Keras: its documented equations as plain loops, on weights as it lays them out.

One sequence and one time step at a time, in float64: no packing, no batches, and nothing of the library. Weights are
``(kernel (I, G), recurrent_kernel (H, G), bias or None)``, gates i, f, c, o (LSTM) and z, r, h (GRU) in the columns.
"""

import numpy as np

ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_of_keras_2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
}


def simple_rnn(weights, x, h, act, gate):
    kernel, recurrent_kernel, bias = weights
    return (act(x @ kernel + bias + h[0] @ recurrent_kernel),)


def lstm(weights, x, state, act, gate):
    kernel, recurrent_kernel, bias = weights
    h, c = state
    i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
    c = gate(f) * c + gate(i) * act(g)
    return gate(o) * act(c), c


def gru_reset_after(weights, x, state, act, gate):
    kernel, recurrent_kernel, bias = weights
    of_input, of_state = (bias, bias) if np.ndim(bias) == 0 else bias
    x_z, x_r, x_h = np.split(x @ kernel + of_input, 3)
    h_z, h_r, h_h = np.split(state[0] @ recurrent_kernel + of_state, 3)
    z, r = gate(x_z + h_z), gate(x_r + h_r)
    return (z * state[0] + (1 - z) * act(x_h + r * h_h),)


def gru_reset_before(weights, x, state, act, gate):
    kernel, recurrent_kernel, bias = weights
    h, H = state[0], len(state[0])
    x_z, x_r, x_h = np.split(x @ kernel + bias, 3)
    z = gate(x_z + h @ recurrent_kernel[:, :H])
    r = gate(x_r + h @ recurrent_kernel[:, H : 2 * H])
    return (z * h + (1 - z) * act(x_h + (r * h) @ recurrent_kernel[:, 2 * H :]),)


STEPS = {
    ("SimpleRNN", True): simple_rnn,
    ("LSTM", True): lstm,
    ("GRU", True): gru_reset_after,
    ("GRU", False): gru_reset_before,
}


def run(
    kind, weights, sequence, *, reset_after=True, activation="tanh", recurrent_activation="sigmoid", backward=False
):
    """Outputs (T, H), in the order of the sequence, and the last states, each (H,)."""
    step = STEPS[kind, reset_after]
    kernel, recurrent_kernel, bias = (None if w is None else np.asarray(w, np.float64) for w in weights)
    weights = kernel, recurrent_kernel, 0.0 if bias is None else bias
    state = tuple(np.zeros(len(recurrent_kernel)) for _ in range(1 + (kind == "LSTM")))
    outputs = np.zeros((len(sequence), len(recurrent_kernel)))
    for t in reversed(range(len(sequence))) if backward else range(len(sequence)):
        x = np.asarray(sequence[t], np.float64)
        state = step(weights, x, state, ACTIVATIONS[activation], ACTIVATIONS[recurrent_activation])
        outputs[t] = state[0]
    return outputs, state
