"""Every published cell beside this library's GRU and LSTM, forward and in training.

    python -m bench.alone.cells               some minutes
    python -m bench.alone.cells --only MinGRU
    python -m bench.alone.cells --linear      only those with no product with the state: how many times a GRU's speed
    python -m bench.alone.cells --tiny        small sizes, to try this script

The cells take turns, round after round in a random order, on one thread. A training step is a new vector of parameters,
a forward and a backward pass. The tables go to ``bench/results/cells.md``; to ``build/bench`` if not all is measured.
With ``--linear`` training is the two passes alone, without the gradient of the input, as in the first layer of a net.
"""

import argparse
import datetime

from bench.tools.environment import ROOT, machine, prepare, versions

BESIDE = ("GRU", "LSTM")
INPUTS = (32, 256)
#: of the cells that need some, by the name of the constant
CONSTANTS = {"dt": 0.5, "tau": 4.0, "beta": 1.0, "c": 8.0}


def published(only):
    """Names of the cells to be measured, those first that the others stand beside."""
    from numba_pack import cells

    names = [name for name in cells.__all__ if isinstance(getattr(cells, name), cells.Cell) and only in name]
    return [*BESIDE, *(name for name in names if name not in BESIDE)]


def is_linear(name):
    """Whether a cell has no product with the state."""
    from numba_pack import cells

    cell = getattr(cells, name)
    return not cell.gates_hh and not cell.has_product


def functions(name, x, H, first_layer=False):
    """What is timed of a layer of this cell: a forward pass, and a step of training; of a first layer its passes."""
    import numpy as np

    from numba_pack import cells

    cell = getattr(cells, name)
    constants = {constant: CONSTANTS[constant] for constant in cell.arguments.constants}
    layer = cell(x.shape[-1], H, rng=0, **constants)
    parameters, d_output = layer.parameters.copy(), np.ones((*x.shape[:-1], H), x.dtype)

    def train():
        if not first_layer:
            layer.parameters = parameters
        _, _, tape = layer.forward(x)
        return layer.backward(tape, d_output, input_grad=not first_layer)

    if not (np.isfinite(layer(x)[0]).all() and np.isfinite(train().parameters).all()):
        raise ArithmeticError(f"{name} does not stay finite, so that its time means nothing")
    return {"forward": lambda: layer(x), "training": train}


def measure(names, shape, H, seconds, first_layer=False):
    """Summaries of `interleave`: by "forward" and "training", of all cells."""
    import numpy as np
    from tqdm import tqdm

    from bench.tools.timing import interleave, summary

    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    timed = {name: functions(name, x, H, first_layer) for name in tqdm(names, f"I={shape[-1]}, first calls")}
    return {
        kind: summary(interleave({name: timed[name][kind] for name in names}, seconds))
        for kind in ("forward", "training")
    }


def of_results(names, results):
    """A table: for each kind of call the median, the least in brackets, and the median over those of GRU and LSTM."""
    from bench.tools.markdown import table

    header, rows = ["cell"], [[name] for name in names]
    for kind, found in results.items():
        header += [f"{kind}, ms", *(f"/ {other}" for other in BESIDE)]
        for name, row in zip(names, rows, strict=True):
            median = found["median"][name]
            row.append(f"{1e3 * median:.3g} ({1e3 * found['min'][name]:.3g})")
            row += [f"{median / found['median'][other]:.2f}" for other in BESIDE]
    return table(header, rows)


def of_linear(names, results):
    """A table: for each kind of call the least time, and how often it goes into that of a GRU; the same of medians."""
    from bench.tools.markdown import table

    header, rows = ["cell"], [[name] for name in names]
    for kind, found in results.items():
        header += [f"{kind}, ms", "GRU's time over it", "of medians"]
        for name, row in zip(names, rows, strict=True):
            row.append(f"{1e3 * found['min'][name]:.3g}")
            row += [f"{found[of]['GRU'] / found[of][name]:.2f}" for of in ("min", "median")]
    return table(header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each column of times (default: %(default)s)")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only cells whose names contain this")
    parser.add_argument("--linear", action="store_true", help="only cells with no product with the state, beside GRU")
    parser.add_argument("--tiny", action="store_true", help="small sizes and a second a column")
    arguments = parser.parse_args()
    prepare()
    from bench.tools.markdown import of_machine, of_versions

    T, B, H, seconds = (20, 4, 16, 1.0) if arguments.tiny else (1000, 32, 256, arguments.seconds)
    names = published(arguments.only)
    found = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba")}
    parts = [
        "# The published cells beside GRU and LSTM",
        f"{datetime.date.today()}. {of_machine(machine())}",
        of_versions(found),
        f"One layer, one direction, B={B}, T={T}, H={H}, float32, one thread. Milliseconds: the median of interleaved"
        " rounds, and the least in brackets; then the median over that of GRU and of LSTM.",
    ]
    if arguments.linear:
        names = ["GRU", *(name for name in names if is_linear(name))]
        print(of_linear(names, measure(names, (T, B, INPUTS[0]), H, seconds, first_layer=True)))
        return
    for inputs in INPUTS:
        parts += [f"## I = {inputs}", of_results(names, measure(names, (T, B, inputs), H, seconds))]
    text = "\n\n".join(parts) + "\n"
    partly = arguments.only or arguments.tiny
    output = (ROOT / "build" / "bench" if partly else ROOT / "bench" / "results") / "cells.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
