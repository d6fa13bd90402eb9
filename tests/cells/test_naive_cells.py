"""The oracle of the cells against other implementations, and against what the papers say must come of their equations.

PyTorch, Keras and ONNX Runtime know some of the cells. The others are compared in closed form, where there is no loop
left that both could have wrong, or as cells that are known already with some of their weights chosen.
"""

import naive
import naive_cells
import numpy as np
import pytest
from naive_cells import CELLS, CONSTANTS, run

I, H = 3, 4  # noqa: E741
LENGTHS = (4, 1, 6)
#: what the float32 of Keras and ONNX Runtime may be off by, in sums of some ten numbers over some ten steps
FLOAT32 = 32 * np.finfo(np.float32).eps


def make_parameters(name, rng, L=1, D=1, heads=1, P=None):
    """Random weights of every kind that the cell has; time constants are near 4."""
    cell, parameters, P_or_H = CELLS[name], {}, P or H
    for layer in range(L):
        for end in (f"_l{layer}", f"_l{layer}_reverse")[:D]:
            inputs = I if layer == 0 else D * P_or_H
            parameters["weight_ih" + end] = rng.normal(size=(cell.input_rows * H, inputs))
            parameters["bias_ih" + end] = rng.normal(size=cell.input_rows * H)
            if cell.state_rows:
                parameters["weight_hh" + end] = rng.normal(size=(cell.state_rows * H, P_or_H // heads))
                parameters["bias_hh" + end] = rng.normal(size=cell.state_rows * H)
            if P:
                parameters["weight_hr" + end] = rng.normal(size=(P, H))
            for unit_weight in cell.unit_weights:
                parameters[unit_weight + end] = rng.normal(size=H) + 4 * (unit_weight == "tau")
    return parameters


def make_states(name, rng, scans=1, P=None):
    """States as the cell itself could have left them: an sLSTM's normalizer is at least 1."""
    states = [rng.normal(size=(scans, len(LENGTHS), P or H))]
    states += [rng.normal(size=(scans, len(LENGTHS), H)) for _ in range(CELLS[name].states - 1)]
    if name == "SLSTM":
        states[2] = 1 + np.abs(states[2])
    return states


def make_sequences(rng):
    return [rng.normal(size=(T, I)) for T in LENGTHS]


def with_rows(parameters, change):
    """A copy of one layer's parameters with other rows: ``change`` takes and returns a list of blocks of H rows."""
    result = dict(parameters)
    for name in ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0"):
        result[name] = np.concatenate(change(np.split(parameters[name], len(parameters[name]) // H)))
    return result


def assert_equal(got, expected, rtol=1e-12):
    """Outputs, and the first states after them, are equal up to the rounding of float64."""
    for a, b in zip(got.outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(a, b, rtol, atol=rtol)
    for a, b in zip(got.states, expected.states, strict=False):
        np.testing.assert_allclose(a, b, rtol, atol=rtol)


# -- PyTorch, Keras, ONNX Runtime --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, proj_size",
    [("RNNTanh", 0), ("RNNRelu", 0), ("LSTM", 0), ("LSTM", 2), ("GRU", 0)],
    ids=["RNNTanh", "RNNRelu", "LSTM", "LSTM-projected", "GRU"],
)
def test_plain_stacks_are_those_of_pytorch(name, proj_size):
    torch = pytest.importorskip("torch", reason="its layers are the reference")
    rng, P = np.random.default_rng(0), proj_size or None
    parameters, sequences = make_parameters(name, rng, L=2, D=2, P=P), make_sequences(rng)
    states = make_states(name, rng, 4, P)
    options = {"proj_size": proj_size} if proj_size else {}
    if name.startswith("RNN"):
        options["nonlinearity"] = name.removeprefix("RNN").lower()
    layer = getattr(torch.nn, name[:3] if name.startswith("RNN") else name)(
        I, H, num_layers=2, bidirectional=True, dtype=torch.float64, **options
    )
    layer.load_state_dict({key: torch.tensor(value) for key, value in parameters.items()})

    result = run(name, parameters, sequences, states)

    packed = torch.nn.utils.rnn.pack_sequence([torch.tensor(s) for s in sequences], enforce_sorted=False)
    hx = tuple(torch.tensor(state) for state in states)
    with torch.no_grad():
        output, hn = layer(packed, hx if len(hx) > 1 else hx[0])
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(output)
    outputs = [padded[:T, b].numpy() for b, T in enumerate(lengths)]
    assert_equal(result, naive_cells.Result(outputs, tuple(s.numpy() for s in (hn if len(hx) > 1 else (hn,)))))


def test_the_gru_with_its_reset_before_the_product_is_that_of_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    keras = pytest.importorskip("keras", reason="its GRU is the reference")
    rng = np.random.default_rng(1)
    parameters, x, h = make_parameters("GRUResetBefore", rng), rng.normal(size=(3, 6, I)), rng.normal(size=(1, 3, H))
    parameters["bias_hh_l0"][:] = 0  # Keras has one bias

    def of_keras(rows):
        r, z, n = np.split(rows, 3)
        return np.concatenate([z, r, n]).T

    layer = keras.layers.GRU(H, reset_after=False, return_sequences=True)
    layer.build(x.shape)
    layer.set_weights([of_keras(parameters[key + "_l0"]) for key in ("weight_ih", "weight_hh", "bias_ih")])
    expected = layer(keras.ops.convert_to_tensor(x), initial_state=keras.ops.convert_to_tensor(h[0]))

    result = run("GRUResetBefore", parameters, x, [h])
    np.testing.assert_allclose(result.outputs, keras.ops.convert_to_numpy(expected), rtol=0, atol=FLOAT32)


def onnx_run(operator, W, R, B, x, states, **attributes):
    """One bidirectional node in ONNX Runtime: outputs (T, B, 2 H), and the last states. P is an attribute here."""
    onnx = pytest.importorskip("onnx", reason="it builds the models")
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the reference here")
    helper, P = onnx.helper, attributes.pop("P", None)
    inputs = {"X": x, "W": W, "R": R, "B": B, "initial_h": states[0]}
    if operator == "LSTM":
        inputs["initial_c"] = states[1]
        if P is not None:
            inputs["P"] = P
    order = ["X", "W", "R", "B", "", "initial_h", "initial_c", "P"]
    names = [name if name in inputs else "" for name in order]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 1 + len(states)]
    node = helper.make_node(operator, names, outputs, direction="bidirectional", hidden_size=H, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    Y, *last = session.run(None, {name: value.astype(np.float32) for name, value in inputs.items()})
    return np.concatenate([Y[:, 0], Y[:, 1]], axis=2), last


@pytest.mark.parametrize(
    "name, operator, order, attributes",
    [
        # the places of ONNX's blocks of rows among the cell's
        ("PeepholeLSTM", "LSTM", [0, 3, 1, 2], {}),
        ("CIFG", "LSTM", [0, 2, 0, 1], {"input_forget": 1}),  # the rows of f are there, and not used
        ("GRUResetBefore", "GRU", [1, 0, 2], {"linear_before_reset": 0}),
    ],
    ids=["peepholes", "input_forget", "linear_before_reset=0"],
)
def test_cells_that_onnx_has_are_those_of_onnx_runtime(name, operator, order, attributes):
    rng = np.random.default_rng(2)
    parameters, states = make_parameters(name, rng, D=2), make_states(name, rng, 2)
    x = rng.normal(size=(6, 3, I))
    count = CELLS[name].input_rows

    def of_onnx(*keys):
        def one(key, end):
            parts = np.split(parameters[key + end], count)
            return np.concatenate([parts[place] for place in order])

        return np.stack([np.concatenate([one(key, end) for key in keys]) for end in ("_l0", "_l0_reverse")])

    if name == "PeepholeLSTM":
        peepholes = [[parameters[p + end] for p in ("p_i", "p_o", "p_f")] for end in ("_l0", "_l0_reverse")]
        attributes = {"P": np.array(peepholes).reshape(2, 3 * H)}
    Y, last = onnx_run(
        operator, of_onnx("weight_ih"), of_onnx("weight_hh"), of_onnx("bias_ih", "bias_hh"), x, states, **attributes
    )

    result = run(name, parameters, list(x.transpose(1, 0, 2)), states)

    np.testing.assert_allclose(np.stack(result.outputs, axis=1), Y, rtol=0, atol=FLOAT32)
    for got, expected in zip(result.states, last, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=FLOAT32)


# -- cells that are others, with some of their weights chosen ----------------------------------------------------------


def test_a_peephole_lstm_whose_peepholes_are_shut_is_an_lstm():
    rng = np.random.default_rng(3)
    parameters, sequences = make_parameters("PeepholeLSTM", rng), make_sequences(rng)
    for p in ("p_i_l0", "p_f_l0", "p_o_l0"):
        parameters[p][:] = 0
    assert_equal(run("PeepholeLSTM", parameters, sequences), run("LSTM", parameters, sequences))


def test_a_cifg_is_an_lstm_whose_forget_gate_is_what_the_input_gate_leaves():
    rng = np.random.default_rng(4)
    parameters, sequences = make_parameters("CIFG", rng), make_sequences(rng)
    lstm = with_rows(parameters, lambda parts: [parts[0], -parts[0], parts[1], parts[2]])
    assert_equal(run("CIFG", parameters, sequences), run("LSTM", lstm, sequences))


def test_an_mgu_is_a_gru_that_resets_what_it_updates():
    rng = np.random.default_rng(5)
    parameters, sequences = make_parameters("MGU", rng), make_sequences(rng)
    gru = with_rows(parameters, lambda parts: [parts[0], -parts[0], parts[1]])
    assert_equal(run("MGU", parameters, sequences), run("GRUResetBefore", gru, sequences))


def test_an_ind_rnn_is_an_rnn_whose_matrix_of_the_state_is_diagonal():
    rng = np.random.default_rng(6)
    parameters, sequences = make_parameters("IndRNN", rng), make_sequences(rng)
    rnn = {**parameters, "weight_hh_l0": np.diag(parameters["u_l0"])}
    assert_equal(run("IndRNN", parameters, sequences), run("RNNRelu", rnn, sequences))


def test_a_leaky_rnn_that_leaks_all_in_a_step_is_an_rnn():
    rng = np.random.default_rng(7)
    parameters, sequences = make_parameters("LeakyRNN", rng), make_sequences(rng)
    expected = run("RNNTanh", parameters, sequences)
    constants = {"dt": 2.0, "tau": 2.0}
    assert_equal(run("LeakyRNN", parameters, sequences, constants=constants), expected)
    assert_equal(run("CTRNN", parameters, sequences, constants=constants), expected)
    # and a trained tau below dt leaks no more than all
    parameters["tau_l0"] = np.full(H, 0.5)
    assert_equal(run("LeakyRNNTau", parameters, sequences, constants={"dt": 2.0}), expected)


def test_leaky_rnns_approach_their_differential_equation():
    """With a constant input and U = 0 both have a known solution, to which Euler's steps converge."""
    rng = np.random.default_rng(8)
    parameters = make_parameters("LeakyRNN", rng)
    parameters["weight_hh_l0"][:] = parameters["bias_hh_l0"][:] = 0
    x, tau, steps = rng.normal(size=I), 3.0, 4000
    dt, sequence = 2.0 / steps, [np.tile(x, (steps, 1))]
    aim = parameters["weight_ih_l0"] @ x + parameters["bias_ih_l0"]
    share = 1 - np.exp(-2.0 / tau)
    constants = {"dt": dt, "tau": tau}

    leaky = run("LeakyRNN", parameters, sequence, constants=constants).outputs[0][-1]
    trained = run("LeakyRNNTau", {**parameters, "tau_l0": np.full(H, tau)}, sequence, constants={"dt": dt})
    ctrnn = run("CTRNN", parameters, sequence, constants=constants).outputs[0][-1]

    np.testing.assert_allclose(leaky, share * np.tanh(aim), rtol=dt)
    np.testing.assert_allclose(ctrnn, np.tanh(share * aim), rtol=dt)
    np.testing.assert_array_equal(trained.outputs[0][-1], leaky)


def test_a_janet_without_beta_is_a_gru_that_never_resets():
    rng = np.random.default_rng(9)
    parameters, sequences = make_parameters("JANET", rng), make_sequences(rng)
    gru = with_rows(parameters, lambda parts: [np.zeros_like(parts[0]), *parts])
    gru["bias_ih_l0"][:H] = 100  # r = 1
    assert_equal(run("JANET", parameters, sequences, constants={"beta": 0.0}), run("GRU", gru, sequences))


def test_janet_lets_in_by_the_gate_that_beta_has_moved():
    rng = np.random.default_rng(10)
    parameters, (x,) = make_parameters("JANET", rng), rng.normal(size=(1, 1, I))
    s, g = np.split(parameters["weight_ih_l0"] @ x[0] + parameters["bias_ih_l0"] + parameters["bias_hh_l0"], 2)
    beta = 0.7
    (output,) = run("JANET", parameters, [x], constants={"beta": beta}).outputs
    np.testing.assert_allclose(output[0], np.tanh(g) / (1 + np.exp(s - beta)), rtol=1e-12)


def test_a_ligru_is_a_gru_that_never_resets_with_a_relu_where_small_numbers_make_a_tanh_linear():
    """Candidates so small that tanh(n) = n, and above 0, where relu(n) = n."""
    rng = np.random.default_rng(11)
    parameters, sequences, small = make_parameters("LiGRU", rng), make_sequences(rng), 1e-6
    for key in ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0"):
        parameters[key][:H] = small * np.abs(parameters[key][:H])
    sequences = [np.abs(sequence) for sequence in sequences]
    gru = with_rows(parameters, lambda parts: [np.zeros_like(parts[0]), parts[1], parts[0]])
    gru["bias_ih_l0"][:H] = 100  # r = 1
    got, expected = run("LiGRU", parameters, sequences), run("GRU", gru, sequences)
    for a, b in zip(got.outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(a, b, rtol=small)


def test_a_ligru_that_keeps_nothing_is_an_rnn_of_rectified_units():
    rng = np.random.default_rng(12)
    parameters, sequences = make_parameters("LiGRU", rng), make_sequences(rng)
    for key in ("weight_ih_l0", "weight_hh_l0"):
        parameters[key][H:] = 0
    parameters["bias_ih_l0"][H:] = -100
    rnn = with_rows(parameters, lambda parts: parts[:1])
    assert_equal(run("LiGRU", parameters, sequences), run("RNNRelu", rnn, sequences))


@pytest.mark.parametrize("name", [name for name in CELLS if CELLS[name].state_rows])
def test_heads_are_the_blocks_of_a_matrix_that_is_block_diagonal(name):
    rng, heads = np.random.default_rng(13), 2
    parameters, sequences = make_parameters(name, rng, heads=heads), make_sequences(rng)
    states = make_states(name, rng)
    whole, size = [], H // heads
    for gate in np.split(parameters["weight_hh_l0"], CELLS[name].state_rows):
        matrix = np.zeros((H, H))
        for head in range(heads):
            here = slice(head * size, (head + 1) * size)
            matrix[here, here] = gate[here]
        whole.append(matrix)
    full = {**parameters, "weight_hh_l0": np.concatenate(whole)}
    constants = CONSTANTS.get(name)
    assert_equal(run(name, parameters, sequences, states, constants), run(name, full, sequences, states, constants))


# -- closed forms ------------------------------------------------------------------------------------------------------


def linear_scan(a, b, h):
    """All of ``h[t] = a[t] h[t-1] + b[t]`` at once, as a sum: no step sees another's result."""
    T = len(a)
    result = np.zeros_like(b)
    for t in range(T):
        result[t] = np.prod(a[: t + 1], axis=0) * h
        for k in range(t + 1):
            result[t] += np.prod(a[k + 1 : t + 1], axis=0) * b[k]
    return result


def gates_of(parameters, x, count):
    return np.split(x @ parameters["weight_ih_l0"].T + parameters["bias_ih_l0"], count, axis=1)


def scan_case(name, rng, T=6):
    """A sequence, and a state of one sequence: (weights, x (T, I), states (1, 1, H), gates (T, H))."""
    parameters, x = make_parameters(name, rng), rng.normal(size=(T, I))
    states = [np.abs(rng.normal(size=(1, 1, H))) for _ in range(CELLS[name].states)]
    return parameters, x, states, gates_of(parameters, x, CELLS[name].input_rows)


def sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)


@pytest.mark.parametrize("name", ["MinGRU", "MinGRUPositive"])
def test_a_min_gru_is_a_linear_scan(name):
    parameters, x, states, (z, n) = scan_case(name, np.random.default_rng(14))
    if name == "MinGRUPositive":
        n = np.where(n < 0, sigmoid(n), n + 0.5)
    expected = linear_scan(sigmoid(-z), sigmoid(z) * n, states[0][0, 0])
    np.testing.assert_allclose(run(name, parameters, [x], states).outputs[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["MinGRUPositive", "MinLSTMPositive"])
def test_the_positive_forms_are_the_log_space_scans_of_the_paper(name):
    """log h is a cumulative logsumexp: Feng et al., appendix on the log-space version."""
    parameters, x, states, gates = scan_case(name, np.random.default_rng(15))

    def softplus(a):
        return np.logaddexp(0, a)

    *_, n = gates
    log_n = np.where(n >= 0, np.log(np.maximum(n, 0) + 0.5), -softplus(-n))
    if name == "MinGRUPositive":
        log_keep, log_take = -softplus(gates[0]), -softplus(-gates[0])
    else:
        difference = softplus(-gates[0]) - softplus(-gates[1])
        log_keep, log_take = -softplus(difference), -softplus(-difference)
    log_kept = np.cumsum(log_keep, axis=0)
    log_values = np.concatenate([np.log(states[0][0]), log_take + log_n - log_kept])
    expected = np.exp(log_kept + np.logaddexp.accumulate(log_values, axis=0)[1:])

    np.testing.assert_allclose(run(name, parameters, [x], states).outputs[0], expected, rtol=1e-12)


def test_a_min_lstm_is_a_min_gru_whose_gate_is_the_share_of_its_input_gate():
    parameters, x, states, (f, i, n) = scan_case("MinLSTM", np.random.default_rng(16))
    share = 1 / (1 + (1 + np.exp(-i)) / (1 + np.exp(-f)))
    expected = linear_scan(1 - share, share * n, states[0][0, 0])
    np.testing.assert_allclose(run("MinLSTM", parameters, [x], states).outputs[0], expected, rtol=1e-12, atol=1e-12)


def test_a_qrnn_is_a_linear_scan_and_an_output_gate():
    parameters, x, states, (z, f, o) = scan_case("QRNN", np.random.default_rng(17))
    c = linear_scan(sigmoid(f), sigmoid(-f) * np.tanh(z), states[1][0, 0])
    result = run("QRNN", parameters, [x], states)
    np.testing.assert_allclose(result.outputs[0], sigmoid(o) * c, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.states[1][0, 0], c[-1], rtol=1e-12, atol=1e-12)


def test_an_sru_that_does_not_see_its_state_is_a_linear_scan_and_a_highway():
    parameters, x, states, (n, f, r, highway) = scan_case("SRU", np.random.default_rng(18))
    parameters["v_f_l0"][:] = parameters["v_r_l0"][:] = 0
    c = linear_scan(sigmoid(f), sigmoid(-f) * n, states[1][0, 0])
    expected = highway + sigmoid(r) * (c - highway)
    np.testing.assert_allclose(run("SRU", parameters, [x], states).outputs[0], expected, rtol=1e-12, atol=1e-12)


def test_both_gates_of_an_sru_see_the_state_before_the_step():
    parameters, x, states, _ = scan_case("SRU", np.random.default_rng(19), T=1)
    c, moved = states[1][0, 0], {key: value.copy() for key, value in parameters.items()}
    moved["bias_ih_l0"][H : 2 * H] += parameters["v_f_l0"] * c
    moved["bias_ih_l0"][2 * H : 3 * H] += parameters["v_r_l0"] * c
    moved["v_f_l0"][:] = moved["v_r_l0"][:] = 0
    assert_equal(run("SRU", parameters, [x], states), run("SRU", moved, [x], states))


def test_an_lru_is_a_linear_scan_of_complex_numbers():
    parameters, x, states, (real, imaginary) = scan_case("LRU", np.random.default_rng(20))
    t, nu = parameters["t_l0"], parameters["nu_l0"]
    modulus = np.exp(-np.exp(nu))
    turn = (1 + 1j * t) / (1 - 1j * t)  # a quotient of conjugates: of modulus 1, and twice the angle of 1 + i t
    a = np.tile(modulus * turn, (len(x), 1))
    h = linear_scan(a, np.sqrt(1 - modulus**2) * (real + 1j * imaginary), states[0][0, 0] + 1j * states[1][0, 0])
    result = run("LRU", parameters, [x], states)
    np.testing.assert_allclose(result.outputs[0], h.real, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.states[1][0, 0], h[-1].imag, rtol=1e-12, atol=1e-12)


def test_an_rglru_is_a_linear_scan_that_keeps_the_size_of_its_state():
    """a = sigmoid(-Lambda)^(c r), and the squares of what is kept and what is let in add up to 1."""
    parameters, x, states, (r, i, v) = scan_case("RGLRU", np.random.default_rng(21))
    a = sigmoid(-parameters["Lambda_l0"]) ** (8 * sigmoid(r))
    expected = linear_scan(a, np.sqrt(1 - a**2) * sigmoid(i) * v, states[0][0, 0])
    result = run("RGLRU", parameters, [x], states, {"c": 8.0})
    np.testing.assert_allclose(result.outputs[0], expected, rtol=1e-12, atol=1e-12)


def test_an_slstm_is_its_equations_without_a_stabilizer():
    """Beck et al. before m: c and n are sums of products of all gates, and c / n has no scale of its own."""
    rng = np.random.default_rng(22)
    parameters, x = make_parameters("SLSTM", rng), rng.normal(size=(6, I))
    h, c, n = np.zeros(H), np.zeros(H), np.zeros(H)
    expected = []
    for t in range(len(x)):
        a = parameters["weight_ih_l0"] @ x[t] + parameters["weight_hh_l0"] @ h
        i, f, z, o = np.split(a + parameters["bias_ih_l0"] + parameters["bias_hh_l0"], 4)
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        expected.append(h)
    result = run("SLSTM", parameters, [x])
    np.testing.assert_allclose(result.outputs[0], expected, rtol=1e-12, atol=1e-12)
    scale = np.exp(result.states[3])
    np.testing.assert_allclose((scale * result.states[1])[0, 0], c, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose((scale * result.states[2])[0, 0], n, rtol=1e-12, atol=1e-12)


def test_an_slstm_bears_gates_whose_exponentials_are_beyond_all_numbers():
    rng = np.random.default_rng(23)
    parameters, sequences = make_parameters("SLSTM", rng), make_sequences(rng)
    expected = run("SLSTM", parameters, sequences)
    for shift in (-2000.0, 2000.0):
        parameters["bias_ih_l0"][:H] += shift  # of a factor that c and n share, and h has not
        got = run("SLSTM", parameters, sequences)
        parameters["bias_ih_l0"][:H] -= shift
        for a, b in zip(got.outputs, expected.outputs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)  # 2000 has 1e-13 left behind its point


def test_a_linear_memory_is_powers_of_its_matrix():
    rng = np.random.default_rng(24)
    parameters, x, h = make_parameters("LinearMemory", rng), rng.normal(size=(6, I)), rng.normal(size=(1, 1, H))
    A, b = parameters["weight_hh_l0"], parameters["bias_ih_l0"] + parameters["bias_hh_l0"]
    u = x @ parameters["weight_ih_l0"].T + b
    power = np.linalg.matrix_power
    expected = [power(A, t + 1) @ h[0, 0] + sum(power(A, t - k) @ u[k] for k in range(t + 1)) for t in range(6)]
    result = run("LinearMemory", parameters, [x], [h])
    np.testing.assert_allclose(result.outputs[0], expected, rtol=1e-12, atol=1e-12)


def test_a_linear_memory_with_the_matrices_of_an_lmu_holds_the_legendre_coefficients_of_a_window():
    """Voelker et al.: the memory of sin over the last theta is its projection on shifted Legendre polynomials."""
    order, theta, dt = 8, 1.0, 1e-3
    i, j = np.indices((order, order))
    A = (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    B = ((2 * i + 1) / theta * (-1.0) ** i)[:, :1]
    parameters = {"weight_ih_l0": dt * B, "weight_hh_l0": np.eye(order) + dt * A}
    time = dt * np.arange(1, 4001)

    memory = run("LinearMemory", parameters, [np.sin(3 * time)[:, None]]).outputs[0][-1]

    past = np.linspace(0, 1, 200)  # of the window, from now back
    polynomials = [np.polynomial.legendre.Legendre.basis(k)(2 * past - 1) for k in range(order)]
    np.testing.assert_allclose(memory @ polynomials, np.sin(3 * (time[-1] - theta * past)), atol=0.02)


# -- gradients and states ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, plain", [("RNNTanh", "RNN_TANH"), ("LSTM", "LSTM"), ("GRU", "GRU")])
def test_gradients_are_those_of_the_chain_rule(name, plain):
    """Central differences of steps of 1e-5 are off by some 1e-10, and their rounding as much."""
    rng = np.random.default_rng(25)
    parameters, sequences = make_parameters(name, rng, D=2), make_sequences(rng)
    states = make_states(name, rng, 2)
    d_outputs = [rng.normal(size=(T, 2 * H)) for T in LENGTHS]
    d_states = [rng.normal(size=state.shape) for state in states]

    def loss(outputs, last):
        return sum(np.vdot(a, d) for a, d in zip([*outputs, *last], [*d_outputs, *d_states], strict=True))

    got = naive_cells.gradients(loss, name, parameters, sequences, states)

    c, d_c = (states[1], d_states[1]) if len(states) > 1 else (np.zeros_like(states[0]), np.zeros_like(states[0]))
    kept = naive.forward(plain, parameters, sequences, states[0], c).kept
    expected = naive.backward(plain, parameters, kept, d_outputs, d_states[0], d_c)
    for key in parameters:
        np.testing.assert_allclose(got.parameters[key], expected.parameters[key], rtol=1e-7, atol=1e-8)
    for a, b in zip(got.sequences, expected.inputs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
    for a, b in zip(got.states, [expected.h_0, expected.c_0], strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_in_two_parts_is_the_sequence(name):
    """So what the states carry is all that a cell remembers; beyond that, layers and directions are as they should."""
    rng = np.random.default_rng(26)
    parameters, x, constants = make_parameters(name, rng, L=2), rng.normal(size=(7, I)), CONSTANTS.get(name)
    whole = run(name, parameters, [x], constants=constants)
    first = run(name, parameters, [x[:3]], constants=constants)
    second = run(name, parameters, [x[3:]], first.states, constants)
    np.testing.assert_array_equal(np.concatenate([first.outputs[0], second.outputs[0]]), whole.outputs[0])
    for a, b in zip(second.states, whole.states, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CELLS)
def test_the_second_direction_is_the_first_over_the_sequence_turned_round(name):
    rng = np.random.default_rng(27)
    parameters, x, constants = make_parameters(name, rng, D=2), rng.normal(size=(5, I)), CONSTANTS.get(name)
    there = {key.removesuffix("_reverse"): value for key, value in parameters.items() if key.endswith("_reverse")}
    expected = run(name, there, [x[::-1]], constants=constants)
    result = run(name, parameters, [x], constants=constants)
    np.testing.assert_array_equal(result.outputs[0][:, H:], expected.outputs[0][::-1])
    np.testing.assert_array_equal(result.states[0][1], expected.states[0][0])
