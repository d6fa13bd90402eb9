"""What each precision of products costs in accuracy: errors against float64, over cells, units and steps.

    python -m bench.alone.precision               some minutes
    python -m bench.alone.precision --only LSTM
    python -m bench.alone.precision --tiny        small sizes, to try this script

A layer of float32 computes in each precision from the same parameters and input as one of float64. Of the output, whose
numbers are at most 1 or nearly so, the errors are as they are; those of the gradient of all parameters, where the
gradient of each output is a random number, are parts of its largest. Each is the largest of all, then the mean. The
tables go to ``bench/results/precision.md``; to ``build/bench`` if not all is measured.
"""

import argparse
import datetime

from bench.tools.environment import ROOT, machine, prepare, versions

#: layers of `numba_pack`, and cells of `numba_pack.cells` whose states grow or are long-lived
KINDS = ("LSTM", "GRU", "RNN", "SLSTM", "MinGRU")
UNITS = (32, 128, 512)
STEPS = (10, 100, 2000)
BATCH = 4
#: by its name, the layer of that precision that a layer has
PRECISIONS = {
    "highest": lambda layer: layer.with_precision("highest"),
    "high": lambda layer: layer.with_precision("high"),
    "medium": lambda layer: layer.with_precision("medium"),
    "int8": lambda layer: layer.quantize("int8"),
}
#: those that can be trained
TRAINED = ("highest", "high", "medium")


def pair(kind, H):
    """Two layers of H inputs and units with the same parameters, of float32 and of float64."""
    import numpy as np

    import numba_pack as nbp
    from numba_pack import cells

    make = getattr(nbp, kind, None) or getattr(cells, kind)
    layer, exact = make(H, H, rng=0), make(H, H, dtype=np.float64)
    exact.parameters = layer.parameters.astype(np.float64)
    return layer, exact


def gradient(layer, x, d_output):
    """The gradient of all parameters."""
    _, _, tape = layer.forward(x)
    return layer.backward(tape, d_output).parameters


def errors(found, exact):
    """The largest error and the mean of all."""
    import numpy as np

    of_each = np.abs(found - exact)
    return float(of_each.max()), float(of_each.mean())


def measure(kind, H, T):
    """Errors of the output and of the gradient, by the name of the precision."""
    import numpy as np

    layer, exact = pair(kind, H)
    rng = np.random.default_rng(T)
    x, d_output = rng.standard_normal((2, T, BATCH, H)).astype(np.float32)
    wide = x.astype(np.float64)
    output, d_parameters = exact(wide)[0], gradient(exact, wide, d_output.astype(np.float64))
    of = {name: make(layer) for name, make in PRECISIONS.items()}
    of_gradient = {
        name: [error / np.abs(d_parameters).max() for error in errors(gradient(of[name], x, d_output), d_parameters)]
        for name in TRAINED
    }
    return {name: errors(made(x)[0], output) for name, made in of.items()}, of_gradient


def shown(pair_of_errors):
    largest, mean = pair_of_errors
    return f"{largest:.1e} ({mean:.0e})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=KINDS, help="one kind of layer")
    parser.add_argument("--tiny", action="store_true", help="small sizes")
    arguments = parser.parse_args()
    prepare()
    from tqdm import tqdm

    from bench.tools.markdown import of_machine, of_versions, table

    units, steps = ((8, 32), (5, 20)) if arguments.tiny else (UNITS, STEPS)
    kinds = [arguments.only] if arguments.only else KINDS
    cases = [(kind, H, T) for kind in kinds for H in units for T in steps]
    outputs, gradients = [], []
    for case in tqdm(cases):
        of_output, of_gradient = measure(*case)
        outputs.append([*case, *map(shown, of_output.values())])
        gradients.append([*case, *map(shown, of_gradient.values())])
    found = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba")}
    text = "\n\n".join([
        "# What each precision costs in accuracy",
        f"{datetime.date.today()}. {of_machine(machine())}",
        of_versions(found),
        f"One layer, one direction, I=H, B={BATCH}, parameters as a new layer has them, input of variance 1."
        " Against the same in float64: the largest error, and the mean in brackets.",
        "Of the output:",
        table(["", "H", "T", *PRECISIONS], outputs),
        "Of the gradient of the parameters, as parts of the largest of it:",
        table(["", "H", "T", *TRAINED], gradients),
    ]) + "\n"  # fmt: skip
    partly = arguments.only or arguments.tiny
    output = (ROOT / "build" / "bench" if partly else ROOT / "bench" / "results") / "precision.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
