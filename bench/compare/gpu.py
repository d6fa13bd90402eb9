"""numba_pack on a GPU against PyTorch's cuDNN there, packed and padded, in float32 and with TF32.

    python -m bench.compare.gpu               all shapes, in a minute and a half
    python -m bench.compare.gpu --seconds 600 with more rounds
    python -m bench.compare.gpu --only LSTM   those whose ids contain this
    python -m bench.compare.gpu --tiny        one shape that Numba's simulator can do, to try this without a device

Everything is on the device before the clock starts: input, weights, and the gradients of the outputs. Times are those
between two events on the stream, of as many calls as take 10 ms, so that what the host does counts only where the
device waits for it. Contenders take turns in a random order, as often as the time allows and at least three times; the
median of the rounds is shown. Results go to ``bench/results/gpu.md``, ``gpu.json`` and ``gpu.png``, unless ``--output``
says otherwise; the first two after each row.
"""

import argparse
import json
import math
import os
import random
import sys
from collections import defaultdict
from contextlib import contextmanager
from datetime import date
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import perf_counter

from bench.tools.environment import ROOT, Unavailable, load, prepare, versions

OURS, PACKED = "numba_pack", "PyTorch packed, float32"
AIMS = ((1.0, "at every shape with H <= 512"), (1.5, "in the geometric mean"))
SAMPLE = 10.0  # milliseconds
ROUNDS = 3, 15  # at least and at most
DIFFERS = "it differs by"


def shapes(tiny):
    """The workloads, B from 1 to 256, H from 64 to 1024, T to 2000."""
    from bench.tools.workloads import Workload

    if tiny:
        return [Workload("LSTM", 3, 3, T=4)]
    grid = [Workload("LSTM", B, H, T=100) for B, H in product((1, 8, 32, 128, 256), (64, 128, 256, 512, 1024))]
    others = [Workload(cell, B, H, T=100) for cell, B, H in product(("GRU", "RNN"), (8, 64), (128, 512))]
    both = [Workload("LSTM", 32, H, T=100, bidirectional=True) for H in (128, 512)]
    deep = [Workload("LSTM", 32, 256, T=100, layers=2)]
    return grid + others + both + deep + [Workload("LSTM", B, 256, T=T) for B, T in product((1, 32), (500, 2000))]


# -- contenders --------------------------------------------------------------------------------------------------------


class Ours:
    """This library, with its own products."""

    def __init__(self, problem, training):
        from numba import cuda

        import numba_pack as nbp

        def packed(sequences):
            rows = nbp.pack_sequence(sequences)
            return rows._replace(data=cuda.to_device(rows.data))

        self.cuda, self.layer, self.unpack = cuda, problem.layer(), nbp.unpack_ragged
        self.input, self.d_output = packed(problem.sequences), packed(problem.d_outputs)
        self.run = self.train if training else self.infer

    def infer(self):
        output, _ = self.layer(self.input)
        return lambda: self.unpack(output)[0].copy_to_host()

    def train(self):
        _, _, tape = self.layer.forward(self.input)
        return self.layer.backward(tape, self.d_output, input_grad=False).parameters.copy_to_host

    def milliseconds(self, calls):
        """Time of so many calls, between two events."""
        if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":  # it has no clock
            begin = perf_counter()
            for _ in range(calls):
                self.run()
            return (perf_counter() - begin) * 1e3
        begin, end = self.cuda.event(), self.cuda.event()
        begin.record()
        for _ in range(calls):
            self.run()
        end.record()
        end.synchronize()
        return self.cuda.event_elapsed_time(begin, end)


class Torch:
    """PyTorch's module, which runs cuDNN."""

    def __init__(self, problem, training, padded, tf32):
        self.torch = torch = load("torch")
        if not torch.cuda.is_available():
            raise Unavailable("PyTorch sees no device")
        w = problem.workload
        options = {"num_layers": w.layers, "bidirectional": w.bidirectional, "dtype": getattr(torch, w.dtype)}
        module = getattr(torch.nn, w.cell)(w.input_size, w.H, **options)
        module.load_state_dict({name: torch.from_numpy(value) for name, value in problem.parameters.items()})
        self.module, self.tf32 = module.cuda(), tf32
        self.padded, self.rows_of = padded, problem.rows_of
        self.input, self.d_output = (self._batch(each, problem) for each in (problem.sequences, problem.d_outputs))
        if not padded:
            self.d_output = self.d_output.data
        self.run = self.train if training else self.infer

    def _batch(self, sequences, problem):
        tensors = [self.torch.from_numpy(sequence) for sequence in sequences]
        if self.padded:
            return self.torch.nn.utils.rnn.pad_sequence(tensors).cuda()
        return self.torch.nn.utils.rnn.pack_sequence(tensors, enforce_sorted=False).to("cuda")

    @contextmanager
    def precision(self):
        """TF32 on or off, in cuDNN and cuBLAS."""
        backends = self.torch.backends
        before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            yield
        finally:
            backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = before

    def infer(self):
        with self.torch.inference_mode():
            output = self.module(self.input)[0]
        return lambda: self.rows_of(self.padded_output(output).cpu().numpy())

    def padded_output(self, output):
        return output if self.padded else self.torch.nn.utils.rnn.pad_packed_sequence(output)[0]

    def train(self):
        parameters = list(self.module.parameters())
        output = self.module(self.input)[0]
        found = self.torch.autograd.grad(output if self.padded else output.data, parameters, self.d_output)
        return lambda: self.torch.cat([gradient.flatten() for gradient in found]).cpu().numpy()

    def milliseconds(self, calls):
        """Time of so many calls, between two events."""
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self.precision():
            begin.record()
            for _ in range(calls):
                self.run()
            end.record()
            end.synchronize()
        return begin.elapsed_time(end)


