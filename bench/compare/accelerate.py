"""A PyTorch model before and after ``numba_pack.interop.torch.accelerate``: steps of training, and calls for inference.

    python -m bench.compare.accelerate
    python -m bench.compare.accelerate --threads 2 --seconds 6 --only GRU
    python -m bench.compare.accelerate --only T1

A step of training is all that a user's loop does: zero_grad, the recurrent module on a PackedSequence, a linear layer,
cross-entropy over all rows, backward, and Adam. Before it is timed, losses and gradients of the two models are
compared.

A call for inference gives the module one sequence or a packed batch, and a state. Beside it stands the layer that
``from_torch`` makes, on NumPy's arrays, and the module after ``accelerate(frozen=True)``; and below it PyTorch's
module in int8, before and after. What a call takes beyond the layer is what it costs to look after parameters that may
change, and to make tensors of arrays.

What is printed are Markdown tables; times are medians of interleaved rounds.
"""

import argparse
import copy

from bench.tools.environment import prepare

CLASSES = 10
CALLS = ("PyTorch", "PyTorch, int8", "accelerated", "frozen", "accelerated from int8")


def training_rows():
    from bench.tools.workloads import Workload

    return [
        Workload("LSTM", 8, 64, "near-equal", T=50),
        Workload("LSTM", 8, 64, "near-equal", T=800),
        Workload("LSTM", 32, 128),
        Workload("LSTM", 32, 128, "heavy", T=400),
        Workload("LSTM", 32, 128, layers=2, bidirectional=True),
        Workload("LSTM", 64, 512),
        Workload("LSTM", 27, 100, "real", T=29, inputs=12, bidirectional=True),
        Workload("GRU", 32, 128),
        Workload("GRU", 64, 64, T=12, inputs=58),
        Workload("GRU", 32, 256, layers=2, bidirectional=True),
        Workload("RNN", 32, 128),
        Workload("LSTM", 32, 128, dtype="float64"),
    ]


def inference_rows():
    from bench.tools.workloads import Workload

    return [
        Workload("LSTM", 1, 16, T=1),
        Workload("LSTM", 1, 64, T=1),
        Workload("GRU", 1, 64, T=1),
        Workload("LSTM", 1, 256, T=1, layers=2),
        Workload("LSTM", 1, 512, T=1),
        Workload("LSTM", 8, 64, "equal", T=1),
        Workload("GRU", 1, 16, T=10),
        Workload("LSTM", 1, 16),
        Workload("LSTM", 1, 64),
        Workload("GRU", 1, 128, bidirectional=True),
        Workload("LSTM", 1, 256, layers=2),
        Workload("LSTM", 32, 128),
        Workload("GRU", 32, 256, layers=2, bidirectional=True),
    ]


class Training:
    """A model, its optimizer and its batch; ``step`` is what is timed."""

    def __init__(self, problem):
        from bench.tools.environment import load

        self.torch = torch = load("torch")
        w = problem.workload
        torch.manual_seed(0)
        options = {"num_layers": w.layers, "bidirectional": w.bidirectional}
        recurrent = getattr(torch.nn, w.cell)(w.input_size, w.H, **options)
        out = torch.nn.Linear(w.directions * w.H, CLASSES)
        self.model = torch.nn.ModuleDict({"recurrent": recurrent, "out": out}).to(getattr(torch, w.dtype))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        sequences = [torch.from_numpy(sequence) for sequence in problem.sequences]
        self.batch = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
        self.classes = torch.randint(CLASSES, (problem.N,))

    def accelerated(self):
        """The same, with a copy of the model that runs on numba_pack."""
        import numba_pack as nbp

        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.optimizer = self.torch.optim.Adam(other.model.parameters(), 1e-3)
        assert nbp.interop.torch.accelerate(other.model).replaced == ("recurrent",)
        return other

    def loss(self):
        self.optimizer.zero_grad()
        output, _ = self.model["recurrent"](self.batch)
        loss = self.torch.nn.functional.cross_entropy(self.model["out"](output.data), self.classes)
        loss.backward()
        return loss

    def step(self):
        self.loss()
        self.optimizer.step()

    # -- what `contenders.check` asks for

    name = "accelerated"

    def answer(self):
        loss = self.loss().detach().reshape(1).numpy()
        gradients = {name: parameter.grad.numpy().copy() for name, parameter in self.model.named_parameters()}
        return {"loss": loss, **gradients}


