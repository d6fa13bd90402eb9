"""Models around recurrent nodes: ONNX Runtime runs them, with and without this library, to equal results."""

import threading

import naive_onnx
import numpy as np
import pytest

import numba_pack as nbp

onnx = pytest.importorskip("onnx", reason="what is tested here is the exchange with ONNX")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the reference here")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from numba_pack.interop import _onnx_session, _onnx_types  # noqa: E402
from numba_pack.interop import onnx as interop  # noqa: E402

K, H = 3, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@pytest.fixture(autouse=True)
def _every_cut_is_worth_it(monkeypatch):
    """Or such small models would go to ONNX Runtime whole."""
    monkeypatch.setattr(_onnx_session, "gain_of", lambda *_: 1.0)


def normal(*shape, rng=0, dtype=np.float32):
    return (0.5 * np.random.default_rng(rng).standard_normal(shape)).astype(dtype)


def weights(kind="LSTM", D=1, end="", dtype=np.float32, inputs=K, rng=0):
    """W, R and B by name."""
    rows = GATES[kind] * H
    shapes = {"W": (D, rows, inputs), "R": (D, rows, H), "B": (D, 2 * rows)}
    return {name + end: normal(*shape, rng=rng + i, dtype=dtype) for i, (name, shape) in enumerate(shapes.items())}


def typed(name, dtype="f4", shape=None):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def tensors(constants):
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def graph_of(nodes, inputs, outputs, constants=(), name="test"):
    return helper.make_graph(nodes, name, inputs, [onnx.ValueInfoProto(name=one) if isinstance(one, str) else one
                                                   for one in outputs], tensors(dict(constants)))  # fmt: skip


def model_of(nodes, inputs, outputs, constants=(), opset=17, **more):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = graph_of(nodes, inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=more.pop("imports", imports), ir_version=8, **more)


node = helper.make_node