CONTENDERS = {
    OURS: lambda problem, training: Ours(problem, training),
    PACKED: lambda problem, training: Torch(problem, training, False, False),
    "PyTorch packed, TF32": lambda problem, training: Torch(problem, training, False, True),
    "PyTorch padded, float32": lambda problem, training: Torch(problem, training, True, False),
    "PyTorch padded, TF32": lambda problem, training: Torch(problem, training, True, True),
}

# -- measuring ---------------------------------------------------------------------------------------------------------


def fault(contender, problem, expected):
    """Why numbers of a contender that computes something else are refused; None if it does not."""
    import numpy as np

    with contender.precision():
        got = contender.run()()
    tolerance = 100 * np.finfo(expected.dtype).eps * math.sqrt(problem.N * problem.workload.H)
    off = float(np.abs(got - expected).max()) / max(1.0, float(np.abs(expected).max()))
    return None if off <= tolerance else f"{DIFFERS} {off:.1e}, more than {tolerance:.1e}"


def contenders_of(problem, training):
    """Who takes part, by name, with how many calls take `SAMPLE`; and why others do not.

    PyTorch packed must compute the same; TF32 is let off, as it rounds to 10 bits, and so is padding, behind which a
    scan backward in time begins.
    """
    contenders, calls, left_out, expected = {}, {}, {}, None
    for name, make in CONTENDERS.items():
        try:
            contender = make(problem, training)
            contender.milliseconds(1)  # which compiles, and fills pools of memory
            calls[name] = max(1, math.ceil(SAMPLE / max(contender.milliseconds(1), 1e-3)))
            if name == OURS:
                expected = contender.run()()
            elif name == PACKED and expected is not None:
                left_out[name] = fault(contender, problem, expected)
            contenders[name] = contender
        except Unavailable as error:
            left_out[name] = str(error)
        except Exception as error:  # the others, and other rows, are measured all the same
            left_out[name] = f"{type(error).__name__}: {error}"[:200]
    left_out = {name: why for name, why in left_out.items() if why}
    return {name: (contenders[name], calls[name]) for name in contenders if name not in left_out}, left_out


def measure(workload, training, end, most_rounds):
    """A row of results: the median milliseconds of each contender, of as many rounds as there is time for."""
    import numpy as np

    from bench.tools.workloads import problem

    numbers = problem(workload)
    contenders, left_out = contenders_of(numbers, training)
    times, rounds = {name: [] for name in contenders}, 0
    order, shuffle = list(contenders), random.Random(0).shuffle
    while order and rounds < most_rounds and (rounds < ROUNDS[0] or perf_counter() < end):
        shuffle(order)
        for name in order:
            contender, calls = contenders[name]
            times[name].append(contender.milliseconds(calls) / calls)
        rounds += 1
    row = {"id": str(workload), "H": workload.H, "training": training, "N": numbers.N, "rounds": rounds}
    return row | {"left_out": left_out, "median": {name: float(np.median(found)) for name, found in times.items()}}


# -- showing -----------------------------------------------------------------------------------------------------------


def ratio(row, name):
    """A peer's time over ours; None if one of the two took no part."""
    median = row["median"]
    return median[name] / median[OURS] if name in median and OURS in median else None


def told(row):
    """A row as it is measured, in a line."""
    ratios = [f"{ratio(row, name):.2f} {name}" for name in CONTENDERS if name != OURS and ratio(row, name)]
    left_out = [f"without {name}: {why}" for name, why in row["left_out"].items()]
    kind, ours = "forward and backward" if row["training"] else "forward", row["median"].get(OURS, math.nan)
    return "; ".join([f"{row['id']} {kind}: {ours:.3g} ms", *ratios, *left_out])


