"""Packing and padding against PyTorch's functions of the same names."""

import numpy as np
import pytest
from test_packing import sequences_of

import numba_pack as nbp

torch = pytest.importorskip("torch", reason="PyTorch is the reference here; test_packing.py does without it")
rnn = pytest.importorskip("torch.nn.utils.rnn")

KINDS = [((), "f4"), ((3,), "f8"), ((2, 3), "i8"), ((), "?"), ((4,), "c8"), ((2,), "f2")]
LENGTHS = [4, 7, 1, 9, 2]  # no two alike, as PyTorch's sort is not stable; none 0, which it does not take


def assert_same(ours, theirs):
    theirs = theirs.numpy()
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert (ours == theirs).all()


@pytest.fixture(params=KINDS, ids=str)
def both(request):
    sequences = sequences_of(LENGTHS, *request.param)
    return sequences, [torch.from_numpy(sequence) for sequence in sequences]


def test_packing_does_as_pytorch(both):
    sequences, tensors = both
    for ours, theirs in zip(nbp.pack_sequence(sequences), rnn.pack_sequence(tensors, False), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("batch_first", [False, True])
def test_packing_a_padded_batch_does_as_pytorch(both, batch_first):
    padded = rnn.pad_sequence(both[1], batch_first)
    packed = nbp.pack_padded_sequence(padded.numpy(), LENGTHS, batch_first)
    for ours, theirs in zip(packed, rnn.pack_padded_sequence(padded, LENGTHS, batch_first, False), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(("batch_first", "value", "total"), [(False, 0.0, None), (True, 1.0, 12)])
def test_padding_a_packed_batch_does_as_pytorch(both, batch_first, value, total):
    ours = nbp.pad_packed_sequence(nbp.pack_sequence(both[0]), batch_first, value, total)
    theirs = rnn.pad_packed_sequence(rnn.pack_sequence(both[1], False), batch_first, value, total)
    assert_same(ours[0], theirs[0])
    assert_same(ours[1], theirs[1])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_does_as_pytorch(both, batch_first, side):
    ours = nbp.pad_sequence(both[0], batch_first, 1, side)
    assert_same(ours, rnn.pad_sequence(both[1], batch_first, 1, side))


def test_unpacking_and_unpadding_do_as_pytorch(both):
    packed = rnn.pack_sequence(both[1], False)
    padded = rnn.pad_sequence(both[1], True)
    unpacked = nbp.unpack_sequence(nbp.PackedSequence(*(tensor.numpy() for tensor in packed)))
    unpadded = nbp.unpad_sequence(padded.numpy(), LENGTHS, True)
    for i, tensor in enumerate(both[1]):
        assert_same(unpacked[i], tensor)
        assert_same(unpadded[i], tensor)


def test_a_permutation_is_inverted_as_in_pytorch():
    permutation = torch.tensor([3, 0, 2, 1])
    assert_same(nbp.invert_permutation(permutation.numpy()), rnn.invert_permutation(permutation))
    assert nbp.invert_permutation(np.array([3, 0, 2, 1])).tolist() == [1, 3, 2, 0]
