"""The oracle of the layers: recurrent nets as their definitions say, and the chain rule written out below each.

Plain loops over one sequence and one time step at a time, in float64, on lists of arrays ``(T_i, I)``: no packing, no
batches, no lanes. It shares no code with the library. Parameters come as a dict in PyTorch's names. A function that
ends in ``_back`` takes what its forward function kept and the gradients of its results, and returns those of its
arguments; gradients of parameters are added to a dict of the same names.

Letters: I inputs, H units, P outputs (P = H without a projection), L layers, D directions, B sequences.
"""

from typing import NamedTuple

import numpy as np

# -- one step ----------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def sums(weights, x, h):
    """The products with the input and with the state, apart, for a GRU needs them so. Each (G,)."""
    of_input = weights["weight_ih"] @ x
    of_state = weights["weight_hh"] @ h
    if "bias_ih" in weights:
        of_input = of_input + weights["bias_ih"]
        of_state = of_state + weights["bias_hh"]
    return of_input, of_state


def sums_back(weights, x, h, d_of_input, d_of_state, d_weights):
    d_weights["weight_ih"] += np.outer(d_of_input, x)
    d_weights["weight_hh"] += np.outer(d_of_state, h)
    if "bias_ih" in weights:
        d_weights["bias_ih"] += d_of_input
        d_weights["bias_hh"] += d_of_state
    return weights["weight_ih"].T @ d_of_input, weights["weight_hh"].T @ d_of_state


