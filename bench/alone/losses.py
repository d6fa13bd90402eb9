"""What a loss and its gradient cost, beside PyTorch's forward and backward pass.

    python -m bench.alone.losses           some two minutes; writes bench/results/losses.md
    python -m bench.alone.losses --tiny    to try this script; writes to build/bench

One thread. A row is timed in float32 and in float64: the least of interleaved rounds, and the ratio of the medians.
"""

import argparse
import datetime
from functools import partial

from bench.tools.environment import ROOT, Unavailable, load, machine, prepare, versions

if __name__ == "__main__":
    prepare()

import numpy as np
from tqdm import tqdm

from bench.tools.markdown import of_machine, of_versions, table
from bench.tools.timing import interleave, summary
from numba_pack.losses import binary_cross_entropy, ctc, huber, mse, softmax_cross_entropy

#: rows and classes, or columns
WIDE = ((10_000, 10), (2_000, 100), (1_000, 1_000), (100, 10_000), (32, 50_000))
NARROW = ((10, 10), (10_000, 1), (10_000, 10), (1_000, 1_000))
#: steps, classes, labels of each of 32 sequences
PATHS = ((100, 30, 10), (300, 60, 30), (500, 100, 50))


def graded(loss_of, given, torch):
    """A function that computes a loss of PyTorch's and its gradient."""
    x = torch.tensor(given, requires_grad=True)
    return lambda: torch.autograd.grad(loss_of(x), x)


def of_classes(shape, option, dtype, torch):
    """Ours and theirs, of one class of several."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal(shape).astype(dtype), rng.integers(0, shape[1], shape[0])
    ours, theirs = {}, {}
    if option == "ignored":
        labels[::4] = -100
    elif option == "class weights":
        ours["class_weights"] = rng.random(shape[1]).astype(dtype)
        theirs["weight"] = ours["class_weights"]
    elif option == "smoothed":
        ours["label_smoothing"] = theirs["label_smoothing"] = 0.1
    mine = partial(softmax_cross_entropy, logits, labels, **ours)
    if torch is None:
        return {"ours": mine}
    wanted = torch.from_numpy(labels)
    theirs = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in theirs.items()}
    loss_of = torch.nn.functional.cross_entropy
    return {"ours": mine, "PyTorch": graded(lambda x: loss_of(x, wanted, **theirs), logits, torch)}


def of_columns(loss_of, other, shape, option, dtype, torch):
    """Ours and theirs, of each column by itself."""
    rng = np.random.default_rng(0)
    given, targets = rng.standard_normal(shape).astype(dtype), rng.random(shape).astype(dtype)
    weights = rng.random(shape[0]).astype(dtype) if option else None
    mine = partial(loss_of, given, targets, weights=weights)
    if torch is None:
        return {"ours": mine}
    other, wanted = getattr(torch.nn.functional, other), torch.from_numpy(targets)
    if weights is None:
        return {"ours": mine, "PyTorch": graded(lambda x: other(x, wanted), given, torch)}
    of_row = torch.from_numpy(weights)[:, None]

    def weighed(x):
        return (other(x, wanted, reduction="none") * of_row).sum() / (of_row.sum() * shape[1])

    return {"ours": mine, "PyTorch": graded(weighed, given, torch)}


def of_paths(shape, dtype, torch):
    """Ours and theirs, of connectionist temporal classification."""
    rng, (steps, classes, count) = np.random.default_rng(0), shape
    logits = rng.standard_normal((steps, 32, classes)).astype(dtype)
    labels = rng.integers(1, classes, (32, count))
    mine = partial(ctc, logits, list(labels))
    if torch is None:
        return {"ours": mine}
    wanted, lengths, counts = torch.from_numpy(labels), torch.full((32,), steps), torch.full((32,), count)
    loss_of = torch.nn.functional.ctc_loss
    return {
        "ours": mine,
        "PyTorch": graded(lambda x: loss_of(x.log_softmax(2), wanted, lengths, counts), logits, torch),
    }


def cases(tiny):
    """The name of each row, and what makes its functions of a dtype and of PyTorch."""
    wide, narrow, paths = (WIDE[:1], NARROW[:1], ((10, 8, 3),)) if tiny else (WIDE, NARROW, PATHS)
    for shape in ((10, 10), *wide):
        yield f"softmax_cross_entropy {told(shape)}", partial(of_classes, shape, None)
    shape = wide[len(wide) // 2]
    for option in ("ignored", "class weights", "smoothed"):
        yield f"softmax_cross_entropy {told(shape)}, {option}", partial(of_classes, shape, option)
    for loss_of, other in (
        (binary_cross_entropy, "binary_cross_entropy_with_logits"),
        (mse, "mse_loss"),
        (huber, "huber_loss"),
    ):
        for shape in narrow:
            for option in (None, "weights"):
                name = f"{loss_of.__name__} {told(shape)}" + (f", {option}" if option else "")
                yield name, partial(of_columns, loss_of, other, shape, option)
    for shape in paths:
        name = f"ctc, 32 sequences of {shape[0]} steps, {shape[1]} classes, {shape[2]} labels"
        yield name, partial(of_paths, shape)


def told(shape):
    return " x ".join(f"{n:,}" for n in shape)


def row(name, make, seconds, torch):
    cells = [name]
    for dtype in (np.float32, np.float64):
        functions = make(dtype, torch)
        for function in functions.values():
            function()
        found = summary(interleave(functions, seconds / 2))
        cells += [f"{1e6 * found['min'][name]:,.3g}" for name in functions]
        if torch is not None:
            cells.append(f"{found['median']['ours'] / found['median']['PyTorch']:.2f}")
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="few small rows, and a tenth of a second each")
    arguments = parser.parse_args()
    try:
        torch = load("torch")
    except Unavailable as reason:
        print(reason)
        torch = None
    works = list(cases(arguments.tiny))
    seconds = 0.1 if arguments.tiny else arguments.seconds
    rows = [row(name, make, seconds, torch) for name, make in tqdm(works)]
    columns = ["ours", "PyTorch", "ratio"] if torch is not None else ["ours"]
    heads = [f"{which}, {dtype}" for dtype in ("float32", "float64") for which in columns]
    found = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba", "torch")}
    text = "\n\n".join(
        [
            "# Losses with their gradients",
            f"`python -m bench.alone.losses`, {datetime.date.today()}. {of_machine(machine())}",
            of_versions(found),
            "One thread. Microseconds of a loss and its gradient, the mean over all rows: the least of interleaved"
            " rounds; and the ratio of the medians, ours over PyTorch's, whose time is that of a forward and a backward"
            " pass.",
            table(["rows x columns", *heads], rows),
        ]
    )
    output = (ROOT / "build" / "bench" if arguments.tiny else ROOT / "bench" / "results") / "losses.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
