"""A speech detector in an ONNX file runs faster by one changed line: ONNX Runtime's session becomes this library's.

The file has what such files have: a convolution over the spectrum, an If that chooses a network by the sampling rate,
a recurrent layer in each, whose state goes in and comes out, and a head that gives probabilities. Here it is made on
the spot, with random weights, since times do not depend on what they mean. ONNX Runtime runs all but the recurrent
nodes, and for comparison those, too; the results are the same to rounding.

    python examples/onnx_session.py
    python examples/onnx_session.py --frames 3000 --hidden-size 256
"""

import argparse
from time import perf_counter

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import numba_pack as nbp

BINS, FEATURES = 80, 64


def main():
    arguments = parse_arguments()
    H = arguments.hidden_size
    model = detector(H)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    before = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    after = nbp.interop.onnx.session(model, options)  # the line that changes
    print(f"run here: {', '.join(after.taken)}; left to ONNX Runtime: {', '.join(after.left) or 'none'}")
    for name, layer in nbp.interop.onnx.layers(model).items():
        print(f"node {name}: {layer}")

    feed = {
        "spectrum": np.random.default_rng(0).standard_normal((1, BINS, arguments.frames)).astype(np.float32),
        "h": np.zeros((1, 1, H), np.float32),
        "c": np.zeros((1, 1, H), np.float32),
        "rate": np.array(16000),
    }
    for one, other in zip(before.run(None, feed), after.run(None, feed), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    print(f"Both find the same in {arguments.frames} frames, and end in the same state.\n")
    seconds = fastest([lambda: before.run(None, feed), lambda: after.run(None, feed)])
    for name, each in zip(("ONNX Runtime", "with numba_pack"), seconds, strict=True):
        print(f"{name:15} {each * 1e3:7.2f} ms")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=128, help="units (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=1000, help="how many (default: %(default)s)")
    return parser.parse_args()


def detector(H):
    """The model."""
    rng = np.random.default_rng(0)

    def weights(**shapes):
        return [numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32), name)
                for name, shape in shapes.items()]  # fmt: skip

    def network(name):
        """A branch: one LSTM and its head."""
        return helper.make_graph(
            [
                helper.make_node("LSTM", ["frames", f"W_{name}", f"R_{name}", f"B_{name}", "", "h", "c"],
                                 [f"Y_{name}", f"h_{name}", f"c_{name}"], name=f"lstm_{name}", hidden_size=H),
                helper.make_node("MatMul", [f"Y_{name}", f"M_{name}"], [f"score_{name}"]),
                helper.make_node("Sigmoid", [f"score_{name}"], [f"p_{name}"]),
            ],
            name, [], [onnx.ValueInfoProto(name=f"{result}_{name}") for result in "phc"],
            weights(**{f"W_{name}": (1, 4 * H, FEATURES), f"R_{name}": (1, 4 * H, H), f"B_{name}": (1, 8 * H),
                       f"M_{name}": (H, 1)}),
        )  # fmt: skip

    nodes = [
        helper.make_node("Conv", ["spectrum", "kernel"], ["features"], pads=[1, 1]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("Transpose", ["positive"], ["frames"], perm=[2, 0, 1]),
        helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        helper.make_node("If", ["is_high"], ["p", "h_n", "c_n"], then_branch=network("16k"), else_branch=network("8k")),
    ]
    state = [1, "batch", H]
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, ["batch", BINS, "time"]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, state),
            helper.make_tensor_value_info("c", TensorProto.FLOAT, state),
            helper.make_tensor_value_info("rate", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["time", 1, "batch", 1])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in ("h_n", "c_n")],
        [*weights(kernel=(FEATURES, BINS, 3)), numpy_helper.from_array(np.array(16000), "high")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fastest(calls):
    """Seconds of each call at its fastest, one by turns with the others."""
    best = [np.inf] * len(calls)
    for _ in range(20):
        for i, call in enumerate(calls):
            start = perf_counter()
            call()
            best[i] = min(best[i], perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
