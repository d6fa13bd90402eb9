"""The oracle of the cells beyond PyTorch's: one step of each as its paper writes it, and stacks of them.

Plain loops over one sequence and one time step at a time, in float64, on lists of arrays ``(T_i, I)``: no packing, no
batches, no lanes, and no formula of the library. Gradients are central differences. Parameters come as a dict in
PyTorch's names: ``weight_ih_l0``, ``weight_hh_l0_reverse``, and those of a number a unit, as ``p_i_l0 (H,)``.

A step takes the weights of one direction of one layer, the input ``(I,)``, the states as a tuple of vectors and the
constants as a dict, and returns the next states, of which the first is the output.
"""

from typing import NamedTuple

import numpy as np

# -- the vectors of a step ---------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalised(y, gain):
    """A product as it is, or with a gain: its numbers less their mean, over their standard deviation, times that."""
    if gain is None:
        return y
    return gain * (y - np.mean(y)) / np.sqrt(np.mean((y - np.mean(y)) ** 2) + 1e-5)


def of_input(weights, x, count):
    """``W_ih x + b_ih`` as its count vectors (H,); where there is a gain, of the product normalised."""
    product = normalised(weights["weight_ih"] @ x, weights.get("gain_ih"))
    return np.split(product + weights.get("bias_ih", 0), count)


def of_state(weights, v, count, of=slice(None)):
    """``W_hh v + b_hh`` as its count vectors (H,), or those of a slice; v the state or another vector of its size.

    What is normalised is so over the vectors that are asked for. A matrix with fewer columns than v has numbers is
    block-diagonal: the units, and the numbers of v, are in as many equal parts (heads) as that takes, and each part of
    the units reads the same part of v.
    """
    gates = np.split(weights["weight_hh"], count)[of]
    heads = len(v) // gates[0].shape[1]
    parts = np.split(v, heads)
    products = [[W_head @ part for W_head, part in zip(np.split(W_gate, heads), parts, strict=True)]
                for W_gate in gates]  # fmt: skip

    def vector(name):
        return np.ravel(np.split(weights[name], count)[of]) if name in weights else None

    bias = vector("bias_hh")
    return np.split(normalised(np.ravel(products), vector("gain_hh")) + (0 if bias is None else bias), len(gates))


def sums(weights, x, h, count):
    return [a + b for a, b in zip(of_input(weights, x, count), of_state(weights, h, count), strict=True)]


# -- the cells of PyTorch ----------------------------------------------------------------------------------------------


def rnn_tanh(weights, x, states, constants):
    (h,) = states
    (a,) = sums(weights, x, h, 1)
    return (np.tanh(a),)


def rnn_relu(weights, x, states, constants):
    (h,) = states
    (a,) = sums(weights, x, h, 1)
    return (np.maximum(a, 0),)


