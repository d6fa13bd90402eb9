"""The results as figures."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from bench.compare.scaling import SHAPES
from bench.compare.targets import OURS, PEERS, against, packed_share, rate

COLOURS = {
    OURS: "#c2255c",
    "PyTorch packed": "#e8890c",
    "PyTorch padded": "#8d6e3f",
    "ONNX Runtime": "#2b6cb0",
    "OpenVINO": "#2f9e8f",
}
MARKERS = {OURS: "o", "PyTorch packed": "s", "PyTorch padded": "D", "ONNX Runtime": "^", "OpenVINO": "v"}
CELL_MARKERS = {"LSTM": "o", "GRU": "s", "RNN": "^"}
SIZE_COLOURS = {32: "#f6c445", 64: "#f08c2e", 100: "#e0564a", 128: "#b5367a", 256: "#6a1b8a", 512: "#1e1b5c"}
INK, FAINT = "#333333", "#d9d9d9"
TITLES = {"forward": "Forward", "training": "Forward and backward"}
plt.rcParams.update(
    {
        "font.size": 9,
        "axes.edgecolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.5,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
)


def draw(results, folder):
    """Draw each figure that there are numbers for; returns captions by the names of the files."""
    captions = {}
    for name, (figure, caption) in _FIGURES.items():
        drawn = figure(results)
        if drawn is not None:
            drawn.savefig(folder / name, dpi=110)
            plt.close(drawn)
            captions[name] = caption
    return captions


#: what the first figure shows, by part, and how a reader calls it; the last is what it is the same as but for
NAMED = {
    "forward": {
        "LSTM-B1-H64-T100": "LSTM, one sequence, 64 units",
        "LSTM-B1-H512-T100": "LSTM, one sequence, 512 units",
        "LSTM-B8-H128-lognormal": "LSTM, 8 sequences, 128 units",
        "LSTM-B32-H128-lognormal": "LSTM, 32 sequences, 128 units",
        "LSTM-B32-H128-equal": "the same, of equal lengths",
        "LSTM-B32-H128-lognormal-bi": "the same, in both directions",
        "LSTM-B128-H512-lognormal": "LSTM, 128 sequences, 512 units",
        "GRU-B32-H128-lognormal": "GRU, 32 sequences, 128 units",
    },
    "training": {
        "LSTM-B32-H128-lognormal": "LSTM, 32 sequences, 128 units",
        "LSTM-B32-H512-lognormal": "LSTM, 32 sequences, 512 units",
        "GRU-B32-H128-lognormal": "GRU, 32 sequences, 128 units",
        "LSTM-B8-H64-near-equal-T1600": "LSTM, 8 sequences of 1600 steps, 64 units",
    },
}


def speed(results):
    """Each peer's time over this library's, for a dozen shapes."""
    parts = {part: {row["id"]: row for row in results[part] if row["id"] in names} for part, names in NAMED.items()}
    parts = {part: rows for part, rows in parts.items() if rows}
    if not parts:
        return None
    counts = [len(rows) for rows in parts.values()]
    figure, axes = plt.subplots(
        len(parts), 1, figsize=(8.6, 1.2 + 0.42 * sum(counts)), squeeze=False, sharex=True, height_ratios=counts
    )
    for axis, (part, rows) in zip(axes[:, 0], parts.items(), strict=True):
        names = []
        for at, (name, row) in enumerate((NAMED[part][id], rows[id]) for id in NAMED[part] if id in rows):
            names.append(f"{name}: {row['median'][OURS] * 1e3:.3g} ms")
            if at % 2 == 0:
                axis.axhspan(at - 0.5, at + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
            for lane, peer in enumerate(PEERS):  # a lane each, so that no marker is on another
                if peer in row["median"]:
                    y, ratio = at + 0.21 * (lane - 1.5), against(row, peer)
                    axis.plot([1, ratio], [y, y], color=COLOURS[peer], linewidth=1.2, alpha=0.5, zorder=1)
                    axis.plot(ratio, y, MARKERS[peer], color=COLOURS[peer], markersize=4.5, zorder=2)
        axis.axvline(1, color=COLOURS[OURS], linewidth=1.5)
        axis.set(title=TITLES[part], ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(axis="y", length=0)
        _log(axis, "x")
        axis.grid(axis="x")
    axes[-1, 0].set_xlabel("time of a peer / time of numba_pack")
    handles = [Line2D([], [], marker=MARKERS[peer], color=COLOURS[peer], label=peer) for peer in PEERS]
    handles.append(Line2D([], [], color=COLOURS[OURS], label=OURS))
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    return figure


def roofline(results):
    """Operations a second over operations a byte of weights, under the ceilings of the machine."""
    rows = [row for row in results["forward"] if row["dtype"] == "float32"]
    if not rows or "ceilings" not in results:
        return None
    operations, bandwidths = results["ceilings"]["operations"], results["ceilings"]["bytes"]
    peak, sgemm = operations["peak float32"] / 1e9, operations["NumPy sgemm"] / 1e9
    figure, axis = plt.subplots(figsize=(8.6, 5.2))
    axis.set(
        xlim=(0.3, 150), ylim=(20, 1.4 * max(peak, *[rate(row) / 1e9 for row in rows])), ylabel="GFLOP/s",
        xlabel="operations for each byte of weights read: those of the input once, those of the state every step",
        title="Forward, float32, one thread: what is reached, and what the machine can do",
    )  # fmt: skip
    _log(axis, "both")
    for level, colour in (("L2", "#444444"), ("L3", "#777777"), ("DRAM", "#a5a5a5")):
        slope = bandwidths[level] / 1e9
        axis.plot([0.3, peak / slope], [0.3 * slope, peak], color=colour, linewidth=1.2)
        y = max(0.31 * slope, 22.5)
        axis.annotate(
            f"{level} {slope:.0f} GB/s", (y / slope, y), (5, 0), textcoords="offset points", color=colour, va="top"
        )
    axis.axhline(peak, color=INK, linewidth=1.2)
    axis.axhline(sgemm, color=INK, linewidth=1, linestyle="--")
    for value, text in ((peak, "fused multiply-adds"), (sgemm, "NumPy's sgemm")):
        axis.text(145, value * 1.015, f"{text} {value:.0f} GFLOP/s", ha="right", va="bottom", fontsize=8)
    points = [(row["operations"] / row["weight_bytes"], rate(row) / 1e9) for row in rows]
    for row, (x, y) in zip(rows, _apart(points), strict=True):
        axis.plot(
            x, y, CELL_MARKERS[row["cell"]],
            color=SIZE_COLOURS[row["H"]], markersize=6, markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
    handles = [Line2D([], [], marker=m, color=INK, linestyle="", label=cell) for cell, m in CELL_MARKERS.items()]
    for H in sorted({row["H"] for row in rows}):
        handles.append(Line2D([], [], marker="o", color=SIZE_COLOURS[H], linestyle="", label=f"H = {H}"))
    axis.legend(handles=handles, loc="lower right", ncols=3, fontsize=8)
    return figure


def _apart(points, x_step=0.045, y_step=0.03):
    """Points moved to the side, where one would be on another: steps are parts of a power of ten."""
    placed = []
    for x, y in np.log10(points):
        for aside in sorted(range(-20, 21), key=abs):
            there = x + aside * x_step
            if all(abs(there - a) >= 0.99 * x_step or abs(y - b) >= y_step for a, b in placed):
                break
        placed.append((there, y))
    return 10 ** np.array(placed)


def fill(results):
    """Packed over padded time against the fill."""
    rows = sorted(results["fill"], key=lambda row: row["fill"])
    if not rows:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.2), sharey=True)
    figure.suptitle("LSTM, 32 sequences, 128 units, up to 100 steps", fontsize=9.5, x=0.01, ha="left")
    x = [row["fill"] for row in rows]
    for axis, (part, title) in zip(axes, TITLES.items(), strict=True):
        ends = np.array([0.09, 1.1])
        axis.plot(ends, ends, color=INK, linewidth=1, linestyle="--", label="ideal: in proportion to the rows")
        axis.fill_between(ends, ends, 1.15 * ends, color=FAINT, linewidth=0, label="up to 15 % more")
        if all("PyTorch packed" in row[part]["median"] for row in rows):
            ratios = [row[part]["median"]["PyTorch packed"] / row[part]["median"]["PyTorch padded"] for row in rows]
            axis.plot(x, ratios, "s-", color=COLOURS["PyTorch packed"], markersize=4, label="PyTorch")
        axis.plot(x, [packed_share(row[part]) for row in rows], "o-", color=COLOURS[OURS], markersize=5, label=OURS)
        axis.set(title=title, xlabel="fill: rows / (sequences x longest)", xlim=ends)
        _log(axis, "both")
        axis.set_xticks([0.1, 0.2, 0.3, 0.5, 0.7, 1])
        axis.grid()
    axes[0].set_ylabel("packed time / padded time, of the same library")
    axes[1].legend(loc="lower right")
    return figure


def scaling(results):
    """Time a row against T, B and H, and time against threads."""
    shapes = {row["id"]: row for row in results["forward"]}
    long = [row for row in results["training"] if row["id"].startswith("LSTM-B8-H64-near-equal")]
    batches = [shapes.get(f"LSTM-B{B}-H128{'-T100' if B == 1 else '-lognormal'}") for B in (1, 8, 32, 128)]
    sizes = [shapes.get(f"LSTM-B32-H{H}-lognormal") for H in (32, 64, 128, 256, 512)]
    panels = [
        ("Forward and backward: B = 8, H = 64", "T", long),
        ("Forward: H = 128", "B", [row for row in batches if row]),
        ("Forward: B = 32", "H", [row for row in sizes if row]),
    ]
    panels = [panel for panel in panels if len(panel[2]) > 2]
    threads = results.get("threads", {}).get("all", {}).get(SHAPES[0], {})
    threads = threads if len(threads.get(OURS, ())) > 1 else {}
    if not panels and not threads:
        return None
    count = len(panels) + bool(threads)
    figure, axes = plt.subplots(-(-count // 2), 2, figsize=(8.6, 0.3 + 3.1 * -(-count // 2)), squeeze=False)
    axes = list(axes.flat)
    for title, letter, rows in panels:
        axis = axes.pop(0)
        for name in (OURS, *PEERS):
            took_part = [row for row in rows if name in row["median"]]
            _line(axis, [(row[letter], row["median"][name] / row["N"] * 1e6) for row in took_part], name)
        axis.set(title=title, xlabel=letter, ylabel="µs a row")
        _sizes(axis, [row[letter] for row in rows])
    if threads:
        _threads(axes.pop(0), threads)
    for axis in axes:
        axis.set_axis_off()
    handles = [Line2D([], [], marker=MARKERS[name], color=COLOURS[name], label=name) for name in (OURS, *PEERS)]
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    return figure


def _threads(axis, threads):
    """Milliseconds by the number of threads; where there are but two numbers, what the second thread gains."""
    counts = [int(n) for n in threads[OURS]]
    axis.set_title("Threads, forward: B = 32, H = 256")
    if len(counts) > 2:
        for name, times in threads.items():
            _line(axis, [(int(n), seconds * 1e3) for n, seconds in times.items()], name)
        axis.set(xlabel="threads", ylabel="ms")
        _sizes(axis, counts)
        return
    gains = {name: times["1"] / times["2"] for name, times in threads.items()}
    bars = axis.barh(list(gains), list(gains.values()), color=[COLOURS[name] for name in gains], height=0.6)
    axis.bar_label(bars, [f"{gain:.2f}" for gain in gains.values()], padding=3)
    axis.set(xlabel="time with one thread / with two", xlim=(0, 2.4))
    axis.invert_yaxis()
    axis.axvline(1, color=INK, linewidth=0.8)


def _line(axis, points, name):
    if points:
        axis.plot(*zip(*points, strict=True), marker=MARKERS[name], color=COLOURS[name], markersize=4.5)


def _sizes(axis, values):
    """Logarithmic axes with a tick for each size."""
    _log(axis, "both")
    axis.set_xticks(values, [f"{value}" for value in values])
    low, high = axis.get_ylim()
    ticks = np.outer(10.0 ** np.arange(-9, 9), (1, 2, 5)).ravel()
    axis.set_ylim(ticks[ticks <= low].max(), ticks[ticks >= high].min())
    axis.grid()


def _log(axis, which):
    """Logarithmic, with ticks at 1, 2 and 5 and plain numbers."""
    for each in {"x": [axis.xaxis], "both": [axis.xaxis, axis.yaxis]}[which]:
        each.axes.set(**{f"{each.axis_name}scale": "log"})
        each.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        each.set_major_formatter(lambda value, _: f"{value:g}")
        each.set_minor_locator(matplotlib.ticker.NullLocator())


_FIGURES = {
    "speed.png": (
        speed,
        "The time of each peer over that of numba_pack, on one thread, for a dozen shapes. Beside each name the time of"
        " numba_pack. Lengths are log-normal up to 50 steps unless it says otherwise; one sequence has 100.",
    ),
    "fill.png": (
        fill,
        "What packing saves in one library: its packed time over its own padded time. LSTM, B = 32, H = 128, T = 100,"
        " one thread. Where nothing is padded, PyTorch runs a packed batch as a padded one.",
    ),
    "scaling.png": (
        scaling,
        "LSTM against T, B, H and threads, one thread but for the last. Lengths are near-equal in the first panel, and"
        " log-normal in the others. A flat line is time in proportion to the rows.",
    ),
    "roofline.png": (
        roofline,
        "Each shape under what the machine can compute, and read from its caches. Where markers would cover each other,"
        " some stand aside.",
    ),
}
