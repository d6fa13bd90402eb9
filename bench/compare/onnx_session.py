"""An ONNX model in ONNX Runtime, and in ``numba_pack.interop.onnx.session``: python -m bench.compare.onnx_session

    python -m bench.compare.onnx_session --seconds 2
    python -m bench.compare.onnx_session --only GRU --output build/onnx_session.md

Around the recurrent node stand a product and a Relu before it and a product behind it, as a small model has them. The
node is plain, reads ``sequence_lens`` (half of all steps are padding), is in both directions, quantized to 8 bits, in a
branch of an If, or in the body of a Loop. Results are compared before they are timed.

Beside the session as it is stand one that always runs the node here, which tells what the rule is worth that leaves
small calls to ONNX Runtime, and the bare layer. Times are the least of interleaved calls.

A whole run goes to the folder of ``bench/results`` that is named by the machine, one of some rows to ``build/bench``.
"""

import argparse
import math
import time
from pathlib import Path

from bench.compare.report import RESULTS, list_results, page_of
from bench.tools.environment import prepare, threads

ROWS = [
    *[("plain", "LSTM", B, T, H) for B, T, H in (
        (1, 1, 64), (1, 1, 512), (1, 10, 64), (1, 10, 256), (1, 50, 16), (1, 50, 64), (1, 100, 128), (1, 200, 16),
        (1, 200, 256), (1, 100, 512), (4, 10, 64), (4, 50, 64), (8, 1, 128), (8, 10, 32), (8, 50, 128), (8, 200, 32),
        (32, 1, 64), (32, 1, 512), (32, 10, 16), (32, 10, 64), (32, 50, 16), (32, 50, 128), (32, 200, 256),
        (32, 100, 512),
    )],
    *[("plain", kind, B, T, H) for kind in ("GRU", "RNN") for B, T, H in (
        (1, 1, 64), (1, 10, 64), (1, 50, 16), (1, 100, 64), (1, 100, 256), (8, 10, 32), (8, 50, 64), (32, 1, 256),
        (32, 10, 64), (32, 50, 128), (32, 100, 256),
    )],
    *[("lengths", "LSTM", B, T, H) for B, T, H in (
        (1, 50, 64), (4, 10, 32), (4, 50, 64), (8, 50, 16), (8, 50, 128), (32, 10, 16), (32, 10, 64), (32, 50, 128),
        (32, 200, 256),
    )],
    *[("lengths", kind, B, T, H) for kind in ("GRU", "RNN") for B, T, H in (
        (4, 10, 32), (8, 50, 16), (8, 50, 64), (32, 10, 64), (32, 50, 128),
    )],
    *[("both ways", kind, B, T, H) for kind in ("LSTM", "GRU") for B, T, H in (
        (1, 10, 32), (1, 50, 64), (8, 50, 64), (32, 50, 128),
    )],
    *[("int8", "LSTM", B, T, H) for B, T, H in (
        (1, 1, 128), (1, 10, 64), (1, 50, 64), (1, 100, 256), (8, 10, 64), (8, 50, 128), (32, 50, 128), (32, 100, 512),
    )],
    *[("If", "LSTM", B, T, H) for B, T, H in ((1, 1, 128), (1, 10, 64), (1, 50, 64), (8, 50, 128))],
    *[("Loop", "LSTM", B, T, H) for B, T, H in ((1, 1, 64), (1, 10, 64), (1, 50, 64), (8, 50, 64))],
]  # fmt: skip
HEADER = (
    "node",
    "B",
    "T",
    "H",
    "ONNX Runtime, µs",
    "session, µs",
    "times faster",
    "runs it",
    "always here",
    "layer, µs",
)
#: rounds of a Loop
COUNT = 8


def weights(kind, H, D, rng):
    """W, R and B, with H inputs."""
    import numpy as np

    from bench.tools.workloads import GATES

    rows, k = GATES[kind] * H, H**-0.5
    shapes = {"W": (D, rows, H), "R": (D, rows, H), "B": (D, 2 * rows)}
    return {name: rng.uniform(-k, k, shape).astype(np.float32) for name, shape in shapes.items()}


