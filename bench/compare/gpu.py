"""numba_pack on a GPU against PyTorch's cuDNN there, packed and padded, with TF32 and without.

    python -m bench.compare.gpu              all shapes
    python -m bench.compare.gpu --only LSTM  those whose ids contain this
    python -m bench.compare.gpu --tiny       one shape that Numba's simulator can do, to try this without a device

Everything is on the device before the clock starts: input, weights, and the gradients of the outputs. Times are those
between two events on the stream, of as many calls as take 20 ms, so that what the host does counts only where the
device waits for it. Contenders take turns in a random order; the median of the rounds is shown. Results go to
``bench/results/gpu.md`` and ``gpu.png``, unless ``--output`` says otherwise.
"""

import argparse
import json
import math
import os
import random
import sys
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from time import perf_counter

from bench.tools.environment import ROOT, Unavailable, load, prepare, versions

OURS, PACKED, PADDED = "numba_pack", "PyTorch packed", "PyTorch padded"
AIMS = ((1.0, "at every shape with H <= 512"), (1.5, "in the geometric mean"))
SAMPLE = 20.0  # milliseconds


def shapes(tiny):
    """The workloads, B from 1 to 256, H from 64 to 1024, T to 2000."""
    from bench.tools.workloads import Workload

    if tiny:
        return [Workload("LSTM", 3, 3, T=4)]
    grid = [Workload("LSTM", B, H, T=100) for B, H in product((1, 8, 32, 128, 256), (64, 128, 256, 512, 1024))]
    others = [Workload(cell, B, H, T=100) for cell, B, H in product(("GRU", "RNN"), (8, 64), (128, 512))]
    return grid + others + [Workload("LSTM", B, 256, T=T) for B, T in product((1, 32), (500, 2000))]


# -- contenders --------------------------------------------------------------------------------------------------------


class Ours:
    """This library, with its own products."""

    def __init__(self, problem, training):
        from numba import cuda

        import numba_pack as nbp

        self.cuda, self.layer, self.unpack = cuda, problem.layer(), nbp.unpack_ragged
        self.input = nbp.pack_sequence([cuda.to_device(sequence) for sequence in problem.sequences])
        self.d_output = nbp.pack_sequence([cuda.to_device(sequence) for sequence in problem.d_outputs])
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
        module = getattr(torch.nn, w.cell)(w.input_size, w.H, dtype=getattr(torch, w.dtype))
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
    f"{PACKED}, TF32": lambda problem, training: Torch(problem, training, False, True),
    PADDED: lambda problem, training: Torch(problem, training, True, False),
    f"{PADDED}, TF32": lambda problem, training: Torch(problem, training, True, True),
}

# -- measuring ---------------------------------------------------------------------------------------------------------


def check(problem, contenders):
    """Refuse numbers of contenders that do not compute the same; TF32 is let off, as it rounds to 10 bits."""
    import numpy as np

    expected = contenders[OURS].run()()
    tolerance = 100 * np.finfo(expected.dtype).eps * math.sqrt(problem.N * problem.workload.H)
    for name in (PACKED,):
        if name in contenders:
            with contenders[name].precision():
                got = contenders[name].run()()
            scale = max(1.0, float(np.abs(expected).max()))
            assert np.abs(got - expected).max() <= tolerance * scale, f"{name} computes something else"


def measure(workload, training, rounds):
    """The median milliseconds of each contender, and why others take no part."""
    import numpy as np

    from bench.tools.workloads import Problem

    problem, contenders, left_out = Problem(workload), {}, {}
    for name, make in CONTENDERS.items():
        try:
            contenders[name] = make(problem, training)
        except Unavailable as error:
            left_out[name] = str(error)
    check(problem, contenders)
    calls = {}
    for name, contender in contenders.items():
        contender.milliseconds(1)  # which compiles, and fills pools of memory
        calls[name] = max(1, math.ceil(SAMPLE / max(contender.milliseconds(1), 1e-3)))
    times = {name: [] for name in contenders}
    order, shuffle = list(contenders), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(contenders[name].milliseconds(calls[name]) / calls[name])
    row = {"id": str(workload), "H": workload.H, "training": training, "N": problem.N, "left_out": left_out}
    return row | {"median": {name: float(np.median(values)) for name, values in times.items()}}


# -- showing -----------------------------------------------------------------------------------------------------------


def ratio(row, name):
    """A peer's time over ours; None if it took no part."""
    return row["median"][name] / row["median"][OURS] if name in row["median"] else None


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
                f"{row['median'][OURS]:.3g}",
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
    left_out = {name: why for row in results["rows"] for name, why in row["left_out"].items()}
    parts += [f"{name} took no part: {why}." for name, why in left_out.items()]
    return "\n\n".join(parts) + "\n"


def draw(results, path):
    """The ratios to PyTorch packed, a point for each shape; False if there are none."""
    rows = [row for row in results["rows"] if ratio(row, PACKED)]
    if not rows:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({row["id"] for row in rows}, key=[row["id"] for row in rows].index)
    figure, axis = plt.subplots(figsize=(7, 1 + 0.2 * len(names)), constrained_layout=True)
    for training, colour, label in ((False, "#2b6cb0", "forward"), (True, "#c2255c", "forward and backward")):
        points = [(ratio(row, PACKED), names.index(row["id"])) for row in rows if row["training"] == training]
        axis.plot(*zip(*points, strict=True), "o", color=colour, label=label)
    axis.axvline(1, color="#333333", linewidth=0.8)
    axis.set(xscale="log", yticks=range(len(names)), yticklabels=names, xlabel=f"time of {PACKED} over numba_pack's")
    axis.invert_yaxis()
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="PATTERN", default="", help="only rows whose ids contain this")
    parser.add_argument("--tiny", action="store_true", help="one tiny shape, for the simulator")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, help="folder of the results")
    arguments = parser.parse_args()
    output = arguments.output or (ROOT / "build" / "bench" if arguments.tiny else ROOT / "bench" / "results")

    prepare(threads=1)
    import numba_pack as nbp
    from numba_pack._backend import device

    if nbp.backend != "cuda":
        sys.exit("There is no device here (or no numba-cuda: pip install 'numba_pack[cuda]'), so nothing is measured.")
    told = "; ".join(f"{name}: {value}" for name, value in device.described().items())
    found = ", ".join(f"{name} {value}" for name, value in versions().items() if value)
    results = {"device": told, "versions": found, "rows": []}
    for workload, training in product(shapes(arguments.tiny), (False, True)):
        if arguments.only in str(workload):
            results["rows"].append(measure(workload, training, arguments.rounds))
            print(results["rows"][-1]["id"], results["rows"][-1]["median"], flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report(results)
    if draw(results, output / "gpu.png"):
        text += f"\n![Time of {PACKED} over that of {OURS}](gpu.png)\n"
    (output / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
