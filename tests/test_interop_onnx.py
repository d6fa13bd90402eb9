"""ONNX: its own node tests, models against ONNX Runtime, what stands between nodes, files out and in, and bad ones."""

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

from numba_pack.composed import DEFAULTS, ComposedLayer  # noqa: E402
from numba_pack.interop import onnx as interop  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
#: unsorted, two alike, two empty
LENGTHS = (4, 0, 9, 1, 4, 0, 6)
T, B, I, H = max(LENGTHS), len(LENGTHS), 3, 19


# -- models ------------------------------------------------------------------------------------------------------------


def weights(kind, D=1, peepholes=False, dtype=np.float32, rng=0):
    """W, R, B and, if wanted, P by name."""
    rng, G = np.random.default_rng(rng), GATES[kind] * H
    shapes = {"W": (D, G, I), "R": (D, G, H), "B": (D, 2 * G)} | ({"P": (D, 3 * H)} if peepholes else {})
    return {name: (0.5 / np.sqrt(H) * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def model_of(nodes, inputs, outputs, constants, opset=14):
    """A model; inputs and outputs are (name, dtype, shape)."""

    def typed(values):
        return [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, dtype, shape in values
        ]

    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", typed(inputs), typed(outputs), initializers)
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
    inputs = [("X", dtype, [*axes, I])] + [("sequence_lens", np.int32, ["B"])] * lengths
    inputs += [(name, dtype, state) for name in names] if states else []
    Y = ["B", "T", D, H] if first else ["T", D, "B", H]
    outputs = [(name, dtype, Y if name == "Y" else state) for name in results_of(kind)]
    attributes = {name: value for name, value in attributes.items() if value is not None}
    node = helper.make_node(kind, takes, results_of(kind), name="cell", hidden_size=H, **attributes)
    return model_of([node], inputs, outputs, constants, opset)


def batch(dtype=np.float32, rng=5):
    """Sequences; the same padded, (T, B, I); and their lengths, int32."""
    sequences = [normal(np.random.default_rng(rng + i), (n, I), dtype) for i, n in enumerate(LENGTHS)]
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
    ]))
    for kind in GATES
    for direction in ("forward", "reverse", "bidirectional")
    for names, others in itertools.product(NAMES[kind], OTHERS[kind])
    for clip, states in ((None, False), (0.3, True))
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