def quantized(constants):
    """The same for DynamicQuantizeLSTM."""
    import numpy as np

    found = {"B": constants["B"]}
    for name in "WR":
        value = constants[name].swapaxes(1, 2)
        scale = np.abs(value).max() / 63  # of 8 bits, ONNX Runtime's products saturate on CPUs without VNNI
        found |= {name: np.rint(value / scale).astype(np.int8), f"{name}_scale": np.array([scale], np.float32),
                  f"{name}_zero_point": np.zeros(1, np.int8)}  # fmt: skip
    return found


def model_of(structure, kind, H):
    """A model from x (T, B, H), with the initial state or the lengths besides, to out (T, B, 10)."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    real, node = TensorProto.FLOAT, helper.make_node
    D = 2 if structure == "both ways" else 1
    constants = weights(kind, H, D, rng)
    options = {"hidden_size": H, **({"linear_before_reset": 1} if kind == "GRU" else {})}
    options |= {"direction": "bidirectional"} if D == 2 else {}
    inputs = [helper.make_tensor_value_info("x", real, ["T", "B", H])]
    takes, op, more = ["steps", "W", "R", "B", ""], kind, {}
    if structure == "lengths":
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]))
        takes[4] = "lengths"
    if structure == "int8":
        constants = quantized(constants)
        op, more = "DynamicQuantizeLSTM", {"domain": "com.microsoft"}
        takes += ["", "", "", "W_scale", "W_zero_point", "R_scale", "R_zero_point"]
    recurrent = node(op, takes, ["Y"], name="recurrent", **options, **more)
    if structure == "If":
        inputs.append(helper.make_tensor_value_info("loud", TensorProto.BOOL, []))
        branches = {}
        for branch in ("then", "else"):
            own = node(op, takes, [f"Y_{branch}"], name=f"in_{branch}", **options)
            branches[f"{branch}_branch"] = helper.make_graph(
                [own], branch, [], [helper.make_tensor_value_info(f"Y_{branch}", real, None)]
            )
        recurrent = node("If", ["loud"], ["Y"], **branches)
    if structure == "Loop":  # the same steps from the state in which they left it
        body = helper.make_graph(
            [
                node("LSTM", ["steps", "W", "R", "B", "", "h", "c"], ["Y_of", "h_n", "c_n"], name="inner", **options),
                node("Identity", ["going"], ["goes_on"]),
                node("Identity", ["Y_of"], ["Y_last"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("number", TensorProto.INT64, []),
                helper.make_tensor_value_info("going", TensorProto.BOOL, []),
                *[helper.make_tensor_value_info(name, real, [1, "B", H]) for name in ("h", "c")],
                helper.make_tensor_value_info("before", real, ["T", 1, "B", H]),
            ],
            [
                helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
                *[helper.make_tensor_value_info(name, real, [1, "B", H]) for name in ("h_n", "c_n")],
                helper.make_tensor_value_info("Y_last", real, ["T", 1, "B", H]),
            ],
        )
        inputs += [helper.make_tensor_value_info(name, real, [1, "B", H]) for name in ("h_0", "c_0")]
        inputs.append(helper.make_tensor_value_info("Y_0", real, ["T", 1, "B", H]))
        constants["count"] = np.array(COUNT)
        recurrent = node("Loop", ["count", "", "h_0", "c_0", "Y_0"], ["h_last", "c_last", "Y"], body=body)
    constants |= {"first": rng.standard_normal((H, H)).astype(np.float32) * H**-0.5, "flat": np.array([0, 0, -1]),
                  "last": rng.standard_normal((D * H, 10)).astype(np.float32)}  # fmt: skip
    nodes = [
        node("MatMul", ["x", "first"], ["product"]),
        node("Relu", ["product"], ["steps"]),
        recurrent,
        node("Transpose", ["Y"], ["turned"], perm=[0, 2, 1, 3]),
        node("Reshape", ["turned", "flat"], ["rows"]),
        node("MatMul", ["rows", "last"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "net", inputs, [helper.make_tensor_value_info("out", real, ["T", "B", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def feed_of(structure, B, T, H):
    import numpy as np

    rng = np.random.default_rng(1)
    feed = {"x": rng.standard_normal((T, B, H)).astype(np.float32)}
    if structure == "lengths":
        feed["lengths"] = rng.integers(1, T + 1, B).astype(np.int32)
    if structure == "If":
        feed["loud"] = np.array(True)
    if structure == "Loop":
        feed |= {name: np.zeros((1, B, H), np.float32) for name in ("h_0", "c_0")}
        feed["Y_0"] = np.zeros((T, 1, B, H), np.float32)
    return feed


def least(functions, seconds):
    """Seconds of each function's quickest call: they take turns, and each turn is one call unmeasured, and three."""
    found = dict.fromkeys(functions, float("inf"))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 5 or time.perf_counter() < end:
        rounds += 1
        for name, function in functions.items():
            function()
            for _ in range(3):
                begin = time.perf_counter()
                function()
                found[name] = min(found[name], time.perf_counter() - begin)
    return found


