"""Lower precision, of this library and of its peers: python -m bench.compare.low_precision [--output FILE]

Every contender is named with the precision that it computes in; a peer's default is shown as what it is. Beside each
time stands the largest error of its outputs, against float64. What is computed is as in `contenders.py`.
"""

import argparse
import sys
from pathlib import Path

from bench.tools.environment import ROOT, Unavailable, load, prepare, threads

prepare()

import numpy as np  # noqa: E402  (after the number of threads is set)
from tqdm import tqdm  # noqa: E402

import numba_pack as nbp  # noqa: E402
from bench.compare import contenders  # noqa: E402
from bench.tools.environment import machine, versions  # noqa: E402
from bench.tools.markdown import of_machine, of_versions, table  # noqa: E402
from bench.tools.onnx_model import onnx_model  # noqa: E402
from bench.tools.timing import interleave, summary  # noqa: E402
from bench.tools.workloads import Problem, Workload  # noqa: E402
from numba_pack.simd.machine import DOTS  # noqa: E402

FORWARD = [
    Workload(cell, B, H, lengths, T)
    for cell in ("LSTM", "GRU")
    for B, H, lengths, T in (
        (1, 128, "equal", 100),
        (1, 512, "equal", 100),
        (8, 256, "equal", 100),
        (32, 128, "equal", 100),
        (32, 256, "lognormal", 50),
        (32, 512, "equal", 100),
        (128, 512, "lognormal", 50),
    )
]
TRAINING = [
    Workload(cell, B, H, "lognormal", 50) for cell in ("LSTM", "GRU") for B, H in ((32, 128), (32, 256), (128, 512))
]


def ours(precision):
    """This library in a precision."""

    class Ours(contenders.NumbaPack):
        name = f"numba_pack, {precision}"

        def prepare(self, problem):
            super().prepare(problem)
            self.layer = self.layer.quantize("int8") if precision == "int8" else self.layer.with_precision(precision)

    return Ours


class TorchBfloat16(contenders.TorchPadded):
    """A module in bfloat16; in training one in float32 under autocast."""

    name = "PyTorch padded, bfloat16"

    def prepare(self, problem):
        super().prepare(problem)
        if not self.training:
            self.module, self.input = self.module.to(self.torch.bfloat16), self.input.to(self.torch.bfloat16)

    def train(self):
        with self.torch.autocast("cpu", self.torch.bfloat16):
            output = self.module(self.input)[0]
        return self.torch.autograd.grad(output, self.weights, self.d_output.to(output.dtype))

    def outputs(self, result):
        return super().outputs(result.float())


class TorchInt8(contenders.TorchPadded):
    """Quantized dynamically."""

    name = "PyTorch padded, int8"
    trains = False

    def prepare(self, problem):
        super().prepare(problem)
        quantize = self.torch.ao.quantization.quantize_dynamic
        self.module = quantize(self.torch.nn.ModuleDict({"net": self.module}), dtype=self.torch.qint8)["net"]


class OnnxRuntimeInt8(contenders.OnnxRuntime):
    """DynamicQuantizeLSTM, which there is for an LSTM alone."""

    name = "ONNX Runtime, int8"

    def prepare(self, problem):
        if problem.workload.cell != "LSTM":
            raise Unavailable("it has no such node")
        quantization, onnx = load("onnxruntime.quantization"), load("onnx")
        model = onnx_model(problem.workload, problem.parameters, problem.T, sequence_lens=True)
        model = quantized(quantization, onnx, model)
        self.session, (self.bound,) = contenders.onnx_session(
            model, {"X": problem.padded(problem.sequences), "sequence_lens": problem.lengths.astype(np.int32)}
        )
        self.bound.bind_output("Y")


