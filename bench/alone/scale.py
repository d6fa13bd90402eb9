"""Rows a second against size: of the batch, from 100 to 100 million rows; of the steps, to a million; of H, to 4096.

    python -m bench.alone.scale            four minutes, 6 GB of memory and 2 GB of a temporary folder
    python -m bench.alone.scale --tiny     sizes to a hundredth, to try this script

LSTM in float32 on one thread: inference, and a training step, a forward and a backward pass. Rows are read from a file
that is mapped into memory, read-only. Of long batches and many steps the training step goes in pieces, with
``checkpoint``. The figure and the numbers, ``scale.png`` and ``scale.md``, go to the folder of this machine in
``bench/results``; to ``build/bench`` if sizes are small.
"""

import argparse
import datetime
import tempfile
import time
from pathlib import Path

from bench.tools.environment import machine, prepare, versions

#: steps of a batch, and its columns and units, while its rows grow
STEPS, NARROW = 100, 4
ROWS = [10**n for n in range(2, 9)]
#: inputs and units of one sequence, while its steps grow
INPUTS, UNITS = 16, 64
LONG = [10**n for n in range(2, 7)]
#: sequences, while units grow; inputs are as many
SEQUENCES = 32
WIDE = [2**n for n in range(4, 13)]
#: rows of which all is kept at once: more are trained in pieces
AT_ONCE = 100_000
#: rows of the longest batch that is trained
MOST_TRAINED = 10**7


def mapped(folder, shape):
    """An array of random numbers in a file, which is mapped into memory, read-only."""
    import numpy as np

    path, block = Path(folder) / "rows.npy", 1 << 22
    numbers = np.random.default_rng(0).standard_normal(block, np.float32)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    flat = rows.reshape(-1)
    for first in range(0, flat.size, block):
        flat[first : first + block] = numbers[: min(block, flat.size - first)]
    rows.flush()
    return np.load(path, mmap_mode="r")


def rate(run, rows, seconds):
    """Rows a second: of the fastest of as many runs as there is time for, and of two at least.

    The first run is the first to touch the pages of its results, which a virtual machine may not even have.
    """
    times, end = [], time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return rows / min(times)


def measure(layer, x, seconds, trains=True):
    """Rows a second of inference, and of training or None, on an input (T, B, I)."""
    import numpy as np

    T, B, _ = x.shape
    first, _, tape = layer.forward(x[:2])  # compiles, or loads what is compiled
    layer.backward(tape, first)
    inference = rate(lambda: layer(x), T * B, seconds)
    if not trains:
        return inference, None
    checkpoint = None if T * B <= AT_ONCE else max(1, round(T**0.5))
    d_output = np.ones((T, B, layer.output_size), np.float32)

    def train():
        _, _, tape = layer.forward(x, checkpoint=checkpoint)
        layer.backward(tape, d_output)

    return inference, rate(train, T * B, seconds)


def flops(layer):
    """Operations of the products of a row, in inference."""
    return 2 * 4 * layer.hidden_size * (layer.input_size + layer.hidden_size)


def panels(folder, seconds, share):
    """What is measured, by panel: sizes, and rows a second of inference and of training."""
    from tqdm import tqdm

    import numba_pack as nbp

    narrow, long = nbp.LSTM(NARROW, NARROW, rng=0), nbp.LSTM(INPUTS, UNITS, rng=0)
    cases = [("N", N, narrow, (STEPS, N // STEPS, NARROW)) for N in ROWS if N <= ROWS[-1] * share]
    cases += [("T", T, long, (T, 1, INPUTS)) for T in LONG if T <= LONG[-1] * share]
    for H in WIDE[: None if share == 1 else 5]:
        of_a_row = 2 * 4 * H * 2 * H
        cases.append(("H", H, None, (min(STEPS, int(4e11 / (SEQUENCES * of_a_row))), SEQUENCES, H)))
    found = {"N": {}, "T": {}, "H": {}}
    for panel, size, layer, shape in tqdm(cases):
        layer = layer or nbp.LSTM(size, size, rng=0)
        x = mapped(folder, shape)
        found[panel][size] = measure(layer, x, seconds, trains=shape[0] * shape[1] <= MOST_TRAINED)
    return found


TITLES = {
    "N": f"Rows of a batch (T={STEPS}, I=H={NARROW})",
    "T": f"Steps of one sequence (I={INPUTS}, H={UNITS})",
    "H": f"Units (B={SEQUENCES}, I=H)",
}


def draw(found, path):
    """A panel for each; the line of equal operations a second is what wide layers can follow at best."""
    from bench.compare.figures import FAINT, INK, plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    for axis, (panel, points) in zip(axes, found.items(), strict=True):
        sizes = list(points)
        for i, (name, colour) in enumerate({"inference": "#c2255c", "training": "#2b6cb0"}.items()):
            shown = [(size, points[size][i]) for size in sizes if points[size][i]]
            axis.plot(*zip(*shown, strict=True), "o-", color=colour, markersize=4, label=name)
        if panel == "H":
            last = points[sizes[-1]][0]
            line = [last * (sizes[-1] / size) ** 2 for size in sizes]
            axis.plot(sizes, line, "--", color=INK, linewidth=0.8, label="equal operations a second")
        axis.set(xscale="log", yscale="log", xlabel=panel, title=TITLES[panel])
        if panel == "H":
            axis.set_xscale("log", base=2)
            axis.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
        axis.grid(True, which="major", color=FAINT)
        if panel != "H":  # a decade more on each side: a flat curve is to look flat
            rates = [rate for each in points.values() for rate in each if rate]
            axis.set_ylim(min(rates) / 3, max(rates) * 3)
        axis.legend()
    axes[0].set_ylabel("rows a second")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each point (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="sizes to a hundredth, and a tenth of a second a point")
    arguments = parser.parse_args()
    prepare()
    import numba_pack as nbp
    from bench.compare.report import list_results, page_of
    from bench.tools.markdown import of_machine, of_versions, table

    seconds, share = (0.1, 0.01) if arguments.tiny else (arguments.seconds, 1)
    with tempfile.TemporaryDirectory() as folder:
        found = panels(folder, seconds, share)
    page = page_of("scale.md", partly=arguments.tiny)
    page.parent.mkdir(parents=True, exist_ok=True)
    draw(found, page.with_suffix(".png"))
    used = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba")}
    parts = [
        "# Scale",
        f"{datetime.date.today()}. {of_machine(machine())}",
        of_versions(used),
        "LSTM, float32, one thread; the least time of the runs that fit into some seconds, two at least. Input is"
        f" read from a file that is mapped into memory. A training step of more than {AT_ONCE:,} rows goes in pieces,"
        " `forward(x, checkpoint=k)` with k the square root of T, and so has a forward pass more.",
        "![rows a second against size](scale.png)",
    ]
    for panel, points in found.items():
        header = [panel, "rows a second, inference", "training"]
        rows = [[f"{size:,}", *(f"{rate:,.3g}" if rate else "" for rate in points[size])] for size in points]
        if panel == "H":
            header.append("GFLOP/s, inference")
            for row, size in zip(rows, points, strict=True):
                row.append(f"{points[size][0] * flops(nbp.LSTM(size, size)) / 1e9:.0f}")
        parts += [f"## {TITLES[panel]}", table(header, rows)]
    text = "\n\n".join(parts) + "\n"
    page.write_text(text, encoding="utf-8")
    if not arguments.tiny:
        list_results()
    print(text)


if __name__ == "__main__":
    main()
