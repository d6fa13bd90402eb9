"""The contenders: one small class for each way to run a recurrent net over a ragged batch.

Made from a `Problem`, a contender has its weights, its input in the form it likes best, and the gradients of its
outputs ready. ``run()`` is what is timed: the layer, nothing else. Peers that want padding get it for free, outside.

What is computed. Forward: the outputs of all steps. Forward and backward: besides, the gradients of all parameters
for given gradients of the outputs, and none of the input. numba_pack's share includes the assignment of new
parameters, which makes it pack its weights again, since a step of training has that once.
"""

import numpy as np

import numba_pack as nbp
from bench.tools.environment import Unavailable, load, threads
from bench.tools.onnx_model import onnx_model


class Contender:
    """A library at work on a problem."""

    name = ""
    #: whether it can run backward
    trains = True

    def run(self):
        """The work, and nothing else."""
        raise NotImplementedError

    def answer(self):
        """What the work gives, by name, as arrays that all contenders of a problem agree on."""
        raise NotImplementedError


class _Layer(Contender):
    """``infer`` or ``train`` is what runs; ``outputs`` and ``gradients`` take their results apart."""

    def __init__(self, problem, training):
        if training and not self.trains:
            raise Unavailable("has no backward pass")
        self.problem, self.training = problem, training
        self.prepare(problem)
        self.run = self.train if training else self.infer

    def answer(self):
        result = self.run()
        return self.gradients(result) if self.training else {"output": self.outputs(result)}


class NumbaPack(_Layer):
    name = "numba_pack"

    def prepare(self, problem):
        self.layer = problem.layer()
        self.input = nbp.pack_sequence(problem.sequences)
        self.d_output = nbp.pack_sequence(problem.d_outputs)

    def infer(self):
        return self.layer(self.input)

    def train(self):
        self.layer.parameters = self.layer.parameters
        _, _, tape = self.layer.forward(self.input)
        return self.layer.backward(tape, self.d_output, input_grad=False)

    def outputs(self, result):
        return np.concatenate(nbp.unpack_sequence(result[0]))

    def gradients(self, result):
        return self.layer.views(result.parameters)


class NumbaPackPadded(NumbaPack):
    """This library on the padded batch: what packing saves is seen against it. No peer, so not in `LAYERS`."""

    name = "numba_pack, padded"

    def prepare(self, problem):
        self.layer = problem.layer()
        self.input = problem.padded(problem.sequences)
        self.d_output = problem.padded(problem.d_outputs)

    def outputs(self, result):
        return self.problem.rows_of(result[0])


class _Torch(_Layer):
    def prepare(self, problem):
        self.torch = torch = load("torch")
        w = problem.workload
        options = {"num_layers": w.layers, "bidirectional": w.bidirectional, "dtype": getattr(torch, w.dtype)}
        self.module = getattr(torch.nn, w.cell)(w.input_size, w.H, **options)
        self.module.load_state_dict({name: torch.from_numpy(value) for name, value in problem.parameters.items()})
        self.names, self.weights = zip(*self.module.named_parameters(), strict=True)

    def infer(self):
        with self.torch.inference_mode():
            return self.module(self.input)[0]

    def gradients(self, result):
        return {name: gradient.numpy() for name, gradient in zip(self.names, result, strict=True)}


class TorchPacked(_Torch):
    name = "PyTorch packed"

    def prepare(self, problem):
        super().prepare(problem)
        self.input, self.d_output = self._packed(problem.sequences), self._packed(problem.d_outputs).data

    def _packed(self, sequences):
        tensors = [self.torch.from_numpy(sequence) for sequence in sequences]
        return self.torch.nn.utils.rnn.pack_sequence(tensors, enforce_sorted=False)

    def train(self):
        return self.torch.autograd.grad(self.module(self.input)[0].data, self.weights, self.d_output)

    def outputs(self, result):
        return self.torch.cat(self.torch.nn.utils.rnn.unpack_sequence(result)).numpy()


class TorchPadded(_Torch):
    """The padded batch: for a float32 LSTM, PyTorch hands it to oneDNN."""

    name = "PyTorch padded"

    def prepare(self, problem):
        super().prepare(problem)
        if problem.ragged and problem.workload.bidirectional:
            raise Unavailable("the reverse direction would begin in the padding")
        self.input = self.torch.from_numpy(problem.padded(problem.sequences))
        self.d_output = self.torch.from_numpy(problem.padded(problem.d_outputs))

    def train(self):
        return self.torch.autograd.grad(self.module(self.input)[0], self.weights, self.d_output)

    def outputs(self, result):
        return self.problem.rows_of(result.numpy())


