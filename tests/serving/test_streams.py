"""Streams: each equals its whole sequence alone, whatever joins and leaves; and calls that fail change nothing."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from interrupts import interrupted

import numba_pack as nbp
from numba_pack.serving import Streams, streams

I, CAPACITY = 3, 5  # noqa: E741

#: by a name, a layer of each kind
LAYERS = {
    "LSTM": lambda: nbp.LSTM(I, 5, num_layers=2, dropout=0.5, rng=0),
    "GRU": lambda: nbp.GRU(I, 4, dtype="f8", rng=0),
    "RNN": lambda: nbp.RNN(I, 20, nonlinearity="relu", rng=0),
    "projection": lambda: nbp.LSTM(I, 5, proj_size=2, batch_first=True, rng=0),
    "all states": lambda: nbp.LSTM(I, 5, return_states=True, rng=0),
    "widths": lambda: nbp.LSTM(I, [5, 4], return_states=True, dropout=0.5, rng=0),
    "widths, one state": lambda: nbp.GRU(I, [5, 4], rng=0),
    "trained with noise": lambda: nbp.GRU(I, 4, zoneout=0.2, recurrent_dropout=0.5, layer_norm=True, rng=0),
    "four states": lambda: nbp.cells.SLSTM(I, 4, rng=0),
    "two products": lambda: nbp.cells.GRUResetBefore(I, 4, num_layers=2, rng=0),
    "no product": lambda: nbp.cells.LRU(I, 4, rng=0),
}


def leaves(value):
    """All arrays of an output or a state, which may be in tuples and lists."""
    return [value] if isinstance(value, np.ndarray) else [array for part in value for array in leaves(part)]


def bits(value):
    return [(array.shape, array.dtype, array.tobytes()) for array in leaves(value)]


def all_bits(some):
    return {id: bits(some.state(id)) for id in some.ids}


def assert_equal(found, expected, name=""):
    """By ==, and NaN where NaN is: which of the NaN it is does not matter."""
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected)
    for got, right in zip(found, expected, strict=True):
        assert got.dtype == right.dtype
        assert np.array_equal(got, right, equal_nan=True), name


def inputs(rng, layer, *shape):
    return rng.standard_normal((*shape, layer.input_size)).astype(layer.dtype)


def assert_whole(layer, some, id, xs, ys):
    """What a stream was given and gave, and its state, are those of its whole sequence alone."""
    whole = np.concatenate([inputs(np.random.default_rng(0), layer, 0), *xs])
    output, state = layer(whole)
    assert_equal(some.state(id), state, f"state of {id}")
    for part, expected in enumerate(leaves(output)):
        got = np.concatenate([expected[:0], *(leaves(y)[part] for y in ys)])
        assert_equal(got, expected, f"output {part} of {id}")


# ---- equal to the whole alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_streams_that_join_and_leave_equal_their_whole_sequences_alone(kind):
    layer, rng = LAYERS[kind](), np.random.default_rng(0)
    some = Streams(layer, CAPACITY)
    given, got = {}, {}
    for tick in range(12):
        if len(some) == CAPACITY:
            id = some.ids[tick % CAPACITY]
            assert_whole(layer, some, id, given.pop(id), got.pop(id))
            some.close(id)
        for _ in range(min(2, CAPACITY - len(some))):
            id = some.open()
            given[id], got[id] = [], []
        ids = rng.permutation(some.ids)[: 1 + tick % CAPACITY].tolist()
        if tick % 2:
            rows = inputs(rng, layer, len(ids))
            outputs = some.step(ids, rows)
            for i, id in enumerate(ids):
                given[id].append(rows[i : i + 1])
                got[id].append([part[i : i + 1] for part in leaves(outputs)])
        else:
            chunks = {id: inputs(rng, layer, rng.integers(4)) for id in ids}
            outputs = some.feed(chunks)
            assert list(outputs) == ids
            for id, chunk in chunks.items():
                given[id].append(chunk)
                got[id].append(outputs[id])
    for id in some.ids:
        assert_whole(layer, some, id, given[id], got[id])


class Machine(RuleBasedStateMachine):
    """Anything at all, in any order, beside a list of what each stream was given and gave."""

    layer = None

    def __init__(self):
        super().__init__()
        self.some, self.given, self.got = Streams(self.layer, CAPACITY), {}, {}

    def chosen(self, data):
        return data.draw(st.lists(st.sampled_from(self.some.ids), unique=True))

    def drawn(self, data, *shape):
        x = inputs(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), self.layer, *shape)
        if x.size and data.draw(st.integers(0, 9)) == 0:
            x.flat[data.draw(st.integers(0, x.size - 1))] = data.draw(st.sampled_from([np.nan, np.inf, 1e30]))
        return x

    @precondition(lambda self: len(self.some) < CAPACITY)
    @rule()
    def open(self):
        id = self.some.open()
        assert id not in self.given
        self.given[id], self.got[id] = [], []

    @precondition(lambda self: len(self.some))
    @rule(data=st.data())
    def close(self, data):
        id = data.draw(st.sampled_from(self.some.ids))
        assert_whole(self.layer, self.some, id, self.given[id], self.got[id])
        self.some.close(id)

    @precondition(lambda self: len(self.some))
    @rule(data=st.data())
    def step(self, data):
        ids = self.chosen(data)
        rows = self.drawn(data, len(ids))
        for i, (id, y) in enumerate(zip(ids, self.some.step(ids, rows), strict=True)):
            self.given[id].append(rows[i : i + 1])
            self.got[id].append(y[None])

    @precondition(lambda self: len(self.some))
    @rule(data=st.data())
    def feed(self, data):
        chunks = {id: self.drawn(data, data.draw(st.integers(0, 4))) for id in self.chosen(data)}
        for id, y in self.some.feed(chunks).items():
            self.given[id].append(chunks[id])
            self.got[id].append(y)

    @precondition(lambda self: len(self.some))
    @rule(data=st.data())
    def begin_again(self, data):
        id = data.draw(st.sampled_from(self.some.ids))
        self.some.reset(id)
        self.given[id], self.got[id] = [], []

    @precondition(lambda self: len(self.some) > 1)
    @rule(data=st.data())
    def copy(self, data):
        source, target = data.draw(st.permutations(self.some.ids))[:2]
        self.some.set_state(target, self.some.state(source))
        self.given[target], self.got[target] = self.given[source][:], self.got[source][:]

    @rule(data=st.data())
    def fail(self, data):
        before = all_bits(self.some)
        ids = [*self.some.ids, data.draw(st.integers(-2, 2).map(lambda k: len(self.given) + k + 10))]
        with pytest.raises(ValueError, match="never opened"):
            self.some.step(ids, self.drawn(data, len(ids)))
        assert all_bits(self.some) == before

    @invariant()
    def count(self):
        assert len(self.some) == len(self.some.ids) <= CAPACITY

    def teardown(self):
        for id in self.some.ids:
            assert_whole(self.layer, self.some, id, self.given[id], self.got[id])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_whatever_is_called_each_stream_equals_its_whole_sequence_alone(kind):
    machine = type("Machine", (Machine,), {"layer": LAYERS[kind]()})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


def test_symbols_step_and_feed_as_one_hot_rows_do():
    layer, table = nbp.GRU(I, 4, rng=0), np.eye(I, dtype=np.float32)
    some, other = Streams(layer, 2), Streams(layer, 2)
    for each in (some, other):
        each.open(), each.open()
    for symbols in (np.array([2, 0]), np.array([1, 1], np.uint8)):
        assert_equal(some.step([1, 0], symbols), other.step([1, 0], table[symbols]))
    chunks = {0: np.array([0, 2, 1], np.int8), 1: np.array([], np.int64)}
    assert_equal(some.feed(chunks)[0], other.feed({0: table[chunks[0]]})[0])
    assert_equal(some.state(0), other.state(0))


# ---- streams apart ---------------------------------------------------------------------------------------------------


def test_nan_in_one_stream_never_shows_in_another_nor_in_the_next_of_its_place():
    layer, rng = nbp.LSTM(I, 5, rng=0), np.random.default_rng(1)
    some = Streams(layer, 2)
    ill, well = some.open(), some.open()
    rows = inputs(rng, layer, 2)
    rows[0] = np.nan
    for _ in range(3):
        assert np.isnan(some.step([ill, well], rows)[0]).all()
    assert_equal(some.state(well), layer(np.repeat(rows[1:], 3, axis=0))[1])
    some.close(ill)
    new = some.open()
    assert_equal(some.state(new), layer(rows[:0])[1])
    assert_equal(some.step([new], rows[1:]), layer(rows[1:])[0])


def test_a_stream_opened_in_the_place_of_a_closed_one_has_a_new_id_and_begins_from_nothing():
    layer = nbp.GRU(I, 4, rng=0)
    some, x = Streams(layer, 1), np.ones((1, I), np.float32)
    seen = []
    for _ in range(4):
        id = some.open()
        seen.append(id)
        assert_equal(some.step([id], x), layer(x)[0])
        some.close(id)
    assert seen == sorted(set(seen))
    assert (len(some), some.ids) == (0, ())


def test_states_go_in_and_out_as_copies_in_the_form_of_a_single_sequence():
    layer = LAYERS["widths"]()
    some, x = Streams(layer, 2), inputs(np.random.default_rng(2), layer, 7)
    a, b = some.open(), some.open()
    _, state = layer(x[:4])
    some.set_state(a, state)
    for array in leaves(state):
        array[:] = 9
    taken = some.state(a)
    assert_equal(taken, layer(x[:4])[1])
    assert [type(part) for part in (taken, taken[0])] == [list, tuple]
    for array in leaves(taken):
        array[:] = 9
    assert_equal(some.feed({a: x[4:]})[a], [part[4:] for part in layer(x)[0]])
    some.reset(a)
    assert all_bits(some)[a] == all_bits(some)[b]


def test_parameters_that_are_assigned_hold_from_the_next_call_on():
    layer, x = nbp.GRU(I, 4, rng=0), np.ones((1, I), np.float32)
    some = Streams(layer, 1)
    id = some.open()
    layer.parameters = 2 * layer.parameters
    assert_equal(some.step([id], x), layer(x)[0])


def test_no_stream_at_all_is_a_call_that_gives_nothing():
    for kind, shapes in {"projection": [(0, 2)], "all states": [(0, 5), (0, 5)], "widths": [(0, 4), (0, 4)]}.items():
        layer = LAYERS[kind]()
        some = Streams(layer, 1)
        assert [part.shape for part in leaves(some.step([], np.empty((0, I), layer.dtype)))] == shapes
        assert some.feed({}) == {}


def test_a_repr_says_what_runs_and_how_many_are_open():
    some = Streams(nbp.GRU(I, 4, num_layers=2), 7)
    some.open()
    assert repr(some) == "Streams(GRU(3, 4, num_layers=2), capacity=7): 1 open"
    assert (some.capacity, some.layer) == (7, some.layer)


# ---- calls that fail -------------------------------------------------------------------------------------------------

X = np.ones((2, I), np.float32)
H, C = np.ones((1, 5), np.float32), np.ones((1, 5), np.float32)
#: what is called of streams of which 0 and 1 are open and 2 is closed, and what the error says
FAILURES = {
    "more than capacity": (lambda s: [s.open() for _ in range(2)], "^capacity must be more than .* open; got 3"),
    "closed": (lambda s: s.step([0, 2], X), "^ids must be of open streams; got 2, which was closed"),
    "unknown": (lambda s: s.step([0, 9], X), "^ids must be of open streams; got 9, which was never opened"),
    "negative": (lambda s: s.step([0, -1], X), "^ids must be of open streams; got -1, which was never opened"),
    "twice": (
        lambda s: s.step([0, 1, 0], np.ones((3, I), "f4")),
        "^ids must name each stream once; got 0 more than once",
    ),
    "ids of floats": (lambda s: s.step([0.0, 1.0], X), "^ids must hold integers .* got dtype float64"),
    "ids of bools": (lambda s: s.step([False, True], X), "^ids must hold integers .* got dtype bool"),
    "a set of ids": (lambda s: s.step({0, 1}, X), "^ids must be an array of integers; got .*set"),
    "an id for ids": (lambda s: s.step(0, X), "^ids must be"),
    "rows of a list": (lambda s: s.step([0, 1], X.tolist()), "^rows must be a NumPy array; got list"),
    "fewer rows": (
        lambda s: s.step([0, 1], X[:1]),
        r"^rows must have shape \(k, input_size\) = \(2, 3\); got \(1, 3\)",
    ),
    "wide rows": (lambda s: s.step([0, 1], np.ones((2, 4), "f4")), r"^rows must have shape .* got \(2, 4\)"),
    "one row": (lambda s: s.step([0], X[0]), r"^rows must have shape .* = \(1, 3\); got \(3,\)"),
    "no axes": (lambda s: s.step([0], np.ones((), "f4")), r"^rows must have shape \(k, 3\); got \(\)"),
    "doubles": (lambda s: s.step([0, 1], X.astype("f8")), "^rows must have dtype float32; got float64"),
    "masked": (lambda s: s.step([0, 1], np.ma.masked_array(X)), "^rows must be an array without a mask"),
    "large symbol": (lambda s: s.step([0, 1], np.array([0, 3])), "^rows must hold symbols .* = 3; got 3 at index 1"),
    "fewer symbols": (lambda s: s.step([0, 1], np.array([0])), r"^rows must hold a symbol .* \(2,\); got \(1,\)"),
    "chunks of a list": (lambda s: s.feed([X, X]), "^chunks must be a dict of ids and arrays; got list"),
    "closed chunk": (lambda s: s.feed({0: X, 2: X}), "^chunks must be of open streams; got 2, which was closed"),
    "id of a chunk": (lambda s: s.feed({0: X, "1": X}), "^an id in chunks must be an integer; got '1'"),
    "wide chunk": (lambda s: s.feed({0: X, 1: np.ones((4, 2), "f4")}), r"^chunks\[1\] must have .* = \(4, 3\); got"),
    "chunk of doubles": (lambda s: s.feed({0: X, 1: X.astype("f8")}), r"^chunks\[1\] must have dtype float32"),
    "rows and symbols": (lambda s: s.feed({0: X, 1: np.array([0])}), "^chunks must hold rows .* got both"),
    "close": (lambda s: s.close(2), "^id must be of an open stream; got 2, which was closed"),
    "close a float": (lambda s: s.close(0.0), "^id must be an integer; got 0.0"),
    "close a bool": (lambda s: s.close(False), "^id must be an integer; got False"),
    "state": (lambda s: s.state(7), "^id must be of an open stream; got 7, which was never opened"),
    "reset": (lambda s: s.reset(2), "^id must be of an open stream; got 2"),
    "state of one": (lambda s: s.set_state(0, H), "^state must be a tuple of 2, as the layer returns it; got numpy"),
    "state of three": (lambda s: s.set_state(0, (H, C, C)), "^state must be a tuple of 2, .* got tuple of 3"),
    "state of none": (lambda s: s.set_state(0, None), "^state must be a tuple of 2, .* got NoneType"),
    "state, part": (lambda s: s.set_state(0, (H, C[0])), r"^state\[1\] must have shape \(1, 5\); got \(5,\)"),
    "state, dtype": (lambda s: s.set_state(0, (H, C.astype("f8"))), r"^state\[1\] must have dtype float32"),
    "state, closed": (lambda s: s.set_state(2, (H, C)), "^id must be of an open stream; got 2, which was closed"),
}


@pytest.fixture
def some():
    """Streams, of which 0 and 1 are open and 2 is closed, and one more may be opened."""
    made = Streams(nbp.LSTM(I, 5, rng=0), 3)
    for _ in range(3):
        made.open()
    made.close(2)
    made.step([1, 0], X)
    return made


@pytest.mark.parametrize("name", FAILURES)
def test_a_call_that_fails_says_why_and_changes_nothing(some, name):
    call, says = FAILURES[name]
    if name == "more than capacity":
        some.open()
    before = all_bits(some)
    with pytest.raises((TypeError, ValueError), match=says):
        call(some)
    assert all_bits(some) == before
    assert_equal(some.step([0, 1], X), some.layer(np.ones((2, I), np.float32))[0][[1, 1]])


@pytest.mark.parametrize(
    ("capacity", "says"),
    [
        (0, "at least 1; got 0"),
        (-1, "at least 1"),
        (1.5, "an integer; got 1.5"),
        (np.inf, "an integer; got inf"),
        (np.nan, "an integer; got nan"),
        (True, "an integer; got True"),
        (2**80, "at most"),
    ],
)
def test_a_capacity_is_a_number_of_streams_that_fit_into_memory(capacity, says):
    with pytest.raises((TypeError, ValueError), match=f"^capacity must be {says}"):
        Streams(nbp.GRU(I, 4), capacity)


@pytest.mark.parametrize(
    "layer",
    [
        nbp.LSTM(I, 5, bidirectional=True),
        nbp.GRU(I, [5, 4], bidirectional=True),
        nbp.cells.GRU(I, 4, reverse=True),
        nbp.cells.GRU(I, [5, 4], reverse=True),
    ],
    ids=repr,
)
def test_layers_that_begin_with_the_last_step_are_refused_with_the_reason(layer):
    with pytest.raises(ValueError, match=r"^layer must have one direction.* last step, which a stream has not had yet"):
        Streams(layer, 2)


@pytest.mark.parametrize("layer", [nbp.LSTMCell(I, 5), nbp.LSTM, nbp.cells.GRU, None], ids=str)
def test_what_is_no_layer_is_refused(layer):
    with pytest.raises(TypeError, match=r"^layer must be a layer, .*; got "):
        Streams(layer, 2)


# ---- calls that are interrupted --------------------------------------------------------------------------------------


CALLS = {
    "step": lambda s: s.step([1, 0], 2 * X),
    "feed": lambda s: s.feed({0: X, 1: X[:1]}),
    "set_state": lambda s: s.set_state(1, (H, C)),
    "reset": lambda s: s.reset(0),
    "open": lambda s: s.open(),
    "close": lambda s: s.close(0),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_interrupted_anywhere_is_not_done_or_done_as_a_whole(name):
    def made():
        some = Streams(layer, 3)
        some.open(), some.open()
        some.step([0, 1], np.arange(2 * I, dtype=np.float32).reshape(2, I))
        return some

    layer = nbp.LSTM(I, 5, rng=0)
    done = made()
    before = all_bits(done)
    CALLS[name](done)
    after, line = all_bits(done), 1
    assert before != after
    while True:
        some = made()
        was_interrupted = interrupted(lambda: CALLS[name](some), line, streams)  # noqa: B023
        assert all_bits(some) in ([before, after] if was_interrupted else [after]), line
        assert len(some) == len(some.ids)
        for _ in range(3 - len(some)):  # each gets a place of its own
            some.set_state(some.open(), (len(some) * H, C))
        assert len({tuple(state) for state in all_bits(some).values()}) == 3, line
        some.step(some.ids, np.ones((3, I), np.float32))
        if not was_interrupted:
            break
        line += 1
    assert line > 5


def test_an_error_in_the_layer_changes_nothing(some, monkeypatch):
    before = all_bits(some)

    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(nbp.LSTM, "__call__", fails)
    with pytest.raises(MemoryError):
        some.step([0, 1], X)
    with pytest.raises(MemoryError):
        some.feed({0: X})
    monkeypatch.undo()
    assert all_bits(some) == before


# ---- threads and processes -------------------------------------------------------------------------------------------


def test_threads_that_open_feed_step_and_close_at_once_get_what_each_gets_alone():
    layer = nbp.LSTM(I, 5, rng=0)
    some = Streams(layer, 8)

    def client(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            ids, given, got = [some.open(), some.open()], ([], []), ([], [])
            for _ in range(10):
                rows, chunk = inputs(rng, layer, 2), inputs(rng, layer, rng.integers(5))
                y, z = some.step(ids, rows), some.feed({ids[1]: chunk})[ids[1]]
                for i in range(2):
                    given[i].append(rows[i : i + 1])
                    got[i].append(y[i : i + 1])
                given[1].append(chunk)
                got[1].append(z)
            for i, id in enumerate(ids):
                assert_whole(layer, some, id, given[i], got[i])
                some.close(id)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(client, range(4)))
    assert len(some) == 0


def test_steps_of_one_stream_from_many_threads_are_all_taken():
    layer, x = nbp.GRU(I, 4, rng=0), np.ones((1, I), np.float32)
    some = Streams(layer, 1)
    id = some.open()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: some.step([id], x), range(200)))
    expected, state = layer(np.ones((200, I), np.float32))
    assert_equal(some.state(id), state)
    assert {y.tobytes() for y in outputs} == {y.tobytes() for y in expected}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_is_in_a_call_goes_on_from_before_it(some, monkeypatch):
    inside, forked, called = Event(), Event(), nbp.LSTM.__call__
    before, expected = all_bits(some), bits(some.layer(np.ones((2, I), np.float32))[1])

    def slow(*arguments):
        inside.set()
        forked.wait()
        return called(*arguments)

    monkeypatch.setattr(nbp.LSTM, "__call__", slow)
    other = Thread(target=some.step, args=([0, 1], X))
    other.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        right = False
        try:
            signal.alarm(60)
            monkeypatch.undo()
            right = all_bits(some) == before
            some.step([0, 1], X)
            right = right and all_bits(some)[0] == expected
        finally:
            os._exit(0 if right else 1)
    forked.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0
    assert all_bits(some)[0] == expected
