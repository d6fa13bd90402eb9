"""Linear and Embedding against NumPy, finite differences and long sums."""

import copy
import pickle

import numpy as np
import pytest

import numba_pack as nbp

RNG = np.random.default_rng(1)
PACKED = nbp.pack_sequence([RNG.standard_normal((n, 4)) for n in (3, 1, 5)])
SYMBOLS = nbp.pack_sequence([RNG.integers(0, 6, n) for n in (3, 1, 5)])
LINEAR, EMBEDDING = nbp.Linear(4, 3, dtype=np.float64, rng=0), nbp.Embedding(6, 3, dtype=np.float64, rng=0)
PARTS = {"linear": (LINEAR, PACKED), "embedding": (EMBEDDING, SYMBOLS)}
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def the_same_numbers_whatever_tests_run_before():
    RNG.bit_generator.state = START


def test_a_linear_layer_is_a_product_and_a_sum_in_every_form():
    rows = PACKED.data
    expected = np.array([[sum(w * x for w, x in zip(of, row, strict=True)) for of in LINEAR.weight] for row in rows])
    expected += LINEAR.bias
    np.testing.assert_allclose(LINEAR(PACKED).data, expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(LINEAR(rows), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(LINEAR(rows.reshape(3, 3, 4)), expected.reshape(3, 3, 3), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(LINEAR(rows[0]), expected[0], rtol=1e-13, atol=1e-14)
    assert LINEAR(PACKED).batch_sizes is PACKED.batch_sizes
    assert LINEAR(rows[:0]).shape == (0, 3)


def test_a_linear_layer_without_bias_has_none():
    linear = nbp.Linear(4, 3, bias=False, dtype=np.float64, rng=0)
    assert linear.bias is None and list(linear.state_dict()) == ["weight"]
    np.testing.assert_allclose(linear(PACKED).data, PACKED.data @ linear.weight.T, rtol=1e-13, atol=1e-14)
    assert linear.backward(linear.forward(PACKED)[1], linear(PACKED)).parameters.shape == (12,)
    assert repr(linear) == "Linear(4, 3, bias=False, dtype=float64)"


def test_an_embedding_gives_the_row_of_each_symbol_in_every_form():
    for symbols in (SYMBOLS.data, SYMBOLS.data.reshape(3, 3), SYMBOLS.data.astype(np.uint8), SYMBOLS.data[:0]):
        np.testing.assert_array_equal(EMBEDDING(symbols), EMBEDDING.weight[symbols])
    np.testing.assert_array_equal(EMBEDDING(SYMBOLS).data, EMBEDDING.weight[SYMBOLS.data])


@pytest.mark.parametrize("name", PARTS)
def test_the_gradient_of_the_parameters_is_that_of_finite_differences(name):
    part, given = PARTS[name]
    part = copy.copy(part)
    start, factors = part.parameters, RNG.standard_normal((9, 3))
    gradient = part.backward(part.forward(given)[1], factors).parameters
    for i in range(start.size):
        totals = []
        for sign in (1, -1):
            vector = start.copy()
            vector[i] += sign * 0.5  # both are linear in their parameters
            part.parameters = vector
            totals.append((part(given).data * factors).sum())
        assert totals[0] - totals[1] == pytest.approx(gradient[i], rel=1e-12, abs=1e-13)


def test_the_gradient_of_the_input_of_a_linear_layer_is_the_product_with_its_weight():
    factors = RNG.standard_normal((9, 3))
    tape = LINEAR.forward(PACKED)[1]
    found = LINEAR.backward(tape, PACKED._replace(data=factors)).input
    np.testing.assert_allclose(found.data, factors @ LINEAR.weight, rtol=1e-13)
    assert found.batch_sizes is PACKED.batch_sizes
    assert LINEAR.backward(tape, factors, input_grad=False).input is None
    padded, factors = RNG.standard_normal((5, 2, 4)), RNG.standard_normal((5, 2, 3))
    assert LINEAR.backward(LINEAR.forward(padded)[1], factors).input.shape == (5, 2, 4)


@pytest.mark.parametrize("name", PARTS)
def test_a_tape_differentiates_the_call_that_was_made(name):
    part, given = PARTS[name]
    part = copy.copy(part)
    output, tape = part.forward(given)
    before = part.backward(tape, output)
    part.parameters = part.parameters * 2
    after = part.backward(tape, output)
    assert before.parameters.tobytes() == after.parameters.tobytes()
    if name == "linear":
        assert before.input.data.tobytes() == after.input.data.tobytes()


def test_the_gradient_of_a_million_equal_rows_is_a_million_times_that_of_one():
    n = 1_000_000
    rows, d_rows = np.full((n, 2), 0.1, np.float32), np.full((n, 3), 0.3, np.float32)
    linear, embedding = nbp.Linear(2, 3, rng=0), nbp.Embedding(2, 3, rng=0)
    found = linear.views(linear.backward(linear.forward(rows)[1], d_rows, input_grad=False).parameters)
    np.testing.assert_allclose(found["weight"], n * np.float64(d_rows[0, 0]) * np.float64(rows[0, 0]), rtol=2e-5)
    np.testing.assert_allclose(found["bias"], n * np.float64(d_rows[0, 0]), rtol=1e-7)
    gradient = embedding.backward(embedding.forward(np.ones(n, np.int64))[1], d_rows).parameters
    np.testing.assert_allclose(gradient, [0] * 3 + [n * np.float64(d_rows[0, 0])] * 3, rtol=1e-7)


def test_a_sum_over_the_rows_of_a_symbol_does_not_depend_on_rows_of_others():
    rows = RNG.standard_normal((1000, 3)).astype(np.float32)
    symbols, embedding = np.arange(1000) % 2, nbp.Embedding(2, 3, rng=0)
    together = embedding.backward(embedding.forward(symbols)[1], rows).parameters
    alone = embedding.backward(embedding.forward(symbols[::2])[1], rows[::2].copy()).parameters
    assert together[:3].tobytes() == alone[:3].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("columns", "outputs"), [(1, 1), (7, 5), (64, 33), (700, 3), (20, 150)])
def test_a_row_of_a_linear_layer_has_the_same_bits_in_any_batch(dtype, columns, outputs):
    linear = nbp.Linear(columns, outputs, dtype=dtype, rng=0)
    x, d = RNG.standard_normal((130, columns)).astype(dtype), RNG.standard_normal((130, outputs)).astype(dtype)
    output, tape = linear.forward(x)
    gradients = linear.backward(tape, d)
    exact = x.astype(np.float64) @ linear.weight.T.astype(np.float64) + linear.bias
    np.testing.assert_allclose(output, exact, rtol=0, atol=8 * np.finfo(dtype).eps * columns**0.5)
    wide = d.astype(np.float64)
    np.testing.assert_allclose(
        gradients.input, wide @ linear.weight, rtol=0, atol=8 * np.finfo(dtype).eps * outputs / columns**0.5
    )
    found = linear.views(gradients.parameters)
    np.testing.assert_allclose(found["weight"], wide.T @ x, rtol=0, atol=200 * np.finfo(dtype).eps)
    np.testing.assert_allclose(found["bias"], wide.sum(axis=0), rtol=0, atol=200 * np.finfo(dtype).eps)
    for chosen in (slice(0, 1), slice(3, 5), slice(17, 90), slice(129, None)):
        assert linear(x[chosen]).tobytes() == output[chosen].tobytes()
        of_some = linear.backward(linear.forward(x[chosen])[1], d[chosen]).input
        assert of_some.tobytes() == gradients.input[chosen].tobytes()


def test_the_symbols_of_a_tape_are_those_of_the_call():
    symbols = np.array([0, 1, 1])
    output, tape = EMBEDDING.forward(symbols)
    symbols[:] = 5
    found = EMBEDDING.views(EMBEDDING.backward(tape, np.ones_like(output)).parameters)["weight"]
    assert found[:, 0].tolist() == [1, 2, 0, 0, 0, 0]


def test_an_embedding_is_folded_into_the_layer_behind_it():
    gru = nbp.GRU(3, 5, bidirectional=True, dtype=np.float64, rng=0)
    folded = nbp.fold_embedding(gru, EMBEDDING.weight)
    np.testing.assert_allclose(folded(SYMBOLS)[0].data, gru(EMBEDDING(SYMBOLS))[0].data, atol=1e-14)


@pytest.mark.parametrize("name", PARTS)
def test_copies_and_pickles_are_equal_and_apart(name):
    part, given = PARTS[name]
    for other in (copy.copy(part), copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert repr(other) == repr(part)
        assert not other.parameters.flags.writeable
        np.testing.assert_array_equal(other(given).data, part(given).data)
        other.parameters = other.parameters + 1
        assert not np.array_equal(other(given).data, part(given).data)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_read_only_and_fixed_stays_as_it_is(name):
    part, _ = PARTS[name]
    for array in (part.parameters, part.weight, *part.state_dict().values()):
        assert not array.flags.writeable
    with pytest.raises(AttributeError, match="dtype is fixed"):
        part.dtype = np.float32
    with pytest.raises(AttributeError):
        part.weight = part.weight


def test_the_same_seed_gives_the_same_parameters():
    assert np.array_equal(nbp.Linear(4, 3, rng=5).parameters, nbp.Linear(4, 3, rng=5).parameters)
    assert not np.array_equal(nbp.Embedding(4, 3).parameters, nbp.Embedding(4, 3).parameters)
