"""A speech detector in an ONNX file runs faster by one changed line: ONNX Runtime's session becomes this library's.

The file has what such files have: a convolution over the spectrum, an If that chooses a network by the sampling rate,
a recurrent layer in each, whose state goes in and comes out, and a head that gives probabilities. Here it is made on
the spot: its networks are trained on voices that are made, bumps in a noisy spectrum. ONNX Runtime runs all but the
recurrent nodes, and for comparison those, too; the results are the same to rounding.

    python examples/onnx_session.py
    python examples/onnx_session.py --frames 3000 --hidden-size 256
"""

import argparse
import os
import tempfile
from time import perf_counter

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tqdm import tqdm

import numba_pack as nbp

BINS, FEATURES = 80, 64


def main():
    arguments = parse_arguments()
    H, rng = arguments.hidden_size, np.random.default_rng(0)
    kernel = (rng.standard_normal((FEATURES, BINS, 3)) / np.sqrt(BINS)).astype(np.float32)
    networks = {rate: trained(rng, kernel, rate, H) for rate in (8000, 16000)}
    model = detector(kernel, networks)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    before = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    after = nbp.interop.onnx.session(model, options)  # the line that changes
    print(f"run here: {', '.join(after.taken)}; left to ONNX Runtime: {', '.join(after.left) or 'none'}")
    for name, layer in nbp.interop.onnx.layers(model).items():
        print(f"node {name}: {layer}")

    spectrum, speaks = heard(rng, arguments.frames, 16000)
    zeros = np.zeros((1, 1, H), np.float32)
    feed = {"spectrum": spectrum[None], "h": zeros, "c": zeros, "rate": np.array(16000)}
    for one, other in zip(before.run(None, feed), after.run(None, feed), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    right = ((after.run(None, feed)[0].ravel() > 0.5) == speaks).mean()
    print(f"Both find the same in {arguments.frames} frames, {right:.1%} right, and end in the same state.\n")
    seconds = fastest([lambda: before.run(None, feed), lambda: after.run(None, feed)])
    for name, each in zip(("ONNX Runtime", "with numba_pack"), seconds, strict=True):
        print(f"{name:15} {each * 1e3:7.2f} ms")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=128, help="units (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=1000, help="how many (default: %(default)s)")
    return parser.parse_args()


def heard(rng, frames, rate):
    """A spectrum (BINS, frames), and whether somebody speaks in each frame: then there is a bump in the noise."""
    speaks = np.repeat(rng.random(frames // 20 + 1) < 0.5, 20)[:frames]
    voice = 1.5 * np.exp(-(((np.arange(BINS) - rng.uniform(10, 20) * 16000 / rate) / 5) ** 2))
    return (rng.standard_normal((BINS, frames)) + voice[:, None] * speaks).astype(np.float32), speaks


def features(kernel, spectrum):
    """What the nodes before the If compute: (frames, FEATURES)."""
    frames, around = spectrum.shape[1], np.pad(spectrum, ((0, 0), (1, 1)))
    return np.maximum(sum(kernel[:, :, k] @ around[:, k : k + frames] for k in range(3)), 0).T


def trained(rng, kernel, rate, H):
    """A network for this rate: an LSTM and its head."""
    spectra, speaks = zip(*(heard(rng, 200, rate) for _ in range(16)), strict=True)
    x = nbp.pack_sequence([features(kernel, spectrum) for spectrum in spectra])
    y = nbp.pack_sequence([each[:, None].astype(np.float32) for each in speaks])
    model = nbp.Model(lstm=nbp.LSTM(FEATURES, H, rng=rng), linear=nbp.Linear(H, 1, rng=rng))
    adam = nbp.optim.Adam(lr=0.01)
    for _ in tqdm(range(40), desc=f"{rate} Hz", unit="step"):
        scores, tape = model.forward(x)
        _, d_scores = nbp.losses.binary_cross_entropy(scores, y)
        gradient, _ = nbp.optim.clip_grad_norm(model.backward(tape, d_scores).parameters, 1.0)
        model.parameters = adam.step(model.parameters, gradient)
    return model


def lstm_weights(lstm):
    """W, R and B in the order of ONNX: as they are in a file of the layer alone."""
    with tempfile.TemporaryDirectory() as folder:
        nbp.interop.onnx.export(lstm, os.path.join(folder, "lstm.onnx"))
        graph = onnx.load(os.path.join(folder, "lstm.onnx")).graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    (node,) = (node for node in graph.node if node.op_type == "LSTM")
    return [arrays[name] for name in node.input[1:4]]


def detector(kernel, networks):
    """The model: a convolution, and for each rate a network."""
    H = networks[8000].lstm.hidden_size

    def network(rate):
        """A branch: one LSTM and its head."""
        name, model = f"{rate // 1000}k", networks[rate]
        arrays = [*lstm_weights(model.lstm), model.linear.weight.T.copy(), model.linear.bias]
        names = [f"{each}_{name}" for each in ("W", "R", "B", "M", "b")]
        return helper.make_graph(
            [
                helper.make_node("LSTM", ["frames", *names[:3], "", "h", "c"],
                                 [f"Y_{name}", f"h_{name}", f"c_{name}"], name=f"lstm_{name}", hidden_size=H),
                helper.make_node("MatMul", [f"Y_{name}", f"M_{name}"], [f"product_{name}"]),
                helper.make_node("Add", [f"product_{name}", f"b_{name}"], [f"score_{name}"]),
                helper.make_node("Sigmoid", [f"score_{name}"], [f"p_{name}"]),
            ],
            name, [], [onnx.ValueInfoProto(name=f"{result}_{name}") for result in "phc"],
            [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)],
        )  # fmt: skip

    nodes = [
        helper.make_node("Conv", ["spectrum", "kernel"], ["features"], pads=[1, 1]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("Transpose", ["positive"], ["frames"], perm=[2, 0, 1]),
        helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        helper.make_node("If", ["is_high"], ["p", "h_n", "c_n"], then_branch=network(16000), else_branch=network(8000)),
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
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array(16000), "high")],
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