def lstm_cell(weights, x, h, c):
    of_input, of_state = sums(weights, x, h)
    i, f, g, o = np.split(of_input + of_state, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c_after = f * c + i * g
    h_after = o * np.tanh(c_after)
    kept = x, h, c, i, f, g, o, c_after, h_after
    if "weight_hr" in weights:
        h_after = weights["weight_hr"] @ h_after
    return h_after, c_after, kept


def lstm_cell_back(weights, kept, d_h_after, d_c_after, d_weights):
    x, h, c, i, f, g, o, c_after, unprojected = kept
    if "weight_hr" in weights:
        d_weights["weight_hr"] += np.outer(d_h_after, unprojected)
        d_h_after = weights["weight_hr"].T @ d_h_after
    d_o = d_h_after * np.tanh(c_after)
    d_c_after = d_c_after + d_h_after * o * (1 - np.tanh(c_after) ** 2)
    d_i, d_f, d_g = d_c_after * g, d_c_after * c, d_c_after * i
    d_sums = np.concatenate([d_i * i * (1 - i), d_f * f * (1 - f), d_g * (1 - g**2), d_o * o * (1 - o)])
    d_x, d_h = sums_back(weights, x, h, d_sums, d_sums, d_weights)
    return d_x, d_h, d_c_after * f


def gru_cell(weights, x, h, c):
    of_input, of_state = sums(weights, x, h)
    (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(of_input, 3), np.split(of_state, 3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h, c, (x, h, n_h, r, z, n)


def gru_cell_back(weights, kept, d_h_after, d_c_after, d_weights):
    x, h, n_h, r, z, n = kept
    d_n = d_h_after * (1 - z) * (1 - n**2)
    d_z = d_h_after * (h - n) * z * (1 - z)
    d_r = d_n * n_h * r * (1 - r)
    d_of_input, d_of_state = np.concatenate([d_r, d_z, d_n]), np.concatenate([d_r, d_z, d_n * r])
    d_x, d_h = sums_back(weights, x, h, d_of_input, d_of_state, d_weights)
    return d_x, d_h + d_h_after * z, d_c_after


def tanh_cell(weights, x, h, c):
    h_after = np.tanh(sum(sums(weights, x, h)))
    return h_after, c, (x, h, h_after)


def tanh_cell_back(weights, kept, d_h_after, d_c_after, d_weights):
    x, h, h_after = kept
    d_sums = d_h_after * (1 - h_after**2)
    return *sums_back(weights, x, h, d_sums, d_sums, d_weights), d_c_after


def relu_cell(weights, x, h, c):
    h_after = np.maximum(sum(sums(weights, x, h)), 0)
    return h_after, c, (x, h, h_after)


def relu_cell_back(weights, kept, d_h_after, d_c_after, d_weights):
    x, h, h_after = kept
    d_sums = d_h_after * (h_after > 0)
    return *sums_back(weights, x, h, d_sums, d_sums, d_weights), d_c_after


CELLS = {
    "LSTM": (lstm_cell, lstm_cell_back),
    "GRU": (gru_cell, gru_cell_back),
    "RNN_TANH": (tanh_cell, tanh_cell_back),
    "RNN_RELU": (relu_cell, relu_cell_back),
}

# -- one sequence ------------------------------------------------------------------------------------------------------


def scan(cell, weights, inputs, h, c, reverse, anew=(), row=None):
    """One direction of one layer over one sequence (T, K): outputs (T, P), the last h and c, and what was kept.

    The steps in ``anew`` begin with ``row``, another h and c.
    """
    outputs, kept = [None] * len(inputs), [None] * len(inputs)
    steps = range(len(inputs))
    for t in reversed(steps) if reverse else steps:
        if t in anew:
            h, c = row
        h, c, kept[t] = CELLS[cell][0](weights, inputs[t], h, c)
        outputs[t] = h
    return np.array(outputs).reshape(len(inputs), h.size), h, c, kept


def scan_back(cell, weights, kept, d_outputs, d_h, d_c, reverse, d_weights, anew=(), d_row=None):
    """The scan's derivative, against its order. ``d_h`` and ``d_c`` are those of the last state, then of the first.

    Those of the states that ``anew`` does away with are added to the list ``d_row`` of both.
    """
    d_inputs = np.zeros((len(kept), weights["weight_ih"].shape[1]))
    steps = range(len(kept))
    for t in steps if reverse else reversed(steps):
        d_inputs[t], d_h, d_c = CELLS[cell][1](weights, kept[t], d_h + d_outputs[t], d_c, d_weights)
        if t in anew:
            d_row[0] += d_h
            d_row[1] += d_c
            d_h, d_c = np.zeros_like(d_h), np.zeros_like(d_c)
    return d_inputs, d_h, d_c


# -- the net -----------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What a forward pass returns."""

    outputs: list  # of B arrays (T_i, D * P)
    h_n: np.ndarray  # (L * D, B, P)
    c_n: np.ndarray  # (L * D, B, H); zeros for cells without c
    kept: list


class ResultBack(NamedTuple):
    """What a backward pass returns."""

    inputs: list  # of B arrays (T_i, I)
    h_0: np.ndarray  # (L * D, B, P)
    c_0: np.ndarray  # (L * D, B, H)
    parameters: dict


def of_scan(parameters, layer, direction):
    """The parameters of one direction of one layer, without that in their names; the same arrays."""
    end = f"_l{layer}" + ("_reverse" if direction else "")
    return {name.removesuffix(end): value for name, value in parameters.items() if name.endswith(end)}


def begins_anew(resets, direction):
    """The steps that do not begin with the state that comes to them: the state is reset before each marked step."""
    marked = np.flatnonzero(resets)
    return set(marked - 1) - {-1} if direction else set(marked)


def forward(cell, parameters, sequences, h_0, c_0, masks=None, resets=None):
    """All layers and directions over B sequences.

    ``resets[i] (T_i,)``, if there are resets, marks the steps before which the state becomes that in row B of ``h_0``
    and ``c_0``, which have one row more then.

    ``masks[l][i] (T_i, D * P)``, if there are masks, multiplies the output of layer l on its way into the next one.
    """
    parameters = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    L = 1 + max(int(name.split("_l")[1].split("_")[0]) for name in parameters)
    D = 2 if "weight_ih_l0_reverse" in parameters else 1
    h_0, c_0 = np.asarray(h_0, np.float64), np.asarray(c_0, np.float64)
    B = len(sequences)
    h_n, c_n, outputs, kept = np.zeros_like(h_0[:, :B]), np.zeros_like(c_0[:, :B]), [], []
    for i, sequence in enumerate(sequences):
        values, kept_here = np.asarray(sequence, np.float64), {}
        for layer in range(L):
            if layer > 0 and masks is not None:
                values = values * masks[layer - 1][i]
            both = []
            for direction in range(D):
                s, weights = layer * D + direction, of_scan(parameters, layer, direction)
                anew = () if resets is None else begins_anew(resets[i], direction)
                output, h_n[s, i], c_n[s, i], kept_here[s] = scan(
                    cell, weights, values, h_0[s, i], c_0[s, i], direction, anew, (h_0[s, -1], c_0[s, -1])
                )
                both.append(output)
            values = np.concatenate(both, axis=1)
        outputs.append(values)
        kept.append(kept_here)
    return Result(outputs, h_n, c_n, kept)


def backward(cell, parameters, kept, d_outputs, d_h_n, d_c_n, masks=None, resets=None):
    """The derivative of `forward`: of the inputs, the initial states and the parameters."""
    parameters = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    L = 1 + max(int(name.split("_l")[1].split("_")[0]) for name in parameters)
    D = 2 if "weight_ih_l0_reverse" in parameters else 1
    d_h_n, d_c_n = np.asarray(d_h_n, np.float64), np.asarray(d_c_n, np.float64)
    rows = [(0, 0), (0, int(resets is not None)), (0, 0)]
    d_h_0, d_c_0, d_inputs = np.pad(np.zeros_like(d_h_n), rows), np.pad(np.zeros_like(d_c_n), rows), []
    d_parameters = {name: np.zeros_like(value) for name, value in parameters.items()}
    for i, kept_here in enumerate(kept):
        d_values = np.asarray(d_outputs[i], np.float64)
        for layer in reversed(range(L)):
            parts = np.split(d_values, D, axis=1)
            d_values = 0.0
            for direction in range(D):
                s, weights = layer * D + direction, of_scan(parameters, layer, direction)
                d_weights = of_scan(d_parameters, layer, direction)
                anew = () if resets is None else begins_anew(resets[i], direction)
                d_part, d_h_0[s, i], d_c_0[s, i] = scan_back(
                    cell, weights, kept_here[s], parts[direction], d_h_n[s, i], d_c_n[s, i], direction, d_weights,
                    anew, [d_h_0[s, -1], d_c_0[s, -1]],
                )  # fmt: skip
                d_values = d_values + d_part
            if layer > 0 and masks is not None:
                d_values = d_values * masks[layer - 1][i]
        d_inputs.append(d_values)
    return ResultBack(d_inputs, d_h_0, d_c_0, d_parameters)


# -- dropout -----------------------------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10: four random words of 32 bits from a counter of four and a key of two.

    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * c0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def dropout_masks(rate, seed, call, lengths, L, columns):
    """The masks of one call: for each layer but the last and each sequence (T_i, columns), of 0 and 1 / (1 - rate).

    Unit u of step t of sequence i, above layer l, takes word ``u % 4`` of the counter ``(u // 4, t, i, l)`` under the
    key ``(seed, call)``, and is dropped if the word is below ``rate * 2**32``.
    """
    masks = []
    for layer in range(L - 1):
        masks.append([])
        for i, length in enumerate(lengths):
            mask = np.zeros((length, columns))
            for t in range(length):
                for unit in range(columns):
                    word = philox((unit // 4, t, i, layer), (int(seed), int(call)))[unit % 4]
                    if word >= rate * 2**32:
                        mask[t, unit] = 1 / (1 - rate)
            masks[-1].append(mask)
    return masks