def lstm(weights, x, states, constants):
    h, c = states
    i, f, g, o = sums(weights, x, h, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(weights, x, states, constants):
    (h,) = states
    (r_x, z_x, n_x), (r_h, z_h, n_h) = of_input(weights, x, 3), of_state(weights, h, 3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,)


# -- gates and products of the state -----------------------------------------------------------------------------------


def peephole_lstm(weights, x, states, constants):
    """Gers and Schmidhuber, IJCNN 2000."""
    h, c = states
    i, f, g, o = sums(weights, x, h, 4)
    i = sigmoid(i + weights["p_i"] * c)
    f = sigmoid(f + weights["p_f"] * c)
    c = f * c + i * np.tanh(g)
    o = sigmoid(o + weights["p_o"] * c)
    return o * np.tanh(c), c


def gru_reset_before(weights, x, states, constants):
    """Cho et al., EMNLP 2014: rows r, z, n, of which the last multiply r h in place of h."""
    (h,) = states
    (r_x, z_x, n_x), (r_h, z_h) = of_input(weights, x, 3), of_state(weights, h, 3, slice(0, 2))
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    (n_h,) = of_state(weights, r * h, 3, slice(2, 3))
    return ((1 - z) * np.tanh(n_x + n_h) + z * h,)


def cifg(weights, x, states, constants):
    """Greff et al., TNNLS 2017, without peepholes: f = 1 - i."""
    h, c = states
    i, g, o = sums(weights, x, h, 3)
    c = (1 - sigmoid(i)) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def mgu(weights, x, states, constants):
    """Zhou et al., IJAC 2016: rows f, n, of which the last multiply f h in place of h."""
    (h,) = states
    (f_x, n_x), (f_h,) = of_input(weights, x, 2), of_state(weights, h, 2, slice(0, 1))
    f = sigmoid(f_x + f_h)
    (n_h,) = of_state(weights, f * h, 2, slice(1, 2))
    return ((1 - f) * h + f * np.tanh(n_x + n_h),)


def ind_rnn(weights, x, states, constants):
    """Li et al., CVPR 2018."""
    (h,) = states
    (a,) = of_input(weights, x, 1)
    return (np.maximum(a + weights["u"] * h, 0),)


def leaky_rnn(weights, x, states, constants):
    """Jaeger et al., Neural Networks 2007."""
    (h,) = states
    (a,) = sums(weights, x, h, 1)
    rate = constants["dt"] / constants["tau"]
    return ((1 - rate) * h + rate * np.tanh(a),)


def leaky_rnn_tau(weights, x, states, constants):
    """The same, with a tau for each unit, which counts as dt where it is smaller."""
    (h,) = states
    (a,) = sums(weights, x, h, 1)
    rate = np.minimum(constants["dt"] / weights["tau"], 1)
    return ((1 - rate) * h + rate * np.tanh(a),)


def ctrnn(weights, x, states, constants):
    """Funahashi and Nakamura, Neural Networks 1993, by Euler's steps."""
    h, s = states
    (a,) = sums(weights, x, h, 1)
    slope = (-s + a) / constants["tau"]
    s = s + constants["dt"] * slope
    return np.tanh(s), s


def janet(weights, x, states, constants):
    """Van der Westhuizen and Lasenby, arXiv 2018."""
    (h,) = states
    s, g = sums(weights, x, h, 2)
    return (sigmoid(s) * h + (1 - sigmoid(s - constants["beta"])) * np.tanh(g),)


def ligru(weights, x, states, constants):
    """Ravanelli et al., TETCI 2018, without the batch norm."""
    (h,) = states
    n, z = sums(weights, x, h, 2)
    return (sigmoid(z) * h + (1 - sigmoid(z)) * np.maximum(n, 0),)


def slstm(weights, x, states, constants):
    """Beck et al., NeurIPS 2024, stabilized, with a sigmoid forget gate.

    The first step, which is that of n = 0, has nothing to forget, and its stabilizer is the input gate's sum.
    """
    h, c, n, m = states
    i, f, z, o = sums(weights, x, h, 4)
    log_f = -np.logaddexp(0, -f)
    m_after = np.where(n == 0, i, np.maximum(log_f + m, i))
    i = np.exp(i - m_after)
    f = np.exp(np.minimum(log_f + m - m_after, 0))
    c = f * c + i * np.tanh(z)
    n = f * n + i
    return sigmoid(o) * (c / n), c, n, m_after


# -- gates of the input alone, and linear memories ---------------------------------------------------------------------


def positive(x):
    """The function g of Feng et al."""
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru(weights, x, states, constants):
    """Feng et al., arXiv 2024."""
    (h,) = states
    z, n = of_input(weights, x, 2)
    return ((1 - sigmoid(z)) * h + sigmoid(z) * n,)


def min_gru_positive(weights, x, states, constants):
    (h,) = states
    z, n = of_input(weights, x, 2)
    return ((1 - sigmoid(z)) * h + sigmoid(z) * positive(n),)


def min_lstm(weights, x, states, constants):
    """Feng et al., arXiv 2024."""
    (h,) = states
    f, i, n = of_input(weights, x, 3)
    f, i = sigmoid(f), sigmoid(i)
    return (f / (f + i) * h + i / (f + i) * n,)


def min_lstm_positive(weights, x, states, constants):
    (h,) = states
    f, i, n = of_input(weights, x, 3)
    f, i = sigmoid(f), sigmoid(i)
    return (f / (f + i) * h + i / (f + i) * positive(n),)


def sru(weights, x, states, constants):
    """Lei et al., EMNLP 2018, the highway a projection of the input: rows of the candidate, f, r, the highway."""
    _, c = states
    n, f, r, highway = of_input(weights, x, 4)
    f, r = sigmoid(f + weights["v_f"] * c), sigmoid(r + weights["v_r"] * c)
    c = f * c + (1 - f) * n
    return r * c + (1 - r) * highway, c


def qrnn(weights, x, states, constants):
    """Bradbury et al., ICLR 2017: fo-pooling, its convolution one step wide."""
    _, c = states
    z, f, o = of_input(weights, x, 3)
    c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
    return sigmoid(o) * c, c


def linear_memory(weights, x, states, constants):
    """Voelker et al., NeurIPS 2019: the memory of an LMU, whose A is a block of the matrix of the state."""
    (m,) = states
    return tuple(sums(weights, x, m, 1))


def lru(weights, x, states, constants):
    """Orvieto et al., ICML 2023: one complex number a unit, its angle 2 arctan(t)."""
    state = states[0] + 1j * states[1]
    real, imaginary = of_input(weights, x, 2)
    factor = np.exp(-np.exp(weights["nu"]) + 2j * np.arctan(weights["t"]))
    state = factor * state + np.sqrt(1 - np.abs(factor) ** 2) * (real + 1j * imaginary)
    return state.real, state.imag


def rglru(weights, x, states, constants):
    """De et al., arXiv 2024: rows of the recurrence gate, the input gate, and the input."""
    (h,) = states
    r, i, v = of_input(weights, x, 3)
    log_a = -constants["c"] * np.logaddexp(0, weights["Lambda"]) * sigmoid(r)
    return (np.exp(log_a) * h + np.sqrt(-np.expm1(2 * log_a)) * (sigmoid(i) * v),)


class Cell(NamedTuple):
    """What is known of a cell beside its step: counts are in multiples of H."""

    step: object
    #: rows of ``weight_ih`` and of ``weight_hh``; a cell of 0 rows has no ``weight_hh``
    input_rows: int
    state_rows: int
    states: int = 1
    unit_weights: tuple = ()


CELLS = {
    "RNNTanh": Cell(rnn_tanh, 1, 1),
    "RNNRelu": Cell(rnn_relu, 1, 1),
    "LSTM": Cell(lstm, 4, 4, 2),
    "GRU": Cell(gru, 3, 3),
    "PeepholeLSTM": Cell(peephole_lstm, 4, 4, 2, ("p_i", "p_f", "p_o")),
    "GRUResetBefore": Cell(gru_reset_before, 3, 3),
    "CIFG": Cell(cifg, 3, 3, 2),
    "MGU": Cell(mgu, 2, 2),
    "IndRNN": Cell(ind_rnn, 1, 0, 1, ("u",)),
    "LeakyRNN": Cell(leaky_rnn, 1, 1),
    "LeakyRNNTau": Cell(leaky_rnn_tau, 1, 1, 1, ("tau",)),
    "CTRNN": Cell(ctrnn, 1, 1, 2),
    "JANET": Cell(janet, 2, 2),
    "LiGRU": Cell(ligru, 2, 2),
    "MinGRU": Cell(min_gru, 2, 0),
    "MinGRUPositive": Cell(min_gru_positive, 2, 0),
    "MinLSTM": Cell(min_lstm, 3, 0),
    "MinLSTMPositive": Cell(min_lstm_positive, 3, 0),
    "SRU": Cell(sru, 4, 0, 2, ("v_f", "v_r")),
    "QRNN": Cell(qrnn, 3, 0, 2),
    "LinearMemory": Cell(linear_memory, 1, 1),
    "LRU": Cell(lru, 2, 0, 2, ("t", "nu")),
    "SLSTM": Cell(slstm, 4, 4, 4),
    "RGLRU": Cell(rglru, 3, 0, 1, ("Lambda",)),
}
#: some constants for those that have any
CONSTANTS = {
    "LeakyRNN": {"dt": 0.5, "tau": 3.0},
    "LeakyRNNTau": {"dt": 0.5},
    "CTRNN": {"dt": 0.5, "tau": 3.0},
    "JANET": {"beta": 0.7},
    "RGLRU": {"c": 8.0},
}


# -- the net -----------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What `run` returns."""

    outputs: list  # of B arrays (T_i, D * P)
    states: tuple  # of arrays (L * D, B, H), the first (L * D, B, P)


def scans(parameters):
    """The parameters of each direction of each layer, without that in their names: a list of L lists of D dicts."""
    result = []
    while f"weight_ih_l{len(result)}" in parameters:
        directions = []
        for end in (f"_l{len(result)}", f"_l{len(result)}_reverse"):
            if "weight_ih" + end in parameters:
                directions.append({n.removesuffix(end): p for n, p in parameters.items() if n.endswith(end)})
        result.append(directions)
    return result


def run(name, parameters, sequences, states=None, constants=None):
    """All layers and directions of a cell over B sequences, from states or from zeros.

    ``weight_hr (P, H)``, where it is among the parameters, is a projection of the first state.
    """
    cell = CELLS[name]
    parameters = {key: np.asarray(value, np.float64) for key, value in parameters.items()}
    layers = scans(parameters)
    D, B = len(layers[0]), len(sequences)
    H = len(parameters["weight_ih_l0"]) // cell.input_rows
    P = len(parameters.get("weight_hr_l0", range(H)))
    if states is None:
        states = [np.zeros((len(layers) * D, B, P if i == 0 else H)) for i in range(cell.states)]
    ends = [np.array(state, np.float64) for state in states]
    outputs = []
    for b, sequence in enumerate(sequences):
        values = np.asarray(sequence, np.float64)
        for layer, directions in enumerate(layers):
            both = np.zeros((len(values), D, P))
            for d, weights in enumerate(directions):
                s = layer * D + d
                state = tuple(end[s, b] for end in ends)
                for t in reversed(range(len(values))) if d == 1 else range(len(values)):
                    state = cell.step(weights, values[t], state, constants)
                    if "weight_hr" in weights:
                        state = weights["weight_hr"] @ state[0], *state[1:]
                    both[t, d] = state[0]
                for end, part in zip(ends, state, strict=True):
                    end[s, b] = part
            values = both.reshape(len(values), D * P)
        outputs.append(values)
    return Result(outputs, tuple(ends))


# -- gradients ---------------------------------------------------------------------------------------------------------


def slopes(f, x, step=1e-5):
    """The gradient of a function of an array, by central differences."""
    result = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        result[place] = (f(ahead) - f(behind)) / (2 * step)
    return result


class Gradients(NamedTuple):
    """What `gradients` returns: of each argument of `run`, in its shape."""

    parameters: dict
    sequences: list
    states: tuple


def gradients(loss, name, parameters, sequences, states, constants=None):
    """The gradients of ``loss(outputs, states) -> float`` of what `run` returns for these arguments."""
    parameters = {key: np.array(value, np.float64) for key, value in parameters.items()}
    sequences = [np.array(sequence, np.float64) for sequence in sequences]
    states = [np.array(state, np.float64) for state in states]

    def with_one(arrays, key):
        """The loss as a function of one of these arrays."""

        def f(x):
            before, arrays[key] = arrays[key], x
            try:
                return loss(*run(name, parameters, sequences, states, constants))
            finally:
                arrays[key] = before

        return slopes(f, arrays[key])

    return Gradients(
        {key: with_one(parameters, key) for key in parameters},
        [with_one(sequences, b) for b in range(len(sequences))],
        tuple(with_one(states, i) for i in range(len(states))),
    )
