"""Read lines of digits, column of pixels by column: a bidirectional LSTM trained with CTC on packed rows.

Each line is drawn here: three to ten digits, each as wide as chance will have it, with gaps, and noise over all. Nobody
tells which column belongs to which digit: CTC sums over all ways to lay the digits out on the line. The lines are of
very different widths, and none is padded.

    python examples/reading.py
    python examples/reading.py --epochs 30 --noise 0.5
"""

import argparse

import numpy as np
from tqdm import tqdm

import numba_pack as nbp

ROWS, BLANK = 5, 10  # of pixels; the class that is no digit
#: the five rows of each digit, from the top, each of three pixels
FONT = ["75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717"]
GLYPHS = [np.array([[int(row) >> bit & 1 for row in rows] for bit in (2, 1, 0)], np.float32) for rows in FONT]


def main():
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    train, test = ([line(rng, arguments.noise) for _ in range(count)] for count in (1500, 300))
    batches = nbp.data.Batches(*zip(*train, strict=True), rows=1000, seed=arguments.seed)
    model = nbp.Model(
        lstm=nbp.LSTM(ROWS, 32, bidirectional=True, rng=rng), linear=nbp.Linear(64, len(GLYPHS) + 1, rng=rng)
    )
    widths = [len(columns) for columns, _ in train]
    print(f"{len(train)} lines of {min(widths)} to {max(widths)} columns")
    adam = nbp.optim.Adam()
    with tqdm(total=arguments.epochs, unit="epoch") as bar:
        while batches.epoch < arguments.epochs:
            adam.lr = nbp.optim.one_cycle_lr(batches.epoch, max_lr=0.02, total_steps=arguments.epochs)
            losses = [step(model, adam, *batch) for batch in batches]
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", wrong=f"{wrong(model, test):.1%}")
            bar.update()
    print(f"{wrong(model, test):.2%} of the digits of {len(test)} lines are wrong, missing or too many")
    columns, digits = test[0]
    print(*("".join("#" if pixel > 0.5 else " " for pixel in row) for row in columns.T), sep="\n")
    print("".join(map(str, digits)), "was read as", "".join(map(str, next(read(model, [columns])))))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--noise", type=float, default=0.3, help="on pixels from 0 to 1 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of lines, parameters and batches (default: %(default)s)")
    return parser.parse_args()


def line(rng, noise):
    """The columns of a line (T, ROWS), and its digits."""
    digits = rng.integers(0, len(GLYPHS), rng.integers(3, 11))
    gaps = [np.zeros((rng.integers(1, 5), ROWS), np.float32) for _ in range(len(digits) + 1)]
    drawn = [np.repeat(GLYPHS[digit], rng.integers(1, 4, 3), axis=0) for digit in digits]
    columns = np.concatenate([part for pair in zip(gaps, [*drawn, gaps[0]], strict=True) for part in pair])
    return columns + noise * rng.standard_normal(columns.shape, np.float32), digits


def step(model, adam, columns, digits):
    """Train on a batch; return its loss."""
    logits, tape = model.forward(columns)
    loss, d_logits = nbp.losses.ctc(logits, digits, blank=BLANK)
    gradient, _ = nbp.optim.clip_grad_norm(model.backward(tape, d_logits).parameters, 1.0)
    model.parameters = adam.step(model.parameters, gradient)
    return loss


def read(model, lines):
    """The digits of each line: the likeliest class of each column, once where it stays the same, without blanks."""
    logits = model(nbp.pack_sequence(lines))
    for classes in nbp.unpack_sequence(logits.map(lambda rows: rows.argmax(axis=1))):
        changes = np.flatnonzero(np.diff(classes, prepend=BLANK))
        yield classes[changes][classes[changes] != BLANK].tolist()


def wrong(model, lines):
    """Digits to be put in, taken out or changed, for each that there is."""
    found = read(model, [columns for columns, _ in lines])
    edits = sum(distance(digits.tolist(), other) for (_, digits), other in zip(lines, found, strict=True))
    return edits / sum(len(digits) for _, digits in lines)


def distance(first, second):
    """The least number of edits from one list to another."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            before, row[j] = row[j], min(before + (one != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


if __name__ == "__main__":
    main()