class _Onnx(_Layer):
    trains = False

    def outputs(self, result):
        """Rows of Y (T, D, B, H)."""
        T, D, B, H = result.shape
        return self.problem.rows_of(result.swapaxes(1, 2).reshape(T, B, D * H))


class OnnxRuntime(_Onnx):
    """With sequence_lens, and with input and output bound to memory of its own beforehand."""

    name = "ONNX Runtime"

    def prepare(self, problem):
        model = onnx_model(problem.workload, problem.parameters, problem.T, sequence_lens=True)
        self.session, (self.bound,) = onnx_session(
            model, {"X": problem.padded(problem.sequences), "sequence_lens": problem.lengths.astype(np.int32)}
        )
        self.bound.bind_output("Y")
        try:
            self.infer()
        except Exception as error:  # its own classes have no public name
            raise Unavailable(str(error).splitlines()[0].split("Status Message: ")[-1]) from error

    def infer(self):
        self.session.run_with_iobinding(self.bound)

    def outputs(self, result):
        return super().outputs(self.bound.get_outputs()[0].numpy())


class OpenVino(_Onnx):
    """Without sequence_lens where that changes no output, since its fused kernel knows none."""

    name = "OpenVINO"

    def prepare(self, problem):
        w = problem.workload
        if w.dtype != "float32":
            raise Unavailable("its CPU plugin computes in float32")
        sequence_lens = problem.ragged and w.bidirectional
        model = onnx_model(w, problem.parameters, problem.T, sequence_lens)
        self.input = {"X": problem.padded(problem.sequences)}
        if sequence_lens:
            self.input["sequence_lens"] = problem.lengths.astype(np.int32)
        self.request = openvino_model(model).create_infer_request()
        for name, value in self.input.items():
            self.request.set_tensor(name, load("openvino").Tensor(value, shared_memory=True))

    def infer(self):
        self.request.infer()

    def outputs(self, result):
        return super().outputs(self.request.get_output_tensor(0).data)


#: this library first, then its peers
LAYERS = (NumbaPack, TorchPacked, TorchPadded, OnnxRuntime, OpenVino)


def onnx_session(model, *inputs):
    """An ONNX Runtime session, and for each set of inputs a binding to it."""
    ort = load("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
    options.log_severity_level = 4  # what it cannot do comes as an exception
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes have no public name
        raise Unavailable(str(error).split(" : ")[-1]) from error
    bindings = [session.io_binding() for _ in inputs]
    for binding, values in zip(bindings, inputs, strict=True):
        for name, value in values.items():
            tensor = value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(value)
            binding.bind_ortvalue_input(name, tensor)
    return session, bindings


def openvino_model(model):
    """A model compiled by OpenVINO, in full float32 (where the processor has bfloat16, it may prefer that)."""
    core = load("openvino").Core()
    options = {"INFERENCE_NUM_THREADS": threads(), "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(model), "CPU", options)


# -- answers -----------------------------------------------------------------------------------------------------------


class WrongAnswer(AssertionError):
    """Two contenders disagree by more than rounding explains."""


def check(contender, expected, rounding):
    """Compare an answer with another, both by name.

    The tolerance of each array is eps of its dtype times ``rounding``, the growth of rounding errors to be expected,
    times the magnitude of the array's largest entry.
    """
    for name, value in contender.answer().items():
        reference = expected[name]
        if value.shape != reference.shape or value.dtype != reference.dtype:
            got, wanted = f"{value.shape} {value.dtype}", f"{reference.shape} {reference.dtype}"
            raise WrongAnswer(f"{contender.name}: {name} is {got}, expected {wanted}")
        if value.size == 0:
            continue
        bound = 0.0
        if value.dtype.kind == "f":
            bound = float(np.finfo(value.dtype).eps * rounding * np.abs(reference).max())
        error = float(np.abs(value - reference).max())
        if not error <= bound:
            raise WrongAnswer(f"{contender.name}: {name} differs by {error:.1e}, more than {bound:.1e}")


def layer_rounding(problem, training):
    """How much rounding errors grow: as the root of the terms of a sum, and some times that over the steps."""
    terms = problem.workload.input_size + problem.workload.H
    return 32 * (np.sqrt(terms) + (np.sqrt(problem.N) if training else 0))


def line_up(classes, *arguments, rounding=0):
    """The contenders that can do it, their answers compared; and for each other one, by name, why it is left out."""
    ready, left_out, expected = [], {}, None
    for make in classes:
        try:
            contender = make(*arguments)
            if expected is None:
                expected = contender.answer()
            else:
                check(contender, expected, rounding)
            ready.append(contender)
        except Unavailable as reason:
            left_out[make.name] = str(reason)
        except WrongAnswer as reason:
            left_out[make.name] = f"WRONG ANSWER: {reason}"
    return ready, left_out
