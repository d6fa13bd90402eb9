"""A PyTorch model before and after ``numba_pack.interop.torch.accelerate``: steps of training, and calls for inference.

    python -m bench.compare.accelerate
    python -m bench.compare.accelerate --threads 2 --seconds 6 --only GRU
    python -m bench.compare.accelerate --table both --part 1/4

A step of training is all that a user's loop does: zero_grad, the recurrent module on a PackedSequence, a linear layer,
cross-entropy over all rows, backward, and Adam. Before it is timed, losses and gradients of the two models are
compared.

A call for inference gives the module one sequence or a packed batch, and a state. Beside it stands the layer that
``from_torch`` makes, on NumPy's arrays, and the module after ``accelerate(frozen=True)``; and below it PyTorch's
module in int8, before and after. What a call takes beyond the layer is what it costs to look after parameters that may
change, and to make tensors of arrays.

Then both for padded batches of all kinds and sizes, the smallest above all, where a call takes less time than what is
around it: below stands how many of these rows are slower than PyTorch.

Times are the least of interleaved rounds; in all it takes about four minutes. Tables go to ``accelerate.md`` in a
folder of ``bench/results`` that is named by the machine, unless ``--output`` says otherwise; rows that were measured
there before stay, so that all may be measured in pieces.
"""

import argparse
import copy
import json
import time
from pathlib import Path

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


#: T and B of the rows of every kind and size, and how much of the seconds of other rows they get
SWEPT, SHARE = ((1, 1), (1, 32), (10, 8), (100, 1)), 0.2


def swept_rows():
    from bench.tools.workloads import Workload

    sizes = [(cell, H, T, B) for cell in ("RNN", "GRU", "LSTM") for H in (16, 64, 256, 512) for T, B in SWEPT]
    return [Workload(cell, B, H, "equal", T=T) for cell, H, T, B in sizes]


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
        if w.lengths == "equal":
            self.batch = torch.stack(sequences, 1)
        else:
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
        rows = output.flatten(0, 1) if isinstance(output, self.torch.Tensor) else output.data
        loss = self.torch.nn.functional.cross_entropy(self.model["out"](rows), self.classes)
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


def calls(problem, quantized_too=True):
    """Functions that make the same call in several ways, by their names."""
    import numpy as np

    import numba_pack as nbp
    from bench.tools.environment import load

    torch, w = load("torch"), problem.workload
    torch.manual_seed(0)
    options = {"num_layers": w.layers, "bidirectional": w.bidirectional}
    module = getattr(torch.nn, w.cell)(w.input_size, w.H, **options).to(getattr(torch, w.dtype)).eval()
    layer = nbp.interop.torch.from_torch(module)
    modules = {"PyTorch": module}
    if quantized_too:
        quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(module), dtype=torch.qint8)[0]
        modules["PyTorch, int8"] = quantized
    for name, origin, frozen in (
        ("accelerated", "PyTorch", False), ("frozen", "PyTorch", True),
        ("accelerated from int8", "PyTorch, int8", False),
    ):  # fmt: skip
        if origin in modules:
            modules[name] = copy.deepcopy(modules[origin])
            assert nbp.interop.torch.accelerate(modules[name], frozen=frozen).replaced == ("",)

    h = np.zeros((w.layers * w.directions, w.B, w.H), w.dtype)
    state = (h, h.copy()) if w.cell == "LSTM" else h
    tensors = tuple(map(torch.from_numpy, state)) if w.cell == "LSTM" else torch.from_numpy(h)
    if w.B == 1 or w.T == 1 or w.lengths == "equal":
        x = np.stack(problem.sequences, 1)
        input = torch.from_numpy(x)
    else:
        x = nbp.pack_sequence(problem.sequences)
        input = nbp.interop.torch.packed_to_torch(x)
    found = {"layer": lambda: layer(x, state)}
    for name, called in modules.items():
        found[name] = lambda called=called: called(input, tensors)
    return torch, found


def infer(workload, seconds, quantized_too=True):
    """The least seconds of a call, by the ways that it is made."""
    import numpy as np

    from bench.tools.timing import interleave, summary
    from bench.tools.workloads import Problem

    torch, functions = calls(Problem(workload), quantized_too)
    with torch.inference_mode():
        results = {name: function()[0] for name, function in functions.items()}
        rows = {name: np.asarray(out.data if hasattr(out, "batch_sizes") else out) for name, out in results.items()}
        for name, found in rows.items():
            np.testing.assert_allclose(found, rows["layer"], rtol=0, atol=0.05 if "int8" in name else 1e-4)
        return summary(interleave(functions, seconds))["min"]


