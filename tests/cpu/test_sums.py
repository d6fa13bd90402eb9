"""Long sums: their errors stay those of short ones, whatever is summed, and their order does not depend on threads."""

import numpy as np
import pytest
from helpers import assert_same_bits

import numba_pack as nbp
from numba_pack import cells
from numba_pack.cpu import engine
from numba_pack.cpu.scan_back import SPAN_ROWS

EPS = np.finfo(np.float32).eps
#: rows that take several spans, and a part of one
ROWS = 6 * SPAN_ROWS + 1000


def gradient(layer, input):
    output, _, tape = layer.forward(input)
    return layer.backward(tape, np.ones_like(output)).parameters


@pytest.mark.parametrize("symbols", [False, True], ids=["rows", "symbols"])
def test_gradients_over_many_equal_rows_keep_their_digits(symbols):
    """One running sum would lose a thousandth: what is added is small beside what there is, and always errs alike."""
    layer = nbp.GRU(2, 4, rng=0)
    exact = nbp.GRU(2, 4, dtype="f8")
    exact.load_state_dict(layer.state_dict())
    x = np.ones((10, ROWS // 10), int) if symbols else np.ones((10, ROWS // 10, 2))
    of = nbp.symbols if symbols else lambda rows: rows
    expected = gradient(exact, of(x))
    got = gradient(layer, of(x if symbols else x.astype("f4")))
    assert np.abs(got - expected).max() <= 32 * EPS * np.abs(expected).max()


def test_unit_weights_over_many_equal_steps_keep_their_digits():
    """Each sequence sums those of its own steps."""
    layer = cells.IndRNN(2, 4, rng=0)
    exact = cells.IndRNN(2, 4, dtype="f8")
    exact.load_state_dict(layer.state_dict())
    x = np.ones((ROWS // 3, 3, 2))
    expected, got = gradient(exact, x), gradient(layer, x.astype("f4"))
    assert np.abs(got - expected).max() <= 32 * EPS * np.abs(expected).max()


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=str)
def test_unit_weights_have_the_same_bits_on_any_number_of_threads(options, monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = cells.SRU(3, 21, rng=0, **options)
    lengths = [700, 1, 300, 129, 0, 128]
    rng = np.random.default_rng(0)
    packed = nbp.pack_sequence([rng.standard_normal((length, 3)).astype("f4") for length in lengths])

    def of_threads(number):
        with nbp.threads(number):
            output, _, tape = layer.forward(packed)
            return layer.backward(tape, output.map(np.ones_like)).parameters

    for threads in (2, 3):
        assert_same_bits(of_threads(threads), of_threads(1))


def test_products_with_many_columns_keep_their_digits():
    rng = np.random.default_rng(0)
    columns = 100_000
    layer = nbp.RNN(columns, 32, nonlinearity="relu", rng=0)
    layer.parameters = np.abs(layer.parameters)
    x = np.abs(rng.standard_normal((1, 4, columns))).astype("f4")
    weights = {name: value.astype("f8") for name, value in layer.state_dict().items()}
    expected = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
    np.testing.assert_allclose(layer(x)[0], expected, rtol=16 * EPS)


@pytest.mark.parametrize("kind", [nbp.LSTM, nbp.GRU])
def test_the_gradient_of_many_rows_has_the_same_bits_on_any_number_of_threads(kind, monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = kind(3, 21, rng=0)
    x = np.random.default_rng(0).standard_normal((20, (SPAN_ROWS + 1000) // 20, 3)).astype("f4")
    with nbp.threads(1):
        expected = gradient(layer, x)
    for threads in (2, 3):
        with nbp.threads(threads):
            assert_same_bits(gradient(layer, x), expected)


def test_symbols_of_many_rows_have_the_gradient_of_their_one_hot_rows():
    layer = nbp.LSTM(3, 21, rng=0)
    symbols = np.random.default_rng(0).integers(3, size=(20, (2 * SPAN_ROWS + 1000) // 20))
    expected = gradient(layer, np.eye(3, dtype="f4")[symbols])
    assert np.array_equal(gradient(layer, nbp.symbols(symbols)), expected)
