"""What training keeps: the peak of memory of one step, of this library's at once and in pieces, and of PyTorch's.

    python -m bench.alone.memory            four minutes, and up to 4 GB of memory
    python -m bench.alone.memory --tiny     small sizes, to try this script

A step is a forward and a backward pass, with gradients of input and parameters. Each is made in a process of its own,
after a small one, and its peak is what the process has at most above what it had before the step, but for the output
and the gradient of the input, which are the caller's. PyTorch is given equal lengths padded, unequal ones packed. The
table goes to ``bench/results/memory.md``; to ``build/bench`` if sizes are small. Linux alone tells the peak of a step.
"""

import argparse
import datetime
import json
import time
from pathlib import Path

from bench.tools.environment import ROOT, child, load, machine, prepare, versions

#: cell, sequences, steps of the longest, inputs, units, layers, directions, and whether lengths are equal
SHAPES = [
    ("LSTM", 32, 100, 128, 128, 1, 1, True),
    ("LSTM", 32, 1000, 128, 128, 1, 1, False),
    ("LSTM", 32, 1000, 64, 128, 2, 1, True),
    ("LSTM", 32, 1000, 64, 128, 2, 2, True),
    ("GRU", 32, 1000, 128, 256, 1, 1, True),
    ("LSTM", 1, 10_000, 128, 256, 1, 1, True),
    ("LSTM", 1, 100_000, 64, 128, 1, 1, True),
    ("GRU", 1, 100_000, 64, 128, 1, 1, True),
    ("LSTM", 8, 100_000, 32, 32, 1, 1, True),
]
CONTENDERS = ("at once", "in pieces", "PyTorch")


def status(name):
    """A line of what Linux tells of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def step_of(contender, shape, small):
    """A function that makes a step, and returns what is the caller's; the input is there before."""
    import numpy as np

    import numba_pack as nbp

    cell, B, T, inputs, units, layers, directions, equal = shape
    T = min(T, 20) if small else T
    lengths = np.full(B, T) if equal else np.random.default_rng(0).integers(1, T + 1, B)
    x = np.ones((int(lengths.sum()), inputs), np.float32)
    layer = getattr(nbp, cell)(inputs, units, layers, bidirectional=directions == 2, rng=0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    given = x.reshape(T, B, inputs) if equal else nbp.pack_ragged(x, offsets)
    d_output = np.ones((len(x), directions * units), np.float32)
    if equal:
        d_output = d_output.reshape(T, B, directions * units)
    if contender != "PyTorch":
        checkpoint = None if contender == "at once" else max(1, round(T**0.5))

        def ours():
            output, _, tape = layer.forward(given, checkpoint=checkpoint)
            return output, layer.backward(tape, d_output).input

        return ours
    torch = load("torch")
    module = nbp.interop.torch.to_torch(layer)
    rows = torch.from_numpy(given if equal else given.data).requires_grad_()
    d_output = torch.from_numpy(d_output)

    def theirs():
        if equal:
            output, _ = module(rows)
            output.backward(d_output)
        else:
            sizes, order = torch.from_numpy(given.batch_sizes), torch.from_numpy(given.sorted_indices)
            output, _ = module(torch.nn.utils.rnn.PackedSequence(rows, sizes, order))
            output.data.backward(d_output)
        return output, rows.grad

    return theirs


def measure(contender, shape):
    """Bytes of the peak of a step, and the seconds of the faster of two more."""
    step_of(contender, shape, small=True)()
    step = step_of(contender, shape, small=False)
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak counts
    before = status("VmRSS")
    kept = step()
    peak, seconds = status("VmHWM"), []
    assert all(part is not None for part in kept)
    for _ in range(0 if contender == "PyTorch" else 2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"bytes": peak - before - callers(shape) // 2, "seconds": min(seconds, default=None)}


def callers(shape):
    """Bytes of input and output, and of the gradients of both."""
    import numpy as np

    _, B, T, inputs, units, _, directions, equal = shape
    rows = B * T if equal else int(np.random.default_rng(0).integers(1, T + 1, B).sum())
    return 2 * 4 * rows * (inputs + directions * units)


def named(shape):
    cell, B, T, inputs, units, layers, directions, equal = shape
    ways = ", both directions" if directions == 2 else ""
    stack = f", {layers} layers" if layers > 1 else ""
    return f"{cell}, B={B}, T={T:,}, I={inputs}, H={units}{stack}{ways}{'' if equal else ', ragged'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a fiftieth of the steps")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # of a process that measures: contender and shape
    arguments = parser.parse_args()
    prepare()
    if arguments.one:
        print(json.dumps(measure(*json.loads(arguments.one))))
        return
    from tqdm import tqdm

    from bench.tools.markdown import of_machine, of_versions, table

    rows = []
    with tqdm(total=len(SHAPES) * len(CONTENDERS)) as progress:
        for shape in SHAPES:
            shape = (*shape[:2], max(10, shape[2] // 50) if arguments.tiny else shape[2], *shape[3:])
            progress.set_description(named(shape))
            found = {}
            for contender in CONTENDERS:
                found[contender] = child("bench.alone.memory", "--one", json.dumps([contender, shape]))
                progress.update()
            sizes = [f"{max(0, found[name]['bytes']) / 1e6:.0f}" for name in CONTENDERS]
            ratio = found["in pieces"]["seconds"] / found["at once"]["seconds"]
            rows.append([named(shape), f"{callers(shape) / 1e6:.0f}", *sizes, f"{ratio:.2f}"])
    found = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba", "torch")}
    parts = [
        "# What training keeps",
        f"{datetime.date.today()}. {of_machine(machine())}",
        of_versions(found),
        "The peak of memory of one training step, in MB, above what there was before and what is the caller's: input"
        " and output, and their gradients. *At once* is `forward(x)`, *in pieces* `forward(x, checkpoint=k)` with k the"
        " square root of T. One thread, float32. The last column is the time of the step in pieces over that at once.",
        table(["", "the caller's", *CONTENDERS, "time"], rows),
    ]
    text = "\n\n".join(parts) + "\n"
    output = (ROOT / "build" / "bench" if arguments.tiny else ROOT / "bench" / "results") / "memory.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