def assert_equal(model, feed, taken=1, left=0, atol=1e-5):
    """That both give the same, and how many nodes are run here."""
    reference = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session = interop.session(model)
    assert (len(session.taken), len(session.left)) == (taken, left), session
    for of in ("get_inputs", "get_outputs"):
        described = [[(one.name, one.type) for one in getattr(who, of)()] for who in (session, reference)]
        assert described[0] == described[1]
    for got, expected in zip(session.run(None, feed), reference.run(None, feed), strict=True):
        for one, other in zip(*[v if isinstance(v, list) else [v] for v in (got, expected)], strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(one.astype("f8"), other.astype("f8"), rtol=0, atol=atol)
    return session


# -- structures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("D", [1, 2])
def test_operators_around_two_recurrent_nodes(kind, D):
    way = {"direction": "bidirectional" if D == 2 else "forward"}
    constants = weights(kind, D, "0") | weights(kind, 1, "1", inputs=D * H, rng=3)
    constants |= {"kernel": normal(K, 2, 3, rng=8), "head": normal(H, 2, rng=9), "flat": np.array([0, 0, -1])}
    nodes = [
        node("Conv", ["x", "kernel"], ["features"], pads=[1, 1]),
        node("Relu", ["features"], ["positive"]),
        node("Transpose", ["positive"], ["steps"], perm=[2, 0, 1]),
        node(kind, ["steps", "W0", "R0", "B0"], ["Y0", "Y0_h"], hidden_size=H, **way),
        node("Transpose", ["Y0"], ["turned"], perm=[0, 2, 1, 3]),
        node("Reshape", ["turned", "flat"], ["below"]),
        node(kind, ["below", "W1", "R1", "B1"], ["Y1", "Y1_h"], hidden_size=H),
        node("Add", ["Y1", "Y1"], ["twice"]),
        node("MatMul", ["twice", "head"], ["scores"]),
        node("Softmax", ["scores"], ["p"]),
    ]
    model = model_of(nodes, [typed("x", shape=["B", 2, "n"])], ["p", "Y0_h", "Y1_h"], constants)
    session = assert_equal(model, {"x": normal(4, 2, 9)}, taken=2)
    assert session.taken == ("Y0", "Y1")


def branch(end, name):
    """A branch of If, whose LSTM has weights of PyTorch's shape that it makes ONNX's, as exporters write them."""
    own = weights(end=end, rng=ord(end))
    return graph_of(
        [
            *[node("Unsqueeze", [f"{w}{end}0", "zero"], [f"{w}{end}"]) for w in "WRB"],
            node("LSTM", ["steps", f"W{end}", f"R{end}", f"B{end}", "", "h", "c"],
                 [f"Y{end}", f"h{end}", f"c{end}"], name=f"of_{name}", hidden_size=H),
            node("Mul", [f"Y{end}", "scale"], [f"out{end}"]),
        ],
        [], [f"out{end}", f"h{end}", f"c{end}"],
        {f"{w}{end}0": own[f"{w}{end}"][0] for w in "WRB"}, name,
    )  # fmt: skip


def two_rates():
    """What silero-vad is: one network for each of two sampling rates, with the state going in and out."""
    inner = graph_of([node("If", ["loud"], ["o", "hn", "cn"], then_branch=branch("p", "loud"),
                           else_branch=branch("q", "quiet"))], [], ["o", "hn", "cn"], (), "high")  # fmt: skip
    nodes = [
        node("Equal", ["sr", "high"], ["is_high"]),
        node("ReduceMax", ["x"], ["peak"], keepdims=0),
        node("Greater", ["peak", "bound"], ["loud"]),
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node("If", ["is_high"], ["output", "h_n", "c_n"], then_branch=inner, else_branch=branch("r", "low")),
    ]
    inputs = [typed("x", shape=["B", "T", K]), typed("h", shape=[1, "B", H]), typed("c", shape=[1, "B", H]),
              typed("sr", "i8", [])]  # fmt: skip
    constants = {"high": np.array(16000), "bound": np.float32(1), "zero": np.array([0]), "scale": np.float32(3)}
    return model_of(nodes, inputs, ["output", "h_n", "c_n"], constants)


@pytest.mark.parametrize("rate, gain", [(16000, 9.0), (16000, 0.1), (8000, 1.0)])
def test_each_branch_of_nested_ifs(rate, gain):
    feed = {"x": gain * normal(2, 7, K), "h": normal(1, 2, H, rng=1), "c": normal(1, 2, H, rng=2)}
    session = assert_equal(two_rates(), feed | {"x": feed["x"].astype("f4"), "sr": np.array(rate)}, taken=3)
    assert sorted(session.taken) == ["of_loud", "of_low", "of_quiet"]


def looped(**inputs_of_loop):
    """A loop that reads a sequence again and again, each time from the state in which it was left."""
    body = graph_of(
        [
            node("GRU", ["x", "W", "R", "B", "", "h"], ["Y", "h_n"], hidden_size=H, linear_before_reset=1),
            node("ReduceMean", ["Y"], ["mean"], axes=[0, 1]),
            node("Identity", ["going"], ["goes_on"]),
            node("Cast", ["number"], ["real"], to=TensorProto.FLOAT),
            node("Add", ["mean", "real"], ["row"]),
        ],
        [typed("number", "i8", []), typed("going", "?", []), typed("h")],
        ["goes_on", "h_n", "row"], (), "body",
    )  # fmt: skip
    takes = [inputs_of_loop.get("count", "count"), inputs_of_loop.get("condition", ""), "h_0"]
    nodes = [node("Loop", takes, ["last", "rows"], body=body), node("Neg", ["last"], ["negative"])]
    inputs = [typed("x", shape=["T", "B", K]), typed("h_0", shape=[1, "B", H]), typed("count", "i8", [])]
    constants = weights("GRU") | {"yes": np.array(True)}
    return model_of(nodes, inputs, ["negative", typed("rows", shape=[None, None, H])], constants)


@pytest.mark.parametrize("condition", ["", "yes"])
def test_a_loop_with_a_recurrent_body(condition):
    feed = {"x": normal(6, 2, K), "h_0": normal(1, 2, H)}
    model = looped(condition=condition)
    assert_equal(model, feed | {"count": np.array(4)})
    negative, rows = interop.session(model).run(None, feed | {"count": np.array(0)})
    np.testing.assert_array_equal(negative, -feed["h_0"])
    assert (rows.dtype, len(rows)) == (np.float32, 0)


def test_a_loop_ends_when_its_body_says_so():
    body = graph_of(
        [
            node("RNN", ["x", "W", "R", "B", "", "h"], ["", "h_n"], hidden_size=H),
            node("Less", ["number", "two"], ["goes_on"]),
        ],
        [typed("number", "i8", []), typed("going", "?", []), typed("h")], ["goes_on", "h_n", "h"], (), "body",
    )  # fmt: skip
    nodes = [node("Loop", ["", "yes", "h_0"], ["last", "states"], body=body)]
    inputs = [typed("x", shape=["T", "B", K]), typed("h_0", shape=[1, "B", H])]
    constants = weights("RNN") | {"yes": np.array(True), "two": np.array(2)}
    model = model_of(nodes, inputs, ["last", "states"], constants)
    session = assert_equal(model, {"x": normal(6, 2, K), "h_0": normal(1, 2, H)})
    assert len(session.run(["states"], {"x": normal(6, 2, K), "h_0": normal(1, 2, H)})[0]) == 3


@pytest.mark.parametrize("directions, axes", [([0], [0]), ([1], [1])])
def test_a_scan_with_a_recurrent_body(directions, axes):
    body = graph_of(
        [
            node("LSTM", ["chunk", "W", "R", "B", "", "h", "c"], ["Y", "h_n", "c_n"], hidden_size=H),
            node("Tanh", ["Y"], ["squashed"]),
        ],
        [typed("h"), typed("c"), typed("chunk")], ["h_n", "c_n", "squashed"], (), "body",
    )  # fmt: skip
    scan = node("Scan", ["h_0", "c_0", "chunks"], ["h", "c", "rows"], body=body, num_scan_inputs=1,
                scan_input_axes=axes, scan_input_directions=directions, scan_output_axes=axes,
                scan_output_directions=directions)  # fmt: skip
    for name in ("h", "c"):  # whose names are others within
        assert name in scan.output
    body.input[0].name, body.input[1].name = "own_h", "own_c"
    body.node[0].input[5:7] = ["own_h", "own_c"]
    state = [1, "B", H]
    inputs = [typed("h_0", shape=state), typed("c_0", shape=state), typed("chunks", shape=[None] * 4)]
    model = model_of([scan], inputs, ["h", "c", "rows"], weights())
    feed = {"h_0": normal(1, 2, H), "c_0": normal(1, 2, H, rng=1), "chunks": normal(4, 4, 2, K, rng=2)}
    assert_equal(model, feed)


def test_nodes_in_functions_take_the_attributes_of_the_call():
    function = helper.make_function(
        "own", "Reader", ["x", "W", "R"], ["y"],
        [node("Relu", ["x"], ["positive"]), node("RNN", ["positive", "W", "R"], ["Y"], name="inner", hidden_size=H),
         node("Neg", ["Y"], ["y"])],
        [helper.make_opsetid("", 17)], ["direction"],
    )  # fmt: skip
    reference = onnx.AttributeProto(name="direction", ref_attr_name="direction", type=onnx.AttributeProto.STRING)
    function.node[1].attribute.append(reference)
    constants = weights("RNN")
    nodes = [node("Reader", ["x", "W", "R"], [way], domain="own", direction=way) for way in ("forward", "reverse")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = model_of(nodes, [typed("x", shape=["T", "B", K])], ["forward", "reverse"], constants, imports=imports,
                     functions=[function])  # fmt: skip
    assert_equal(model, {"x": normal(6, 2, K)}, taken=2)
    assert [layer.reverse if hasattr(layer, "reverse") else False for layer in interop.layers(model).values()] == [
        False, True,
    ]  # fmt: skip


def test_a_recurrent_node_behind_a_sequence_of_tensors():
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["pair"]),
        node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=H),
        node("SequenceInsert", ["pair", "Y3"], ["three"]),
        node("Squeeze", ["Y", "one"], ["Y3"]),
    ]
    nodes[2], nodes[3] = nodes[3], nodes[2]
    model = model_of(nodes, [typed("x", shape=["T", "B", K])], ["three"], weights() | {"one": np.array([1])})
    assert_equal(model, {"x": normal(6, 2, K)})


