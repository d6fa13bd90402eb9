"""A cell of one's own, from its formula to a trained net.

The cell is an LSTM in which one gate both lets in and forgets, and whose memory leaks besides: each unit at a rate of
its own, which is trained. The task is that of japanese_vowels.py, and so are the model and the training. The script
prints the cell, which shows the gradient that was derived from the formula and what is kept for it; trains it and an
LSTM of as many units; prints the accuracy of both; and draws how they learn and how long the units have come to
remember.

    python examples/own_cell.py
    python examples/own_cell.py --hidden-size 64 --epochs 30 --seed 1
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from japanese_vowels import COLOURS, COLUMNS, SPEAKERS, Classifier, accuracy, compile_all, fit, load
from matplotlib.ticker import PercentFormatter

import numba_pack as nbp
from numba_pack.cells import cell, sigmoid, tanh

LEAK = -3.0  # what every unit's leak begins with; sigmoid(-3) is 5 % a step


@cell(sums="i g o", state="h c", unit_weights="leak")
def LeakyLSTM(i, g, o, h, c, leak=LEAK):
    """Coupled gates: what is let in replaces what was there. The rest leaks by sigmoid(leak) a step."""
    i = sigmoid(i)
    c = (1 - i) * sigmoid(-leak) * c + i * tanh(g)
    return sigmoid(o) * tanh(c), c


def main():
    arguments = parse_arguments()
    print(f"{LeakyLSTM}\n")
    train, test = load("train"), load("test")
    models, histories = {}, {}
    for name, make in {"LeakyLSTM": LeakyLSTM, "LSTM": nbp.LSTM}.items():
        rng = np.random.default_rng(arguments.seed)  # the same batches for both
        layer = make(COLUMNS, arguments.hidden_size, bidirectional=True, rng=rng)
        models[name] = Classifier(layer, SPEAKERS, rng)
        print(f"{layer}, {layer.parameters.size} parameters")
        compile_all(models[name], train)
        histories[name] = fit(models[name], train, test, arguments.epochs, rng)
    for name, model in models.items():
        print(f"{name}: test accuracy after {arguments.epochs} epochs: {accuracy(model, test):.1%}")

    before, after = steps_of_memory(LEAK), steps_of_memory(leaks_of(models["LeakyLSTM"].layer))
    print(f"Units begin with a memory of {before:.1f} steps and end with {after.min():.1f} to {after.max():.1f}")
    draw(histories, before, after).savefig(arguments.output, dpi=110)
    print(f"The figure is in {arguments.output}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=100, help="units in each direction (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches (default: %(default)s)")
    parser.add_argument("--output", default="own_cell.png", help="where the figure goes (default: %(default)s)")
    return parser.parse_args()


def leaks_of(layer):
    """The leaks of both directions: a unit weight is a vector in the state dict, with the name of the argument."""
    parameters = layer.state_dict()
    return np.stack([parameters["leak_l0"], parameters["leak_l0_reverse"]])  # (D, H)


def steps_of_memory(leak):
    """The steps in which a unit whose gate stays shut forgets all but 1 / e: -1 / log(1 - sigmoid(leak))."""
    return 1 / np.logaddexp(0, leak)


def draw(histories, before, after):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    colours = dict(zip(histories, (COLOURS["test"], COLOURS["train"]), strict=True))
    for name, history in histories.items():
        epochs = np.arange(1, len(history["loss"]) + 1)
        left.semilogy(epochs, history["loss"], color=colours[name], label=name)
        middle.plot(epochs, history["test"], color=colours[name], label=f"{name}: {history['test'][-1]:.1%} at the end")
    left.set(title="Training loss", xlabel="epoch", ylabel="cross-entropy")
    left.legend()
    middle.set(title="Test accuracy", xlabel="epoch", ylim=(0, 1.02))
    middle.yaxis.set_major_formatter(PercentFormatter(1))
    middle.legend(loc="lower right")

    for steps, direction, style in zip(after, ("forward", "reverse"), ("-", "--"), strict=True):
        right.plot(np.sort(steps), style, color=colours["LeakyLSTM"], label=f"{direction} in time, after training")
    right.axhline(before, color=colours["LeakyLSTM"], alpha=0.3, label="before training")
    right.set(title="Memory of LeakyLSTM's units", xlabel="units, sorted", ylabel="steps", ylim=(0, None))
    right.legend(loc="lower right")

    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
