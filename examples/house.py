"""The rooms of the package and what they import of each other, drawn from the source itself.

Each room stands on the floor that tests/house/test_rooms.py gives it, with the modules that are in it. An arc leads
from a room to one that it imports from, the wider the more imports there are; the test sees to it that all lead down.

    python examples/house.py --output examples/house.svg
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from textwrap import wrap

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle

sys.path.extend(str(Path(__file__).resolve().parent.parent / "tests" / folder) for folder in ("", "house"))
from test_rooms import MODULES, ROOMS, imports, room_of

INK, WALL, LEFT_OUT = "#333333", "#f2f2f2", {"__init__", "__main__"}
COLOURS = plt.get_cmap("viridis")
LINE, TITLE, GAP, WIDTH = 1.0, 1.8, 0.8, 60  # heights of a line, a title and a ceiling; how wide the house is
LETTERS = 1.6  # of a module's name on one unit of width


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="house.svg", help="where the figure goes (default: %(default)s)")
    arguments = parser.parse_args()
    # The same file from the same source: text as text, no date, no names drawn at random.
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "house"}):
        metadata = {"Date": None} if arguments.output.endswith("svg") else None
        draw(arcs()).savefig(arguments.output, dpi=110, metadata=metadata)
    print(f"The figure is in {arguments.output}")


def arcs():
    """How often a module of one room imports from another, by both rooms."""
    pairs = ((room_of(module), room_of(target)) for module in MODULES for target, _ in imports(module))
    return Counter((above, below) for above, below in pairs if above != below and "the face" not in (above, below))


def modules_in(room):
    """The names of a room's modules, without the room's own."""
    names = [module.removeprefix(f"{room}.") for module in MODULES if room_of(module) == room]
    return [name for name in names if name not in LEFT_OUT]


def draw(counts):
    figure, axes = plt.subplots(figsize=(10, 9), layout="constrained")
    axes.set_axis_off()
    walls, top = {}, 0.0
    for floor, rooms in enumerate(rooms for rooms in ROOMS if rooms != ["the face"]):
        width = WIDTH / len(rooms)
        lines = [wrap(", ".join(modules_in(room)), int(width * LETTERS)) for room in rooms]
        height = TITLE + LINE * max(map(len, lines)) + 0.4
        colour = COLOURS(0.1 + 0.8 * floor / len(ROOMS))
        for i, (room, text) in enumerate(zip(rooms, lines, strict=True)):
            draw_room(axes, i * width, top, width, height, room, text, colour)
            walls[room] = (i * width, (i + 1) * width, top, top + height, colour)
        top += height + GAP
    draw_arcs(axes, walls, counts)
    axes.set(xlim=(-14, WIDTH + 22), ylim=(top - GAP, -0.2))
    return figure


def draw_room(axes, x, y, width, height, room, lines, colour):
    axes.add_patch(Rectangle((x, y), width, height, facecolor=WALL, edgecolor="white", linewidth=3))
    axes.add_patch(Rectangle((x, y), 0.6, height, facecolor=colour))
    axes.text(x + 1.4, y + 0.9, room, fontsize=11, fontweight="bold", color=INK, va="center_baseline")
    for i, line in enumerate(lines):
        axes.text(x + 1.4, y + TITLE + LINE * (i + 0.5), line, fontsize=8, color=INK, va="center_baseline")


def draw_arcs(axes, walls, counts):
    """Those of the room beside another are on its own side of the house: on the left, where it stands on the left."""
    right = max(wall[1] for wall in walls.values())
    for (above, below), count in sorted(counts.items()):
        left = any(walls[room][1] < right for room in (above, below))
        x = 0 if left else right
        start, end = (place(walls, room, above, below) for room in (above, below))
        style = f"arc3,rad={0.45 if left else -0.45}"
        arrow = FancyArrowPatch(
            (x, start), (x, end), connectionstyle=style, arrowstyle="-|>", mutation_scale=8, shrinkA=0, shrinkB=0,
            color=walls[above][4], linewidth=0.5 + 0.4 * count**0.5, alpha=0.8,
        )  # fmt: skip
        arrow.set_gid(f"{above}-{below}")
        axes.add_patch(arrow)


def place(walls, room, above, below):
    """Where on a room's wall an arc ends: what goes out low, what comes in high, the nearer room the nearer."""
    _, _, top, bottom, _ = walls[room]
    order = list(walls)
    if room == above:
        return bottom - (bottom - top) * 0.45 * (order.index(below) - order.index(above)) / len(order)
    return top + (bottom - top) * 0.45 * (order.index(below) - order.index(above)) / len(order)


if __name__ == "__main__":
    main()
