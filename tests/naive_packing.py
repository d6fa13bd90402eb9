"""The packing functions as plain loops over lists of rows: slow, plain to see, and sharing no code with the library."""

import numpy as np


def array_of(rows, like):
    """A list of rows as an array with the dtype and trailing shape of another."""
    out = np.zeros((len(rows), *like.shape[1:]), like.dtype)
    for i, row in enumerate(rows):
        out[i] = row
    return out


def longest_first(lengths):
    """The indices of the sequences, longest first, ties in the order given."""
    order = []
    for length in range(max(lengths), -1, -1):
        for i in range(len(lengths)):
            if lengths[i] == length:
                order.append(i)
    return order


def pack(sequences):
    """Data, batch sizes, sorted indices, unsorted indices: time step after time step, longest sequence first."""
    lengths = [len(sequence) for sequence in sequences]
    order = longest_first(lengths)
    rows, batch_sizes = [], []
    for t in range(max(lengths)):
        going_on = [i for i in order if lengths[i] > t]
        batch_sizes.append(len(going_on))
        for i in going_on:
            rows.append(sequences[i][t])
    return array_of(rows, sequences[0]), batch_sizes, order, [order.index(i) for i in range(len(order))]


def unpack(data, batch_sizes, order):
    """The sequences in the caller's order."""
    rows = [[] for _ in order]
    position = 0
    for size in batch_sizes:
        for rank in range(size):
            rows[order[rank]].append(data[position])
            position += 1
    return [array_of(sequence, data) for sequence in rows]


def pad(sequences, value=0, steps=None, batch_first=False, side="right"):
    """A padded batch, element by element."""
    if steps is None:
        steps = max(len(sequence) for sequence in sequences)
    like = sequences[0]
    padded = np.zeros((steps, len(sequences), *like.shape[1:]), like.dtype)
    for i, sequence in enumerate(sequences):
        start = steps - len(sequence) if side == "left" else 0
        for t in range(steps):
            inside = start <= t < start + len(sequence)
            padded[t, i] = sequence[t - start] if inside else value
    if batch_first:
        return np.array([[padded[t, i] for t in range(steps)] for i in range(len(sequences))], like.dtype).reshape(
            len(sequences), steps, *like.shape[1:]
        )
    return padded
