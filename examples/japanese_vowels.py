"""Tell nine speakers apart by two vowels that they say: a bidirectional LSTM trained on ragged data.

The utterances of the Japanese Vowels data set (see japanese_vowels.md) are 7 to 29 frames long. A recurrent layer runs
over them packed, and a linear layer reads the speaker from the last state of each direction. The script prints what
packing saves in an epoch, compiles what is not cached yet, trains, prints the test accuracy, times that epoch on packed
and on padded input, and draws a figure.

    python examples/japanese_vowels.py
    python examples/japanese_vowels.py --cell gru --unidirectional --hidden-size 64 --epochs 30 --seed 1
"""

import argparse
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from tqdm import tqdm

import numba_pack as nbp

CELLS = {"lstm": nbp.LSTM, "gru": nbp.GRU, "rnn": nbp.RNN}
COLUMNS, SPEAKERS = 12, 9
BATCH = 27
COLOURS = {"train": "#3b528b", "test": "#d95f02", "padding": "#d4d4d4"}


def main():
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    train, test = load("train"), load("test")
    cell, bidirectional = CELLS[arguments.cell], not arguments.unidirectional
    options = {"bidirectional": bidirectional, "matmul_precision": arguments.matmul_precision}
    layer = cell(COLUMNS, arguments.hidden_size, rng=rng, **options)
    model = Classifier(layer, SPEAKERS, rng)
    print(f"{len(train.labels)} utterances to train on, {len(test.labels)} to test on")
    print(f"{layer}, {layer.parameters.size} parameters\n")
    batches = shuffled(train, rng)
    print(f"An epoch of {len(batches)} batches, each padded to its longest utterance, and packed:")
    print(f"{report_of(layer, train, batches)}\n")

    compile_all(model, train)
    history = fit(model, train, test, arguments.epochs, rng)
    print(f"Test accuracy after {arguments.epochs} epochs: {accuracy(model, test):.1%}\n")

    packed, padded = time_epochs(model, train, batches)
    lengths, slots = lengths_and_slots(train, batches)
    print(f"The epoch on packed input: {lengths.sum()} rows, {packed * 1e3:.1f} ms")
    print(f"The same on padded input: {slots.sum()} rows, {padded * 1e3:.1f} ms, {padded / packed:.2f} times as long\n")
    caption = f"{layer}. An epoch takes {packed * 1e3:.1f} ms packed, {padded * 1e3:.1f} ms padded."
    draw(history, lengths, slots, caption).savefig(arguments.output, dpi=110)
    print(f"The figure is in {arguments.output}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=CELLS, default="lstm", help="default: %(default)s")
    parser.add_argument("--unidirectional", action="store_true", help="scan forward in time only")
    parser.add_argument("--hidden-size", type=int, default=100, help="units in each direction (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--matmul-precision", choices=("highest", "high", "medium"), help="of the layer's products")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches (default: %(default)s)")
    parser.add_argument("--output", default="japanese_vowels.png", help="where the figure goes (default: %(default)s)")
    return parser.parse_args()


# ---- data ------------------------------------------------------------------------------------------------------------


class Utterances(NamedTuple):
    sequences: list  # B arrays (T_i, COLUMNS)
    lengths: np.ndarray  # (B,)
    labels: np.ndarray  # (B,), the speakers, 0 to 8

    def select(self, chosen):
        return [self.sequences[i] for i in chosen], self.labels[chosen]


def load(part):
    with np.load(Path(__file__).with_name("japanese_vowels.npz")) as data:
        values, lengths, labels = (data[f"{part}_{name}"] for name in ("values", "lengths", "labels"))
    return Utterances(np.split(values, np.cumsum(lengths)[:-1]), lengths, labels)


def shuffled(data, rng):
    """The numbers of all utterances, in batches drawn at random."""
    order = rng.permutation(len(data.labels))
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def report_of(layer, data, batches):
    """What is computed forward in an epoch, by all gates in all directions."""
    times = layer.num_directions * len(layer.state_dict()["weight_hh_l0"]) // layer.hidden_size
    reports = [nbp.packing_report(data.lengths[chosen], layer.input_size, layer.hidden_size) for chosen in batches]
    padded, packed, *operations = (sum(column) for column in list(zip(*reports, strict=True))[:-1])
    return nbp.PackingReport(padded, packed, *[times * count for count in operations], 1 - packed / padded)


# ---- model -----------------------------------------------------------------------------------------------------------


class Classifier(nbp.Model):
    """A recurrent layer, and a linear layer, the head, on the last states of its directions."""

    def __init__(self, layer, classes, rng):
        head = nbp.Linear(layer.num_directions * layer.hidden_size, classes, dtype=layer.dtype, rng=rng)
        super().__init__(layer=layer, head=head, last_state=True)

    def loss_and_gradient(self, sequences, labels):
        logits, tape = self.forward(nbp.pack_sequence(sequences))
        loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels)
        return loss, self.backward(tape, d_logits).parameters


# ---- training --------------------------------------------------------------------------------------------------------


def compile_all(model, data):
    """Compile what is not cached yet, so that no epoch waits for it."""

    def rest():
        _, gradient = model.loss_and_gradient(*data.select([0]))
        nbp.optim.clip_grad_norm(gradient, 1.0)
        nbp.optim.Adam().step(model.parameters, gradient)

    parts = {
        "forward": lambda: nbp.warmup(model),
        "backward": lambda: nbp.warmup(model, training=True),
        "the optimiser": rest,
    }
    print("What is not cached yet is compiled, which takes some five seconds a part on an idle machine:")
    with tqdm(parts.items(), unit="part") as bar:
        for name, run in bar:
            bar.set_description(name)
            run()