def calls(problem):
    """Functions that make the same call in several ways, by their names."""
    import numpy as np

    import numba_pack as nbp
    from bench.tools.environment import load

    torch, w = load("torch"), problem.workload
    torch.manual_seed(0)
    options = {"num_layers": w.layers, "bidirectional": w.bidirectional}
    module = getattr(torch.nn, w.cell)(w.input_size, w.H, **options).to(getattr(torch, w.dtype)).eval()
    layer = nbp.interop.torch.from_torch(module)
    quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(module), dtype=torch.qint8)[0]
    modules = {"PyTorch": module, "PyTorch, int8": quantized}
    for name, origin, frozen in (
        ("accelerated", module, False), ("frozen", module, True), ("accelerated from int8", quantized, False)
    ):  # fmt: skip
        modules[name] = copy.deepcopy(origin)
        assert nbp.interop.torch.accelerate(modules[name], frozen=frozen).replaced == ("",)

    h = np.zeros((w.layers * w.directions, w.B, w.H), w.dtype)
    state = (h, h.copy()) if w.cell == "LSTM" else h
    tensors = tuple(map(torch.from_numpy, state)) if w.cell == "LSTM" else torch.from_numpy(h)
    if w.B == 1 or w.T == 1:
        x = np.stack(problem.sequences, 1)
        input = torch.from_numpy(x)
    else:
        x = nbp.pack_sequence(problem.sequences)
        input = nbp.interop.torch.packed_to_torch(x)
    found = {"layer": lambda: layer(x, state)}
    for name, called in modules.items():
        found[name] = lambda called=called: called(input, tensors)
    return torch, found


def infer(workload, seconds):
    """Median seconds of a call, by the ways that it is made."""
    import numpy as np

    from bench.tools.timing import interleave, summary
    from bench.tools.workloads import Problem

    torch, functions = calls(Problem(workload))
    with torch.inference_mode():
        results = {name: function()[0] for name, function in functions.items()}
        rows = {name: np.asarray(out.data if hasattr(out, "batch_sizes") else out) for name, out in results.items()}
        for name, found in rows.items():
            np.testing.assert_allclose(found, rows["layer"], rtol=0, atol=0.05 if "int8" in name else 1e-4)
        return summary(interleave(functions, seconds))["median"]


def measure(workload, seconds):
    """Median seconds of a step, before and after."""
    from bench.compare.contenders import check, layer_rounding
    from bench.tools.timing import interleave, summary
    from bench.tools.workloads import Problem

    problem = Problem(workload)
    before = Training(problem)
    after = before.accelerated()
    check(after, before.answer(), layer_rounding(problem, training=True) * workload.layers)
    times = interleave({"before": before.step, "after": after.step}, seconds)
    return summary(times)["median"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of both libraries")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only rows whose ids contain this")
    arguments = parser.parse_args()

    prepare(arguments.threads)
    from bench.tools.markdown import table

    found = []
    for workload in training_rows():
        if arguments.only in str(workload):
            median = measure(workload, arguments.seconds)
            before, after = median["before"], median["after"]
            found.append((workload, f"{1e3 * before:.3g}", f"{1e3 * after:.3g}", f"{before / after:.1f}"))
    print(table(("a step of training, packed", "PyTorch, ms", "accelerated, ms", "times faster"), found))

    found = []
    for workload in inference_rows():
        if arguments.only in str(workload):
            median = infer(workload, arguments.seconds)
            layer = median.pop("layer")
            told = [f"{1e6 * seconds:.3g} ({seconds / layer:.2f})" for seconds in median.values()]
            found.append((workload, f"{1e6 * layer:.3g}", *told))
    print()
    print(table(("a call, µs (times the layer)", "layer", *CALLS), found))


if __name__ == "__main__":
    main()