def quantized(quantization, onnx, model):
    """The model with its weights in int8, which the tool reads from a file and writes into one."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        before.write_bytes(model)
        quantization.quantize_dynamic(before, after, weight_type=quantization.QuantType.QInt8)
        return onnx.load(after).SerializeToString()


class OpenVinoDefault(contenders.OpenVino):
    """In the precision that it takes unless it is told otherwise."""

    name = "OpenVINO, its default"

    def prepare(self, problem):
        model = onnx_model(problem.workload, problem.parameters, problem.T, False)
        core = load("openvino").Core()
        options = {"INFERENCE_NUM_THREADS": threads(), "NUM_STREAMS": 1}
        compiled = core.compile_model(core.read_model(model), "CPU", options)
        self.name = f"OpenVINO, its default: {compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()}"
        self.input = {"X": problem.padded(problem.sequences)}
        self.request = compiled.create_infer_request()
        for name, value in self.input.items():
            self.request.set_tensor(name, load("openvino").Tensor(value, shared_memory=True))


OURS = [ours(precision) for precision in ("highest", "high", "medium", "int8")]
PEERS = [contenders.TorchPadded, TorchBfloat16, TorchInt8, contenders.OnnxRuntime, OnnxRuntimeInt8, OpenVinoDefault]
FOR_TRAINING = [
    ours("highest"),
    ours("high"),
    ours("medium"),
    contenders.TorchPacked,
    contenders.TorchPadded,
    TorchBfloat16,
]


def exact(problem, training):
    """What float64 gives."""
    w = problem.workload
    layer = getattr(nbp, w.cell)(w.input_size, w.H, dtype=np.float64)
    layer.load_state_dict(problem.parameters)
    x, d = (nbp.pack_sequence([a.astype(float) for a in of]) for of in (problem.sequences, problem.d_outputs))
    output, _, tape = layer.forward(x)
    if not training:
        return {"output": np.concatenate(nbp.unpack_sequence(output))}
    return layer.views(layer.backward(tape, d, input_grad=False).parameters)


def error(contender, expected):
    """The largest error of its answer, in parts of the largest number of each array."""
    answer = contender.answer()
    return max(float(np.abs(answer[name] - value).max() / np.abs(value).max()) for name, value in expected.items())


def measured(workload, classes, training, seconds):
    """Rows of the table of a shape."""
    problem = Problem(workload)
    expected, ready = exact(problem, training), {}
    for make in classes:
        try:
            contender = make(problem, training)
            ready[contender.name] = (contender, error(contender, expected))
        except Unavailable as reason:
            print(f"{workload}: {make.name} is left out: {reason}", file=sys.stderr)
    median = summary(interleave({name: contender.run for name, (contender, _) in ready.items()}, seconds))["median"]
    first = next(iter(median.values()))
    return [
        [str(workload) if at == 0 else "", name, f"{1e3 * time:.3f}", f"{time / first:.2f}", f"{ready[name][1]:.1e}"]
        for at, (name, time) in enumerate(median.items())
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/low_precision.md", help="where it goes")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each shape (default: %(default)s)")
    parser.add_argument("--only", default="", help="shapes whose names contain this")
    arguments = parser.parse_args()
    parts = [("Forward", FORWARD, OURS + PEERS, False), ("Forward and backward", TRAINING, FOR_TRAINING, True)]
    text = [
        "# Lower precision", "", of_machine(machine()), "", of_versions(versions()), "",
        f"Products in bfloat16 by {DOTS.bfloat16}, of int8 by {DOTS.int8}. One thread; medians of interleaved rounds.",
        "The error is the largest against float64, in parts of the largest number: of the outputs, or in training of",
        "the gradient of a parameter.",
    ]  # fmt: skip
    for title, workloads, classes, training in parts:
        chosen = [workload for workload in workloads if arguments.only in str(workload)]
        rows = [row for w in tqdm(chosen, desc=title) for row in measured(w, classes, training, arguments.seconds)]
        heads = ["shape", "", "ms", "time over numba_pack's highest", "error"]
        text += ["", f"## {title}", "", table(heads, rows)]
    arguments.output.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
