"""Batcher: each answer is that of the sequence alone, whatever joins, leaves, fails, or is too late."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from queue import Full
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import interrupted

import numba_pack as nbp
from numba_pack.serving import Batcher, batcher, chunks, line

I = 3  # noqa: E741

#: by a name, a layer of each kind
LAYERS = {
    "LSTM": lambda: nbp.LSTM(I, 5, num_layers=2, dropout=0.5, rng=0),
    "GRU": lambda: nbp.GRU(I, 4, dtype="f8", rng=0),
    "RNN": lambda: nbp.RNN(I, 20, nonlinearity="relu", rng=0),
    "projection": lambda: nbp.LSTM(I, 5, proj_size=2, batch_first=True, rng=0),
    "all states": lambda: nbp.LSTM(I, 5, return_states=True, rng=0),
    "widths": lambda: nbp.LSTM(I, [5, 4], return_states=True, dropout=0.5, rng=0),
    "widths, one state": lambda: nbp.GRU(I, [5, 4], rng=0),
    "both directions": lambda: nbp.LSTM(I, 5, num_layers=2, bidirectional=True, rng=0),
    "both directions, widths": lambda: nbp.GRU(I, [5, 4], bidirectional=True, return_states=True, rng=0),
    "from the last step": lambda: nbp.cells.GRU(I, 4, reverse=True, rng=0),
    "four states": lambda: nbp.cells.SLSTM(I, 4, rng=0),
    "no product": lambda: nbp.cells.LRU(I, 4, rng=0),
}


def leaves(value):
    """All arrays of an answer, which may be in tuples and lists."""
    return [value] if isinstance(value, np.ndarray) else [array for part in value for array in leaves(part)]


def form(value):
    """What an answer is made of, without the numbers."""
    return value.dtype if isinstance(value, np.ndarray) else (type(value), [form(part) for part in value])


def assert_alone(answer, layer, x):
    """An answer is that of the layer to the sequence alone, by ==, with NaN where NaN is."""
    expected = layer(x)
    assert form(answer) == form(expected)
    for found, right in zip(leaves(answer), leaves(expected), strict=True):
        assert np.array_equal(found, right, equal_nan=True)


def inputs(rng, layer, *shape):
    return rng.standard_normal((*shape, layer.input_size)).astype(layer.dtype)


class Gate:
    """A function for a batcher, held until it is opened: the sum of the rows of each sequence."""

    def __init__(self):
        self.inside, self.open, self.batches = Event(), Event(), []

    def __call__(self, packed):
        self.batches.append(sorted(packed.lengths.tolist()))
        self.inside.set()
        assert self.open.wait(60)
        return [rows.sum() for rows in nbp.unpack_sequence(packed)]


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def held(monkeypatch):
    """An LSTM of which each call waits until it is let through; and the numbers of rows that it was given."""

    class Held:
        calls, inside, let = [], threading.Semaphore(0), threading.Semaphore(0)
        layer = nbp.LSTM(I, 5, rng=0)
        alone = staticmethod(nbp.GRU(I, 1))

        def next(self):
            """Let a call through, and wait until the one after it is there."""
            self.let.release()
            assert self.inside.acquire(timeout=60)

        def end(self):
            monkeypatch.undo()
            for _ in range(10_000):
                self.let.release()

    called = nbp.LSTM.__call__

    def slow(layer, input, hx=None):
        if isinstance(input, nbp.PackedSequence):
            made.calls.append(len(input.data))
            made.inside.release()
            assert made.let.acquire(timeout=60)
        return called(layer, input, hx)

    made = Held()
    made.calls = []
    made.alone = lambda x: called(made.layer, x)
    monkeypatch.setattr(nbp.LSTM, "__call__", slow)
    yield made
    made.end()


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("limits", [{}, {"rows": 7, "steps": 3}, {"rows": 1, "steps": 50}, {"rows": 64, "steps": 1}])
def test_answers_are_those_of_the_sequences_alone(kind, limits):
    layer, rng = LAYERS[kind](), np.random.default_rng(0)
    sequences = [inputs(rng, layer, n) for n in (5, 0, 41, 1, 20, 3, 0, 7)]
    with Batcher(layer, **limits) as some:
        futures = [some.submit(x) for x in sequences]
    for future, x in zip(futures, sequences, strict=True):
        assert_alone(future.result(0), layer, x)


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 40),  # steps
        st.sampled_from(["plain", "NaN", "cancel", "deadline", "symbols", "wait a little"]),
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "both directions"])
def test_whatever_joins_and_leaves_each_answer_is_that_of_the_sequence_alone(kind):
    layer = LAYERS[kind]()

    @settings(max_examples=60, deadline=None)
    @given(REQUESTS, st.integers(1, 40), st.integers(1, 10), st.integers(1, 3), st.integers(1, 8))
    def check(requests, rows, steps, workers, capacity):
        rng, asked = np.random.default_rng(0), []
        with Batcher(layer, capacity, rows, steps, workers) as some:
            for n, what in requests:
                x = inputs(rng, layer, n)
                if what == "NaN" and n:
                    x[rng.integers(n), rng.integers(I)] = np.nan
                if what == "symbols":
                    x = rng.integers(I, size=n)
                if what == "wait a little":
                    time.sleep(1e-4)
                future = some.submit(x, 1e-4 if what == "deadline" else None, wait=True)
                if what == "cancel":
                    future.cancel()
                asked.append((future, what, x))
        for future, what, x in asked:
            assert future.done()
            if what == "cancel" and future.cancelled():
                continue
            if what == "deadline" and future.exception() is not None:
                assert isinstance(future.exception(), TimeoutError)
                continue
            assert_alone(future.result(), layer, x)
        found = some.statistics()
        ends = sum(found[how] for how in ("answered", "failed", "cancelled", "expired"))
        assert (found["submitted"], found["unfinished"], found["failed"]) == (ends, 0, 0)
        assert ends == len(requests)

    check()


def test_what_the_caller_writes_to_the_array_afterwards_does_not_matter(held):
    rng = np.random.default_rng(0)
    some, x = Batcher(held.layer, steps=5), inputs(rng, held.layer, 20)
    before = x.copy()
    future = some.submit(x)
    x[:] = np.nan
    held.end()
    assert_alone(future.result(60), held.layer, before)


def test_an_answer_is_the_callers_own_and_keeps_nothing_else():
    layer, x = nbp.LSTM(I, 5, rng=0), np.ones((4, I), np.float32)
    for model in (layer, lambda packed: layer(packed)[0]):
        with Batcher(model) as some:
            answers = [some.submit(x) for _ in range(9)]
        for array in leaves([each.result() for each in answers]):
            assert array.base is None and array.flags.writeable


def test_a_request_is_answered_with_the_parameters_that_the_layer_has_when_it_comes(held):
    layer, x = held.layer, inputs(np.random.default_rng(0), held.layer, 20)
    expected = held.alone(x)
    with Batcher(layer, steps=5) as some:
        first = some.submit(x)
        held.next()  # it has begun
        layer.parameters = 2 * layer.parameters
        second = some.submit(x)
        held.end()
    assert [np.array_equal(*pair) for pair in zip(leaves(first.result()), leaves(expected), strict=True)] == [True] * 3
    assert_alone(second.result(), layer, x)


@pytest.mark.parametrize("workers", [1, 3])
def test_clients_in_many_threads_get_what_each_gets_alone(workers):
    layer = nbp.GRU(I, 4, rng=0)

    def client(seed):
        rng = np.random.default_rng(seed)
        for n in rng.integers(60, size=40):
            x = inputs(rng, layer, n)
            assert_alone(some.submit(x, wait=True).result(), layer, x)
        return True

    with Batcher(layer, capacity=5, rows=50, steps=7, workers=workers) as some, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(client, range(8)))


# ---- chunks ----------------------------------------------------------------------------------------------------------


def test_a_long_sequence_does_not_hold_up_a_short_one(held):
    with Batcher(held.layer, steps=10) as some:
        long = some.submit(np.ones((20_000, I), np.float32))
        assert held.inside.acquire(timeout=60)
        short = some.submit(np.ones((10, I), np.float32))
        held.next()  # the chunk that was under way; now the next is, with both
        held.next()
        assert held.calls == [10, 20, 10]
        assert short.done() and not long.done()
        long.cancel()
        held.end()


def test_a_chunk_has_so_many_rows_and_steps_at_most_and_all_take_turns(held):
    told, x = [], np.ones((100, I), np.float32)
    with Batcher(held.layer, rows=30, steps=10, report=told.append) as some:
        futures = [some.submit(x)]
        assert held.inside.acquire(timeout=60)
        futures += [some.submit(x) for _ in range(4)]
        held.end()
        wait(futures)
    assert max(each["rows"] for each in told) == 30
    assert max(each["requests"] for each in told) == 3
    assert sum(each["rows"] for each in told) == 500
    assert len(told) <= 23  # the first, and 17 that are full but where few are left


def test_those_that_can_be_finished_do_not_wait_for_steps_of_others(held):
    with Batcher(held.layer, steps=20) as some:
        long = some.submit(np.ones((100, I), np.float32))
        assert held.inside.acquire(timeout=60)
        for n in (3, 12):
            some.submit(np.ones((n, I), np.float32))
        held.next()
        assert held.calls == [20, 3 + 12 + 12]
        some.submit(np.ones((1, I), np.float32))
        held.next()
        assert held.calls[2:] == [1 + 10]  # but for half of a chunk
        held.end()
    assert_alone(long.result(), held.layer, np.ones((100, I), np.float32))


def test_requests_that_a_quarter_more_rows_finish_do_not_wait_for_another_turn(held):
    with Batcher(held.layer) as some:
        some.submit(np.ones((1, I), np.float32))
        assert held.inside.acquire(timeout=60)
        futures = [some.submit(np.ones((n, I), np.float32)) for n in (40, 40, 40, 40, 40, 200, 90)]
        held.next()
        assert held.calls == [1, 7 * 40 + 50]  # up to 70 more
        held.next()
        assert held.calls[2:] == [20]
        assert [future.done() for future in futures] == [True] * 5 + [False, True]
        held.end()


def test_many_answers_are_told_when_the_next_chunk_is_made_and_a_few_before(held, monkeypatch):
    made, make = [], chunks.OfLayer.make

    def watched(model, requests, counts):
        made.append([future.done() for future in futures])
        return make(model, requests, counts)

    monkeypatch.setattr(chunks.OfLayer, "make", watched)
    for count, done in ((batcher.FEW, True), (batcher.FEW + 1, False)):
        with Batcher(held.layer, steps=20) as some:
            futures, made[:] = [], []
            first = some.submit(np.ones((1, I), np.float32))
            assert held.inside.acquire(timeout=60)
            futures += [some.submit(np.ones((2, I), np.float32)) for _ in range(count)]
            held.next()
            last = some.submit(np.ones((3, I), np.float32))
            held.next()
            assert made[2] == [done] * count
            assert [future.done() for future in (first, *futures, last)] == [True] * (count + 1) + [False]
            held.let.release()


def test_where_many_wait_a_chunk_may_be_eight_times_as_long_as_wide(held):
    told = []
    with Batcher(held.layer, rows=128, steps=2, report=told.append) as some:
        some.submit(np.ones((50, I), np.float32))
        assert held.inside.acquire(timeout=60)
        for _ in range(12):
            some.submit(np.ones((50, I), np.float32))
        held.next()
        assert held.calls == [2, 4 * 32]
        held.end()
    assert told[1]["requests"] == 4


def test_whole_sequences_are_taken_up_to_the_rows_of_a_chunk_in_the_order_they_came(gate):
    with Batcher(gate, rows=10) as some:
        some.submit(np.ones(1))
        gate.inside.wait(60)
        for n in (4, 6, 1, 30, 9):
            some.submit(np.ones(n))
        gate.open.set()
    assert gate.batches == [[1], [4, 6], [1], [30], [9]]


def test_a_batch_has_rows_of_one_shape_and_dtype_or_symbols_alone(gate):
    with Batcher(gate) as some:
        some.submit(np.ones(1))
        gate.inside.wait(60)
        rows = [np.ones(2), np.ones((3, 2)), np.ones(4, "f4"), np.ones(5), np.ones((6, 2)), np.ones(0)]
        futures = [some.submit(each) for each in rows]
        gate.open.set()
    assert gate.batches == [[1], [0, 2, 5], [3, 6], [4]]
    assert [future.result() for future in futures] == [each.sum() for each in rows]
    layer, told = nbp.GRU(I, 4, rng=0), []
    with Batcher(layer, report=told.append) as some:
        pairs = [(some.submit(x), x) for x in (np.array([0, 2]), np.ones((2, I), "f4"), np.array([1], np.uint8))]
    for future, x in pairs:
        assert_alone(future.result(), layer, x)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_full_batcher_refuses_at_once_or_waits_as_asked(gate):
    with Batcher(gate, capacity=2) as some:
        some.submit(np.ones(1))
        gate.inside.wait(60)
        some.submit(np.ones(2))
        with pytest.raises(Full, match=r"^capacity must be more than the requests that are unfinished; got 2, all"):
            some.submit(np.ones(3))
        later = []
        thread = Thread(target=lambda: later.append(some.submit(np.ones(4), wait=True)))
        thread.start()
        while len(some) < 3:
            time.sleep(1e-3)
        assert not later
        gate.open.set()
        thread.join(60)
        assert later[0].result(60) == 4
    found = some.statistics()
    assert (found["refused"], found["submitted"], found["answered"]) == (1, 3, 3)


def test_a_cancelled_request_leaves_its_place_to_one_that_waits(gate):
    with Batcher(gate, capacity=2) as some:
        some.submit(np.ones(1))
        gate.inside.wait(60)
        second = some.submit(np.ones(2))
        with ThreadPoolExecutor(1) as pool:
            third = pool.submit(some.submit, np.ones(3), wait=True)
            assert second.cancel()
            gate.open.set()
            assert third.result(60).result(60) == 3
    assert gate.batches == [[1], [3]]
    assert some.statistics()["cancelled"] == 1
    assert wait([second], 0).done  # those who wait for it are told


def test_a_cancelled_request_takes_no_more_steps(held):
    with Batcher(held.layer, steps=5) as some:
        future = some.submit(np.ones((5000, I), np.float32))
        held.next()
        assert future.cancel()
        held.end()
    assert len(held.calls) <= 2
    assert some.statistics()["cancelled"] == 1


# ---- deadlines -------------------------------------------------------------------------------------------------------


def test_a_request_that_is_too_late_fails_and_leaves_its_place(gate):
    with Batcher(gate, capacity=3) as some:
        some.submit(np.ones(1))
        gate.inside.wait(60)
        late, later = some.submit(np.ones(2), deadline=0), some.submit(np.ones(3), deadline=3600)
        gate.open.set()
        with pytest.raises(TimeoutError, match=r"^deadline must leave time for all steps; it passed when 0 of 2 were"):
            late.result(60)
        assert later.result(60) == 3
    assert gate.batches == [[1], [3]]
    assert some.statistics()["expired"] == 1


def test_a_deadline_that_passes_between_chunks_ends_a_request(held):
    held.let.release()
    held.layer(nbp.pack_sequence([np.ones((5, I), np.float32)]))  # whose code is there before the clock runs
    assert held.inside.acquire(timeout=60)
    with Batcher(held.layer, steps=5) as some:
        future = some.submit(np.ones((5000, I), np.float32), deadline=1.0)
        held.next()
        time.sleep(1.0)
        held.let.release()
        with pytest.raises(TimeoutError, match="passed when 10 of 5000 were done"):
            future.result(60)


def test_a_deadline_counts_while_a_request_waits_for_a_place(held):
    with Batcher(held.layer, capacity=1, steps=5) as some:
        first = some.submit(np.ones((5000, I), np.float32))
        assert held.inside.acquire(timeout=60)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(some.submit, np.ones((1, I), np.float32), 0.01, wait=True)
            while len(some) < 2:
                time.sleep(1e-3)
            time.sleep(0.02)
            held.next()
            assert isinstance(second.result(60).exception(60), TimeoutError)
        first.cancel()
        held.end()


# ---- failures --------------------------------------------------------------------------------------------------------


def sums(packed):
    """Of a batch of which no row may be negative."""
    if (packed.data < 0).any():
        raise ArithmeticError("negative")
    return [rows.sum() for rows in nbp.unpack_sequence(packed)]


def test_a_request_that_fails_fails_alone(gate):
    def function(packed):
        gate(packed)
        return sums(packed)

    with Batcher(function) as some:
        some.submit(np.ones(1))
        gate.inside.wait(60)
        x = [np.full(n, -1.0 if n in (3, 5) else 1.0) for n in range(1, 8)]
        futures = [some.submit(each) for each in x]
        gate.open.set()
    for n, future in enumerate(futures, 1):
        if n in (3, 5):
            assert isinstance(future.exception(), ArithmeticError)
            assert future.exception().__context__ is None
        else:
            assert future.result() == n
    assert (some.statistics()["answered"], some.statistics()["failed"]) == (6, 2)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_whatever_a_function_raises_is_for_who_waits_and_the_next_request_is_answered(error):
    def function(packed):
        if len(packed.data) == 0:
            raise error
        return [1]

    with Batcher(function) as some:
        assert isinstance(some.submit(np.ones(0)).exception(60), error)
        assert some.submit(np.ones(1)).result(60) == 1


def test_a_layer_that_fails_for_want_of_memory_goes_on_from_the_chunk_before(monkeypatch):
    layer, called, calls = nbp.LSTM(I, 5, rng=0), nbp.LSTM.__call__, []
    x = [inputs(np.random.default_rng(n), layer, 30 + n) for n in range(5)]
    expected = [layer(each) for each in x]

    def failing(layer, input, hx=None):
        calls.append(len(input.sorted_indices))
        if calls[-1] > 2:
            raise MemoryError
        return called(layer, input, hx)

    some = Batcher(layer, steps=4)
    monkeypatch.setattr(nbp.LSTM, "__call__", failing)
    with some:
        futures = [some.submit(each) for each in x]
    assert max(calls) > 2
    for future, right in zip(futures, expected, strict=True):
        for array, other in zip(leaves(future.result()), leaves(right), strict=True):
            assert np.array_equal(array, other)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda packed: None, "^the function must return a PackedSequence, an array or a list .*; got NoneType"),
        (lambda packed: [], "^the function must return an entry for each of 1 sequences; got 0"),
        (lambda packed: np.ones(()), "^the function must return an entry for each of 1 sequences; got 0"),
        (lambda packed: np.ones((2, 1)), "^the function must return an entry for each of 1 sequences; got 2"),
        (lambda packed: (packed, [1, 2]), "^the function must return an entry for each of 1 sequences; got 2"),
        (lambda packed: nbp.pack_sequence([np.ones(3)]), r"^the function must return .* lengths \[2\].*; got \[3\]"),
    ],
)
def test_outputs_of_a_function_that_are_not_one_of_each_are_told(function, says):
    with Batcher(function) as some, pytest.raises((TypeError, ValueError), match=says):
        some.submit(np.ones((2, I))).result(60)


def test_a_function_returns_rows_entries_or_tuples_of_them():
    def function(packed):
        return packed, packed.lengths, (list(map(str, packed.lengths)), packed)

    with Batcher(function) as some:
        futures = [some.submit(np.full((n, 2), n)) for n in (4, 1, 0)]
    for n, future in zip((4, 1, 0), futures, strict=True):
        rows, length, (text, again) = future.result()
        assert (length, text) == (n, str(n))
        assert np.array_equal(rows, np.full((n, 2), n)) and np.array_equal(again, rows)


X = np.ones((2, I), np.float32)
REFUSED = {
    "list": (X.tolist(), None, "^sequence must be a NumPy array; got list"),
    "None": (None, None, "^sequence must be a NumPy array; got NoneType"),
    "packed": (nbp.pack_sequence([X]), None, "^sequence must be a NumPy array; got numba_pack"),
    "no axes": (np.ones((), "f4"), None, r"^sequence must have shape \(T, 3\); got \(\)"),
    "one axis": (X[0], None, r"^sequence must have shape .* = \(3, 3\); got \(3,\)"),
    "padded": (X[None], None, r"^sequence must have shape \(T, input_size\) = \(1, 3\); got \(1, 2, 3\)"),
    "narrow": (X[:, :2], None, r"^sequence must have shape \(T, input_size\) = \(2, 3\); got \(2, 2\)"),
    "doubles": (X.astype("f8"), None, "^sequence must have dtype float32; got float64"),
    "masked": (np.ma.masked_array(X), None, "^sequence must be an array without a mask"),
    "large symbol": (np.array([0, 3]), None, "^sequence must hold symbols .* = 3; got 3 at index 1"),
    "past": (X, -1, "^deadline must be at least 0 and finite; got -1"),
    "NaN": (X, np.nan, "^deadline must be at least 0 and finite; got nan"),
    "never": (X, np.inf, "^deadline must be at least 0 and finite; got inf"),
    "text": (X, "1", "^deadline must be a number; got '1'"),
    "bool": (X, True, "^deadline must be a number; got True"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_cannot_be_right_is_refused_at_once(name):
    sequence, deadline, says = REFUSED[name]
    layer = nbp.LSTM(I, 5, rng=0)
    with Batcher(layer) as some:
        with pytest.raises((TypeError, ValueError), match=says):
            some.submit(sequence, deadline)
        with pytest.raises((TypeError, ValueError), match=says):
            asyncio.run(some.run(sequence, deadline))
        assert_alone(some.submit(X).result(60), layer, X)
    assert some.statistics()["submitted"] == 1


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.array([None]), "must have a bool, integer, float or complex dtype"),
        (np.float64(1), "must have at least 1 axes"),
        (np.ma.masked_array([1.0]), "without a mask"),
        ([[1.0], [1.0, 2.0]], "must be an array"),
    ],
)
def test_rows_for_a_function_that_cannot_be_packed_are_refused_at_once(rows, says):
    with Batcher(sums) as some, pytest.raises((TypeError, ValueError), match=f"^sequence {says}|^sequence .*{says}"):
        some.submit(rows)


BAD = {
    "no model": ((None,), "^model must be a layer, .* or a function of a PackedSequence; got NoneType"),
    "a cell": ((nbp.LSTMCell(I, 5),), "^model must be a layer, .*; got numba_pack"),
    "a class": ((nbp.LSTM,), "^model must be a layer, .*; got type"),
    "a formula": ((nbp.cells.GRU,), "^model must be a layer, .*; got numba_pack"),
    "capacity": ((sums, 0), "^capacity must be at least 1; got 0"),
    "rows": ((sums, 1, 0), "^rows must be at least 1; got 0"),
    "rows, a float": ((sums, 1, 1.5), "^rows must be an integer; got 1.5"),
    "steps": ((sums, 1, 1, 0), "^steps must be at least 1; got 0"),
    "workers": ((sums, 1, 1, 1, 0), "^workers must be at least 1; got 0"),
    "too many workers": ((sums, 1, 1, 1, 5000), "^workers must be at most 4096; got 5000"),
    "report": ((sums, 1, 1, 1, 1, {}), "^report must be a function of a dict, or None; got dict"),
    "large capacity": ((sums, 2**60), "^capacity must be at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_batcher_is_made_of_is_checked(name):
    arguments, says = BAD[name]
    with pytest.raises((TypeError, ValueError), match=says):
        Batcher(*arguments)


@pytest.mark.parametrize("name", ["wait", "cancel"])
def test_flags_are_bools(name):
    with Batcher(sums) as some, pytest.raises(TypeError, match=f"^{name} must be a bool; got 1"):
        some.submit(np.ones(1), wait=1) if name == "wait" else some.close(cancel=1)


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_leaving_the_block_waits_for_all_answers_and_takes_no_more():
    layer = nbp.GRU(I, 4, rng=0)
    with Batcher(layer) as some:
        futures = [some.submit(np.ones((n, I), np.float32)) for n in range(0, 2000, 100)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match=r"^the batcher is closed: it takes no more requests"):
        some.submit(X)
    some.close()
    assert repr(some) == "Batcher(GRU(3, 4), capacity=1024): closed, 0 unfinished"


def test_a_close_that_cancels_waits_for_the_present_chunk_alone(held):
    some = Batcher(held.layer, capacity=2, steps=5)
    futures = [some.submit(np.ones((5000, I), np.float32)) for _ in range(2)]
    assert held.inside.acquire(timeout=60)
    with ThreadPoolExecutor(2) as pool:
        outside = pool.submit(some.submit, X, wait=True)
        while len(some) < 3:
            time.sleep(1e-3)
        closing = pool.submit(some.close, cancel=True)
        until(lambda: all(future.cancelled() for future in some._unended))
        assert not closing.done()
        held.let.release()
        closing.result(60)
        assert outside.result(60).cancelled()
    assert [future.cancelled() for future in futures] == [True, True]
    assert len(held.calls) == 1
    assert some.statistics()["cancelled"] == 3


def test_a_callback_may_submit_and_close():
    with Batcher(sums) as some:
        more, over = [], Event()
        some.submit(np.ones(1)).add_done_callback(lambda _: (more.append(some.submit(np.ones(2))), over.set()))
        assert over.wait(60)
        assert more[0].result(60) == 2
        some.submit(np.ones(1)).add_done_callback(lambda _: some.close())


def told(monkeypatch):
    """What goes to `threading.excepthook` from here on."""
    found = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: found.append(arguments.exc_type))
    return found


def test_what_a_report_or_a_callback_raises_is_told_and_does_no_harm(monkeypatch):
    found = told(monkeypatch)

    def report(figures):
        raise OSError

    def leave(future):
        raise SystemExit

    with Batcher(sums, report=report) as some:
        future = some.submit(np.ones(1))
        future.add_done_callback(leave)
        assert future.result(60) == 1
        assert some.submit(np.ones(2)).result(60) == 2
    assert found.count(OSError) == 2
    assert set(found) <= {OSError, SystemExit}


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(batcher, "LINGER", 0.01)


def test_a_worker_that_has_nothing_to_do_ends_and_the_next_request_starts_another(brief):
    some = Batcher(sums)
    for n in (1, 2):
        assert some.submit(np.ones(n)).result(60) == n
        until(lambda: not some._workers)


def test_a_batcher_that_nobody_closes_is_collected(brief):
    some = Batcher(nbp.GRU(I, 4, rng=0))
    future, gone = some.submit(X), weakref.ref(some)
    del some
    assert future.result(60)[0].shape == (2, 4)
    until(lambda: gone() is None)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(1e-3)


def test_no_more_workers_are_started_than_asked_for(gate):
    with Batcher(gate, workers=2) as some:
        for _ in range(5):
            some.submit(np.ones(1))
            gate.inside.wait(60)
        until(lambda: len(gate.batches) == 2)
        assert len(some._workers) == 2
        gate.open.set()


def test_a_thread_that_cannot_be_started_is_told_and_leaves_nothing(monkeypatch):
    def fails(thread):
        raise RuntimeError("can't start new thread")

    some = Batcher(sums)
    with monkeypatch.context() as patched:
        patched.setattr(batcher.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            some.submit(np.ones(1))
    assert len(some) == 0
    with some:
        assert some.submit(np.ones(1)).result(60) == 1


@pytest.mark.parametrize("how", ["submit", "submit and wait", "close"])
def test_a_call_that_is_interrupted_anywhere_leaves_all_places_and_a_batcher_that_ends(how):
    number, was_interrupted = 1, True
    while was_interrupted:
        gate = Gate()
        some = Batcher(gate, capacity=2)
        first = some.submit(np.ones(1))
        gate.inside.wait(60)
        if how == "submit":
            was_interrupted = interrupted(lambda: some.submit(np.ones(2)), number, batcher, line)  # noqa: B023
            gate.open.set()
        elif how == "submit and wait":
            second = some.submit(np.ones(2))
            opening = threading.Timer(5e-3, gate.open.set)
            opening.start()
            was_interrupted = interrupted(lambda: some.submit(np.ones(3), wait=True), number, batcher, line)  # noqa: B023
            assert second.result(60) == 2
        else:
            gate.open.set()
            was_interrupted = interrupted(some.close, number, batcher, line)
        assert first.result(60) == 1
        if how != "close":
            for n in (4, 5, 6):
                assert some.submit(np.ones(n), wait=True).result(60) == n
            until(lambda: len(some) == 0)  # noqa: B023
            gate.open.clear(), gate.inside.clear()
            held = [some.submit(np.ones(1)) for _ in range(2)]
            with pytest.raises(Full):
                some.submit(np.ones(1))
            gate.open.set()
            assert [future.result(60) for future in held] == [1, 1]
        some.close()
        assert not some._workers
        number += 1
    assert number > (10 if how != "close" else 5)


# ---- await -----------------------------------------------------------------------------------------------------------


def test_requests_are_awaited_together_and_wait_for_places():
    layer, rng = nbp.LSTM(I, 5, rng=0), np.random.default_rng(0)
    x = [inputs(rng, layer, n) for n in rng.integers(50, size=40)]

    async def main():
        with Batcher(layer, capacity=3, steps=7) as some:
            return await asyncio.gather(*(some.run(each) for each in x))

    for each, answer in zip(x, asyncio.run(main()), strict=True):
        assert_alone(answer, layer, each)


def test_a_task_that_is_cancelled_cancels_its_request(held):
    async def main():
        with Batcher(held.layer, capacity=1, steps=5) as some:
            long = np.ones((5000, I), np.float32)
            inside, outside = (asyncio.ensure_future(some.run(long)) for _ in range(2))
            await asyncio.sleep(0.01)
            with pytest.raises(Full):
                await some.run(long, wait=False)
            for task in (outside, inside):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            held.end()
        return some.statistics()

    found = asyncio.run(main())
    assert (found["cancelled"], found["refused"], found["unfinished"]) == (2, 1, 0)


def test_a_deadline_is_an_error_to_await(gate):
    async def main():
        with Batcher(gate) as some:
            first = asyncio.ensure_future(some.run(np.ones(1)))
            second = asyncio.ensure_future(some.run(np.ones(1), deadline=0))
            await asyncio.sleep(0.01)
            gate.open.set()
            with pytest.raises(TimeoutError):
                await second
            return await first

    gate.open.clear()
    assert asyncio.run(main()) == 1


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_count_what_was_done_and_how_long_it_took(gate):
    figures = []
    with Batcher(gate, rows=8, report=figures.append) as some:
        assert some.statistics()["wait"] is None
        some.submit(np.ones(2))
        gate.inside.wait(60)
        some.submit(np.ones(3)), some.submit(np.ones(4))
        time.sleep(0.05)
        assert some.statistics()["unfinished"] == 3
        gate.open.set()
    found = some.statistics()
    assert {name: found[name] for name in ("submitted", "answered", "chunks", "rows", "unfinished")} == {
        "submitted": 3, "answered": 3, "chunks": 2, "rows": 9, "unfinished": 0,
    }  # fmt: skip
    assert (found["requests_per_chunk"], found["occupancy"]) == (1.5, 9 / 16)
    assert 0.05 <= found["wait"]["p50"] <= found["wait"]["p99"] <= found["answer"]["p99"] < 60
    assert found["answer"]["p50"] >= 0.05
    assert [(each["requests"], each["rows"], each["occupancy"]) for each in figures] == [(1, 2, 0.25), (2, 7, 0.875)]
    assert [len(each["waits"]) for each in figures] == [len(each["answers"]) for each in figures] == [1, 2]
    assert figures[0]["seconds"] >= 0.05


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_none_of_the_requests_and_answers_its_own(held):
    some = Batcher(held.layer, capacity=1, steps=5)
    expected = held.alone(X)[0]
    future = some.submit(np.ones((5000, I), np.float32))
    assert held.inside.acquire(timeout=60)
    with future._condition, some._lock:  # as if a thread that is not in the child were just ending it
        child = os.fork()
        if child == 0:
            right = False
            try:
                signal.alarm(60)
                held.end()
                right = future.cancelled() and len(some) == 0
                right = right and np.array_equal(some.submit(X).result(30)[0], expected)
                some.close()
            finally:
                os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not future.done()
    future.cancel()
    held.end()
    some.close()


@pytest.mark.parametrize("how", ["idle", "in a chunk", "in an exception"])
def test_a_batcher_left_open_does_not_keep_a_process_from_ending(how):
    script = f"""
import numpy as np
import numba_pack as nbp

some = nbp.serving.Batcher(nbp.GRU(3, 4, rng=0), workers=2)
assert some.submit(np.ones((5, 3), np.float32)).result()[0].shape == (5, 4)
if {how!r} != "idle":
    future = some.submit(np.ones((10_000_000, 3), np.float32))
    future.add_done_callback(lambda future: print("cancelled", future.cancelled(), flush=True))
if {how!r} == "in an exception":
    raise SystemExit(3)
"""
    began = time.monotonic()
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert process.returncode == (3 if how == "in an exception" else 0), process.stderr
    assert process.stderr == ""
    assert process.stdout == ("" if how == "idle" else "cancelled True\n")
    assert time.monotonic() - began < 100
