"""What packing is, in one picture and a few printed lines.

Eight sequences of different lengths are drawn padded, sorted and packed. Then the packed batch is changed: row by row
with ``map``, and sequence by sequence with ``each``.

    python examples/packing.py --output packing.png
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import numba_pack as nbp

LENGTHS = (4, 6, 8, 5, 4, 3, 7, 8)
NAMES = "ABCDEFGH"
COLOURS = plt.get_cmap("viridis")(np.linspace(0.12, 1.0, max(LENGTHS)))  # one for each time step
INK, PADDING = "#333333", "#e8e8e8"
ARROW = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.5, "mutation_scale": 16}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="packing.png", help="where the figure goes (default: %(default)s)")
    arguments = parser.parse_args()

    # Row t of sequence i holds (i, t), so that each row tells where it came from.
    sequences = [np.array([(i, t) for t in range(length)], np.float32) for i, length in enumerate(LENGTHS)]
    packed = nbp.pack_sequence(sequences)
    print(nbp.packing_report(LENGTHS))
    show_map_and_each()
    draw(sequences, packed).savefig(arguments.output, dpi=110)
    print(f"\nThe figure is in {arguments.output}")


def show_map_and_each():
    """Change a packed batch without unpacking it by hand: both give a new batch and leave the old one as it is."""
    batch = nbp.pack_sequence([np.array([[1.0], [2.0], [3.0]]), np.array([[10.0]]), np.array([[4.0], [6.0]])])

    # map: a function of all rows at once, (N, *) -> (N, *). For what treats each row alone: scaling, a dense layer.
    halves = batch.map(lambda rows: rows / 2)

    # each: a function of one sequence at a time, (T_i, *) -> (new T_i, *), whose results are packed again. For what
    # looks along time: a mean over a sequence, differences, every second step, turning time round.
    centred = batch.each(lambda sequence: sequence - sequence.mean(axis=0))
    last_two = batch.each(lambda sequence: sequence[-2:])

    print()
    for call, result in (
        ("the batch", batch),
        ("batch.map(lambda rows: rows / 2)", halves),
        ("batch.each(lambda sequence: sequence - sequence.mean(axis=0))", centred),
        ("batch.each(lambda sequence: sequence[-2:])", last_two),
    ):
        print(f"{call:<62}", *(sequence.ravel().tolist() for sequence in nbp.unpack_sequence(result)))


def draw(sequences, packed):
    figure, axes = plt.subplots(figsize=(10.4, 6.2), layout="constrained")
    axes.set(xlim=(-6.3, 45.3), ylim=(26, -5))  # a row of the packed batch is 1 wide
    axes.set_axis_off()

    padded = nbp.pad_sequence(sequences, batch_first=True, padding_value=np.nan)  # (B, T, 2)
    rows, wasted = padded[..., 0].size, np.isnan(padded[..., 0]).sum()
    write(axes, 0, -4.5, f"Padded: {rows} rows", "Eight sequences, A to H, each filled up to the longest.")
    write(axes, 25, -4.5, "Sorted, longest first", "At each step, the sequences that still run come first.")
    draw_grid(axes, 0, padded)
    draw_grid(axes, 25, padded[packed.sorted_indices], show_padding=False)
    label(axes, 22.1, 5.6, f"sort, and\nleave out\n{wasted} rows of\npadding", fontsize=9)
    axes.annotate("", (24.8, 8.2), (19.4, 8.2), arrowprops=ARROW)
    label(axes, 41.2, 13.4, "read column\nby column", fontsize=9)
    axes.annotate("", (38.2, 19.6), (38.2, 8), arrowprops=ARROW)

    caption = "The columns one after another: no padding, and each time step is one block of rows."
    write(axes, 0, 17.2, f"Packed: {len(packed.data)} rows", caption)
    draw_packed(axes, 21.3, packed)
    return figure


def draw_grid(axes, left, grid, show_padding=True):
    """Draw a (B, T, 2) grid of rows, a sequence to a line."""
    for line, sequence in enumerate(grid):
        for t, row in enumerate(sequence):
            if show_padding or not np.isnan(row).any():
                draw_cell(axes, left + 2.4 * t, 1.9 * line, 2.4, 1.9, row)
    for t in range(grid.shape[1]):
        label(axes, left + 2.4 * t + 1.2, -0.6, f"t={t}", fontsize=8)


def draw_packed(axes, top, packed):
    """Draw the rows of a packed batch side by side, and the batch sizes beneath."""
    for x, row in enumerate(packed.data):
        draw_cell(axes, x, top, 1, 1.6, row)
    ends = np.cumsum(packed.batch_sizes)
    for t, (end, size) in enumerate(zip(ends, packed.batch_sizes, strict=True)):
        left, right = end - size + 0.15, end - 0.15
        axes.plot([left, left, right, right], [top + 1.9, top + 2.3, top + 2.3, top + 1.9], color=INK, linewidth=1)
        label(axes, end - size / 2, top - 0.6, f"t={t}", fontsize=8)
        label(axes, end - size / 2, top + 3.2, size, fontsize=11, fontweight="bold")
    label(axes, -0.5, top + 0.8, "data", ha="right", family="monospace")
    label(axes, -0.5, top + 3.2, "batch_sizes", ha="right", family="monospace")


def draw_cell(axes, x, y, width, height, row):
    """Draw one row of the batch: (sequence, time), or NaN for padding."""
    if np.isnan(row).any():
        axes.add_patch(Rectangle((x, y), width, height, facecolor=PADDING, edgecolor="white", hatch="////"))
        return
    i, t = row.astype(int)
    axes.add_patch(Rectangle((x, y), width, height, facecolor=COLOURS[t], edgecolor="white"))
    label(axes, x + width / 2, y + height / 2, NAMES[i], color="white" if t < 4 else INK, fontsize=9)


def write(axes, x, y, title, caption):
    label(axes, x, y, title, ha="left", fontsize=13, fontweight="bold")
    label(axes, x, y + 1.8, caption, ha="left")


def label(axes, x, y, text, **style):
    axes.text(x, y, text, **{"ha": "center", "va": "center_baseline", "color": INK, "fontsize": 10, **style})


if __name__ == "__main__":
    main()