# -- nodes -------------------------------------------------------------------------------------------------------------


def one_node(kind="LSTM", dtype=np.float32, constants=None, **attributes):
    """A Relu, and one node with lengths and states."""
    states = ["h_0", "c_0"] if kind == "LSTM" else ["h_0"]
    results = ["Y", "h", "c"] if kind == "LSTM" else ["Y", "h"]
    D = 2 if attributes.get("direction") == "bidirectional" else 1
    nodes = [
        node("Relu", ["x"], ["positive"]),
        node(kind, ["positive", "W", "R", "B", "lengths", *states], results, hidden_size=H, **attributes),
    ]
    inputs = [typed("x", dtype, ["T", "B", K]), typed("lengths", "i4", ["B"])]
    inputs += [typed(name, dtype, [D, "B", H]) for name in states]
    return model_of(nodes, inputs, results, constants or weights(kind, D, dtype=dtype))


def fed(lengths, D=1, dtype=np.float32, states=("h_0", "c_0")):
    B = len(lengths)
    feed = {"x": normal(max(lengths) + 1, B, K, dtype=dtype), "lengths": np.array(lengths, "i4")}
    return feed | {name: normal(D, B, H, rng=i, dtype=dtype) for i, name in enumerate(states)}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lengths_are_kept_to_and_a_sequence_without_steps_ends_in_0_as_in_onnx_runtime(direction):
    D = 2 if direction == "bidirectional" else 1
    assert_equal(one_node(direction=direction), fed([4, 0, 7, 1, 0], D))
    assert_equal(one_node("GRU", direction=direction), fed([4, 0, 7], D, states=["h_0"]))


@pytest.mark.parametrize("kind", GATES)
def test_float16_is_computed_in_float32_as_in_onnx_runtime(kind):
    states = ["h_0", "c_0"][: 1 + (kind == "LSTM")]
    session = assert_equal(one_node(kind, np.float16), fed([4, 7], dtype=np.float16, states=states), atol=1e-3)
    (layer,) = interop.layers(one_node(kind, np.float16)).values()
    assert layer.dtype == np.float32
    assert session.run(["Y"], fed([4, 7], dtype=np.float16, states=states))[0].dtype == np.float16


def quantized(dtype, by_column, D=1):
    """W and R of DynamicQuantizeLSTM, with scales and zero points, and the floats that they stand for.

    Signed ones are of 7 bits: on CPUs without VNNI, ONNX Runtime adds products of 8 bits in 16, which saturate.
    """
    found, meant = {}, {}
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if low < 0:
        low, high = low // 2, high // 2
    for i, (name, rows) in enumerate((("W", K), ("R", H))):
        rng = np.random.default_rng(i)
        value = rng.integers(low, high + 1, (D, rows, 4 * H)).astype(dtype)
        scale = rng.uniform(0.002, 0.004, (D, 4 * H) if by_column else (D,)).astype(np.float32)
        # ONNX Runtime knows no zero points by column but 0
        zero = np.zeros(scale.shape, dtype) if by_column else np.full(scale.shape, (low + high) // 2 + 3, dtype)
        found |= {name: value, f"{name}_scale": scale, f"{name}_zero_point": zero}
        spread = (D, 1, -1)
        meant[name] = ((value - zero.astype("f4").reshape(spread)) * scale.reshape(spread)).swapaxes(1, 2)
    return found | {"B": weights("LSTM", D)["B"]}, meant


@pytest.mark.parametrize("dtype, by_column", [("u1", False), ("i1", False), ("i1", True)])
@pytest.mark.parametrize("D", [1, 2])
def test_quantized_nodes_are_computed_in_8_bits_and_loaded_as_the_floats_that_they_stand_for(dtype, by_column, D):
    constants, meant = quantized(np.dtype(dtype), by_column, D)
    way = "bidirectional" if D == 2 else "forward"
    takes = ["x", "W", "R", "B", "", "", "", "", "W_scale", "W_zero_point", "R_scale", "R_zero_point"]
    nodes = [
        node("DynamicQuantizeLSTM", takes, ["Y"], domain="com.microsoft", hidden_size=H, direction=way, name="q"),
        node("Relu", ["Y"], ["positive"]),
    ]
    model = model_of(nodes, [typed("x", shape=["T", "B", K])], ["positive"], constants)
    # ONNX Runtime rounds the input of each step to 8 bits
    session = assert_equal(model, {"x": normal(6, 2, K)}, atol=0.03)
    plain = [node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=H, direction=way), nodes[1]]
    exact = model_of(plain, [typed("x", shape=["T", "B", K])], ["positive"], constants | meant)
    reference = onnxruntime.InferenceSession(exact.SerializeToString())
    feed = {"x": normal(6, 2, K)}
    np.testing.assert_allclose(session.run(None, feed)[0], reference.run(None, feed)[0], rtol=0, atol=0.03)
    del model.graph.node[1:]
    model.graph.output[0].CopyFrom(typed("Y", shape=[None] * 4))
    result = interop.load(model).run(feed)["Y"]
    np.testing.assert_allclose(np.maximum(result, 0), reference.run(None, feed)[0], rtol=0, atol=1e-5)