def measure(workload, seconds):
    """The least seconds of a step, before and after."""
    from bench.compare.contenders import check, layer_rounding
    from bench.tools.timing import interleave, summary
    from bench.tools.workloads import Problem

    problem = Problem(workload)
    before = Training(problem)
    after = before.accelerated()
    check(after, before.answer(), layer_rounding(problem, training=True) * workload.layers)
    times = interleave({"before": before.step, "after": after.step}, seconds)
    return summary(times)["min"]


def of_training(workload, least):
    before, after = least["before"], least["after"]
    return workload, f"{1e3 * before:.3g}", f"{1e3 * after:.3g}", f"{before / after:.1f}"


def of_call(workload, least):
    layer = least["layer"]
    return workload, f"{1e6 * layer:.3g}", *[f"{1e6 * least[way]:.3g} ({least[way] / layer:.2f})" for way in CALLS]


def faster(least):
    """How many times faster than PyTorch's a step and a call are."""
    return least["before"] / least["after"], least["PyTorch"] / least["accelerated"]


def of_both(workload, least):
    step, call = faster(least)
    layer, told = least["layer"], {name: 1e6 * seconds for name, seconds in least.items()}
    return (
        workload, f"{told['before']:.3g}", f"{told['after']:.3g}", f"{step:.2f}", f"{told['layer']:.3g}",
        f"{told['PyTorch']:.3g}", *[f"{told[way]:.3g} ({least[way] / layer:.2f})" for way in ("accelerated", "frozen")],
        f"{call:.2f}",
    )  # fmt: skip


STEP = "a step of training, padded, µs: PyTorch", "accelerated", "times faster"
CALL = "a call, µs (times the layer): layer", "PyTorch", "accelerated", "frozen", "times faster"
#: by the names of the tables: rows, what measures one, its share of the seconds, the head, and the cells of a row
TABLES = {
    "training": (
        training_rows, measure, 1, ("a step of training, packed", "PyTorch, ms", "accelerated, ms", "times faster"),
        of_training,
    ),
    "calls": (inference_rows, infer, 1, ("a call, µs (times the layer)", "layer", *CALLS), of_call),
    "both": (
        swept_rows, lambda *arguments: {**measure(*arguments), **infer(*arguments, False)}, SHARE, ("", *STEP, *CALL),
        of_both,
    ),
}  # fmt: skip


def page(results):
    """The page of what was measured: ``results`` has the least seconds by the names of tables and rows."""
    from bench.tools.markdown import of_machine, of_versions, table

    parts = [
        "# PyTorch models before and after `interop.torch.accelerate`",
        f"`python -m bench.compare.accelerate`, {results['date']}; threads: {results['threads']}. The least of"
        " interleaved rounds; a step is forward, loss, backward and Adam.",
        of_machine(results["machine"]) + "\n" + of_versions(results["versions"]),
    ]
    for name, (rows, _, _, head, cells) in TABLES.items():
        found = [(row, results[name][str(row)]) for row in rows() if str(row) in results[name]]
        parts.append(table(head, [cells(*row) for row in found]))
    slower = [str(row) for row, least in found if min(faster(least)) < 1]
    parts.append(f"Slower than PyTorch: {len(slower)} of {len(found)} rows. {', '.join(slower)}".strip())
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of both libraries")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only rows whose ids contain this")
    parser.add_argument("--table", choices=TABLES, help="only rows of this table")
    parser.add_argument("--part", metavar="I/K", default="1/1", help="only the I-th of K parts of these rows")
    parser.add_argument("--output", type=Path, help="folder of the results, which rows are added to")
    arguments = parser.parse_args()

    prepare(arguments.threads)
    from bench.compare.report import RESULTS, list_results
    from bench.tools.environment import folder_of, machine, versions

    output = arguments.output or RESULTS / folder_of(machine())
    numbers = output / "accelerate.json"
    results = json.loads(numbers.read_text()) if numbers.exists() else {name: {} for name in TABLES}
    told = {"date": time.strftime("%Y-%m-%d"), "threads": arguments.threads}
    results |= {**told, "machine": machine(), "versions": versions()}
    which, parts = map(int, arguments.part.split("/"))
    for name, (rows, measured, share, _, _) in TABLES.items():
        wanted = [row for row in rows() if arguments.only in str(row) and arguments.table in (None, name)]
        for row in wanted[which - 1 :: parts]:
            results[name][str(row)] = measured(row, share * arguments.seconds)
    output.mkdir(parents=True, exist_ok=True)
    numbers.write_text(json.dumps(results, indent=1) + "\n")
    (output / "accelerate.md").write_text(page(results))
    if output.parent == RESULTS:
        list_results()
    print(page(results))


if __name__ == "__main__":
    main()