def report(results):
    """The results as Markdown."""
    from bench.tools.markdown import table

    header = ("shape", "N", f"{OURS}, ms", *(name for name in CONTENDERS if name != OURS))
    parts = ["# numba_pack on a GPU side by side with cuDNN", results["device"], results["versions"]]
    parts += ["Milliseconds of this library, float32; for the others, their time over this library's. Medians."]
    for training in (False, True):
        rows = [row for row in results["rows"] if row["training"] == training]
        body = [
            (
                row["id"],
                row["N"],
                f"{row['median'][OURS]:.3g}" if OURS in row["median"] else "-",
                *(f"{ratio(row, name):.2f}" if ratio(row, name) else "-" for name in header[3:]),
            )
            for row in rows
        ]
        parts += ["## Forward and backward" if training else "## Forward", table(header, body)]
        against = {row["id"]: ratio(row, PACKED) for row in rows if ratio(row, PACKED)}
        if against:
            mean = math.exp(sum(map(math.log, against.values())) / len(against))
            small = [ratio(row, PACKED) for row in rows if row["H"] <= 512 and ratio(row, PACKED)]
            parts += [
                f"Against {PACKED}: {min(small, default=math.nan):.2f} at worst where H <= 512 (aim: {AIMS[0][0]}), "
                f"{mean:.2f} in the geometric mean (aim: {AIMS[1][0]})."
            ]
    absent = defaultdict(list)
    for row in results["rows"]:
        for name, why in row["left_out"].items():
            absent[name, why].append(row["id"])
    for (name, why), ids in absent.items():
        where = "" if len(ids) == len(results["rows"]) else f" in {', '.join(dict.fromkeys(ids))}"
        parts.append(f"{name} took no part{where}: {why}.")
    return "\n\n".join(parts) + "\n"


def draw(results, path):
    """The ratios to PyTorch packed, a point for each shape; False if there are none, or nothing to draw with."""
    rows = [row for row in results["rows"] if ratio(row, PACKED)]
    if not rows or find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({row["id"] for row in rows}, key=[row["id"] for row in rows].index)
    figure, axis = plt.subplots(figsize=(7, 1 + 0.2 * len(names)), constrained_layout=True)
    for training, colour, label in ((False, "#2b6cb0", "forward"), (True, "#c2255c", "forward and backward")):
        chosen = [row for row in rows if row["training"] == training]
        places = [names.index(row["id"]) for row in chosen]
        axis.plot([ratio(row, PACKED) for row in chosen], places, "o", color=colour, label=label)
    axis.axvline(1, color="#333333", linewidth=0.8)
    ticks = [0.5, 1, 2, 4, 8]
    axis.set(xscale="log", yticks=range(len(names)), yticklabels=names, xlabel=f"time of {PACKED} over numba_pack's")
    axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    axis.invert_yaxis()
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def cudnn():
    """The version of PyTorch's cuDNN, as 91900; None without it."""
    try:
        return load("torch").backends.cudnn.version()
    except Unavailable:
        return None


def save(results, output, text=""):
    """Write what there is so far; a kill while it is written leaves what was there before."""
    for name, content in (("gpu.json", json.dumps(results, indent=1) + "\n"), ("gpu.md", report(results) + text)):
        (output / f".{name}").write_text(content)
        (output / f".{name}").replace(output / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="PATTERN", default="", help="only rows whose ids contain this")
    parser.add_argument("--tiny", action="store_true", help="one tiny shape, for the simulator")
    parser.add_argument("--seconds", type=float, default=90.0, help="for all rows, or little more (default: 90)")
    parser.add_argument("--rounds", type=int, default=ROUNDS[1], help="of a row at most (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder of the results")
    arguments = parser.parse_args()
    output = arguments.output or (ROOT / "build" / "bench" if arguments.tiny else ROOT / "bench" / "results")

    prepare(threads=1)
    import numba_pack as nbp
    from numba_pack._backend import device

    if nbp.backend != "cuda":
        sys.exit("There is no device here (or no numba-cuda: pip install -e '.[cuda]'), so nothing is measured.")
    output.mkdir(parents=True, exist_ok=True)
    described = "; ".join(f"{name}: {value}" for name, value in device.described().items())
    found = {name: value for name, value in versions().items() if name != "onnxruntime"} | {"cuDNN": cudnn()}
    told_versions = ", ".join(f"{name} {value}" for name, value in found.items() if value)
    results = {"device": described, "versions": f"{date.today()}: {told_versions}", "rows": []}
    chosen = [workload for workload in shapes(arguments.tiny) if arguments.only in str(workload)]
    rows, end = list(product(chosen, (False, True))), perf_counter() + arguments.seconds
    for i, (workload, training) in enumerate(rows):
        share = max(0.0, end - perf_counter()) / (len(rows) - i)  # of what the rows before left
        results["rows"].append(measure(workload, training, perf_counter() + share, arguments.rounds))
        print(told(results["rows"][-1]), flush=True)
        save(results, output)
    if draw(results, output / "gpu.png"):
        save(results, output, f"\n![Time of {PACKED} over that of {OURS}](gpu.png)\n")
    print(report(results))
    wrong = [
        row["id"] for row in results["rows"] if OURS in row["left_out"] or DIFFERS in row["left_out"].get(PACKED, "")
    ]
    if wrong:
        sys.exit(f"{OURS} is wrong or fails: {', '.join(dict.fromkeys(wrong))}")


if __name__ == "__main__":
    main()