def measure(structure, kind, B, T, H, seconds):
    """Seconds of a call by who makes it, and whether the session leaves it to ONNX Runtime."""
    import numpy as np
    import onnxruntime

    import numba_pack as nbp
    from numba_pack.interop import _onnx_session

    model, feed = model_of(structure, kind, H), feed_of(structure, B, T, H)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    reference = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session, always = (nbp.interop.onnx.session(model, options) for _ in range(2))
    assert session.taken and not session.left, session
    rule, _onnx_session.gain_of = _onnx_session.gain_of, lambda *_: 1.0
    (of_always,) = always.run(None, feed)
    _onnx_session.gain_of = rule
    (expected,) = reference.run(None, feed)
    for found in (of_always, *session.run(None, feed)):
        keep = np.arange(T)[:, None] < feed.get("lengths", np.full(B, T))
        atol = 0.3 if structure == "int8" else 1e-4
        np.testing.assert_allclose(found[keep], expected[keep], rtol=0, atol=atol)
    layer = next(iter(nbp.interop.onnx.layers(model).values()))
    layer = layer.quantize("int8") if structure == "int8" else layer
    x = np.ascontiguousarray(feed["x"])
    if structure == "lengths":
        x = nbp.pack_padded_sequence(x, feed["lengths"].astype(np.int64))
    rounds = COUNT if structure == "Loop" else 1

    def bare():
        for _ in range(rounds):
            layer(x)

    functions = {"ONNX Runtime": lambda: reference.run(None, feed), "session": lambda: session.run(None, feed),
                 "always": lambda: always.run(None, feed), "layer": bare}  # fmt: skip
    for function in functions.values():
        function()
    return least(functions, seconds), "ONNX Runtime" if session._shapes.popitem()[1] else "here"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="of both libraries")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    parser.add_argument("--only", metavar="WORD", default="", help="only rows that have this word")
    parser.add_argument("--output", type=Path, help="the page")
    arguments = parser.parse_args()
    prepare(arguments.threads)

    from bench.tools.environment import machine, versions
    from bench.tools.markdown import of_machine, of_versions, table

    rows, ratios = [], []
    for structure, kind, B, T, H in ROWS:
        if arguments.only not in f"{structure} {kind}":
            continue
        found, who = measure(structure, kind, B, T, H, arguments.seconds)
        theirs, ours, always, layer = (1e6 * one for one in found.values())
        ratios.append(theirs / ours)
        name = kind if structure == "plain" else f"{kind}, {structure}"
        rows.append((name, B, T, H, f"{theirs:.4g}", f"{ours:.4g}", f"{theirs / ours:.2f}", who,
                     f"{theirs / always:.2f}", f"{layer:.4g}"))  # fmt: skip
        print(*rows[-1], flush=True)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    text = f"""# ONNX models in ONNX Runtime, and in `interop.onnx.session`

`python -m bench.compare.onnx_session --threads {arguments.threads} --seconds {arguments.seconds:g}`,
{time.strftime("%Y-%m-%d")}. The least of interleaved calls; *runs it* says who runs the recurrent node of these shapes,
and *always here* how many times faster a session would be that never leaves it to ONNX Runtime. *layer* is the bare
layer, {COUNT} times for a Loop. Geometric mean of {len(ratios)} rows: {mean:.2f}; least {min(ratios):.2f}.

{of_machine(machine())}
{of_versions(versions())}

{table(HEADER, rows, left=(0, 7))}
"""
    output = arguments.output or page_of("onnx_session.md", partly=arguments.only)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    if output.parent.parent == RESULTS:
        list_results()
    print(text)


if __name__ == "__main__":
    main()