def test_weights_behind_dequantize_linear_are_taken():
    constants = {name: value for name, value in weights().items() if name == "B"}
    nodes = []
    for name in "WR":
        value = weights()[name]
        constants |= {f"{name}_q": np.clip(value / 0.01, -127, 127).astype("i1"), f"{name}_s": np.float32(0.01),
                      f"{name}_z": np.int8(0)}  # fmt: skip
        nodes.append(node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [name]))
    nodes += [node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=H), node("Neg", ["Y"], ["y"])]
    model = model_of(nodes, [typed("x", shape=["T", "B", K])], ["y"], constants)
    assert_equal(model, {"x": normal(6, 2, K)})
    (layer,) = interop.layers(model).values()
    np.testing.assert_array_equal(layer.state_dict()["weight_hh_l0"][:H],
                                  (constants["R_q"] * np.float32(0.01))[0, :H])  # fmt: skip


def test_what_onnx_runtime_refuses_runs_here():
    """Layout 1, and float64."""
    constants = weights("GRU", dtype=np.float64)
    nodes = [node("GRU", ["x", "W", "R", "B"], ["Y", "h"], layout=1), node("Neg", ["h"], ["negative"])]
    model = model_of(nodes, [typed("x", "f8", ["B", "T", K])], ["Y", "negative"], constants)
    x = normal(2, 6, K, dtype=np.float64)
    Y, negative = interop.session(model).run(None, {"x": x})
    outputs, h_n, _ = naive_onnx.forward("GRU", **constants, P=np.zeros((1, 3 * H)), sequences=list(x),
                                         h_0=np.zeros((1, 2, H)), c_0=np.zeros((1, 2, H)),
                                         names=["Sigmoid", "Tanh"])  # fmt: skip
    np.testing.assert_allclose(Y[:, :, 0], outputs, rtol=0, atol=1e-13)
    np.testing.assert_allclose(negative, -h_n.swapaxes(0, 1), rtol=0, atol=1e-13)


# -- what is left ------------------------------------------------------------------------------------------------------


def test_nodes_that_cannot_be_taken_are_left_with_the_reason():
    constants = weights("RNN") | {"M": normal(H, H)}
    nodes = [
        node("Mul", ["W", "x0"], ["W_of_input"]),
        node("RNN", ["x", "W_of_input", "R"], ["Y0"], name="hyper", hidden_size=H),
        node("RNN", ["x", "W", "R"], ["Y1"], name="plain", hidden_size=H),
        node("RNN", ["x", "W", "R"], ["Y2"], name="threshold", activations=["ThresholdedRelu"], hidden_size=H),
        node("RNN", ["x", "W", "R"], ["Y3"], name="affine", activations=["Affine"], hidden_size=H),
        node("Sum", ["Y0", "Y1", "Y2", "Y3"], ["sum"]),
    ]
    inputs = [typed("x", shape=["T", "B", K]), typed("x0", shape=[])]
    model = model_of(nodes, inputs, ["sum"], constants)
    session = assert_equal(model, {"x": normal(6, 2, K), "x0": np.array(2, "f4")}, taken=1, left=3)
    assert session.taken == ("plain",)
    assert session.left["hyper"] == "its weights are no constants of the model"
    assert "no alpha, which ONNX Runtime takes as 0" in session.left["threshold"]
    assert "activation_alpha must hold a value for Affine" in session.left["affine"]
    assert "plain" in interop.layers(model_of(nodes[:3], inputs, ["Y1"], constants))
    with pytest.raises(ValueError, match=r"RNN node 'affine': activation_alpha must hold.*session runs it"):
        interop.layers(model)


def test_nodes_within_what_is_run_as_a_whole_are_left():
    inner = node("RNN", ["one", "W", "R"], ["Y"], name="inner", hidden_size=H)
    body = graph_of([inner], [typed("one", shape=["T", "B", K])], [typed("Y", shape=[None] * 4)], (), "body")
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["pair"]),
        node("SequenceMap", ["pair"], ["outputs"], body=body),
        node("SequenceAt", ["outputs", "zero"], ["first"]),
    ]
    constants = {name: value for name, value in weights("RNN").items() if name != "B"} | {"zero": np.array(0)}
    model = model_of(nodes, [typed("x", shape=["T", "B", K])], ["first"], constants)
    session = interop.session(model)
    assert session.taken == ()
    assert session.left == {"inner": "it is within a node SequenceMap, which is run by ONNX Runtime as a whole"}
    (first,) = session.run(None, {"x": normal(6, 2, K)})
    (layer,) = interop.layers(model).values()
    np.testing.assert_allclose(first[:, 0], layer(normal(6, 2, K))[0], rtol=0, atol=1e-6)


