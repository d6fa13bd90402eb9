"""The contenders for a stream: one step of one sequence a call, the state carried from call to call.

``run`` makes a step; it and `begin`, which sets the state to zero, are all that a contender has.
"""

import numpy as np

import numba_pack as nbp
from bench.compare.contenders import Contender, onnx_session, openvino_model
from bench.tools.environment import load
from bench.tools.onnx_model import onnx_model
from bench.tools.workloads import Workload


class _Stream(Contender):
    def __init__(self, step):
        self.step = step
        self.workload = Workload(step.cell, 1, step.H, T=1)
        self.has_c = step.cell == "LSTM"
        self.x = np.random.default_rng(1).standard_normal((1, step.H), dtype=np.float32)  # (1, I)
        self.layer = getattr(nbp, step.cell)(step.H, step.H, rng=0)
        self.parameters = {name: value.copy() for name, value in self.layer.state_dict().items()}
        self.prepare()
        self.begin()

    def answer(self):
        """h after five steps from zero: (H,)."""
        self.begin()
        for _ in range(5):
            self.run()
        return {"h": np.asarray(self.h()).reshape(-1)}


class _Native(_Stream):
    """A library that takes the state and returns the next one."""

    def begin(self):
        h = self.zero()
        self.state = (h, self.zero()) if self.has_c else h

    def h(self):
        return self.state[0] if self.has_c else self.state


class NumbaPack(_Stream):
    """A stepper, which keeps the state."""

    name = "numba_pack"

    def prepare(self):
        self.stepper = self.layer.stepper()

    def begin(self):
        self.stepper.reset()

    def run(self):
        self.stepper(self.x)

    def h(self):
        return self.stepper.state[0] if self.has_c else self.stepper.state


class NumbaPackCell(_Native):
    name = "numba_pack, cell"

    def prepare(self):
        self.cell = getattr(nbp, self.step.cell + "Cell")(self.step.H, self.step.H)
        self.cell.load_state_dict({name.removesuffix("_l0"): value for name, value in self.parameters.items()})

    def zero(self):
        return np.zeros((1, self.step.H), np.float32)

    def run(self):
        self.state = self.cell(self.x, self.state)


class NumbaPackLayer(_Native):
    name = "numba_pack, layer"

    def prepare(self):
        self.sequence = self.x[None]  # (1, 1, I)

    def zero(self):
        return np.zeros((1, 1, self.step.H), np.float32)

    def run(self):
        _, self.state = self.layer(self.sequence, self.state)


class _Torch(_Native):
    def prepare(self):
        self.torch = torch = load("torch")
        self.input = torch.from_numpy(self.x)
        self.module, weights = self.make()
        self.module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})


class TorchCell(_Torch):
    name = "PyTorch cell"

    def make(self):
        module = getattr(self.torch.nn, self.step.cell + "Cell")(self.step.H, self.step.H)
        return module, {name.removesuffix("_l0"): value for name, value in self.parameters.items()}

    def zero(self):
        return self.torch.zeros(1, self.step.H)

    def run(self):
        with self.torch.inference_mode():
            self.state = self.module(self.input, self.state)


class TorchLayer(_Torch):
    name = "PyTorch layer"

    def make(self):
        self.input = self.input[None]
        return getattr(self.torch.nn, self.step.cell)(self.step.H, self.step.H), self.parameters

    def zero(self):
        return self.torch.zeros(1, 1, self.step.H)

    def run(self):
        with self.torch.inference_mode():
            _, self.state = self.module(self.input, self.state)


class _Onnx(_Stream):
    """The state goes to and fro between two buffers, each the input of one call and the output of the next."""

    def prepare(self):
        self.states = ("h", "c") if self.has_c else ("h",)
        self.buffers = [{s: np.zeros((1, 1, self.step.H), np.float32) for s in self.states} for _ in range(2)]
        self.calls = self.bind(onnx_model(self.workload, self.parameters, 1, state=True))

    def begin(self):
        self.turn = 0
        for buffer in self.buffers[0].values():
            buffer[:] = 0

    def run(self):
        self.calls[self.turn]()
        self.turn = 1 - self.turn

    def h(self):
        return self.buffers[self.turn]["h"]


class OnnxRuntime(_Onnx):
    name = "ONNX Runtime"

    def bind(self, model):
        wrap = load("onnxruntime").OrtValue.ortvalue_from_numpy
        shared = [{s: wrap(buffer) for s, buffer in buffers.items()} for buffers in self.buffers]  # the same memory
        inputs = [{"X": self.x[None]} | {f"{s}_0": value for s, value in values.items()} for values in shared]
        session, bindings = onnx_session(model, *inputs)
        for binding, values in zip(bindings, reversed(shared), strict=True):
            binding.bind_output("Y")
            for s, value in values.items():
                binding.bind_ortvalue_output(f"{s}_n", value)
        return [lambda binding=binding: session.run_with_iobinding(binding) for binding in bindings]


class OpenVino(_Onnx):
    name = "OpenVINO"

    def bind(self, model):
        tensor, compiled = load("openvino").Tensor, openvino_model(model)
        requests = [compiled.create_infer_request() for _ in range(2)]
        for request, source, target in zip(requests, self.buffers, reversed(self.buffers), strict=True):
            request.set_tensor("X", tensor(self.x[None], shared_memory=True))
            for s in self.states:
                request.set_tensor(f"{s}_0", tensor(source[s], shared_memory=True))
                request.set_tensor(f"{s}_n", tensor(target[s], shared_memory=True))
        return [request.infer for request in requests]


STREAMS = (NumbaPack, NumbaPackCell, NumbaPackLayer, TorchCell, TorchLayer, OnnxRuntime, OpenVino)
