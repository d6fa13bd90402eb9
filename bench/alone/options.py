"""What the options of a layer cost: inference and a step of training with each, beside the plain layer's.

    python -m bench.alone.options               some minutes
    python -m bench.alone.options --only LSTM
    python -m bench.alone.options --tiny        small sizes, to try this script

The plain layer and those with an option take turns, round after round in a random order, on one thread. A training step
is a new vector of parameters, a forward and a backward pass, with a gradient of all that is returned. The tables go to
``bench/results/options.md``; to ``build/bench`` if not all is measured.
"""

import argparse
import datetime

from bench.tools.environment import ROOT, machine, prepare, versions

KINDS = ("LSTM", "GRU")
UNITS = (32, 64, 128, 256, 512)
#: by the name of its column, what a layer is given
OPTIONS = {
    "return_states": {"return_states": True},
    "recurrent_dropout": {"recurrent_dropout": 0.25},
    "zoneout": {"zoneout": 0.1},
    "layer_norm": {"layer_norm": True},
}


def functions(kind, H, x, option):
    """What is timed of a layer of H units with an option: inference, and a step of training."""
    import numpy as np

    import numba_pack as nbp

    layer = getattr(nbp, kind)(x.shape[-1], H, rng=0, **option)
    parameters, d_state = layer.parameters.copy(), np.ones((*x.shape[:-1], H), x.dtype)
    output, _ = layer(x)
    d_output = (d_state,) * len(output) if layer.return_states else d_state

    def train():
        layer.parameters = parameters
        _, _, tape = layer.forward(x)
        return layer.backward(tape, d_output)

    train()
    return {"inference": lambda: layer(x), "training": train}


def measure(kind, shape, seconds, progress):
    """Summaries of `interleave`, of the plain layer and of each option: by "inference" and "training", then by H."""
    import numpy as np

    from bench.tools.timing import interleave, summary

    found = {"inference": {}, "training": {}}
    for H in UNITS:
        x = np.random.default_rng(0).standard_normal((*shape, H)).astype(np.float32)
        timed = {name: functions(kind, H, x, option) for name, option in {"plain": {}, **OPTIONS}.items()}
        for call, of_call in found.items():
            progress.set_description(f"{kind}, H={H}, {call}")
            of_call[H] = summary(interleave({name: each[call] for name, each in timed.items()}, seconds))
            progress.update()
    return found


def of_results(kind, results):
    """A table: the time of the plain layer, and by how much each option multiplies it; of the least in brackets."""
    from bench.tools.markdown import table

    rows = []
    for call, by_units in results.items():
        for H, found in by_units.items():
            median, least = found["median"], found["min"]
            row = [f"{kind}, {call}", H, f"{1e3 * median['plain']:.3g} ({1e3 * least['plain']:.3g})"]
            row += [f"{median[name] / median['plain']:.2f} ({least[name] / least['plain']:.2f})" for name in OPTIONS]
            rows.append(row)
    return table(["", "H", "plain, ms", *OPTIONS], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="for each row of a table (default: %(default)s)")
    parser.add_argument("--only", choices=KINDS, help="one kind of layer")
    parser.add_argument("--tiny", action="store_true", help="small sizes and half a second a row")
    arguments = parser.parse_args()
    prepare()
    from tqdm import tqdm

    from bench.tools.markdown import of_machine, of_versions

    T, B, seconds = (10, 4, 0.5) if arguments.tiny else (100, 32, arguments.seconds)
    kinds = [arguments.only] if arguments.only else KINDS
    found = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba")}
    parts = [
        "# What options cost",
        f"{datetime.date.today()}. {of_machine(machine())}",
        of_versions(found),
        f"One layer, one direction, I=H, B={B}, T={T}, float32, one thread. The plain layer in milliseconds: the median"
        " of interleaved rounds, and the least in brackets; then the ratio to that of a layer with one option.",
        *(
            f"- {name}: {', '.join(f'`{key}={value}`' for key, value in option.items())}"
            for name, option in OPTIONS.items()
        ),
    ]
    with tqdm(total=2 * len(UNITS) * len(kinds)) as progress:
        parts += [of_results(kind, measure(kind, (T, B), seconds, progress)) for kind in kinds]
    text = "\n\n".join(parts) + "\n"
    partly = arguments.only or arguments.tiny
    output = (ROOT / "build" / "bench" if partly else ROOT / "bench" / "results") / "options.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
