"""ONNX: its own node tests, models against ONNX Runtime, what stands between nodes, files out and in, and bad ones."""

import contextlib
import itertools
import warnings

import naive_onnx
import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, largest, normal

import numba_pack as nbp

onnx = pytest.importorskip("onnx", reason="what is tested here is the exchange with ONNX")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the reference here")

from onnx import helper, numpy_helper  # noqa: E402
from onnx.backend.test import loader  # noqa: E402

from numba_pack.interop import _onnx_model  # noqa: E402
from numba_pack.interop import onnx as interop  # noqa: E402
from numba_pack.interop._onnx_cells import DEFAULTS  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
#: unsorted, two alike, two empty
LENGTHS = (4, 0, 9, 1, 4, 0, 6)
T, B, K, H = max(LENGTHS), len(LENGTHS), 3, 19  # K inputs, H units: more than one vector, and no whole number


# -- models ------------------------------------------------------------------------------------------------------------


def weights(kind, D=1, peepholes=False, dtype=np.float32, rng=0):
    """W, R, B and, if wanted, P by name."""
    rng, G = np.random.default_rng(rng), GATES[kind] * H
    shapes = {"W": (D, G, K), "R": (D, G, H), "B": (D, 2 * G)} | ({"P": (D, 3 * H)} if peepholes else {})
    return {name: (0.5 / np.sqrt(H) * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def model_of(nodes, inputs, outputs, constants, opset=14):
    """A model. Inputs are (name, dtype, shape), where a shape of None is three free axes; outputs are names."""
    declared = [*inputs, *[(name, inputs[0][1], [None] * (4 if name == "Y" else 3)) for name in outputs]]
    typed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape or [None] * 3)
        for name, dtype, shape in declared
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", typed[: len(inputs)], typed[len(inputs) :], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def results_of(kind):
    return ["Y", "Y_h", "Y_c"] if kind == "LSTM" else ["Y", "Y_h"]


def node_model(kind, constants, states=False, opset=14, lengths=True, **attributes):
    """One node with inputs X, sequence_lens, and initial states where wanted; all its outputs."""
    dtype, D = constants["W"].dtype, constants["W"].shape[0]
    first = attributes.get("layout", 0) == 1
    axes = ["B", "T"] if first else ["T", "B"]
    state = ["B", D, H] if first else [D, "B", H]
    names = ["initial_h", "initial_c"] if kind == "LSTM" else ["initial_h"]
    takes = ["X", "W", "R", "B" if "B" in constants else "", "sequence_lens" if lengths else ""]
    takes += [name if states else "" for name in names] + ["P"] * ("P" in constants)
    inputs = [("X", dtype, [*axes, K])] + [("sequence_lens", np.int32, ["B"])] * lengths
    inputs += [(name, dtype, state) for name in names] if states else []
    attributes = {name: value for name, value in attributes.items() if value is not None}
    node = helper.make_node(kind, takes, results_of(kind), name="cell", hidden_size=H, **attributes)
    return model_of([node], inputs, results_of(kind), constants, opset)


def batch(dtype=np.float32, rng=5):
    """Sequences; the same padded, (T, B, K); and their lengths, int32."""
    sequences = [normal(np.random.default_rng(rng + i), (n, K), dtype) for i, n in enumerate(LENGTHS)]
    return sequences, nbp.pad_sequence(sequences), np.array(LENGTHS, np.int32)


def runtime(model, feeds):
    """What ONNX Runtime makes of it, by name."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_near(got, expected, atol):
    assert got.keys() == expected.keys()
    for name in got:
        assert got[name].dtype == expected[name].dtype
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=atol, err_msg=name)


# -- ONNX's own tests --------------------------------------------------------------------------------------------------


def node_tests():
    with warnings.catch_warnings():  # of the test cases of other operators, all of which it makes
        warnings.simplefilter("ignore")
        cases = loader.load_model_tests(kind="node")
    return [case for case in cases if {node.op_type for node in case.model.graph.node} & GATES.keys()]


NODE_TESTS = node_tests()


def test_there_are_18_node_tests():
    assert len(NODE_TESTS) >= 18


@pytest.mark.parametrize("case", NODE_TESTS, ids=lambda case: case.name)
def test_node_tests_of_onnx(case):
    assert interop.Backend.is_compatible(case.model)
    prepared = interop.Backend.prepare(case.model)
    for inputs, expected in case.data_sets:
        got = prepared.run(inputs)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(one, other, rtol=case.rtol, atol=case.atol)


# -- against ONNX Runtime ----------------------------------------------------------------------------------------------

#: the alpha and beta that are given to activations that have one
ALPHA = {"Affine": 0.6, "LeakyRelu": 0.2, "ThresholdedRelu": 0.1, "ScaledTanh": 1.3, "HardSigmoid": 0.3, "Elu": 0.7}
BETA = {"Affine": 0.1, "ScaledTanh": 0.8, "HardSigmoid": 0.4}
OTHERS = {
    "RNN": ({},),
    "GRU": ({"linear_before_reset": 0}, {"linear_before_reset": 1}),
    "LSTM": ({}, {"input_forget": 1}, {"peepholes": True}, {"input_forget": 1, "peepholes": True}),
}
NAMES = {
    "RNN": (("Tanh",), ("Relu",), ("LeakyRelu",), ("Affine",), ("Elu",)),
    "GRU": (("Sigmoid", "Tanh"), ("HardSigmoid", "Softsign"), ("Sigmoid", "ScaledTanh"), ("HardSigmoid", "Softplus")),
    "LSTM": (
        ("Sigmoid", "Tanh", "Tanh"), ("HardSigmoid", "Tanh", "Softsign"), ("Sigmoid", "ThresholdedRelu", "Elu"),
        ("Sigmoid", "Softplus", "ScaledTanh"),
    ),
}  # fmt: skip
MATRIX = [
    pytest.param(kind, direction, clip, names, others, states, id="-".join([
        kind, direction, *names, *[f"{key}={value:d}" for key, value in others.items()], f"clip={clip}",
        "states" if states else "zero",
    ]), marks=[] if (names, clip) in ((NAMES[kind][0], None), (NAMES[kind][1], 0.3)) else [pytest.mark.slow])
    for kind in GATES
    for names, others in itertools.product(NAMES[kind], OTHERS[kind])
    for clip, states in ((None, False), (0.3, True))
    for direction in ("forward", "reverse", "bidirectional")
]  # fmt: skip


@pytest.mark.parametrize("kind, direction, clip, names, others, states", MATRIX)
def test_ragged_batches_agree_with_onnx_runtime(kind, direction, clip, names, others, states):
    D = 2 if direction == "bidirectional" else 1
    attributes = {name: value for name, value in others.items() if name != "peepholes"}
    attributes |= {"direction": direction, "activations": names * D}
    attributes["activation_alpha"] = [ALPHA[name] for name in names * D if name in ALPHA] or None
    attributes["activation_beta"] = [BETA[name] for name in names * D if name in BETA] or None
    attributes["clip"] = clip
    constants = weights(kind, D, "peepholes" in others)
    proto = node_model(kind, constants, states, **attributes)
    sequences, padded, lengths = batch()
    feeds = {"X": padded, "sequence_lens": lengths}
    first = normal(np.random.default_rng(1), (2, D, B, H), np.float32)
    if states:
        feeds |= dict(zip(("initial_h", "initial_c")[: 1 + (kind == "LSTM")], first, strict=False))
    model = interop.load(proto)
    got, expected = model.run(feeds), runtime(proto, feeds)

    # ONNX Runtime gives 0 as the last state of a sequence of length 0; here it is the initial state, or 0 without one
    empty = lengths == 0
    for name, initial in (("Y_h", "initial_h"), ("Y_c", "initial_c")):
        if name in expected:
            np.testing.assert_array_equal(expected[name][:, empty], 0)
            expected[name][:, empty] = feeds[initial][:, empty] if states else 0
    assert_near(got, expected, 2e-5 * max(1.0, largest(expected.values())))

    # and packed it gives the same bits
    others = {name: value for name, value in feeds.items() if name.startswith("initial")}
    packed = model(nbp.pack_sequence(sequences), **others)
    assert_same_bits({name: packed[name] for name in results_of(kind)[1:]}, {name: got[name] for name in list(got)[1:]})
    for i, rows in enumerate(nbp.unpack_sequence(packed["Y"])):  # (T_i, D, H)
        assert_same_bits(rows, got["Y"][: LENGTHS[i], :, i])
        np.testing.assert_array_equal(got["Y"][LENGTHS[i] :, :, i], 0)


def test_a_thresholded_relu_without_alpha_has_that_of_its_operator_and_not_0_as_in_onnx_runtime():
    def model(**attributes):
        return node_model("RNN", weights("RNN"), activations=["ThresholdedRelu"], **attributes)

    _, padded, lengths = batch()
    feeds = {"X": padded, "sequence_lens": lengths}
    assert helper.get_attribute_value(onnx.defs.get_schema("ThresholdedRelu").attributes["alpha"].default_value) == 1
    assert_same_bits(interop.load(model()).run(feeds), interop.load(model(activation_alpha=[1.0])).run(feeds))
    assert_near(interop.load(model(activation_alpha=[0.0])).run(feeds), runtime(model(), feeds), 2e-5)


@pytest.mark.parametrize("kind", GATES)
def test_what_onnx_runtime_refuses_is_as_the_definition_says(kind):
    """float64, and layout 1."""
    D, dtype = 2, np.float64
    constants = weights(kind, D, kind == "LSTM", dtype)
    sequences, padded, lengths = batch(dtype)
    h_0, c_0 = normal(np.random.default_rng(1), (2, D, B, H), dtype)
    given = {"initial_h": h_0, "initial_c": c_0} if kind == "LSTM" else {"initial_h": h_0}
    outputs, h_n, c_n = naive_onnx.forward(
        kind, constants["W"], constants["R"], constants["B"], constants.get("P", np.zeros((D, 3 * H))), sequences,
        h_0, c_0, DEFAULTS[kind] * D, direction="bidirectional", clip=0.75,
    )  # fmt: skip
    Y = nbp.pad_sequence([output.reshape(-1, D, H) for output in outputs], batch_first=True)
    options = {"direction": "bidirectional", "clip": 0.75, "states": True}
    proto = node_model(kind, constants, **options)
    with pytest.raises(Exception, match=r"double|implementation"):
        runtime(proto, {"X": padded, "sequence_lens": lengths, **given})
    got = interop.load(proto).run({"X": padded, "sequence_lens": lengths, **given})
    expected = {"Y": Y.transpose(1, 2, 0, 3), "Y_h": h_n} | ({"Y_c": c_n} if kind == "LSTM" else {})
    assert_near(got, expected, 1e-13)

    turned = {name: np.ascontiguousarray(state.swapaxes(0, 1)) for name, state in given.items()}
    turned |= {"X": np.ascontiguousarray(padded.swapaxes(0, 1)), "sequence_lens": lengths}
    other = interop.load(node_model(kind, constants, layout=1, **options)).run(turned)
    expected = {name: value.swapaxes(0, 1) for name, value in expected.items() if name != "Y"} | {"Y": Y}
    assert_near(other, expected, 1e-13)
    assert_same_bits(np.ascontiguousarray(other["Y"].transpose(1, 2, 0, 3)), got["Y"])


# -- layers of nodes ---------------------------------------------------------------------------------------------------

PLAIN = [
    ("RNN", {}, "RNN(3, 19)"),
    ("RNN", {"activations": ["relu"]}, "RNN(3, 19, nonlinearity='relu')"),
    ("GRU", {"linear_before_reset": 1}, "GRU(3, 19)"),
    ("LSTM", {"layout": 1, "activations": ["Sigmoid", "Tanh", "Tanh"]}, "LSTM(3, 19, batch_first=True)"),
]
OTHER = [
    ("GRU", {}, "GRUResetBefore(3, 19)"),
    ("LSTM", {"direction": "reverse"}, "LSTM(3, 19, reverse=True)"),
    ("LSTM", {"input_forget": 1}, "CIFG(3, 19)"),
    ("RNN", {"clip": 3.0}, "RNN[clip](3, 19, clip=3.0)"),
    ("LSTM", {"activations": ["Sigmoid", "Tanh", "Elu"], "activation_alpha": [0.5]},
     "LSTM[Sigmoid, Tanh, Elu](3, 19, h_alpha=0.5)"),
]  # fmt: skip


@pytest.mark.parametrize("kind, attributes, shown", [*PLAIN, *OTHER], ids=lambda value: str(value)[:40])
def test_nodes_become_plain_layers_where_one_computes_the_same_and_else_tell_their_attributes(kind, attributes, shown):
    model = interop.load(node_model(kind, weights(kind), **attributes))
    assert {name: repr(layer) for name, layer in model.layers.items()} == {"cell": shown}
    assert (type(model.layers["cell"]) in (nbp.RNN, nbp.LSTM, nbp.GRU)) == ((kind, attributes, shown) in PLAIN)


UNLIKE = {
    "direction": "bidirectional", "clip": 0.5,
    "activations": ["HardSigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "LeakyRelu"],
    "activation_alpha": [0.25, 0.125], "activation_beta": [0.5],
}  # fmt: skip


def test_directions_that_are_unlike_are_two_layers_as_onnx_runtime_has_them():
    proto = node_model("LSTM", weights("LSTM", 2), **UNLIKE)
    model = interop.load(proto)
    assert repr(model.layers["cell"]) == (
        "BothWays(LSTM[HardSigmoid, Tanh, Tanh, clip](3, 19, clip=0.5, f_alpha=0.25), "
        "LSTM[Sigmoid, Tanh, LeakyRelu, clip](3, 19, reverse=True, clip=0.5, h_alpha=0.125))"
    )
    _, padded, lengths = batch()
    feeds = {"X": padded, "sequence_lens": lengths}
    assert_near(model.run(feeds), runtime(proto, feeds), 2e-5)
    alike = interop.load(node_model("RNN", weights("RNN", 2), direction="bidirectional", activations=["Elu"] * 2,
                                    activation_alpha=[0.5, 0.7]))  # fmt: skip
    assert repr(alike.layers["cell"]) == (
        "BothWays(RNN[Elu](3, 19, f_alpha=0.5), RNN[Elu](3, 19, reverse=True, f_alpha=0.699999988079071))"
    )


@pytest.mark.parametrize("kind, attributes", [
    ("GRU", {}), ("LSTM", {"direction": "reverse"}), ("LSTM", UNLIKE), ("RNN", {"activations": ["Elu"], "clip": 0.5}),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_a_loaded_node_is_trained(kind, attributes):
    """To put out 0.1 at every step, which it comes nearer to."""
    D = 2 if attributes is UNLIKE else 1
    model = interop.load(node_model(kind, weights(kind, D, kind == "LSTM" and D == 1), **attributes))
    layer, packed = model.layers["cell"], nbp.pack_sequence(batch()[0])
    adam, losses = nbp.optim.Adam(lr=0.01), []
    for _ in range(30):
        output, _state, tape = layer.forward(packed)
        error = output.data - np.float32(0.1)
        losses.append(float(np.mean(error**2)))
        layer.parameters = adam.step(layer.parameters, layer.backward(tape, error).parameters)
    assert losses[-1] < 0.3 * losses[0]
    lengths = {"sequence_lens": batch()[2], "X": batch()[1]}
    assert_same_bits(model.run(lengths)["Y_h"], parts_of(layer(packed)[1])[0])


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def test_a_constant_among_the_outputs_is_not_the_callers_to_change():
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"])
    model = interop.load(model_of([node], [("X", "f4", None)], ["Y", "W"], weights("RNN")))
    assert not model(batch()[1])["W"].flags.writeable


def test_a_model_computes_with_what_is_assigned_to_its_layers():
    model = interop.load(node_model("LSTM", weights("LSTM")))
    packed = nbp.pack_sequence(batch()[0])
    layer = model.layers["cell"]
    before = model(packed)["Y_h"]
    output, _, tape = layer.forward(packed)
    layer.parameters = layer.parameters - np.float32(0.1) * layer.backward(tape, output).parameters
    after = model(packed)["Y_h"]
    assert not np.array_equal(before, after)
    assert_same_bits(after, layer(packed)[1][0])


def test_packed_input_goes_to_the_node_also_where_another_input_comes_first():
    constants, packed = weights("RNN"), nbp.pack_sequence(batch()[0])
    h = normal(np.random.default_rng(0), (1, B, H), np.float32)
    nodes = [
        helper.make_node("Transpose", ["X"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("RNN", ["turned", "W", "R", "", "", "h"], ["Y", "Y_h"]),
    ]
    model = interop.load(model_of(nodes, [("h", "f4", [1, None, H]), ("X", "f4", None)], ["Y", "Y_h"], constants))
    assert_same_bits(model(packed, h=h)["Y_h"], model.layers["Y"](packed, h)[1])


def test_nodes_with_one_name_are_both_there():
    names = ["W", "R"]
    nodes = [helper.make_node("RNN", ["X", *names], [f"Y{i}"], name="cell") for i in range(2)]
    model = interop.load(model_of(nodes, [("X", "f4", None)], ["Y0", "Y1"], weights("RNN")))
    assert list(model.layers) == ["cell", "Y1"]


def test_a_node_without_a_name_has_that_of_its_result_and_absent_results_are_left_out():
    constants = weights("LSTM")
    node = helper.make_node("LSTM", ["X", "W", "R"], ["", "", "last_c"])
    model = interop.load(model_of([node], [("X", "f4", None)], ["last_c"], constants))
    assert list(model.layers) == ["last_c"]
    assert not model.layers["last_c"].bias
    x = batch()[1]
    assert_same_bits(model(x), {"last_c": model.layers["last_c"](x)[1][1]})


@pytest.mark.parametrize("opset", [7, 11, 14, 22])
def test_opsets(opset):
    _, padded, lengths = batch()
    feeds = {"X": padded, "sequence_lens": lengths}
    got, expected = (interop.load(node_model("GRU", weights("GRU"), opset=number)).run(feeds) for number in (opset, 14))
    assert_same_bits(got, expected)


def test_the_older_form_of_the_operators_is_refused():
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], hidden_size=H)
    proto = model_of([node], [("X", "f4", [T, B, K])], ["Y"], weights("RNN"), opset=6)
    with pytest.raises(ValueError, match=r"RNN node 'Y': opset must be 7 or later.*got 6"):
        interop.load(proto)


# -- what stands between nodes -----------------------------------------------------------------------------------------

X = np.arange(24.0, dtype=np.float32).reshape(4, 1, 6)
#: operator, attributes, inputs besides X (None for none), opset
GLUE = [
    ("Identity", {}, [], 13), ("Cast", {"to": onnx.TensorProto.INT64}, [], 13), ("Shape", {}, [], 13),
    ("Shape", {"start": 1, "end": -1}, [], 15), ("Shape", {"start": -2}, [], 15),
    ("Transpose", {"perm": [2, 0, 1]}, [], 13), ("Transpose", {}, [], 13),
    ("Reshape", {}, [[0, 0, -1]], 13), ("Reshape", {}, [[2, -1]], 13), ("Reshape", {}, [[0, -1, 2, 3]], 13),
    ("Squeeze", {}, [[1]], 13), ("Squeeze", {}, [[-2]], 13), ("Squeeze", {}, [], 13),
    ("Squeeze", {"axes": [1]}, [], 11),
    ("Unsqueeze", {}, [[0, -1]], 13), ("Unsqueeze", {"axes": [1, 3]}, [], 11),
    ("Slice", {}, [[1], [3]], 13), ("Slice", {}, [[-1, 0], [-100, 2], [0, 2], [-1, 1]], 13),
    ("Slice", {}, [[0], [2**63 - 1], [-1], [2]], 13), ("Slice", {"starts": [1], "ends": [5], "axes": [2]}, [], 9),
    ("Gather", {"axis": 2}, [[1, -1]], 13), ("Gather", {}, [2], 13), ("Gather", {"axis": -1}, [[[0], [3]]], 13),
    ("Expand", {}, [[4, 5, 6]], 13), ("Expand", {}, [[2, 1, 1, 1]], 13),
]  # fmt: skip


@pytest.mark.parametrize("op, attributes, others, opset", GLUE, ids=lambda value: str(value))
def test_operators_that_move_values_do_as_the_reference_of_onnx_does(op, attributes, others, opset):
    from onnx.reference import ReferenceEvaluator

    constants = {f"other{i}": np.array(value, np.int64) for i, value in enumerate(others)}
    node = helper.make_node(op, ["X", *constants], ["Y"], **attributes)
    proto = model_of([node], [("X", "f4", None)], ["Y"], constants, opset)
    (expected,) = ReferenceEvaluator(proto).run(None, {"X": X})
    assert_same_bits(interop.load(proto)(X)["Y"], expected)


def test_constants_and_concat_do_as_the_reference_of_onnx_does():
    from onnx.reference import ReferenceEvaluator

    def constant(name, **value):
        return helper.make_node("Constant", [], [name], **value)

    nodes = [
        constant("a", value_ints=[4, 1, 2]),
        constant("b", value=numpy_helper.from_array(np.full((4, 1, 3), 2.5, np.float32))),
        constant("one", value_int=1),
        constant("half", value_float=0.5),
        helper.make_node("ConstantOfShape", ["a"], ["c"], value=numpy_helper.from_array(np.array([7.0], np.float32))),
        helper.make_node("ConstantOfShape", ["a"], ["zeros"]),
        helper.make_node("Concat", ["b", "X", "c", "zeros"], ["Y"], axis=-1),
    ]
    names = ("Y", "one", "half")
    proto = model_of(nodes, [("X", "f4", None)], names, {})
    expected = dict(zip(names, ReferenceEvaluator(proto).run(None, {"X": X}), strict=True))
    assert_same_bits(interop.load(proto)(X), {name: np.asarray(value) for name, value in expected.items()})


def test_between_two_nodes_packed_input_moves_as_padded_input_does():
    """Two nodes, one in each direction, side by side; cut, turned, and read by a third with another layout."""
    forward, backward = weights("LSTM"), weights("LSTM", rng=1)
    top = weights("GRU", rng=2) | {"W": normal(np.random.default_rng(3), (1, 3 * H, 2 * H - 4), np.float32)}
    constants = {f"{name}{i}": value for i, node in enumerate((forward, backward, top)) for name, value in node.items()}
    constants |= {"one": np.array([1]), "two": np.array(2), "rest": np.array([0, 0, -1]), "from": np.array([1])}
    constants |= {"to": np.array([H - 1]), "units": np.array([3]), "wide": np.array([0, 0, 2, -1])}
    nodes = [
        helper.make_node("Transpose", ["X"], ["time_first"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["time_first", "W0", "R0", "B0"], ["Y0"]),
        helper.make_node("LSTM", ["time_first", "W1", "R1", "B1"], ["Y1", "last_1"], direction="reverse"),
        helper.make_node("Concat", ["Y0", "Y1"], ["both"], axis=1),  # (T, 2, B, H)
        helper.make_node("Slice", ["both", "from", "to", "units"], ["cut"]),  # (T, 2, B, H - 2)
        helper.make_node("Transpose", ["cut"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "rest"], ["flat"]),  # (T, B, 2 * H - 4)
        helper.make_node("Transpose", ["flat"], ["batch_first"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["batch_first", "W2", "R2", "B2"], ["Y2", "last"], layout=1),  # (B, T, 1, H)
        helper.make_node("Identity", ["Y2"], ["same"]),
        helper.make_node("Gather", ["same", "two"], ["unit"], axis=3),
        helper.make_node("Squeeze", ["unit", "two_axis"], ["tag"]),  # (B, T)
        helper.make_node("Squeeze", ["Y2", "two_axis"], ["squeezed"]),
        helper.make_node("Unsqueeze", ["squeezed", "one"], ["wider"]),  # (B, 1, T, H)
    ]
    constants["two_axis"] = np.array([2])
    outputs = ["tag", "wider", "last", "last_1"]
    model = interop.load(model_of(nodes, [("X", "f4", [None, None, K])], outputs, constants, opset=14))
    sequences = [normal(np.random.default_rng(n), (n, K), np.float32) for n in (5, 5, 5)]
    padded, packed = model(np.stack(sequences)), model(nbp.pack_sequence(sequences))
    assert padded["wider"].shape == (3, 1, 5, H)
    assert_same_bits(np.stack(nbp.unpack_sequence(packed["tag"])), padded["tag"])
    rows = nbp.unpack_sequence(packed["wider"])  # of each sequence (T_i, 1, H)
    assert_same_bits(np.stack(rows), np.ascontiguousarray(padded["wider"].swapaxes(1, 2)))
    assert_same_bits({name: packed[name] for name in ("last", "last_1")},
                     {name: padded[name] for name in ("last", "last_1")})  # fmt: skip
    # ragged, and each request alone
    ragged = [normal(np.random.default_rng(i), (n, K), np.float32) for i, n in enumerate((3, 0, 7, 1))]
    together = model(nbp.pack_sequence(ragged))
    for i, sequence in enumerate(ragged):
        alone = model(nbp.pack_sequence([sequence]))
        assert_same_bits(nbp.unpack_sequence(together["tag"])[i], alone["tag"].data)
        assert_same_bits(together["last"][[i]], alone["last"])


def test_directions_and_units_of_packed_input_change_places_as_those_of_padded_input_do():
    nodes = [
        helper.make_node("RNN", ["X", "W", "R"], ["Y"], direction="bidirectional"),
        helper.make_node("Transpose", ["Y"], ["turned"], perm=[0, 2, 3, 1]),  # (T, B, H, 2)
        helper.make_node("Reshape", ["turned", "flat"], ["Z"]),
    ]
    constants = weights("RNN", 2) | {"flat": np.array([0, 0, 2 * H])}
    model = interop.load(model_of(nodes, [("X", "f4", None)], ["Z"], constants))
    x = normal(np.random.default_rng(0), (5, 3, K), np.float32)
    packed = nbp.unpack_sequence(model(nbp.pack_sequence(list(x.swapaxes(0, 1))))["Z"])
    assert_same_bits(np.stack(packed, axis=1), model(x)["Z"])


REFUSED_PACKED = {
    "Slice of time": (helper.make_node("Slice", ["Y", "zero", "one"], ["Z"]), "Slice.*cannot be taken apart"),
    "one step": (helper.make_node("Gather", ["Y", "number"], ["Z"], axis=0), "Gather.*cannot be taken apart"),
    "one sequence": (helper.make_node("Gather", ["Y", "number"], ["Z"], axis=2), "Gather.*cannot be taken apart"),
    "units by number": (helper.make_node("Gather", ["Y", "zero"], ["Z"], axis=3), "Gather.*one unit"),
    "time and units merged": (helper.make_node("Reshape", ["Y", "flat"], ["Z"]), "Reshape.*first two axes"),
    "batch and units merged": (helper.make_node("Reshape", ["Y", "same"], ["Z"]), "Reshape.*first two axes"),
    "with another array": (helper.make_node("Concat", ["Y", "array"], ["Z"], axis=3), "Concat.*packed values"),
    "along time": (helper.make_node("Concat", ["Y", "Y"], ["Z"], axis=0), "Concat.*packed values"),
    "expanded": (helper.make_node("Expand", ["Y", "same"], ["Z"]), "Expand.*cannot be expanded"),
    "cast": (helper.make_node("Cast", ["Y"], ["Z"], to=onnx.TensorProto.DOUBLE), "Cast.*cannot be cast"),
    "read with units as time": (helper.make_node("RNN", ["turned", "W", "R"], ["Z"], layout=1), "time must be axis 1"),
}


@pytest.mark.parametrize("name", REFUSED_PACKED)
def test_what_cannot_be_done_to_packed_input_is_refused_by_the_name_of_the_node(name):
    node, message = REFUSED_PACKED[name]
    constants = weights("RNN") | {"zero": np.array([0]), "one": np.array([1]), "number": np.array(1)}
    constants |= {"flat": np.array([-1]), "same": np.array([0, 0, 0, -1]), "array": np.zeros((2, 1, 2, H), np.float32)}
    nodes = [
        helper.make_node("RNN", ["X", "W", "R"], ["Y"]),
        helper.make_node("Transpose", ["X"], ["turned"], perm=[0, 1, 2]),
        node,
    ]
    model = interop.load(model_of(nodes, [("X", "f4", None)], ["Y", "Z"], constants))
    with pytest.raises(ValueError, match=message):
        model(nbp.pack_sequence([np.ones((2, K), np.float32), np.ones((1, K), np.float32)]))


# -- models of PyTorch -------------------------------------------------------------------------------------------------


class Tagger:
    """Made where PyTorch is: a module whose forward packs, so that its model has lengths."""

    def __new__(cls, torch):
        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.GRU(K, H, bidirectional=True)

            def forward(self, x, lengths):
                packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
                output, h_n = self.layer(packed)
                return torch.nn.utils.rnn.pad_packed_sequence(output)[0], h_n

        return Module()


FREE = {"x": {0: "T", 1: "B"}}
EXPORTED = {
    "LSTM, two layers, both ways, batch first, free shapes": (
        lambda torch: torch.nn.LSTM(K, H, 2, bidirectional=True, batch_first=True), {"dynamic_axes": FREE}, 2),
    "LSTM, one shape": (lambda torch: torch.nn.LSTM(K, H), {}, 1),
    "RNN, relu, one shape, batch first": (
        lambda torch: torch.nn.RNN(K, H, nonlinearity="relu", batch_first=True), {}, 1),
    "GRU, weights not folded": (
        lambda torch: torch.nn.GRU(K, H, 3), {"dynamic_axes": FREE, "do_constant_folding": False}, 3),
}  # fmt: skip


def export_of_torch(torch, module, arguments, path, **options):
    with warnings.catch_warnings():  # that this exporter is the older one, which needs no further package
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), arguments, path, input_names=["x", "lengths"][: len(arguments)], dynamo=False,
                          output_names=["output", "h_n"], **options)  # fmt: skip


@pytest.mark.parametrize("name", EXPORTED)
def test_models_that_pytorch_writes_run_on_ragged_requests(name, tmp_path):
    torch = pytest.importorskip("torch", reason="it writes the model")
    make, options, count = EXPORTED[name]
    torch.manual_seed(0)
    module = make(torch)
    export_of_torch(torch, module, (torch.zeros(4, 2, K),), tmp_path / "model.onnx", **options)
    model = interop.load(tmp_path / "model.onnx")
    assert [type(layer).__name__ for layer in model.layers.values()] == [type(module).__name__] * count
    sequences = batch()[0]
    results = model(nbp.pack_sequence(sequences))
    outputs = nbp.unpack_sequence(results["output"])
    for i, sequence in enumerate(sequences):
        if len(sequence):
            with torch.no_grad():
                output, state = module(torch.from_numpy(sequence))
            np.testing.assert_allclose(outputs[i], output.numpy(), rtol=0, atol=1e-5)
            h_n = state[0] if isinstance(state, tuple) else state
            np.testing.assert_allclose(results["h_n"][:, i], h_n.numpy(), rtol=0, atol=1e-5)


def test_a_model_of_pytorch_that_packs_takes_its_lengths_from_packed_input(tmp_path):
    torch = pytest.importorskip("torch", reason="it writes the model")
    module = Tagger(torch)
    arguments = (torch.zeros(4, 2, K), torch.tensor([4, 3]))
    axes = {**FREE, "lengths": {0: "B"}}
    export_of_torch(torch, module, arguments, tmp_path / "model.onnx", dynamic_axes=axes)
    model = interop.load(tmp_path / "model.onnx")
    sequences = sorted((s for s in batch()[0] if len(s)), key=len, reverse=True)
    lengths = np.array([len(sequence) for sequence in sequences])
    packed, padded = model(nbp.pack_sequence(sequences)), nbp.pad_sequence(sequences)
    expected, h_n = (value.detach().numpy() for value in module(torch.from_numpy(padded), torch.from_numpy(lengths)))
    np.testing.assert_allclose(nbp.pad_packed_sequence(packed["output"])[0], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(packed["h_n"], h_n, rtol=0, atol=1e-5)
    assert_same_bits(model(padded, lengths=lengths)["h_n"], packed["h_n"])
    with pytest.raises(ValueError, match="lengths must not be given with packed input"):
        model(nbp.pack_sequence(sequences), lengths=lengths)


# -- out ---------------------------------------------------------------------------------------------------------------

LAYERS = {
    "RNN": lambda **more: nbp.RNN(K, H, rng=0, **more),
    "RNN relu": lambda **more: nbp.RNN(K, H, nonlinearity="relu", rng=0, **more),
    "LSTM": lambda **more: nbp.LSTM(K, H, rng=0, **more),
    "GRU": lambda **more: nbp.GRU(K, H, rng=0, **more),
}


@pytest.mark.parametrize("states", [False, True], ids=["zero", "states"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("layers, bidirectional, bias", [(1, False, True), (1, True, False), (3, True, True)])
@pytest.mark.parametrize("name", LAYERS)
def test_exported_layers_run_in_onnx_runtime_to_equal_results(
    name, layers, bidirectional, bias, batch_first, states, tmp_path
):
    layer = LAYERS[name](num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first)
    check_export(layer, states, tmp_path)


@pytest.mark.parametrize("kind, peepholes, attributes", [
    ("GRU", False, {}), ("GRU", False, {"clip": 0.3, "activations": ["HardSigmoid", "Elu"], "activation_alpha": [0.25],
                      "activation_beta": [0.75], "direction": "reverse"}),
    ("LSTM", True, {"input_forget": 1, "clip": 0.3, "activations": ["Sigmoid", "ScaledTanh", "Affine"],
                    "activation_alpha": [1.3, 0.6], "activation_beta": [0.8, 0.1]}),
    ("LSTM", True, UNLIKE),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_loaded_nodes_are_exported_with_their_attributes(kind, peepholes, attributes, tmp_path):
    D = 2 if attributes is UNLIKE else 1
    layer = interop.load(node_model(kind, weights(kind, D, peepholes), **attributes)).layers["cell"]
    check_export(layer, True, tmp_path)
    assert repr(interop.load(tmp_path / "layer.onnx").layers["l0"]) == repr(layer)


def test_cells_that_onnx_has_are_exported_in_stacks(tmp_path):
    for cell in (nbp.cells.GRUResetBefore, nbp.cells.PeepholeLSTM, nbp.cells.CIFG):
        check_export(cell(K, H, num_layers=2, bidirectional=True, batch_first=True, rng=0), False, tmp_path)


def check_export(layer, states, tmp_path):
    """The file gives equal results in ONNX Runtime, and the same bits when it is loaded again."""
    layers, batch_first = layer.num_layers, layer.batch_first
    has_c = isinstance(layer(np.zeros((1, K), np.float32))[1], tuple)
    interop.export(layer, tmp_path / "layer.onnx", states=states)
    proto = onnx.load(tmp_path / "layer.onnx")
    onnx.checker.check_model(proto, full_check=True)
    sequences, _, lengths = batch()
    packed = nbp.pack_sequence(sequences)
    shape = (layers * layer.num_directions, B, H)
    parts = {f"{part}_0": normal(np.random.default_rng(i), shape, np.float32)
             for i, part in enumerate("hc" if has_c else "h")} if states else {}  # fmt: skip
    hx = (tuple(parts.values()) if has_c else parts["h_0"]) if states else None
    output, state = layer(packed, hx)
    padded, _ = nbp.pad_packed_sequence(output, batch_first=batch_first)
    expected = {"output": padded}
    expected |= dict(zip(("h_n", "c_n"), state if has_c else (state,), strict=False))

    feeds = {"input": nbp.pad_sequence(sequences, batch_first=batch_first), "sequence_lens": lengths, **parts}
    got = runtime(proto, feeds)
    others = lengths > 0  # of empty ones, ONNX Runtime gives no states
    for label in set(expected) - {"output"}:
        np.testing.assert_array_equal(got[label][:, ~others], 0)
        got[label][:, ~others] = expected[label][:, ~others]
    assert_near(got, expected, 1e-5 * max(1.0, largest(expected.values())))

    model = interop.load(tmp_path / "layer.onnx")  # and back, to the same bits
    assert_same_bits(model.run(feeds), expected)
    again = model(packed, **parts)
    assert_same_bits(again["output"].data, output.data)
    assert_same_bits({label: again[label] for label in expected if label != "output"},
                     {label: expected[label] for label in expected if label != "output"})  # fmt: skip
    parameters = layer.state_dict()
    for k in range(layers):
        for key, value in model.layers[f"l{k}"].state_dict().items():
            assert_same_bits(value, parameters[key.replace("_l0", f"_l{k}")])


def test_a_layer_in_float64_goes_out_and_comes_back(tmp_path):
    layer = nbp.GRU(K, H, 2, bidirectional=True, dtype=np.float64, rng=0)
    interop.export(layer, tmp_path / "layer.onnx")
    packed = nbp.pack_sequence(batch(np.float64)[0])
    assert_same_bits(interop.load(tmp_path / "layer.onnx")(packed)["output"].data, layer(packed)[0].data)


def test_what_cannot_be_exported_is_refused(tmp_path):
    path = tmp_path / "layer.onnx"
    with pytest.raises(ValueError, match=r"no projection.*proj_size=2"):
        interop.export(nbp.LSTM(3, 5, proj_size=2), path)
    with pytest.raises(ValueError, match=r"layer must be of a cell that ONNX has; got SRU\(3, 5\)"):
        interop.export(nbp.cells.SRU(3, 5), path)
    unlike = interop.BothWays(nbp.cells.LSTM(3, 5), nbp.cells.CIFG(3, 5, reverse=True))
    with pytest.raises(ValueError, match=r"unlike in activations alone; got BothWays\(LSTM\(3, 5\), CIFG"):
        interop.export(unlike, path)
    for what in (nbp.LSTMCell(3, 5), None):
        with pytest.raises(TypeError, match=f"layer must be an RNN, LSTM or GRU.*got .*{type(what).__name__}"):
            interop.export(what, path)
    with pytest.raises(TypeError, match="path must be a str or a path; got int"):
        interop.export(nbp.GRU(3, 5), 3)
    assert not path.exists()
    with pytest.raises(OSError):
        interop.export(nbp.GRU(3, 5), tmp_path / "nowhere" / "layer.onnx")


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_other_operators_are_refused_by_name():
    def refuse(node, message, **more):
        proto = model_of([node], [("X", "f4", [2, 3])], ["Y"], {"W": np.ones((3, 4), "f4")}, **more)
        with pytest.raises(ValueError, match=message):
            interop.load(proto)
        assert not interop.Backend.is_compatible(proto)

    refuse(helper.make_node("MatMul", ["X", "W"], ["Y"], name="head"),
           "operator MatMul of node 'head'.*RNN, LSTM, GRU.*Reshape.*session runs a model with any")  # fmt: skip
    refuse(helper.make_node("Softmax", ["X"], ["Y"]), "operator Softmax of node 'Y'")
    value = helper.make_node("Constant", [], ["V"], value_float=1.0)
    branch = helper.make_graph([value], "branch", [], [helper.make_tensor_value_info("V", 1, [])])
    refuse(helper.make_node("If", ["X"], ["Y"], then_branch=branch, else_branch=branch), "operator If of node 'Y'")
    proto = model_of([helper.make_node("LSTM", ["X", "W"], ["Y"], domain="com.microsoft")], [("X", "f4", [2, 3])],
                     ["Y"], {"W": np.ones((3, 4), "f4")})  # fmt: skip
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ValueError, match=r"operator com\.microsoft\.LSTM of node 'Y'"):
        interop.load(proto)


BAD_NODES = {
    "unknown activation": ("RNN", {}, {"activations": ["Swish"]}, "activations must be of Sigmoid.*got 'Swish'"),
    "too few activations": ("LSTM", {}, {"activations": ["Tanh"]}, "3 names.*got"),
    "too many alphas": ("RNN", {}, {"activations": ["Elu"], "activation_alpha": [1.0, 2.0]}, "alpha.*no more.*got 2"),
    "no alpha": ("RNN", {}, {"activations": ["Affine"]}, "activation_alpha must hold a value for Affine"),
    "no beta": ("RNN", {}, {"activations": ["ScaledTanh"], "activation_alpha": [1.0]}, "activation_beta.*ScaledTanh"),
    "alpha that is NaN": ("RNN", {}, {"activations": ["Elu"], "activation_alpha": [np.nan]}, "activation_alpha.*nan"),
    "clip of zero": ("RNN", {}, {"clip": 0.0}, "clip must be above 0"),
    "clip that is NaN": ("RNN", {}, {"clip": np.nan}, "clip must be above 0"),
    "direction": ("RNN", {}, {"direction": "sideways"}, "direction must be.*got 'sideways'"),
    "layout": ("RNN", {}, {"layout": 2}, "layout must be 0 or 1; got 2"),
    "two directions and weights of one": (
        "GRU",
        {},
        {"direction": "bidirectional"},
        r"W must have shape \(D, 3 \* H, I",
    ),
    "W of other gates": ("LSTM", {"W": np.ones((1, 3 * H, K), "f4")}, {}, r"W must have shape .*\(1, 76, 3\)"),
    "W of two dimensions": ("LSTM", {"W": np.ones((4 * H, K), "f4")}, {}, "W must have three dimensions"),
    "W without inputs": ("RNN", {"W": np.ones((1, H, 0), "f4")}, {}, "W must have three dimensions, none of them 0"),
    "R": ("RNN", {"R": np.ones((1, H, H + 1), "f4")}, {}, r"W must have shape .*\(1, 20, 3\)"),
    "B of one bias": ("GRU", {"B": np.ones((1, 3 * H), "f4")}, {}, r"B must have shape .*\(1, 114\); got \(1, 57\)"),
    "P": ("LSTM", {"P": np.ones((1, H), "f4")}, {}, r"P must have shape .*\(1, 57\); got \(1, 19\)"),
    "int8": ("RNN", {"W": np.ones((1, H, K), "i1")}, {}, "W must have dtype float32 or float64.*; got int8"),
    "two dtypes": ("RNN", {"R": np.ones((1, H, H))}, {}, "R must have dtype float32; got float64"),
    "weights that are not finite": ("RNN", {"B": np.full((1, 2 * H), np.inf, "f4")}, {}, "B must be finite; got inf"),
}


@pytest.mark.parametrize("name", BAD_NODES)
def test_nodes_that_make_no_layer_are_refused_by_name(name):
    kind, others, attributes, message = BAD_NODES[name]
    proto = node_model(kind, weights(kind) | others, **attributes)
    with pytest.raises((ValueError, TypeError), match=f"{kind} node 'cell': .*{message}"):
        interop.load(proto)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_16_bits_are_the_float32_that_they_stand_for(kind, dtype):
    """And so is the input; results are rounded to the 16 bits that the model declares."""
    narrow = np.dtype(helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, dtype.upper())))
    constants = {name: value.astype(narrow) for name, value in weights(kind).items()}
    model = interop.load(node_model(kind, constants, opset=22))
    wide = interop.load(node_model(kind, {name: value.astype("f4") for name, value in constants.items()}))
    sequences, padded, lengths = batch()
    got = model.run({"X": padded.astype(narrow), "sequence_lens": lengths})
    exact = wide.run({"X": padded.astype(narrow).astype("f4"), "sequence_lens": lengths})
    for name, value in got.items():
        assert value.dtype == narrow
        np.testing.assert_array_equal(value.astype("f4"), exact[name].astype(narrow).astype("f4"))
    if dtype == "float16":  # which NumPy packs, too
        packed = model(nbp.pack_sequence([sequence.astype(narrow) for sequence in sequences]))
        assert_same_bits(packed["Y_h"], got["Y_h"])


def test_a_signalling_nan_among_the_weights_is_refused_as_nan_whatever_numpy_does_about_errors():
    signalling = np.full((1, 2 * H), 0x7F800001, "u4").view("f4")
    with np.errstate(all="raise"), pytest.raises(ValueError, match="B must be finite; got nan"):
        interop.load(node_model("RNN", weights("RNN") | {"B": signalling}))


def with_state(kind, name, value, made="constant", **attributes):
    """One node with a first state: a constant, or made when the model runs."""
    place = {"initial_h": 5, "initial_c": 6}[name]
    takes = ["X", "W", "R", "", "", "", ""][: place + 1]
    takes[place] = "state"
    nodes = [helper.make_node(kind, takes, results_of(kind), name="cell", hidden_size=H, **attributes)]
    constants = weights(kind)
    if made == "constant":
        constants["state"] = value
    else:  # of the batch that X has, so that it is known in the call
        B_axis = 0 if attributes.get("layout") else 1
        sizes = list(value.shape)
        constants |= {"axis": np.array([B_axis]), "end": np.array([B_axis + 1])}
        constants |= {f"size{i}": np.array([size]) for i, size in enumerate(sizes)}
        parts = ["batch" if i == B_axis else f"size{i}" for i in range(len(sizes))]
        kind_of_zero = numpy_helper.from_array(np.zeros(1, value.dtype), "zero")
        nodes[:0] = [
            helper.make_node("Shape", ["X"], ["shape"]),
            helper.make_node("Slice", ["shape", "axis", "end"], ["batch"]),
            helper.make_node("Concat", parts, ["sizes"], axis=0),
            helper.make_node("ConstantOfShape", ["sizes"], ["state"], value=kind_of_zero),
        ]
    return model_of(nodes, [("X", "f4", None)], results_of(kind), constants)


STATES_OF_ZEROS = {
    "another H": np.zeros((1, B, H + 1), "f4"),
    "another D": np.zeros((2, B, H), "f4"),
    "float64": np.zeros((1, B, H)),
    "integers": np.zeros((1, B, H), "i8"),
    "two axes": np.zeros((B, H), "f4"),
    "four axes": np.zeros((1, B, H, 1), "f4"),
    "layout 1": np.zeros((B, 1, H), "f4"),
}


@pytest.mark.parametrize("made", ["constant", "in the call"])
@pytest.mark.parametrize("name", ["initial_h", "initial_c"])
@pytest.mark.parametrize("what", list(STATES_OF_ZEROS))
def test_a_first_state_of_zeros_has_the_shape_and_dtype_of_a_first_state(what, name, made):
    """But for B: it may have been made for another batch. ONNX Runtime refuses these, too."""
    padded = batch()[1]
    message = rf"LSTM node 'cell': {name} must have shape \(D, B, H\) = \(1, B, 19\).* and dtype float32; got"
    proto = with_state("LSTM", name, STATES_OF_ZEROS[what], made)
    with pytest.raises(ValueError, match=message):
        interop.load(proto).run({"X": padded})
    with pytest.raises(ValueError, match=message):
        interop.load(proto)(nbp.pack_sequence(batch()[0]))
    with pytest.raises(Exception, match=r"initial_|Type|type|[Ii]nvalid"):
        runtime(proto, {"X": padded})


@pytest.mark.parametrize("made", ["constant", "in the call"])
@pytest.mark.parametrize("kind", GATES)
def test_a_first_state_of_zeros_may_be_of_another_batch(kind, made):
    padded = batch()[1]
    expected = interop.load(with_state(kind, "initial_h", np.zeros((1, B, H), "f4"))).run({"X": padded})
    got = interop.load(with_state(kind, "initial_h", np.zeros((1, 1, H), "f4"), made)).run({"X": padded})
    assert_same_bits(got, expected)
    first = interop.load(with_state(kind, "initial_h", np.zeros((1, 1, H), "f4"), made, layout=1))
    assert first.run({"X": np.ascontiguousarray(padded.swapaxes(0, 1))})["Y_h"].shape == (B, 1, H)


def test_lengths_and_states_are_checked_with_packed_input_as_with_padded_input():
    sequences = [np.ones((2, K), np.float32)] * 2
    packed, constants = nbp.pack_sequence(sequences), weights("GRU")

    def load(lengths, state=""):
        nodes = [
            helper.make_node("Transpose", ["X"], ["moved"], perm=[1, 0, 2]),
            helper.make_node("GRU", ["X", "W", "R", "B", lengths, state], ["Y"], name="cell", hidden_size=H),
        ]
        return interop.load(model_of(nodes, [("X", "f4", None)], ["Y"], constants))

    for value in (np.full(2, 2.0, "f4"), np.full((2, 1), 2, "i4"), np.full(1, 2, "i4")):
        constants["lengths"] = value
        for call in (lambda model: model(packed), lambda model: model(nbp.pad_sequence(sequences))):
            with pytest.raises(
                ValueError, match=r"GRU node 'cell': sequence_lens must be integers of shape \(B,\) = \(2,\)"
            ):
                call(load("lengths"))
    for arguments, name in ((("moved",), "sequence_lens"), (("", "moved"), "initial_h")):
        with pytest.raises(
            TypeError, match=f"GRU node 'cell': {name} must be an array; got values for each step of packed"
        ):
            load(*arguments)(packed)


ONE = np.zeros((1, 1, 1), np.float32)


def constant_node(kind, **changes):
    """A model whose first state is made of constants by one node of the glue."""
    name, takes, attributes = kind, ["a", "b"], {}
    constants = {"a": np.zeros((1, 1, H), "f4"), "b": np.array([1, B, H])}
    if kind == "ConstantOfShape":
        takes = ["b"]
    if kind == "Gather":
        takes, attributes, constants["b"] = ["a", "b"], {"axis": 1}, np.zeros(B, "i8")
    constants |= {key: value for key, value in changes.items() if key in ("a", "b")}
    attributes |= {key: value for key, value in changes.items() if key not in ("a", "b")}
    nodes = [
        helper.make_node(name, takes, ["state"], name="made", **attributes),
        helper.make_node("RNN", ["X", "W", "R", "", "", "state"], ["Y"], hidden_size=H),
    ]
    return model_of(nodes, [("X", "f4", None)], ["Y"], weights("RNN") | constants)


ABSURD = {
    "2**40 zeros": (lambda: constant_node("ConstantOfShape", b=np.array([1, 2**40, H])), "must fit into memory"),
    "2**124 zeros": (lambda: constant_node("ConstantOfShape", b=np.array([2**62] * 2)), "must fit into memory"),
    "-1 zeros": (lambda: constant_node("ConstantOfShape", b=np.array([1, -1, H])), "sizes of at least 0"),
    "half a size": (lambda: constant_node("ConstantOfShape", b=np.array([1, 1.5, H])), "a vector of integers; got"),
    "sizes in a matrix": (lambda: constant_node("Expand", b=np.ones((1, 3), "i8")), "a vector of integers; got dtype"),
    "no value": (
        lambda: constant_node("ConstantOfShape", value=helper.make_tensor("v", 1, [0], [])), "must hold one number"
    ),
    "expanded to 2**40": (lambda: constant_node("Expand", b=np.array([1, 2**40, H])), "results must fit into memory"),
    "2**40 gathered": (
        lambda: constant_node("Gather", a=np.zeros((1, 1, 2**20), "f4"), b=np.zeros(2**20, "i8")),
        "results must fit into memory",
    ),
    "gathered outside": (lambda: constant_node("Gather", b=np.array([0, 7])), "out of bounds"),
    "a cast to text": (lambda: constant_node("Cast", to=8), "valid ONNX model|number of a dtype of numbers; got 8"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(ABSURD))
def test_what_no_memory_can_hold_is_refused_by_the_name_of_its_node(what):
    make, message = ABSURD[what]
    with pytest.raises(ValueError, match=message):
        interop.load(make())


@pytest.mark.parametrize(("first", "packed"), [("zero", False), ("X", False), ("X", True)])
def test_what_doubles_at_each_node_is_refused_before_memory_is_full(first, packed):
    """From constants when it is loaded; from the input, when it is called."""
    nodes = [helper.make_node("Concat", [f"Y{i}"] * 2, [f"Y{i + 1}"], name=f"n{i}", axis=2) for i in range(1, 60)]
    nodes.insert(0, helper.make_node("Identity", [first], ["Y1"]))
    proto = model_of(nodes, [("X", "f4", None)], ["Y60"], {"zero": np.zeros((1, 1, 1), "f4")})
    with pytest.raises(ValueError, match=r"Concat node 'n\d+': results must fit into memory"), small_memory():
        interop.load(proto)(nbp.pack_sequence([ONE[0]]) if packed else ONE)


@contextlib.contextmanager
def small_memory():
    """A machine of 128 MiB, so that the test needs no more."""
    before, _onnx_model.MEMORY_BYTES = _onnx_model.MEMORY_BYTES, 2**27
    yield
    _onnx_model.MEMORY_BYTES = before


def changed(change):
    proto = node_model("RNN", weights("RNN"))
    change(proto)
    return proto


def set_dims(*dims):
    def change(proto):
        proto.graph.initializer[0].dims[:] = dims

    return change


HOSTILE = {
    "dimensions below 0": set_dims(-1, H, K),
    "dimensions beyond memory": set_dims(2**40, H, K),
    "dimensions beyond int64": set_dims(2**62, 2**62, 2**62),
    "no dimensions": set_dims(),
    "an unknown dtype": lambda proto: setattr(proto.graph.initializer[0], "data_type", 99),
    "text": lambda proto: setattr(proto.graph.initializer[0], "data_type", 8),
    "data cut off": lambda proto: setattr(
        proto.graph.initializer[0], "raw_data", proto.graph.initializer[0].raw_data[:-1]
    ),
    "two of one name": lambda proto: proto.graph.initializer.append(proto.graph.initializer[0]),
    "two nodes with one result": lambda proto: proto.graph.node.append(proto.graph.node[0]),
    "a cycle": lambda proto: proto.graph.node[0].input.__setitem__(0, "Y"),
    "an input that is not there": lambda proto: proto.graph.node[0].input.__setitem__(0, "Z"),
    "an input without a name": lambda proto: proto.graph.node[0].input.__setitem__(0, ""),
    "no inputs": lambda proto: proto.graph.node[0].input.__delitem__(slice(None)),
    "no nodes": lambda proto: proto.graph.node.__delitem__(slice(None)),
    "no graph": lambda proto: proto.ClearField("graph"),
    "no opset": lambda proto: proto.opset_import.__delitem__(slice(None)),
    "an opset that is absurd": lambda proto: setattr(proto.opset_import[0], "version", 2**62),
    "a huge hidden_size": lambda proto: setattr(
        next(one for one in proto.graph.node[0].attribute if one.name == "hidden_size"), "i", 2**62
    ),
    "a hidden_size that is text": lambda proto: (
        proto.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("hidden_size", "19"))
    ),
    "an attribute of a function": lambda proto: setattr(proto.graph.node[0].attribute[0], "ref_attr_name", "size"),
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_model_that_lies_is_refused(what):
    with pytest.raises(
        (ValueError, TypeError), match=r"path_or_model must be|RNN node 'cell'|W must be|different names"
    ):
        interop.load(changed(HOSTILE[what]))


def external(location, **more):
    """A model that says its W lie in a file."""

    def change(proto):
        weight = next(one for one in proto.graph.initializer if one.name == "W")
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            entry = weight.external_data.add()
            entry.key, entry.value = key, value

    return changed(change).SerializeToString()


def test_external_data_is_read_from_beside_the_file_and_nowhere_else(tmp_path, monkeypatch):
    folder, W = tmp_path / "models", weights("RNN")["W"]
    folder.mkdir()
    path = folder / "model.onnx"
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(W.tobytes())
    path.write_bytes(external("w.bin"))
    np.testing.assert_array_equal(interop.load(path).layers["cell"].state_dict()["weight_ih_l0"], W[0])

    for content in (
        external("../w.bin"), external(str(tmp_path / "w.bin")), external("nowhere.bin"), external("."), external(""),
        external("w.bin", offset="1000000"), external("w.bin", offset="-1"), external("w.bin", length="1000000"),
        external("w.bin", length="8"), external("w.bin", offset="x"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.onnx must be"):
            interop.load(path)
    monkeypatch.chdir(folder)  # what has no path has no folder
    with pytest.raises(ValueError, match=r"W must have its values in the model|path_or_model must be"):
        interop.load(external("w.bin"))


def test_hidden_size_must_be_that_of_the_weights():
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], hidden_size=5)
    proto = model_of([node], [("X", "f4", None)], ["Y"], weights("RNN"))
    with pytest.raises(ValueError, match="hidden_size must be that of R, 19; got 5"):
        interop.load(proto)


def bad_calls():
    sequences, padded, lengths = batch()
    packed = nbp.pack_sequence(sequences)
    h = np.zeros((1, B, H), np.float32)
    yield "no lengths", {"X": padded, "initial_h": h}, ValueError, "inputs must be X, .*missing: sequence_lens"
    yield "too many", {"X": padded, "sequence_lens": lengths, "initial_h": h, "h": h}, ValueError, "not known: h"
    yield "no array", {"X": packed, "sequence_lens": lengths, "initial_h": h}, TypeError, "X must be a NumPy array"
    yield "float64", {"X": padded.astype("f8"), "sequence_lens": lengths, "initial_h": h}, TypeError, "float64"
    yield "dimensions", {"X": padded[0], "sequence_lens": lengths, "initial_h": h}, ValueError, "X must have 3"
    yield "columns", {"X": padded[:, :, :2], "sequence_lens": lengths, "initial_h": h}, ValueError, "input"
    yield (
        "int64",
        {"X": padded, "sequence_lens": lengths.astype("i8"), "initial_h": h},
        TypeError,
        "must have dtype int32",
    )
    yield "few", {"X": padded, "sequence_lens": lengths[1:], "initial_h": h}, ValueError, r"shape \(B,\) = \(7,\)"
    yield "negative", {"X": padded, "sequence_lens": lengths - 1, "initial_h": h}, ValueError, "from 0 to 9"
    yield "beyond T", {"X": padded, "sequence_lens": lengths + 1, "initial_h": h}, ValueError, "from 0 to 9"
    yield (
        "state",
        {"X": padded, "sequence_lens": lengths, "initial_h": h[:, 1:]},
        ValueError,
        "initial_h must have shape",
    )


@pytest.mark.parametrize("feeds, error, message", [pytest.param(*case[1:], id=case[0]) for case in bad_calls()])
def test_bad_input_of_a_model_is_refused_by_name(feeds, error, message):
    model = interop.load(node_model("GRU", weights("GRU"), states=True))
    with pytest.raises(error, match=message):
        model.run(feeds)


def test_bad_calls():
    model = interop.load(node_model("RNN", weights("RNN")))
    packed = nbp.pack_sequence(batch()[0])
    with pytest.raises(ValueError, match="X must be given once"):
        model(packed, X=packed)
    with pytest.raises(ValueError, match=r"input\.batch_sizes must sum to the rows of data"):
        model(packed._replace(batch_sizes=packed.batch_sizes[:-1]))
    with pytest.raises(TypeError, match="X must be a NumPy array; got list"):
        model([1, 2], sequence_lens=np.array([1], np.int32))
    with pytest.raises(TypeError, match="inputs must be a mapping of names to arrays; got list"):
        model.run([packed.data])
    with pytest.raises(TypeError, match="inputs must be NumPy arrays; got list"):
        interop.Backend.run_node(helper.make_node("Identity", ["X"], ["Y"]), [[1.0]])
    with pytest.raises(ValueError, match="node must be a valid node of ONNX"):
        interop.Backend.run_node(helper.make_node("Identity", [], ["Y"]), [])
    with pytest.raises(ValueError, match="inputs must be 2 arrays"):
        interop.Backend.prepare(node_model("RNN", weights("RNN"))).run([packed.data])
    with pytest.raises(ValueError, match="device must be 'CPU'; got 'CUDA'"):
        interop.Backend.prepare(node_model("RNN", weights("RNN")), "CUDA")
    with pytest.raises(ValueError, match="inputs must be those of the node"):
        interop.Backend.run_node(helper.make_node("Identity", ["X"], ["Y"]), [])


def test_files_that_are_none(tmp_path):
    with pytest.raises(TypeError, match=r"path_or_model must be a path, .* got int"):
        interop.load(3)
    for path in (tmp_path / "nowhere.onnx", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            interop.load(path)
    for content in (b"", b"not a model", b"\x08\x08"):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.onnx must be"):
            interop.load(tmp_path / "bad.onnx")
        with pytest.raises(ValueError, match="path_or_model must be"):
            interop.load(content)


def test_damaged_files_are_refused_or_run():
    """A file cut off anywhere is refused; with one byte changed it may still be a model, but nothing else happens."""
    whole = node_model("GRU", weights("GRU")).SerializeToString()
    feeds = dict(zip(("X", "sequence_lens"), batch()[1:], strict=True))
    rng = np.random.default_rng(0)
    for end in [*range(0, 60), *rng.integers(60, len(whole), 40)]:
        with pytest.raises(ValueError, match=r"path_or_model must be|GRU node|inputs must be"):
            interop.load(whole[:end]).run(feeds)
    outside = [at for at in range(len(whole)) if at < 150 or at > len(whole) - 400]
    for at in rng.choice(outside, 150):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        with contextlib.suppress(ValueError, TypeError):
            interop.load(bytes(changed)).run(feeds)
        with contextlib.suppress(ValueError, TypeError):
            interop.layers(bytes(changed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_other_requests(dtype):
    """Through a model of two nodes that are no plain layers, and so through what stands between them."""
    constants = {f"{name}0": value for name, value in weights("GRU", 2, dtype=dtype).items()}
    second = weights("LSTM", dtype=dtype)
    constants |= {"W1": normal(np.random.default_rng(0), (1, 4 * H, 2 * H), dtype), "R1": second["R"]}
    nodes = [
        helper.make_node("GRU", ["X", "W0", "R0", "B0"], ["Y0"], direction="bidirectional", hidden_size=H),
        helper.make_node("Transpose", ["Y0"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "flat"], ["X1"]),
        helper.make_node("LSTM", ["X1", "W1", "R1"], ["Y", "Y_h"], direction="reverse", clip=0.7, hidden_size=H),
    ]
    constants["flat"] = np.array([0, 0, -1])
    model = interop.load(model_of(nodes, [("X", dtype, None)], ["Y", "Y_h"], constants))
    sequences = batch(dtype)[0]
    together = model(nbp.pack_sequence(sequences))
    with nbp.threads(2):
        assert_same_bits(model(nbp.pack_sequence(sequences))["Y"].data, together["Y"].data)
    for i, sequence in enumerate(sequences):
        alone = model(nbp.pack_sequence([sequence]))
        assert_same_bits(alone["Y"].data, nbp.unpack_sequence(together["Y"])[i])
        assert_same_bits(alone["Y_h"], together["Y_h"][:, [i]])
