"""Rows taken by their numbers, on any number of threads."""

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.cpu import take


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(7, 3), (7,), (40, 0), (0, 3), (1000, 2, 5)], ids=str)
def test_rows_taken_on_threads_are_those_of_numpy(shape, threads, monkeypatch):
    monkeypatch.setattr(take, "WORTH_A_THREAD", 1)
    rng = np.random.default_rng(0)
    for rows in (rng.standard_normal(shape).astype("f4"), rng.integers(0, 9, shape)):
        index = rng.permutation(len(rows))
        with nbp.threads(threads):
            taken = take.take_rows(rows, index)
            assert taken.dtype == rows.dtype and taken.tolist() == rows[index].tolist()
            assert take.take_rows(np.asfortranarray(rows), index).tolist() == rows[index].tolist()