def test_a_graph_that_cannot_be_cut_is_left_whole(monkeypatch):
    """As one whose values have a type that this library does not know."""
    monkeypatch.delitem(_onnx_types._NAMES, "bool")
    session = interop.session(two_rates())
    assert session.taken == ()
    assert all("cannot be cut where it stands: ValueError" in reason for reason in session.left.values())
    monkeypatch.undo()
    feed = {"x": normal(2, 7, K), "h": normal(1, 2, H, rng=1), "c": normal(1, 2, H, rng=2), "sr": np.array(16000)}
    for got, expected in zip(session.run(None, feed), interop.session(two_rates()).run(None, feed), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_dictionaries_go_past_a_recurrent_node():
    nodes = [
        node("Flatten", ["x"], ["flat"]),
        node("ZipMap", ["flat"], ["named"], domain="ai.onnx.ml", classlabels_int64s=list(range(2 * K))),
        node("RNN", ["x", "W", "R", "B"], ["Y"], hidden_size=H),
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = model_of(nodes, [typed("x", shape=["T", 2, K])], ["named", "Y"], weights("RNN"), imports=imports)
    feed = {"x": normal(4, 2, K)}
    session, reference = interop.session(model), onnxruntime.InferenceSession(model.SerializeToString())
    assert session.taken == ("Y",)
    assert session.run(["named"], feed) == reference.run(["named"], feed)
    assert [one.type for one in session.get_outputs()] == [one.type for one in reference.get_outputs()]


def test_a_broken_model_has_the_error_of_onnx_runtime():
    model = one_node()
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(Exception, match=r"ONNXRuntimeError.*nothing"):
        interop.session(model)


def test_models_with_nothing_recurrent_say_so():
    model = model_of([node("Relu", ["x"], ["y"])], [typed("x", shape=[2])], ["y"])
    with pytest.raises(ValueError, match=r"must have a node RNN, LSTM, GRU or DynamicQuantizeLSTM.*it has none"):
        interop.session(model)
    with pytest.raises(ValueError, match=r"path_or_model must have RNN.*it has none"):
        interop.layers(model)


def test_a_call_in_which_too_little_is_recurrent_goes_to_onnx_runtime_whole(monkeypatch):
    """From the first call on, so that equal inputs give equal bits."""
    model = one_node()
    monkeypatch.setattr(_onnx_session, "gain_of", lambda kind, T, B, *_: T * B - 100)
    session = interop.session(model)
    runs = []
    monkeypatch.setattr(session, "_body", Counted(session._body, runs))
    small, large = fed([1, 1]), fed([100, 90, 80])
    reference = onnxruntime.InferenceSession(model.SerializeToString())
    for _ in range(3):
        for got, expected in zip(session.run(None, small), reference.run(None, small), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert len(runs) == 1  # which told how little it is
    for _ in range(3):
        session.run(None, large)
    assert len(runs) == 4


def test_what_is_worth_it_is_told_by_shapes_and_lengths_alone(monkeypatch):
    """Or what ran before would decide on the bits of a result."""
    monkeypatch.undo()
    assert (
        _onnx_session.gain_of("RNN", 1, 1, 1, 2 * 64 * 64, False)
        < 0
        < _onnx_session.gain_of("RNN", 100, 8, 1, 2 * 64 * 64, False)
    )
    assert (
        _onnx_session.gain_of("RNN", 20, 8, 1, 2 * 64 * 64, True)
        < 0
        < _onnx_session.gain_of("RNN", 20, 8, 1, 2 * 64 * 64, False)
    )
    session = interop.session(one_node())
    for lengths in ([30, 30, 1], [1, 1, 30], [30, 30, 30]):
        session.run(None, fed(lengths))
    assert len(session._shapes) == 1


@pytest.mark.parametrize("lengths", [[4, 4, 4], [7, 7, 7], [0, 0, 0]])
def test_equal_lengths_give_the_bits_of_others(lengths):
    """Nothing is packed then."""
    session = assert_equal(one_node("LSTM", direction="bidirectional"), fed(lengths, 2))
    feed = fed([*lengths, 9], 2)
    rows = {"x": (slice(0, max(lengths) + 1), slice(0, 3)), "lengths": slice(0, 3)}
    alone = {name: np.ascontiguousarray(value[rows.get(name, (slice(None), slice(0, 3)))])
             for name, value in feed.items()}  # fmt: skip
    Y, h, c = session.run(None, alone)
    all_Y, all_h, all_c = session.run(None, feed)
    np.testing.assert_array_equal(Y, all_Y[: len(Y), :, :3])
    np.testing.assert_array_equal((h, c), (all_h[:, :3], all_c[:, :3]))


class Counted:
    """A body that tells how often it is run."""

    def __init__(self, body, runs):
        self.body, self.runs, self.inputs, self.outputs = body, runs, body.inputs, body.outputs

    def run(self, *arguments):
        self.runs.append(1)
        return self.body.run(*arguments)


# -- the interface -----------------------------------------------------------------------------------------------------


def test_a_session_is_described_as_onnx_runtime_describes_it(tmp_path):
    model = two_rates()
    model.producer_name, model.model_version, model.doc_string = "maker", 3, "what it is"
    helper.set_model_props(model, {"key": "value"})
    onnx.save(model, tmp_path / "model.onnx")
    reference = onnxruntime.InferenceSession(model.SerializeToString())
    for source in (model, model.SerializeToString(), tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        session = interop.session(source)
        for of in ("get_inputs", "get_overridable_initializers"):
            said = [[(one.name, one.shape, one.type) for one in getattr(who, of)()] for who in (session, reference)]
            assert said[0] == said[1]
        assert session.get_providers() == ["CPUExecutionProvider"]
        ours, theirs = session.get_modelmeta(), reference.get_modelmeta()
        for name in ("producer_name", "graph_name", "domain", "description", "version", "custom_metadata_map"):
            assert getattr(ours, name) == getattr(theirs, name)
    assert repr(session) == "Session(taken=('of_low', 'of_quiet', 'of_loud'), left={})"


def test_the_options_of_the_caller_are_those_of_the_pieces():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = interop.session(one_node(), options)
    assert session.get_session_options() is options
    counts = []

    class Asked(Counted):
        def run(self, *arguments):
            counts.append(nbp.get_num_threads())
            return self.body.run(*arguments)

    session._body = Asked(session._body, counts)
    with nbp.threads(3):
        session.run(None, fed([4]))
    options.intra_op_num_threads = 7
    with nbp.threads(3):
        session.run(None, fed([4]))
    assert counts == [1, 3]


def test_the_outputs_that_are_named_come_in_their_order_and_belong_to_the_caller():
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["Y", "h"], hidden_size=H),
        node("Identity", ["x"], ["same"]),
        node("Identity", ["h"], ["h_again"]),
    ]
    outputs = ["Y", "h", "same", "h_again", typed("W", shape=[1, 4 * H, K])]
    session = interop.session(model_of(nodes, [typed("x", shape=["T", "B", K])], outputs, weights()))
    x = normal(4, 2, K)
    h, Y = session.run(["h", "Y"], {"x": x})
    assert (h.shape, Y.shape) == ((1, 2, H), (4, 1, 2, H))
    results = session.run(None, {"x": x})
    np.testing.assert_array_equal(results[2], x)
    np.testing.assert_array_equal(results[4], weights()["W"])
    for value in results:  # of which none is the input, a weight, or another result
        value[:] = 7
    assert not (x == 7).any()
    np.testing.assert_array_equal(session.run(["W"], {"x": x})[0], weights()["W"])
    assert results[1] is not results[3]


def test_what_runs_in_a_thread_is_told_to_a_callback():
    session, feed = interop.session(one_node()), fed([4, 2])
    told, done = [], threading.Event()

    def callback(results, data, error):
        told.append((results, data, error))
        done.set()

    session.run_async(["Y", "h"], feed, callback, "mine")
    assert done.wait(60)
    ((results, data, error),) = told
    assert (data, error) == ("mine", "")
    for got, expected in zip(results, session.run(["Y", "h"], feed), strict=True):
        np.testing.assert_array_equal(got, expected)
    done.clear()
    session.run_async(["Z"], feed, callback)
    assert done.wait(60)
    assert told[1][0] == []
    assert told[1][2].startswith("output_names must be of Y, h, c; got 'Z'")
    with pytest.raises(ValueError, match="missing: lengths, h_0, c_0"):
        session.run_async(None, {"x": feed["x"]}, callback)
    with pytest.raises(TypeError, match="callback must be callable; got NoneType"):
        session.run_async(None, feed, None)


def bound_in(binding, feed, Y, h):
    """Everything that may be bound, in each of the ways there are."""
    binding.bind_cpu_input("x", feed["x"])
    binding.bind_input("h_0", "cpu", 0, np.float32, feed["h_0"].shape, feed["h_0"].ctypes.data)
    binding.bind_input("c_0", "cpu", 0, TensorProto.FLOAT, feed["c_0"].shape, feed["c_0"].ctypes.data)
    binding.bind_ortvalue_input("lengths", onnxruntime.OrtValue.ortvalue_from_numpy(feed["lengths"]))
    binding.bind_output("Y", "cpu", 0, np.float32, Y.shape, Y.ctypes.data)
    binding.bind_ortvalue_output("h", h)
    binding.bind_output("c")


def test_bound_memory_is_read_and_written_as_by_onnx_runtime():
    model, feed = one_node(), fed([4, 2])
    reference = onnxruntime.InferenceSession(model.SerializeToString())
    results = []
    for session in (interop.session(model), reference):
        Y = np.zeros((5, 1, 2, H), np.float32)
        h = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 2, H), np.float32))
        binding = session.io_binding()
        bound_in(binding, feed, Y, h)
        session.run_with_iobinding(binding)
        copies = binding.copy_outputs_to_cpu()
        np.testing.assert_array_equal(copies[0], Y)
        np.testing.assert_array_equal(copies[1], h.numpy())
        np.testing.assert_array_equal(copies[2], binding.get_outputs()[2].numpy())
        results.append(copies)
        binding.clear_binding_outputs()
        binding.clear_binding_inputs()
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()}
    (again,) = interop.session(model).run_with_ort_values(["Y"], values)
    np.testing.assert_array_equal(again.numpy(), results[0][0])


