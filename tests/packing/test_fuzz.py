"""Random bytes as calls of the packing functions: `fuzz_packing.py` for some seconds."""

import fuzz_packing
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp


@settings(deadline=None, max_examples=1000)
@given(data=st.binary(min_size=1, max_size=400))
def test_any_bytes_make_a_call_that_is_right_or_refused(data):
    fuzz_packing.fuzz(data)


def test_random_bytes_make_calls_of_both_kinds_in_number():
    rng = np.random.default_rng(0)
    refused = [fuzz_packing.fuzz(rng.bytes(300)) for _ in range(1000)]
    assert 200 < sum(refused) < 600


def test_a_wrong_result_is_found(monkeypatch):
    """The fuzzing itself: a function that forgets a row is caught."""
    right = nbp.unpack_sequence
    monkeypatch.setattr(nbp, "unpack_sequence", lambda packed: [sequence[:-1] for sequence in right(packed)])
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError):
        for _ in range(100):
            fuzz_packing.fuzz(rng.bytes(300))


def test_an_argument_that_is_changed_is_found(monkeypatch):
    def careless(permutation):
        permutation[:] = 0

    monkeypatch.setattr(nbp, "invert_permutation", careless)
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="changed its argument"):
        for _ in range(100):
            fuzz_packing.fuzz(rng.bytes(300))
