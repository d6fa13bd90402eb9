"""A PyTorch model trained on packed batches, before and after ``numba_pack.interop.torch.accelerate``.

    python -m bench.compare.accelerate
    python -m bench.compare.accelerate --threads 2 --seconds 6 --only GRU

A step is all that a user's loop does: zero_grad, the recurrent module on a PackedSequence, a linear layer,
cross-entropy over all rows, backward, and Adam. Before it is timed, losses and gradients of the two models are
compared. What is printed is a Markdown table; times are medians of interleaved rounds.
"""

import argparse
import copy

from bench.tools.environment import prepare

CLASSES = 10


def rows():
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
        Workload("GRU", 32, 256, layers=2, bidirectional=True),
        Workload("RNN", 32, 128),
        Workload("LSTM", 32, 128, dtype="float64"),
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
    for workload in rows():
        if arguments.only in str(workload):
            median = measure(workload, arguments.seconds)
            before, after = median["before"], median["after"]
            found.append((workload, f"{1e3 * before:.3g}", f"{1e3 * after:.3g}", f"{before / after:.1f}"))
    print(table(("a step of training, packed", "PyTorch, ms", "accelerated, ms", "times faster"), found))


if __name__ == "__main__":
    main()