def test_what_cannot_be_bound_is_refused():
    session, feed = interop.session(one_node()), fed([4, 2])
    binding = session.io_binding()
    with pytest.raises(ValueError, match=r"device_type of x must be 'cpu'.*got 'cuda'"):
        binding.bind_output("x", "cuda")
    with pytest.raises(ValueError, match="element_type and shape of Y must be given with buffer_ptr"):
        binding.bind_output("Y", buffer_ptr=1)
    with pytest.raises(ValueError, match="must be made by io_binding"):
        session.run_with_iobinding(interop.session(one_node()).io_binding())
    with pytest.raises(ValueError, match="must have outputs that are bound"):
        session.run_with_iobinding(binding)
    Y = np.zeros((9, 1, 2, H), np.float32)
    bound_in(binding, feed, Y, onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 2, H), np.float32)))
    with pytest.raises(ValueError, match=r"output Y must be bound to memory of shape \(5, 1, 2, 5\); got \(9, 1"):
        session.run_with_iobinding(binding)
    with pytest.raises(AttributeError, match=r"no end_profiling; onnxruntime\.InferenceSession"):
        session.end_profiling()
    assert not hasattr(session, "nothing_of_the_kind")


def test_inputs_with_a_default_need_not_be_given():
    inputs = [typed("x", shape=["T", "B", K]), typed("gain", shape=[])]
    nodes = [node("Mul", ["x", "gain"], ["louder"]), node("RNN", ["louder", "W", "R"], ["Y"], hidden_size=H)]
    model = model_of(nodes, inputs, ["Y"], weights("RNN") | {"gain": np.float32(2)})
    for feed in ({"x": normal(4, 2, K)}, {"x": normal(4, 2, K), "gain": np.array(0.5, "f4")}):
        reference = onnxruntime.InferenceSession(model.SerializeToString())
        session = interop.session(model)
        np.testing.assert_allclose(session.run(None, feed)[0], reference.run(None, feed)[0], rtol=0, atol=1e-6)
        described = [[one.name for one in who.get_overridable_initializers()] for who in (session, reference)]
        assert described == [["gain"], ["gain"]]


