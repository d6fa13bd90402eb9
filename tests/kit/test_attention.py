"""Attention over packed rows: against plain loops and finite differences; a sequence's bits are its own."""

import naive_attention as naive
import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import numba_pack as nbp

#: lengths of queries and of keys: neither is sorted as the other is, and each has empty ones
ASKED, HELD = (3, 0, 7, 2, 5), (4, 9, 1, 0, 6)
#: columns of keys and of values: fewer than a vector has, whole vectors, and some more
COLUMNS = [(1, 1), (5, 3), (16, 64), (37, 70)]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def draw(columns, dtype, asked=ASKED, held=HELD, rng=0):
    """Queries, keys, values and the gradient of contexts, each a list of sequences."""
    rng, (E, V) = np.random.default_rng(rng), columns
    lengths = ((asked, E), (held, E), (held, V), (asked, V))
    return [[normal(rng, (n, width), dtype) for n in of] for of, width in lengths]


def run(queries, keys, values, d_contexts):
    """All that attention gives of lists of sequences, as lists of sequences."""
    q, k, v, d = map(nbp.pack_sequence, (queries, keys, values, d_contexts))
    context, weights = nbp.attend(q, k, v)
    found = context, weights, *nbp.attend_backward(q, k, v, weights, d)
    return [nbp.unpack_sequence(each) for each in found]


def expected_of(queries, keys, values, d_contexts):
    """The same by plain loops, of one sequence; weights without the zeros behind them."""
    q, k, v, d = (rows.astype(float).tolist() for rows in (queries, keys, values, d_contexts))
    contexts, weights = naive.attend(q, k, v, values.shape[1])
    shapes = (len(q), values.shape[1]), (len(q), len(k)), queries.shape, keys.shape, values.shape
    found = contexts, weights, *naive.attend_back(q, k, v, weights, d)
    return [np.array(each).reshape(shape) for each, shape in zip(found, shapes, strict=True)]


def tolerance(sequences, dtype):
    """What rounding may do: each of a sum's terms rounds, and an error of scores is one of weights, relatively."""
    q, k, v, d = (np.abs(rows).max(initial=1.0) for rows in sequences)
    terms = sum(rows.shape[0] + rows.shape[1] for rows in sequences)
    score = sequences[0].shape[1] * q * k
    return terms * np.finfo(dtype).eps * (1 + score) * v * d * max(q, k)


def assert_as_plain_loops(lists, dtype):
    found = run(*lists)
    for i, sequences in enumerate(zip(*lists, strict=True)):
        context, weights, *gradients = (each[i] for each in found)
        assert not weights[:, len(sequences[1]) :].any()
        mine = [context, weights[:, : len(sequences[1])], *gradients]
        for one, other in zip(mine, expected_of(*sequences), strict=True):
            assert one.dtype == dtype
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance(sequences, dtype))


@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_contexts_weights_and_gradients_are_those_of_plain_loops(columns, dtype):
    assert_as_plain_loops(draw(columns, dtype), dtype)


def test_sums_over_many_rows_are_those_of_plain_loops(dtype):
    assert_as_plain_loops(draw((3, 2), dtype, asked=(300, 2), held=(5, 520)), dtype)


def test_sums_over_a_million_keys_are_those_of_blocks():
    """One running sum of so many equal terms is off by some per mille."""
    keys = np.full((1_000_000, 1), 0.1, np.float32)
    keys[0] = 1.1
    context, weights = nbp.attend(np.ones((1, 1), np.float32), *[nbp.pack_sequence([keys])] * 2)
    powers = np.exp(keys[:, 0].astype(float) - float(keys[0, 0]))
    eps = float(np.finfo(np.float32).eps)
    assert weights[0, 0] == pytest.approx(1 / powers.sum(), rel=10 * eps)  # however few numbers a vector has
    assert context[0, 0] == pytest.approx((powers * keys[:, 0]).sum() / powers.sum(), rel=2e-5)


