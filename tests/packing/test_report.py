"""What the packing report counts, and how it prints."""

import numpy as np
import pytest

import numba_pack as nbp

FIGURE = [4, 6, 8, 5, 4, 3, 7, 8]


def test_the_figures_batch_has_64_rows_padded_and_45_packed():
    report = nbp.packing_report(FIGURE)
    assert (report.rows_padded, report.rows_packed) == (64, 45)
    assert report.saved == 1 - 45 / 64


def test_a_row_costs_the_two_matrix_products_of_one_gate():
    report = nbp.packing_report(FIGURE, input_size=12, hidden_size=100)
    by_loops = {"padded": 0, "packed": 0}
    for length in FIGURE:
        for t in range(max(FIGURE)):
            for columns in (12, 100):  # of weight_ih and of weight_hh
                by_loops["padded"] += 100 * columns
                by_loops["packed"] += 100 * columns if t < length else 0
    assert report.multiplications_padded == report.additions_padded == by_loops["padded"]
    assert report.multiplications_packed == report.additions_packed == by_loops["packed"]


def test_it_prints_as_a_small_table():
    assert str(nbp.packing_report(FIGURE, 12, 100)).splitlines() == [
        "                  padded   packed",
        "rows                  64       45",
        "multiplications  716,800  504,000",
        "additions        716,800  504,000",
        "saved                       29.7%",
    ]


def test_sequences_of_one_length_leave_nothing_to_save():
    assert nbp.packing_report(np.full(5, 7)).saved == 0


def test_empty_sequences_are_no_rows():
    report = nbp.packing_report([0, 0])
    assert report.rows_padded == report.rows_packed == report.saved == 0


def test_counts_do_not_overflow():
    report = nbp.packing_report(np.array([2**62, 2**62, 1]), 2**40, 2**40)
    assert report.rows_packed == 2**63 + 1
    assert report.additions_padded == 3 * 2**62 * 2**40 * 2**41


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "lengths must hold at least one"),
        (([1, -2],), ValueError, "lengths must not be negative: expected at least 0; got -2 at index 1"),
        (([1.5],), TypeError, "lengths must hold integers"),
        ((3,), ValueError, "lengths must be one-dimensional"),
        (([1], 0), ValueError, "input_size must be at least 1; got 0"),
        (([1], 1, 0), ValueError, "hidden_size must be at least 1; got 0"),
        (([1], 1.5), TypeError, "input_size must be an integer; got 1.5"),
        (([1], 1, "2"), TypeError, "hidden_size must be an integer; got '2'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        nbp.packing_report(*arguments)
