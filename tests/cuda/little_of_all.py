"""A little of all kernels on the device, for compute-sanitizer: ``bench.alone.gpu_proof`` runs it under its tools.

The sizes are small, as the tools slow a kernel down by far, and yet more than one block does, in units and in rows. The
scans run in their persistent form and then step by step.
"""

from unittest import mock

import numpy as np

import numba_pack as nbp

LENGTHS = [5, 0, 2, 1] + [3] * 36
RNG = np.random.default_rng(0)


def normal(columns):
    return [RNG.standard_normal((n, columns)).astype(np.float32) for n in LENGTHS]


def train(layer):
    """A forward and a backward pass of ragged sequences, and packing on the device beside it."""
    from numba import cuda

    rows = nbp.pack_sequence([cuda.to_device(sequence) for sequence in normal(layer.input_size)])
    output, state, tape = layer.forward(rows)
    gradients = layer.backward(tape, output, state)
    padded, lengths = nbp.pad_packed_sequence(gradients.input)
    values, offsets = nbp.unpack_ragged(nbp.pack_padded_sequence(padded, lengths))
    assert np.isfinite(nbp.pack_ragged(values, offsets).data.copy_to_host()).all()
    assert np.isfinite(gradients.parameters.copy_to_host()).all()


def train_all():
    for kind in (nbp.LSTM, nbp.GRU, nbp.RNN):
        options = {"dropout": 0.5} if kind is nbp.GRU else {}
        train(kind(7, 72, num_layers=2, bidirectional=True, rng=0, **options))


def main():
    from numba_pack.cuda.device import Kernel

    assert nbp.backend == "cuda"
    train_all()
    with mock.patch.object(Kernel, "resident", lambda *_: 0):  # no blocks can meet at a barrier
        train_all()
    train(nbp.LSTM(7, 40, proj_size=9, rng=0))
    print("done")


if __name__ == "__main__":
    main()
