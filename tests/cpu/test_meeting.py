"""Few sequences on several threads, each of which computes some of the units: equal bits, and who takes part."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, infer, make_case, make_layer, train

import numba_pack as nbp
from numba_pack._jit import jit
from numba_pack.cpu import engine
from numba_pack.cpu import threads as pool
from numba_pack.cpu.meeting import LINE, Meeting, join
from numba_pack.packing.objects import address_of

UNITS = 256  # two shares of units at least, whatever the width of a vector


@pytest.fixture
def meetings(monkeypatch):
    """Makes any work worth a meeting, on as many threads as are asked for; holds how many were to come to each."""
    found, made = [], pool.meeting

    def recorded(count, patience):
        found.append(count)
        return made(count, 1.0)

    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(engine, "WORTH_A_MEETING", 1.0)
    monkeypatch.setattr(pool, "cpus", lambda: 64)
    monkeypatch.setattr(pool, "meeting", recorded)
    return found


@pytest.mark.parametrize("lengths", [(9,), (1,), (7, 12), (3, 0, 5)], ids=str)
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
def test_bits_do_not_depend_on_how_many_threads_meet(meetings, name, dtype, layers, directions, lengths):
    layer = make_layer(name, 20, UNITS, num_layers=layers, bidirectional=directions == 2, dtype=dtype)
    case = make_case(layer, lengths, with_hx=len(lengths) > 1)
    with nbp.threads(1):
        alone = infer(layer, case), train(layer, case)
    assert not meetings
    for threads in (2, 3):
        with nbp.threads(threads):
            assert_same_bits((infer(layer, case), train(layer, case)), alone)
    assert {2} <= set(meetings) <= {2, 3}


def test_symbols_are_divided_in_inference(meetings):
    layer = make_layer("lstm", 20, UNITS)
    symbols = nbp.symbols(np.arange(9)[:, None] % 20)
    with nbp.threads(1):
        alone, _ = layer(symbols)
    with nbp.threads(2):
        together, _ = layer(symbols)
        assert meetings == [2]
        layer.forward(symbols)
    assert (together == alone).all()
    assert meetings == [2]  # in training one tape would be written to by all


@pytest.mark.parametrize(
    ("name", "units", "options"),
    [
        ("lstm-proj", UNITS, {}),
        ("lstm", UNITS + 1, {}),
        ("lstm", UNITS, {"matmul_precision": "medium"}),
        ("lstm", UNITS, {"dropout": 0.5, "num_layers": 2}),
    ],
    ids=["projection", "units of no whole vectors", "bfloat16", "dropout"],
)
def test_what_needs_all_units_at_once_is_not_divided(meetings, name, units, options):
    layer = make_layer(name, 20, units, **options)
    case = make_case(layer, (9,), with_hx=False)
    with nbp.threads(2):
        train(layer, case)
    assert not meetings


def test_many_sequences_are_divided_by_sequences(meetings):
    layer = make_layer("lstm", 20, UNITS)
    case = make_case(layer, (9,) * (2 * engine.SEQUENCES_OF_A_THREAD), with_hx=False)
    with nbp.threads(2):
        infer(layer, case)
    assert not meetings


def test_what_would_take_much_memory_is_divided_by_sequences(meetings, monkeypatch):
    monkeypatch.setattr(engine, "SCRATCH_BYTES", 1000)
    layer = make_layer("lstm", 20, UNITS)
    with nbp.threads(2):
        infer(layer, make_case(layer, (9, 8), with_hx=False))
        assert not meetings
        infer(layer, make_case(layer, (9,), with_hx=False))
    assert meetings == [2]


def test_callers_that_share_few_workers_all_get_their_results(meetings):
    """Some meetings begin without the workers that are at others."""
    layer = make_layer("gru", 20, UNITS)
    x = np.random.default_rng(0).standard_normal((9, 20)).astype(np.float32)
    with nbp.threads(1):
        alone, _ = layer(x)

    def call(_):
        with nbp.threads(3):
            return layer(x)[0]

    with ThreadPoolExecutor(6) as callers:
        assert all((output == alone).all() for output in callers.map(call, range(200)))
    assert len(meetings) == 200


@jit
def shares(meeting, units, grain, room, met):
    share = join(meeting, units, grain, room, met)
    return share.member, share.members, share.low, share.high, share.room


def test_who_comes_when_a_meeting_has_begun_has_nothing_to_do():
    made, met = np.zeros((3, LINE), np.int64), np.zeros(1, np.int64)
    made[0, : len(Meeting._fields)] = Meeting(0, 0, 2, 10, 10, 0, 0)
    assert shares(address_of(made), 256, 64, 7, address_of(met)) == (0, 1, 0, 256, 7)
    assert shares(address_of(made), 256, 64, 8, address_of(met))[1:4] == (0, 0, 0)


def _sleeps():
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody counts how often a thread sleeps")
def test_who_waits_for_a_meeting_to_begin_leaves_the_processor_to_others():
    """The first may need it, which has come and not yet said how many take part."""
    made, met = np.zeros((3, LINE), np.int64), np.zeros(1, np.int64)
    shares(address_of(np.zeros((2, LINE), np.int64)), 64, 64, 0, address_of(met))  # compiles
    met[:] = 0
    made[0, : len(Meeting._fields)] = Meeting(1, 0, 2, 10, 10, pool._taken_lock(), 7)

    def come():
        before = _sleeps()
        return shares(address_of(made), 256, 64, 0, address_of(met)), _sleeps() - before

    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(come)
        time.sleep(0.2)
        made[0, Meeting._fields.index("members")] = 2
        share, sleeps = coming.result()
    assert share == (1, 2, 128, 256, 7)
    assert sleeps > 10


@pytest.mark.parametrize(("units", "members"), [(256, 2), (256, 3), (320, 4), (96, 3)])
def test_shares_are_whole_and_leave_nothing_out(units, members):
    made, met = np.zeros((1 + members, LINE), np.int64), np.zeros((members, 1), np.int64)
    made[0, : len(Meeting._fields)] = Meeting(0, 0, members, 1 << 40, 10, pool._taken_lock(), 0)
    shares(address_of(np.zeros((2, LINE), np.int64)), 64, 64, 0, address_of(np.zeros(1, np.int64)))  # compiles

    def come(n):
        return shares(address_of(made), units, 32, n, address_of(met[n]))

    with ThreadPoolExecutor(members) as threads:
        found = sorted(threads.map(come, range(members)))
    assert [share[:2] for share in found] == [(n, members) for n in range(members)]
    assert [share[2] for share in found] == [0, *[share[3] for share in found[:-1]]]
    assert found[-1][3] == units and all(share[2] % 32 == 0 for share in found)
    assert len({share[4] for share in found}) == 1
