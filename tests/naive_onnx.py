"""The oracle of ONNX's operators RNN, GRU and LSTM: their documentation, in plain loops and float64.

One sequence, one direction, one step and one unit after the other; it shares no code with the library. Weights are
ONNX's: W (D, G, I), R (D, G, H), B (D, 2 G), P (D, 3 H).
"""

import math

import numpy as np
from naive_cells import slopes

#: alpha and beta where they are not given
DEFAULTS = {"LeakyRelu": (0.01, 0), "ThresholdedRelu": (1.0, 0), "HardSigmoid": (0.2, 0.5), "Elu": (1.0, 0)}

FORMULAS = {
    "Relu": lambda x, a, b: max(0.0, x),
    "Tanh": lambda x, a, b: math.tanh(x),
    "Sigmoid": lambda x, a, b: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: x if x >= 0 else a * x,
    "ThresholdedRelu": lambda x, a, b: x if x >= a else 0.0,
    "ScaledTanh": lambda x, a, b: a * math.tanh(b * x),
    "HardSigmoid": lambda x, a, b: min(max(a * x + b, 0.0), 1.0),
    "Elu": lambda x, a, b: x if x >= 0 else a * math.expm1(x),
    "Softsign": lambda x, a, b: x / (1 + abs(x)),
    "Softplus": lambda x, a, b: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
}


def activations(names, alphas, betas):
    """Functions of arrays; alphas and betas are for those that have one, in their order."""
    alphas, betas = list(alphas), list(betas)

    def one(name):
        a, b = DEFAULTS.get(name, (0, 0))
        if name in ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu") and alphas:
            a = alphas.pop(0)
        if name in ("Affine", "ScaledTanh", "HardSigmoid") and betas:
            b = betas.pop(0)
        return lambda sums: np.array([FORMULAS[name](x, a, b) for x in sums])

    return [one(name) for name in names]


def step(kind, functions, clip, input_forget, linear_before_reset, W, R, B, P, x, h, c):
    """The state (h, c) after one step."""
    H = len(h)

    def clipped(sums):
        return sums if clip is None else np.minimum(np.maximum(sums, -clip), clip)

    wx, rh, (wb, rb) = W @ x, R @ h, np.split(B, 2)
    if kind == "RNN":
        return functions[0](clipped(wx + rh + wb + rb)), c
    if kind == "LSTM":
        f, g, h_function = functions
        i_sum, o_sum, f_sum, c_sum = np.split(wx + rh + wb + rb, 4)
        p_i, p_o, p_f = np.split(P, 3)
        i = f(clipped(i_sum + p_i * c))
        forget = 1 - i if input_forget else f(clipped(f_sum + p_f * c))
        c = forget * c + i * g(clipped(c_sum))
        return f(clipped(o_sum + p_o * c)) * h_function(c), c  # c is no sum: other runtimes do not clip it either
    f, g = functions
    z, r = f(clipped((wx + rh + wb + rb)[:H])), f(clipped((wx + rh + wb + rb)[H : 2 * H]))
    hidden = slice(2 * H, 3 * H)
    of_state = r * (rh + rb)[hidden] if linear_before_reset else R[hidden] @ (r * h) + rb[hidden]
    return (1 - z) * g(clipped((wx + wb)[hidden] + of_state)) + z * h, c


def forward(
    kind, W, R, B, P, sequences, h_0, c_0, names, alphas=(), betas=(), direction="forward", clip=None,
    input_forget=False, linear_before_reset=False,
):  # fmt: skip
    """Outputs, a list of (T_i, D * H), and the last states h and c (D, sequences, H)."""
    W, R, B, P, h_n, c_n = (np.array(value, np.float64) for value in (W, R, B, P, h_0, c_0))
    D, each = len(W), len(names) // len(W)
    functions = activations(names, alphas, betas)
    outputs = [np.zeros((len(sequence), D, R.shape[2])) for sequence in sequences]
    for d in range(D):
        own = functions[d * each : (d + 1) * each]
        for s, sequence in enumerate(sequences):
            times = range(len(sequence))
            for t in reversed(times) if direction == "reverse" or d == 1 else times:
                h_n[d, s], c_n[d, s] = step(
                    kind, own, clip, input_forget, linear_before_reset, W[d], R[d], B[d], P[d],
                    np.asarray(sequence[t], np.float64), h_n[d, s], c_n[d, s],
                )  # fmt: skip
                outputs[s][t, d] = h_n[d, s]
    return [output.reshape(len(output), D * R.shape[2]) for output in outputs], h_n, c_n


def gradients(loss, arrays):
    """The gradient of ``loss(*arrays)`` with respect to each array, by central differences.

    Of steps so small that hardly any leads past the end of a bound or the corner of an activation.
    """

    def of_one(i):
        return slopes(lambda x: loss(*arrays[:i], x, *arrays[i + 1 :]), arrays[i], step=1e-6)

    return [of_one(i) for i in range(len(arrays))]