@pytest.mark.parametrize("form", ["packed", "one step"])
def test_gradients_are_those_of_finite_differences(form):
    queries, keys, values, d_contexts = draw((3, 2), np.float64, held=(4, 2, 1, 0, 6))
    k, v = map(nbp.pack_sequence, (keys, values))
    q, d = (nbp.pack_sequence(queries), nbp.pack_sequence(d_contexts).data)
    if form == "one step":
        q, d = np.random.default_rng(1).standard_normal((5, 3)), np.random.default_rng(2).standard_normal((5, 2))

    def rows(batch):
        return batch if isinstance(batch, np.ndarray) else batch.data

    found = nbp.attend_backward(q, k, v, nbp.attend(q, k, v)[1], d)
    step = np.finfo(float).eps ** (1 / 3)
    for argument, gradient in zip((q, k, v), map(rows, found), strict=True):
        assert gradient.shape == rows(argument).shape
        moved = rows(argument)
        for index in np.ndindex(moved.shape):
            before, losses = moved[index], []
            for sign in (1, -1):
                moved[index] = before + sign * step
                losses.append((rows(nbp.attend(q, k, v)[0]) * d).sum())
            moved[index] = before
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient[index], rel=0, abs=1e4 * step**2)


# -- bits --------------------------------------------------------------------------------------------------------------


def assert_each_alone_is_as_in_the_batch(lists):
    together = run(*lists)
    for i, sequences in enumerate(zip(*lists, strict=True)):
        context, weights, *gradients = (each[0] for each in run(*([each] for each in sequences)))
        assert_same_bits(together[1][i][:, : weights.shape[1]].copy(), weights)
        assert_same_bits([each[i] for each in (together[0], *together[2:])], [context, *gradients])


@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_a_sequence_alone_equals_the_same_sequence_in_a_batch(columns, dtype):
    assert_each_alone_is_as_in_the_batch(draw(columns, dtype))


lengths = st.integers(0, 12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(lengths, lengths), min_size=1, max_size=6), st.sampled_from(COLUMNS), st.integers(0, 99))
def test_batches_of_any_lengths_are_plain_loops_and_bits_of_each_alone(pairs, columns, seed):
    asked, held = zip(*pairs, strict=True)
    lists = draw(columns, np.float64, asked, held, seed)
    assert_as_plain_loops(lists, np.float64)
    assert_each_alone_is_as_in_the_batch(lists)


def test_a_query_of_one_step_equals_the_same_query_among_others(dtype):
    queries, keys, values, _ = draw((37, 20), dtype, asked=(3, 3, 3, 3, 3))
    k, v = map(nbp.pack_sequence, (keys, values))
    contexts, weights = map(nbp.unpack_sequence, nbp.attend(nbp.pack_sequence(queries), k, v))
    for step in range(3):
        found = nbp.attend(np.stack([rows[step] for rows in queries]), k, v)
        assert_same_bits(found[0], np.stack([rows[step] for rows in contexts]))
        assert_same_bits(found[1], np.stack([rows[step] for rows in weights]))


def test_selected_sequences_are_attended_to_as_before(dtype):
    """As a beam search does, which keeps some sequences, in another order, and some several times."""
    _, keys, values, _ = draw((8, 8), dtype)
    k, v = map(nbp.pack_sequence, (keys, values))
    states, chosen = normal(np.random.default_rng(1), (5, 8), dtype), [4, 1, 1, 3, 0, 1]
    context, weights = nbp.attend(states, k, v)
    again = nbp.attend(states[chosen], nbp.select(k, chosen), nbp.select(v, chosen))
    assert_same_bits(again, (context[chosen], weights[chosen]))


# -- what rows may hold ------------------------------------------------------------------------------------------------