def test_weights_that_are_inputs_with_a_default_are_taken_and_others_may_be_given():
    constants = weights("RNN")
    inputs = [typed("x", shape=["T", "B", K]), *(typed(name, shape=one.shape) for name, one in constants.items())]
    nodes = [node("RNN", ["x", "W", "R", "B"], ["Y"], hidden_size=H, name="cell"), node("Neg", ["Y"], ["y"])]
    model = model_of(nodes, inputs, ["y"], constants)
    session = assert_equal(model, {"x": normal(4, 2, K)})
    assert list(interop.layers(model)) == ["cell"]
    assert [one.name for one in session.get_overridable_initializers()] == ["W", "R", "B"]
    feed = {"x": normal(4, 2, K), "R": 2 * constants["R"]}
    assert_equal(model, feed)
    assert not np.allclose(session.run(None, feed)[0], session.run(None, {"x": feed["x"]})[0])


@pytest.mark.parametrize("opset", [13, 16, 21])
def test_functions_of_another_opset_are_converted(opset):
    nodes = [
        node("Constant", [], ["one"], value_ints=[1]),
        node("LSTM", ["x", "w", "r"], ["rows"], hidden_size=H, name="inner"),
        node("Squeeze", ["rows", "one"], ["y"]),
    ]
    function = helper.make_function("own", "Encoder", ["x", "w", "r"], ["y"], nodes, [helper.make_opsetid("", opset)])
    calls = [node("Encoder", ["x", "W", "R"], ["a"], domain="own"), node("Relu", ["a"], ["y"])]
    imports = [helper.make_opsetid(*one) for one in (("", 17), ("com.microsoft", 1), ("own", 1))]
    model = model_of(calls, [typed("x", shape=["T", "B", K])], [typed("y", shape=["T", "B", H])], weights(),
                     imports=imports, functions=[function])  # fmt: skip
    assert_equal(model, {"x": normal(4, 2, K)})
    del model.graph.node[1:]
    model.graph.output[0].CopyFrom(typed("a", shape=["T", "B", H]))
    (layer,) = interop.layers(model).values()
    np.testing.assert_array_equal(interop.load(model).run({"x": normal(4, 2, K)})["a"], layer(normal(4, 2, K))[0])


def test_a_function_that_cannot_be_converted_is_left_to_onnx_runtime():
    nodes = [
        node("RNN", ["x", "w", "r"], ["y"], hidden_size=H, name="inner"),
        node("Constant", [], ["more"], value_ints=[0, 0, 0, 0, 1, 0, 0, 0]),
        node("Pad", ["y", "more"], ["z"]),
    ]
    function = helper.make_function("own", "Encoder", ["x", "w", "r"], ["z"], nodes, [helper.make_opsetid("", 20)])
    imports = [helper.make_opsetid(*one) for one in (("", 17), ("com.microsoft", 1), ("own", 1))]
    calls = [node("Encoder", ["x", "W", "R"], ["y"], domain="own")]
    constants = {name: value for name, value in weights("RNN").items() if name != "B"}
    model = model_of(calls, [typed("x", shape=["T", "B", K])], [typed("y")], constants, imports=imports,
                     functions=[function])  # fmt: skip
    session = assert_equal(model, {"x": normal(4, 2, K)}, taken=0, left=1)
    assert session.left == {"inner": "it is in the function Encoder, which has another opset"}


def test_a_batch_of_no_sequences_never_reaches_the_nodes_of_onnx_runtime(monkeypatch):
    """Its LSTM ends the process then."""
    monkeypatch.setattr(_onnx_session, "gain_of", lambda *_: -1.0)
    model = model_of([node("LSTM", ["x", "W", "R"], ["Y", "h"], hidden_size=H), node("Neg", ["Y"], ["y"])],
                     [typed("x", shape=["T", "B", K])], ["y", "h"], weights())  # fmt: skip
    session = interop.session(model)
    for _ in range(3):
        assert [one.shape for one in session.run(None, {"x": normal(4, 0, K)})] == [(4, 1, 0, H), (1, 0, H)]


