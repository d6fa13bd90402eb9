"""How batches look: a few lines of text, a table in a notebook, a picture."""

import numpy as np
import pytest

import numba_pack as nbp

BATCH = nbp.pack_sequence([np.ones((n, 12), np.float32) for n in (7, 26, 0, 15)])


def test_a_batch_tells_its_sizes_in_a_few_lines():
    assert repr(BATCH).splitlines() == [
        "PackedSequence",
        "  data         float32 (48, 12)",
        "  lengths      [ 7 26  0 15]",
        "  batch_sizes  [3 3 3 3 3 3 3 ... 1 1 1 1 1 1 1]",
    ]


def test_a_batch_that_is_wrong_tells_why():
    wrong = BATCH._replace(batch_sizes=np.array([2]))
    assert (
        "  lengths      self.batch_sizes must sum to the rows of data: expected 48; got 2" in repr(wrong).splitlines()
    )
    assert "int64 array; got NoneType" in repr(BATCH._replace(sorted_indices=None))


def test_a_notebook_shows_batches_and_reports_as_tables():
    html = BATCH._repr_html_()
    assert html.count("<tr>") == 3 and "<td>float32 (48, 12)</td>" in html
    html = nbp.packing_report([4, 6])._repr_html_()
    assert "<td>padded</td><td>packed</td>" in html and "16.7%" in html


def test_a_report_shows_its_table():
    report = nbp.packing_report([4, 6])
    assert repr(report) == str(report)
    assert len(repr(report).splitlines()) == 5


def test_gradients_and_tapes_are_told_by_their_sizes():
    layer = nbp.LSTM(12, 5, rng=0)
    output, state, tape = layer.forward(BATCH)
    assert repr(tape) == f"Tape of LSTM(12, 5), {tape.nbytes:,} bytes"
    gradients = layer.backward(tape, output, state)
    assert repr(tape) == "Tape of LSTM(12, 5), used up"
    assert repr(gradients).splitlines() == [
        "Gradients",
        "  input       PackedSequence float32 (48, 12)",
        "  hx          float32 (1, 4, 5), float32 (1, 4, 5)",
        "  parameters  float32 (380,)",
    ]
    assert "<td>parameters</td><td>float32 (380,)</td>" in gradients._repr_html_()


@pytest.mark.parametrize("lengths", [[4, 0, 6, 8], list(range(40)), [0, 0], [3] * 1000])
def test_a_picture_shows_how_many_sequences_have_a_row_at_each_step(lengths):
    pytest.importorskip("matplotlib").use("Agg")
    packed = nbp.pack_sequence([np.zeros(n) for n in lengths])
    axes = packed.plot()
    (area,) = axes.patches
    values, edges, _ = area.get_data()
    assert np.array_equal(values, packed.batch_sizes) and len(edges) == len(packed.batch_sizes) + 1
    assert axes.get_ylim() == (len(lengths), 0)
    assert axes.get_title().startswith(f"{len(lengths)} sequences, {sum(lengths):,} rows")
    assert packed.plot(axes) is axes


def test_a_picture_is_refused_of_a_batch_that_is_wrong():
    with pytest.raises(ValueError, match=r"self\.batch_sizes must sum to the rows of data"):
        BATCH._replace(batch_sizes=np.array([2])).plot()