def test_nan_stays_in_its_sequence(dtype):
    lists = draw((5, 3), dtype)
    clean = run(*lists)
    for which in (3, 0, 2, 1):
        spoiled = [[rows.copy() for rows in each] for each in lists]
        spoiled[which][2][:] = np.nan
        for one, other in zip(run(*spoiled), clean, strict=True):
            assert_same_bits([one[i] for i in (0, 1, 3, 4)], [other[i] for i in (0, 1, 3, 4)])
    assert np.isnan(run(*spoiled)[0][2]).all()


def test_huge_scores_choose_the_best_key(dtype):
    keys, values = (
        nbp.pack_sequence([np.array([[1], [3], [2]], dtype)]),
        nbp.pack_sequence([np.array([5, 6, 7], dtype)[:, None]]),
    )
    for size in (1e4, -1e4, 1e30):
        context, weights = nbp.attend(np.array([[size]], dtype), keys, values)
        np.testing.assert_array_equal(weights, [[0, 1, 0] if size > 0 else [1, 0, 0]])
        np.testing.assert_array_equal(context, [[6 if size > 0 else 5]])


def test_where_there_are_no_keys_there_is_no_context():
    keys = nbp.pack_sequence([np.ones((0, 3)), np.ones((0, 3))])
    queries = np.ones((2, 3))
    context, weights = nbp.attend(queries, keys, keys)
    assert (context.shape, weights.shape, context.any()) == ((2, 3), (2, 0), False)
    d_queries, d_keys, _ = nbp.attend_backward(queries, keys, keys, weights, context)
    assert (d_queries.any(), d_keys.data.shape) == (False, (0, 3))


def test_arguments_are_not_changed_and_may_be_read_only():
    batches = [nbp.pack_sequence(each) for each in draw((5, 5), np.float32)]
    before = [batch.data.copy() for batch in batches]
    for batch in batches:
        batch.data.flags.writeable = False
    queries, keys, values, d = batches
    context, weights = nbp.attend(queries, keys, values)
    found = context, weights, *nbp.attend_backward(queries, keys, values, weights, d)
    for batch, rows in zip(batches, before, strict=True):
        np.testing.assert_array_equal(batch.data, rows)
        assert not any(np.shares_memory(each.data, batch.data) for each in found)
    assert all(each.data.flags.writeable for each in found)


# -- others ------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def attend_and_back(queries, keys, values, d):
    context, weights = nbp.attend(queries, keys, values)
    return context, weights, nbp.attend_backward(queries, keys, values, weights, d)


@pytest.mark.parametrize("form", ["packed", pytest.param("one step", marks=pytest.mark.slow)])
def test_in_compiled_code_it_is_the_same(form):
    q, k, v, d = map(nbp.pack_sequence, draw((5, 3), np.float32))
    if form == "one step":
        q, d = np.ones((5, 5), np.float32), np.ones((5, 3), np.float32)
    context, weights = nbp.attend(q, k, v)
    expected = context, weights, nbp.attend_backward(q, k, v, weights, d)
    found = attend_and_back(q, k, v, d)
    assert isinstance(found[2][1], nbp.PackedSequence)
    assert_same_bits(found, expected)


def test_padded_attention_of_pytorch_under_a_mask_is_the_same(dtype):
    torch = pytest.importorskip("torch", reason="its attention is what is compared")
    lists = draw((16, 5), dtype, asked=(3, 1, 7), held=(4, 9, 1))
    q, k, v, d = (torch.tensor(nbp.pad_sequence(each, batch_first=True), requires_grad=True) for each in lists)
    allowed = torch.arange(k.shape[1])[None, None] < torch.tensor([4, 9, 1])[:, None, None]
    context = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=1.0)
    (context * d.detach()).sum().backward()
    mine, _, *gradients = run(*lists)
    eps = max(tolerance(each, dtype) for each in zip(*lists, strict=True))
    for found, theirs in zip((mine, *gradients), (context.detach(), q.grad, k.grad, v.grad), strict=True):
        padded = nbp.pad_sequence(found, batch_first=True)
        n = theirs.numpy() * (padded != 0)  # queries behind the end of a sequence attend as well
        np.testing.assert_allclose(padded, n, rtol=0, atol=eps)