def test_values_beside_a_file_are_read_from_there_and_stay_there(tmp_path, monkeypatch):
    """So a model may be larger than one file of ONNX."""
    nodes = [
        node("Mul", ["x", "gain"], ["louder"]),
        node("Transpose", ["V"], ["W"], perm=[0, 2, 1]),
        node("RNN", ["louder", "W", "R", "", "", "h_0"], ["Y"], hidden_size=H),
        node("MatMul", ["Y", "head"], ["y"]),
    ]
    own = weights("RNN")
    constants = {"V": own["W"].swapaxes(1, 2), "R": own["R"], "gain": normal(K), "head": normal(H, 7),
                 "h_0": normal(1, 2, H)}  # fmt: skip
    model = model_of(nodes, [typed("x", shape=["T", "B", K])], ["y"], constants)
    feed = {"x": normal(4, 2, K)}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0]
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="values.bin")
    monkeypatch.chdir(tmp_path)
    for gain in (1.0, -1.0):
        monkeypatch.setattr(_onnx_session, "gain_of", lambda *_, gain=gain: gain)
        session = interop.session(path)
        assert session.taken
        assert {one.name for one in session._pieces.model.graph.initializer if one.raw_data} == {"V", "R"}
        np.testing.assert_allclose(session.run(None, feed)[0], expected, rtol=0, atol=1e-6)
    options = onnxruntime.SessionOptions()
    np.testing.assert_allclose(interop.session(path, options).run(None, feed)[0], expected, rtol=0, atol=1e-6)
    assert options.get_session_config_entry("session.model_external_initializers_file_folder_path") == ""
    (path.parent / "values.bin").unlink()
    with pytest.raises(ValueError, match=r"path_or_model must have [VR] beside its file"):
        interop.session(path)


def test_errors_are_those_of_onnx_runtime_too():
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    session, feed = interop.session(one_node()), fed([4, 2])
    wrong = [feed | {"x": feed["x"].astype("f8")}, feed | {"x": feed["x"][0]}, feed | {"z": feed["x"]},
             feed | {"x": feed["x"][:, :, 1:]}, feed | {"lengths": feed["lengths"] + 9}]  # fmt: skip
    for one in wrong:
        with pytest.raises(InvalidArgument):
            session.run(None, one)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("providers", [["CUDAExecutionProvider", "CPUExecutionProvider"], []])
def test_the_providers_are_those_that_there_are(providers):
    available = onnxruntime.get_available_providers()
    found = interop.session(one_node(), providers=providers).get_providers()
    assert found == [one for one in providers if one in available] or found == ["CPUExecutionProvider"]


def test_lists_and_values_of_onnx_runtime_are_taken():
    session, feed = interop.session(one_node()), fed([4, 2])
    expected = session.run(["Y"], feed)[0]
    others = [
        {name: value.tolist() for name, value in feed.items()},
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()},
    ]
    for other in others:
        np.testing.assert_array_equal(session.run(["Y"], other)[0], expected)


BAD_FEEDS = {
    "missing": (lambda feed: {"x": feed["x"]}, ValueError, "missing: lengths, h_0, c_0, not known: none"),
    "unknown": (lambda feed: feed | {"z": feed["x"]}, ValueError, "missing: none, not known: z"),
    "dtype": (lambda feed: feed | {"x": feed["x"].astype("f8")}, TypeError, "x must have dtype float32; got float64"),
    "dimensions": (lambda feed: feed | {"x": feed["x"][0]}, ValueError, r"x must have 3 dimensions; got shape"),
    "no array": (lambda feed: feed | {"x": "words"}, TypeError, "x must be a NumPy array; got str"),
    "state": (lambda feed: feed | {"h_0": feed["h_0"][:, :1]}, ValueError, "LSTM node .*initial_h must have shape"),
    "lengths": (lambda feed: feed | {"lengths": feed["lengths"] + 9}, ValueError, "sequence_lens must be from 0 to"),
    "no mapping": (lambda feed: [feed["x"]], TypeError, "input_feed must be a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FEEDS)
def test_bad_inputs_are_refused_by_name(name):
    made, error, message = BAD_FEEDS[name]
    with pytest.raises(error, match=message):
        interop.session(one_node()).run(None, made(fed([4, 2])))


def test_bad_calls():
    session = interop.session(one_node())
    with pytest.raises(ValueError, match="output_names must be of Y, h, c; got 'Z'"):
        session.run(["Z"], fed([4, 2]))
    with pytest.raises(TypeError, match="path_or_model must be a path"):
        interop.session(3)
    with pytest.raises(TypeError, match="path_or_model must be a path"):
        interop.layers(3)
    with pytest.raises(ValueError, match="path_or_model must be an ONNX model"):
        interop.session(b"nothing of the kind")


def test_layers_in_bodies_and_with_one_name_are_all_there():
    model = two_rates()
    assert {name: repr(layer) for name, layer in interop.layers(model).items()} == dict.fromkeys(
        ["of_loud", "of_quiet", "of_low"], "LSTM(3, 5)"
    )

    def rename(graph):
        for one in graph.node:
            one.name = "same" if one.op_type == "LSTM" else ""
            for attribute in one.attribute:
                rename(attribute.g)

    rename(model.graph)
    assert sorted(interop.layers(model)) == ["Yp", "Yq", "same"]
    with pytest.raises(ValueError, match="the weights of Y are no constants"):
        interop.layers(model_of([node("RNN", ["x", "W", "R"], ["Y"])],
                                [typed(name, shape=[None] * 3) for name in "xWR"], ["Y"]))  # fmt: skip