def fit(model, train, test, epochs, rng):
    """Train with Adam; return the loss and the accuracies after each epoch."""
    adam = nbp.optim.Adam(lr=1e-3)
    history = {"loss": [], "train": [], "test": []}
    progress = tqdm(range(epochs), unit="epoch")
    for _ in progress:
        history["loss"].append(train_epoch(model, adam, train, shuffled(train, rng)))
        history["train"].append(accuracy(model, train))
        history["test"].append(accuracy(model, test))
        progress.set_postfix({name: f"{values[-1]:.3f}" for name, values in history.items()})
    return history


def train_epoch(model, optimizer, data, batches):
    """Take a step for each batch; return the mean loss."""
    losses = []
    for chosen in batches:
        loss, gradient = model.loss_and_gradient(*data.select(chosen))
        gradient, _ = nbp.optim.clip_grad_norm(gradient, 1.0)
        model.parameters = optimizer.step(model.parameters, gradient)
        losses.append(loss)
    return np.mean(losses)


def accuracy(model, data):
    return (model(nbp.pack_sequence(data.sequences)).argmax(axis=1) == data.labels).mean()


# ---- packed against padded -------------------------------------------------------------------------------------------


class PaddedClassifier:
    """A classifier's loss and gradient, the same numbers, computed on padded input.

    The last state of each utterance is gathered from the step at which it ends. A reverse scan over a padded batch
    would begin with the padding and carry what it makes of that into the utterance, so the reverse direction is a
    layer of its own here, which scans forward over utterances turned round before they were padded.
    """

    def __init__(self, model):
        layer = model.layer
        self.directions = [type(layer)(layer.input_size, layer.hidden_size) for _ in range(layer.num_directions)]
        self.head = nbp.Linear(model.head.in_features, model.head.out_features)
        self.parameters = model.parameters

    def loss_and_gradient(self, sequences, labels):
        # The vector of a bidirectional layer is that of its forward direction followed by that of its reverse.
        *vectors, self.head.parameters = np.split(
            self.parameters, np.cumsum([layer.parameters.size for layer in self.directions])
        )
        last = np.array([len(sequence) - 1 for sequence in sequences]), np.arange(len(sequences))
        runs, gradients = [], []
        for layer, vector, time in zip(self.directions, vectors, (1, -1), strict=False):
            layer.parameters = vector
            output, _, tape = layer.forward(nbp.pad_sequence([sequence[::time] for sequence in sequences]))  # (T, B, H)
            runs.append((output, tape))
        features = np.concatenate([output[last] for output, _ in runs], axis=1)  # (B, D * H)
        logits, of_head = self.head.forward(features)
        loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels)
        head = self.head.backward(of_head, d_logits)
        d_lasts = np.split(head.input, len(runs), axis=1)
        for layer, (output, tape), d_last in zip(self.directions, runs, d_lasts, strict=True):
            d_output = np.zeros_like(output)
            d_output[last] = d_last
            gradients.append(layer.backward(tape, d_output, input_grad=False).parameters)
        return loss, np.concatenate([*gradients, head.parameters])


def time_epochs(model, data, batches, rounds=15):
    """Median seconds of one epoch, packed and padded; by turns, so that what else the machine does falls on both."""
    models, times = (model, PaddedClassifier(model)), ([], [])
    start = model.parameters
    packed, padded = (one.loss_and_gradient(*data.select(batches[0]))[1] for one in models)
    np.testing.assert_allclose(padded, packed, rtol=1e-3, atol=1e-5)  # both do the same, and nothing compiles below
    for one, seconds in rounds * list(zip(models, times, strict=True)):
        one.parameters, adam = start, nbp.optim.Adam(lr=1e-3)
        begin = perf_counter()
        train_epoch(one, adam, data, batches)
        seconds.append(perf_counter() - begin)
    model.parameters = start
    return np.median(times, axis=1)


def lengths_and_slots(data, batches):
    """Each utterance's length, and that of the longest in its batch; batch after batch, the longest first."""
    sorted_lengths = [np.sort(data.lengths[chosen])[::-1] for chosen in batches]
    return np.concatenate(sorted_lengths), np.concatenate([np.full_like(each, each[0]) for each in sorted_lengths])


def draw(history, lengths, slots, caption):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    epochs = np.arange(1, len(history["loss"]) + 1)
    left.semilogy(epochs, history["loss"], color=COLOURS["train"])
    left.set(title="Training loss", xlabel="epoch", ylabel="cross-entropy")
    for part in ("train", "test"):
        middle.plot(epochs, history[part], color=COLOURS[part], label=f"{part}: {history[part][-1]:.1%} at the end")
    middle.set(title="Accuracy", xlabel="epoch", ylim=(0, 1.02))
    middle.yaxis.set_major_formatter(PercentFormatter(1))
    middle.legend(loc="lower right")

    right.stairs(slots, fill=True, color=COLOURS["padding"], label="padding")
    right.stairs(lengths, fill=True, color=COLOURS["train"], label="frames")
    share = 1 - lengths.sum() / slots.sum()
    right.set(title=f"An epoch, batch by batch: {share:.0%} padding", xlabel="utterance", ylabel="frames")
    right.set(xlim=(0, len(slots)), ylim=(0, 1.2 * slots.max()))  # with room for the legend
    right.legend(loc="upper center", ncols=2, frameon=False)

    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(caption, fontsize=10)
    return figure


if __name__ == "__main__":
    main()
