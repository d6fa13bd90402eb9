"""The results as figures."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

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


def speed(results):
    """Each peer's time over this library's, for all shapes."""
    parts = [(title, results[part]) for part, title in TITLES.items() if results[part]]
    if not parts:
        return None
    height = 1.3 + 0.17 * max(len(rows) for _, rows in parts)
    figure, axes = plt.subplots(1, len(parts), figsize=(max(6.5, 5.4 * len(parts)), height), squeeze=False)
    for axis, (title, rows) in zip(axes[0], parts, strict=True):
        for at, row in enumerate(rows):
            ratios = {peer: against(row, peer) for peer in PEERS if peer in row["median"]}
            if ratios:
                axis.plot([1, max(ratios.values())], [at, at], color=FAINT, linewidth=1, zorder=1)
            for peer, ratio in ratios.items():
                axis.plot(ratio, at, MARKERS[peer], color=COLOURS[peer], markersize=4.5, zorder=2)
        axis.axvline(1, color=COLOURS[OURS], linewidth=1.5)
        axis.set(title=title, xlabel="time of a peer / time of numba_pack")
        axis.set_yticks(range(len(rows)), [row["id"] for row in rows], fontsize=7)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        _log(axis, "x")
        axis.grid(axis="x")
    handles = [Line2D([], [], marker=MARKERS[peer], color=COLOURS[peer], linestyle="", label=peer) for peer in PEERS]
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
    figure, axis = plt.subplots(figsize=(7.6, 4.8))
    axis.set(
        xlim=(0.3, 100), ylim=(8, 1.3 * max(peak, *[rate(row) / 1e9 for row in rows])), ylabel="GFLOP/s",
        xlabel="operations a byte of weights, those of the state being read once a time step",
        title="numba_pack under the ceilings of the machine: forward, float32, one thread",
    )  # fmt: skip
    _log(axis, "both")
    for level, colour in (("L2", "#444444"), ("L3", "#777777"), ("DRAM", "#a5a5a5")):
        slope = bandwidths[level] / 1e9
        axis.plot([0.3, peak / slope], [0.3 * slope, peak], color=colour, linewidth=1.2)
        x = max(0.32, 9.5 / slope)
        axis.text(
            x, 1.06 * x * slope, f"{level} {slope:.0f} GB/s", color=colour, fontsize=8, rotation_mode="anchor",
            rotation=np.degrees(np.arctan(slope)), transform_rotates_text=True,
        )  # fmt: skip
    axis.axhline(peak, color=INK, linewidth=1.2)
    axis.axhline(sgemm, color=INK, linewidth=1, linestyle="--")
    for value, text in ((peak, "fused multiply-adds"), (sgemm, "NumPy's sgemm")):
        axis.text(98, value * 1.015, f"{text} {value:.0f} GFLOP/s", ha="right", va="bottom", fontsize=8)
    for row in rows:
        axis.plot(
            row["operations"] / row["weight_bytes"], rate(row) / 1e9, CELL_MARKERS[row["cell"]],
            color=SIZE_COLOURS[row["H"]], markersize=6, markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
    handles = [Line2D([], [], marker=m, color=INK, linestyle="", label=cell) for cell, m in CELL_MARKERS.items()]
    for H in sorted({row["H"] for row in rows}):
        handles.append(Line2D([], [], marker="o", color=SIZE_COLOURS[H], linestyle="", label=f"H = {H}"))
    axis.legend(handles=handles, loc="lower right", ncols=3, fontsize=8)
    return figure


def fill(results):
    """Packed over padded time against the fill."""
    rows = sorted(results["fill"], key=lambda row: row["fill"])
    if not rows:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4), sharey=True)
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
    axes[0].set_ylabel("packed time / padded time")
    axes[1].legend(loc="lower right")
    return figure


def scaling(results):
    """Time a row against T, B and H, and time against threads."""
    shapes = {row["id"]: row for row in results["forward"]}
    long = [row for row in results["training"] if row["id"].startswith("LSTM-B8-H64-near-equal")]
    batches = [shapes.get(f"LSTM-B{B}-H128{'-T100' if B == 1 else '-lognormal'}") for B in (1, 8, 32, 128)]
    sizes = [shapes.get(f"LSTM-B32-H{H}-lognormal") for H in (32, 64, 128, 256, 512)]
    panels = [
        ("Forward and backward, B = 8, H = 64", "T", long),
        ("Forward, H = 128, log-normal lengths", "B", [row for row in batches if row]),
        ("Forward, B = 32, log-normal lengths", "H", [row for row in sizes if row]),
    ]
    panels = [panel for panel in panels if len(panel[2]) > 1]
    threads = results.get("threads", {}).get("all", {})
    if not panels and not threads:
        return None
    count = len(panels) + bool(threads)
    figure, axes = plt.subplots(-(-count // 2), 2, figsize=(7.8, 0.3 + 3.1 * -(-count // 2)), squeeze=False)
    axes = list(axes.flat)
    for title, letter, rows in panels:
        axis = axes.pop(0)
        for name in (OURS, *PEERS):
            took_part = [row for row in rows if name in row["median"]]
            _line(axis, [(row[letter], row["median"][name] / row["N"] * 1e6) for row in took_part], name)
        axis.set(title=title, xlabel=letter, ylabel="µs a row")
        _sizes(axis, [row[letter] for row in rows])
    if threads:
        axis = axes.pop(0)
        for name, times in threads.items():
            _line(axis, [(int(n), seconds * 1e3) for n, seconds in times.items()], name)
        axis.set(title="Forward, B = 32, H = 256, log-normal lengths", xlabel="threads", ylabel="ms")
        _sizes(axis, [int(n) for n in threads[OURS]])
    for axis in axes:
        axis.set_axis_off()
    handles = [Line2D([], [], marker=MARKERS[name], color=COLOURS[name], label=name) for name in (OURS, *PEERS)]
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    return figure


def _line(axis, points, name):
    if points:
        axis.plot(*zip(*points, strict=True), marker=MARKERS[name], color=COLOURS[name], markersize=4.5)


def _sizes(axis, values):
    """Logarithmic axes with a tick for each size."""
    _log(axis, "both")
    axis.set_xticks(values, [f"{value}" for value in values])
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
        "The time of each peer over that of numba_pack, on one thread.",
    ),
    "fill.png": (fill, "What packing saves in one library: LSTM, B = 32, H = 128, T = 100, one thread."),
    "scaling.png": (scaling, "LSTM against T, B, H and threads. A flat line is time in proportion to the rows."),
    "roofline.png": (roofline, "Each shape under what the machine can compute, and read from its caches."),
}
