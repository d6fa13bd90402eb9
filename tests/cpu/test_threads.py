"""Threads: how many a call may use, many callers at once, forked and spawned processes, and layers that are pickled."""

import contextvars
import copy
import functools
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import helpers
import numpy as np
import pytest
from divided import run
from helpers import CELLS, LENGTHS, assert_same_bits, infer, make_case, make_layer, train
from numba import types

import numba_pack as nbp
from numba_pack import _available as available
from numba_pack._jit import by_address
from numba_pack.batch import Batch
from numba_pack.cpu import engine, packer, team, workspace
from numba_pack.cpu import threads as pool
from numba_pack.layers import module
from numba_pack.simd.atomics import add_to, pause, seen
from numba_pack.simd.memory import integers_at

DEADLINE = 300.0  # seconds, after which what hangs is an error: a lock that a fork has left behind


@pytest.fixture
def any_work_is_worth_a_thread(monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(packer, "WORTH_A_THREAD", 1)


def in_thread(function, *arguments):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *arguments).result(DEADLINE)


# -- how many ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def number_of_threads():
    """The number for the whole process, which is put back afterwards."""
    before = nbp.get_num_threads()
    yield before
    nbp.set_num_threads(before)


def test_the_number_set_holds_in_every_thread(number_of_threads):
    nbp.set_num_threads(number_of_threads + 3)
    assert nbp.get_num_threads() == in_thread(nbp.get_num_threads) == number_of_threads + 3


def test_a_scope_holds_within_its_block_and_in_its_thread_alone(number_of_threads):
    with nbp.threads(5):
        assert nbp.get_num_threads() == 5
        with nbp.threads(2):
            assert nbp.get_num_threads() == 2
        assert nbp.get_num_threads() == 5
        assert in_thread(nbp.get_num_threads) == number_of_threads
        assert in_thread(contextvars.copy_context().run, nbp.get_num_threads) == 5
    assert nbp.get_num_threads() == number_of_threads


def test_a_scope_ends_with_an_exception_too(number_of_threads):
    with pytest.raises(KeyError), nbp.threads(number_of_threads + 1):
        raise KeyError
    assert nbp.get_num_threads() == number_of_threads


def test_a_scope_stands_above_the_number_set(number_of_threads):
    with nbp.threads(number_of_threads + 1):
        nbp.set_num_threads(number_of_threads + 2)
        assert nbp.get_num_threads() == number_of_threads + 1
    assert nbp.get_num_threads() == number_of_threads + 2


def printed(code, **environment):
    """What a new process prints."""
    path = os.pathsep.join(sys.path)
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, check=True, timeout=DEADLINE,
    )  # fmt: skip
    return process.stdout.strip()


def test_the_environment_says_how_many_at_import():
    code = "import numba_pack; print(numba_pack.get_num_threads())"
    assert printed(code, NUMBA_PACK_NUM_THREADS="7") == "7"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell a process's CPUs")
def test_without_it_the_cpus_of_the_process_count():
    code = """
import os
for name in ("NUMBA_PACK_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.pop(name, None)
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import numba_pack
print(numba_pack.get_num_threads())
"""
    assert printed(code) == "1"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "NUMBA_NUM_THREADS"])
def test_other_libraries_limits_count_too_but_less_than_its_own(name):
    code = "import numba_pack; print(numba_pack.get_num_threads())"
    assert printed(code, **{name: "1"}) == "1"
    assert printed(code, **{name: "1"}, NUMBA_PACK_NUM_THREADS="3") == "3"


@pytest.mark.parametrize(
    ("value", "limits"),
    [("4", [4]), ("3,2", [3]), (" 2 ", [2]), ("", []), ("0", []), ("-1", []), ("many", []), ("2.5", [])],
)
def test_of_openmps_variable_its_first_number_counts_if_it_is_one(value, limits, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert list(available._openmp()) == limits


def files(root, contents):
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("contents", "limits"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, [2]),
        (
            {
                "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
                "sys/fs/cgroup/a/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.max": "max 100000",
            },
            [4, 1],
        ),
        ({"proc/self/cgroup": "0::/unseen/from/within\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, [3]),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/d\n4:cpuset:/\n0::/\n",
                "sys/fs/cgroup/cpu/d/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/d/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            [2],
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, []),
    ],
    ids=["no-groups", "no-quota", "half-of-one-counts", "groups-above", "container", "version-1", "unreadable"],
)  # fmt: skip
def test_the_quotas_of_control_groups_count(contents, limits, tmp_path):
    files(tmp_path, contents)
    assert list(available._quotas(tmp_path)) == limits


@pytest.mark.parametrize(
    ("contents", "free"),
    [
        ({}, []),
        ({"proc/meminfo": "MemTotal: 90 kB\nMemAvailable: 70 kB\nHugePages_Total: 0\n"}, [70 << 10]),
        (
            {
                "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "9",
                "sys/fs/cgroup/a/memory.max": "500\n", "sys/fs/cgroup/a/memory.current": "300\n",
                "sys/fs/cgroup/a/memory.stat": "anon 200\ninactive_file 50\n",
            },
            [250],
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "500\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "300\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 20\n",
            },
            [220],
        ),
    ],
    ids=["unknown", "system", "version-2", "version-1"],
)  # fmt: skip
def test_the_memory_that_system_and_control_groups_leave_counts(contents, free, tmp_path):
    files(tmp_path, contents)
    assert list(available._free(tmp_path)) == free


def test_a_small_call_uses_one_thread_and_makes_no_pool(monkeypatch):
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    layer = make_layer("gru", 3, 4)
    with nbp.threads(8):
        train(layer, make_case(layer, (2, 3)))
    assert not pool._pool.members


def test_a_large_call_is_divided_by_its_work():
    with nbp.threads(8):
        weights = make_layer("lstm", 64, 64).weights
        row = 2 * 4 * 64 * (64 + 64)  # floating-point operations
        rows = [int(n * engine.WORTH_A_THREAD / row) + 1 for n in (0, 1, 2, 7, 8, 100)]
        batches = [Batch(np.empty(0), np.empty(0), np.empty(0), n) for n in rows]
        assert [engine._workers(weights, batch) for batch in batches] == [1, 1, 2, 7, 8, 8]
        # a symbol is looked up, which counts as one column
        assert [engine._workers(weights, batch._replace(symbols=True)) for batch in batches] == [1, 1, 1, 3, 4, 8]


# -- the pool ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch):
    """A pool of the test's own, which ends with it."""
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    yield pool._pool
    pool._pool.end()


def until(condition):
    end = time.monotonic() + DEADLINE
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    assert condition()


def states(of):
    """What the workers of a pool do: see ``team.py``."""
    return of.board[1 : 1 + len(of.members), 0].tolist()


def with_workers(of, count):
    """The pool, with so many workers that have begun, and sleep again."""
    of.grow(count)
    until(lambda: states(of) == [team.ASLEEP] * count)
    return of


def test_each_part_is_done_once_by_no_more_threads_than_asked_for(fresh):
    for threads in (1, 2, 3, 8):
        done, names = [], set()

        def task(i, done=done, names=names):
            names.add(threading.get_ident())
            done.append(i)

        run([lambda i=i, task=task: task(i) for i in range(20)], threads)
        assert sorted(done) == list(range(20))
        assert len(names) <= threads


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_as_many_threads_as_asked_for_are_at_work_at_once(fresh, threads):
    with_workers(fresh, threads - 1)
    together = threading.Barrier(threads, timeout=DEADLINE)
    run([together.wait] * threads, threads)
    assert not together.broken


def test_workers_sleep_when_nothing_goes_on_and_are_woken(fresh):
    with_workers(fresh, 1)
    for _ in range(3):
        names = set()
        together = threading.Barrier(2, timeout=DEADLINE)
        run([lambda names=names, together=together: (together.wait(), names.add(threading.get_ident()))] * 2, 2)
        assert len(names) == 2
        until(lambda: states(fresh) == [team.ASLEEP])


@pytest.mark.parametrize("count", [1, 11, 12])
def test_as_many_workers_are_woken_as_are_asked_for_if_not_by_the_caller_by_others(fresh, count):
    with_workers(fresh, 12)
    team.wake(fresh.at, count)
    until(lambda: fresh.board[0, team.Head._fields.index("wanted")] == 0)
    until(lambda: states(fresh) == [team.ASLEEP] * 12)
    together = threading.Barrier(13, timeout=DEADLINE)
    run([together.wait] * 13, 13)  # none is lost


def test_a_worker_whose_thread_begins_late_takes_part_in_the_first_call(fresh, monkeypatch):
    begin, begun = pool._thread.start_new_thread, []
    together = threading.Barrier(2, timeout=DEADLINE)
    pool.warm()  # what compiles is a thread, too

    def first():
        begin(*begun[0])  # not before the job is posted
        together.wait()

    with monkeypatch.context() as patch:
        patch.setattr(pool._thread, "start_new_thread", lambda *given: begun.append(given))
        of_two = pool.team(2)
    with monkeypatch.context() as patch:
        patch.setattr(pool, "team", lambda threads: of_two)
        run([first, together.wait], 2)
    assert not together.broken


def test_where_there_are_more_threads_than_processors_nobody_waits_awake(fresh):
    with_workers(fresh, 1)
    fresh.board[0, team.Head._fields.index("processors")] = 1
    assert pool.team(2)[1] == 1
    assert states(fresh) == [team.ASLEEP]  # it is woken by the job alone
    together = threading.Barrier(2, timeout=DEADLINE)
    run([together.wait, lambda: (together.wait(), time.sleep(0.01))], 2)  # and the caller sleeps until its part is over
    assert not together.broken


def _kernel(block):
    begun, together, place, part = integers_at(block, 4)
    add_to(begun, 1)
    while seen(begun) < together:
        pause()
    if part == place:
        raise ZeroDivisionError("in a part")


@functools.cache
def kernel():
    return by_address(types.void(types.intp))(_kernel).native


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_in_a_part_reaches_the_caller_whoever_did_the_part(fresh, threads, place):
    with_workers(fresh, 2)
    begun = np.zeros(1, np.int64)
    together = min(threads, 3)  # so many begin before one fails
    blocks = np.array([(begun.ctypes.data, together, place, part) for part in range(3)])
    with pytest.raises(ZeroDivisionError, match="in a part"):
        team.share_blocks(kernel(), blocks, *pool.team(threads))
    assert begun[0] <= 3
    assert all(state in (team.AWAKE, team.ASLEEP) for state in states(fresh))  # the job is nobody's any more
    done = []
    run([lambda: done.append(1)] * 5, 3)
    assert len(done) == 5


def test_an_error_keeps_the_parts_that_have_not_begun_from_beginning(fresh):
    with_workers(fresh, 1)
    begun = np.zeros(1, np.int64)
    blocks = np.array([(begun.ctypes.data, 2, 0, part) for part in range(1)] * 5000)
    with pytest.raises(ZeroDivisionError):
        team.share_blocks(kernel(), blocks, *pool.team(2))
    assert begun[0] == 2


def test_a_job_that_a_worker_does_not_come_for_is_done_by_the_caller_and_taken_back():
    """As where the system lets the worker wait."""
    board = np.zeros((4, team.LINE), np.int64)
    board[0, : len(team.Head._fields)] = team.Head(0, 10, 2, 0)
    bell = pool._taken_lock()
    board[1:3, : len(team.Line._fields)] = [team.Line(team.AWAKE, bell), team.Line(team.ASLEEP, bell)]
    begun = np.zeros(1, np.int64)
    blocks = np.array([(begun.ctypes.data, 0, -1, part) for part in range(5)])
    team.share_blocks(kernel(), blocks, board.ctypes.data, 2)
    assert begun[0] == 5
    assert board[1:, 0].tolist() == [team.AWAKE, team.AWAKE, team.ABSENT]  # the second was woken


def test_without_threads_the_caller_does_all_the_work(monkeypatch):
    """As at the end of the interpreter, or where the system gives no more threads."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(pool._thread, "start_new_thread", refuse)
    done = []
    for _ in range(2):
        run([lambda i=i: done.append((i, threading.get_ident())) for i in range(5)], 3)
    assert done == [(i, threading.get_ident()) for i in range(5)] * 2


def test_more_callers_at_once_than_the_pool_has_threads_do_not_wait_for_each_other_for_ever(fresh):
    started = threading.Barrier(12, timeout=DEADLINE)

    def call():
        started.wait()
        total = []
        for _ in range(50):
            run([lambda: total.append(1)] * 3, 3)
        return len(total)

    with ThreadPoolExecutor(12) as executor:
        assert [future.result(DEADLINE) for future in [executor.submit(call) for _ in range(12)]] == [150] * 12
    until(lambda: states(fresh) == [team.ASLEEP] * 2)


class Interrupt:
    """Raises KeyboardInterrupt at the n-th instruction that this thread executes in a file's functions."""

    def __init__(self, file, n):
        self.file, self.left, self.place = file, n, None

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename != self.file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def met_by(self, call):
        """Whether the interrupt came before the call was over."""
        sys.settrace(self)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False


@pytest.mark.parametrize("fresh", [False, True], ids=["pool", "no-pool-yet"])
def test_after_ctrl_c_at_any_instruction_of_a_divided_call_the_next_call_works(fresh, monkeypatch):
    n, met = 0, True
    while met:
        n += 1
        if fresh:
            monkeypatch.setattr(pool, "_pool", pool._Pool())
        interrupt, done = Interrupt(pool.__file__, n), []
        met = interrupt.met_by(lambda: run([lambda: time.sleep(0.0005)] * 3, 2))
        with ThreadPoolExecutor(1) as executor:  # from another thread, too, which nothing may keep waiting
            future = executor.submit(run, [lambda done=done, i=i: done.append(i) for i in range(4)], 3)
            assert future.result(60) is None, interrupt.place
        run([lambda done=done, i=i: done.append(i) for i in range(4)], 3)
        assert sorted(done) == sorted([*range(4)] * 2), interrupt.place
        if fresh:
            pool._pool.end()
    assert n > 30


class Meanwhile(Interrupt):
    """Calls something at the n-th instruction, as a signal handler does, or what is run when memory is freed."""

    def __init__(self, file, n, call):
        super().__init__(file, n)
        self.call = call

    def __call__(self, frame, event, _):
        try:
            return super().__call__(frame, event, _)
        except KeyboardInterrupt:
            self.call()
            return None


def test_a_signal_handler_may_take_and_give_buffers_at_any_instruction_of_one_who_does(monkeypatch):
    monkeypatch.setattr(workspace, "MOST", 50_000)  # some have to go
    n, met = 0, [True]

    def handler():
        met.append(space.take(5000))
        space.give(space.take(7000))

    while met:
        n, met, space = n + 1, [], workspace.Workspace()
        for array in [space.take(size) for size in (5000, 7000, 9000, 20_000, 5000)]:
            space.give(array)
        sys.settrace(Meanwhile(workspace.__file__, n, handler))
        try:
            first = space.take(5000)
            space.give(space.take(9000))
            second = space.take(5000)
        finally:
            sys.settrace(None)
        arrays = [first, second, *met]
        assert all(array.size == 5000 for array in arrays)
        assert len({array.__array_interface__["data"][0] for array in arrays}) == len(arrays)
        assert sum(buffer.size for buffer in space._kept.values()) <= workspace.MOST
    assert n > 100


def test_a_pool_that_has_ended_leaves_the_work_to_its_callers(fresh):
    with_workers(fresh, 2)
    fresh.end()
    until(lambda: not fresh.members)
    names = set()
    run([lambda: names.add(threading.get_ident())] * 5, 3)
    assert names == {threading.get_ident()}
    until(lambda: not fresh.members)


# -- many callers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_eight_threads_that_call_one_layer_at_once_get_equal_bits(cell, any_work_is_worth_a_thread):
    layer = make_layer(cell, 5, 19, num_layers=2, bidirectional=True)
    cases = [make_case(layer, np.roll(LENGTHS, i), rng=i) for i in range(8)]
    expected = [(train(layer, case), infer(layer, case)) for case in cases]
    fresh = make_layer(cell, 5, 19, num_layers=2, bidirectional=True)  # whose weights are packed by all at once
    started = threading.Barrier(8, timeout=DEADLINE)

    def call(i):
        started.wait()
        with nbp.threads(1 + i % 4):
            for _ in range(5):
                assert_same_bits(train(fresh, cases[i]), expected[i][0])
                assert_same_bits(infer(fresh, cases[i]), expected[i][1])
        return True

    with ThreadPoolExecutor(8) as executor:
        assert [future.result(DEADLINE) for future in [executor.submit(call, i) for i in range(8)]] == [True] * 8


def test_threads_that_train_one_layer_at_once_each_drop_others():
    """Each call has a number of its own, and all together the numbers that calls in a row have."""
    layer = make_layer("gru", 2, 8, num_layers=2, dropout=0.5)
    row = copy.deepcopy(layer)
    packed = nbp.pack_sequence([np.ones((4, 2), np.float32)])
    in_a_row = {row.forward(packed)[0].data.tobytes() for _ in range(200)}
    with ThreadPoolExecutor(8) as executor:
        at_once = set(executor.map(lambda _: layer.forward(packed)[0].data.tobytes(), range(200)))
    assert len(in_a_row) == 200
    assert at_once == in_a_row


def test_a_call_during_an_assignment_sees_the_old_parameters_or_the_new_ones_never_a_mixture():
    layer = make_layer("lstm", 5, 19, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)
    versions = [layer.parameters * scale for scale in np.linspace(0.5, 1.5, 7, dtype=np.float32)]
    possible = set()
    for version in versions:
        layer.parameters = version
        possible.add(np.concatenate([part.ravel() for part in infer(layer, case)[0]]).tobytes())
    assert len(possible) == 7
    stop = threading.Event()

    def assign():
        i = 0
        while not stop.is_set():
            layer.parameters = versions[i % 7]
            i += 1

    def call():
        return {np.concatenate([part.ravel() for part in infer(layer, case)[0]]).tobytes() for _ in range(200)}

    with ThreadPoolExecutor(5) as executor:
        assigning = executor.submit(assign)
        try:
            seen = [future.result(DEADLINE) for future in [executor.submit(call) for _ in range(4)]]
        finally:
            stop.set()
        assigning.result(DEADLINE)
    assert set().union(*seen) <= possible
    assert len(set().union(*seen)) > 1  # it did change meanwhile


@pytest.mark.parametrize(
    ("of", "function", "call"),
    [
        (engine, "prepare", lambda layer: layer(np.ones((2, 1, 5), np.float32))),
        (module, "packed_weights", lambda layer: layer.weights),
        (module, "make_all", lambda layer: layer.weights),
    ],
    ids=["inference", "weights", "kernels"],
)
def test_parameters_assigned_while_a_call_packs_the_old_ones_are_not_lost(of, function, call, monkeypatch):
    """As by another thread; here in the midst of the packing, so that it happens every time."""
    layer, other = (make_layer("gru", 5, 19, rng=seed) for seed in (0, 1))
    case = make_case(layer, LENGTHS)
    expected = infer(other, case)
    packed = getattr(of, function)

    def assign_meanwhile(*arguments):
        weights = packed(*arguments)
        layer.parameters = other.parameters
        return weights

    with monkeypatch.context() as patch:
        patch.setattr(of, function, assign_meanwhile)
        call(layer)
    assert layer.parameters.tobytes() == layer.weights.parameters.tobytes() == other.parameters.tobytes()
    assert_same_bits(infer(layer, case), expected)


# -- processes ---------------------------------------------------------------------------------------------------------


def train_in_child(layer, case):
    """What a child process does: all that the parent did, on threads of its own."""
    engine.WORTH_A_THREAD = 1.0
    with nbp.threads(2):
        return train(layer, case), infer(layer, case)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # that threads and fork do not mix: here they do
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_computes_what_its_parent_does(method, any_work_is_worth_a_thread):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    layer = make_layer("lstm-proj", 5, 7, num_layers=2, bidirectional=True, dropout=0.5)
    same = copy.deepcopy(layer)
    case = make_case(layer, LENGTHS)
    with nbp.threads(2):
        expected = train(layer, case), infer(layer, case)
    assert pool._pool.members  # the parent has threads, which a fork does not take along
    with multiprocessing.get_context(method).Pool(1) as processes:
        got = processes.apply_async(train_in_child, (same, case)).get(DEADLINE)
    assert_same_bits(got, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_other_threads_compute_leaves_a_child_that_computes(any_work_is_worth_a_thread):
    layer = make_layer("gru", 5, 19)
    case = make_case(layer, LENGTHS)
    expected = train(layer, case)
    stop = threading.Event()

    def call():
        while not stop.is_set():
            with nbp.threads(3):
                train(layer, case)

    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(call) for _ in range(2)]
        try:
            for _ in range(4):
                with multiprocessing.get_context("fork").Pool(1) as processes:
                    assert_same_bits(processes.apply_async(train_in_child, (layer, case)).get(DEADLINE)[0], expected)
        finally:
            stop.set()
        for future in futures:
            future.result(DEADLINE)


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_pickled_layer_comes_back_as_it_was(cell, used):
    layer = make_layer(cell, 3, 5, num_layers=2, bidirectional=True, dropout=0.3, batch_first=True, bias=False)
    case = make_case(layer, LENGTHS)
    if used:
        train(layer, case)
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
        assert repr(twin) == repr(layer)
        assert_same_bits(twin.parameters, layer.parameters)
        assert not twin.parameters.flags.writeable
        assert_same_bits(infer(twin, case), infer(layer, case))
        assert_same_bits(train(twin, case), train(copy.deepcopy(layer), case))  # the same units are dropped


def test_a_copy_has_parameters_of_its_own():
    layer = make_layer("gru", 3, 5)
    before = layer.parameters.copy()
    twin = copy.deepcopy(layer)
    twin.parameters = twin.parameters * 2
    assert_same_bits(layer.parameters, before)


@pytest.mark.parametrize("cell", CELLS)
def test_pickled_weights_are_packed_anew(cell):
    weights = make_layer(cell, 3, 5, num_layers=2, bidirectional=True).weights
    run = getattr(nbp, cell.partition("-")[0])
    twin = pickle.loads(pickle.dumps(weights))
    assert type(twin) is type(weights) and twin[4:] == weights[4:]
    assert_same_bits(twin.parameters, weights.parameters)
    assert not twin.parameters.flags.writeable
    output, _ = run(nbp.pack_sequence([np.ones((4, 3), np.float32)]), weights)
    assert_same_bits(run(nbp.pack_sequence([np.ones((4, 3), np.float32)]), twin)[0], output)


def test_a_tape_belongs_to_the_layer_and_not_to_its_copy():
    layer = make_layer("gru", 3, 5)
    tape = layer.forward(np.ones((2, 1, 3), np.float32))[2]
    with pytest.raises(ValueError, match="tape must come from a forward call of this GRU"):
        copy.deepcopy(layer).backward(tape)


def test_helpers_know_each_layer_by_its_name():
    assert [helpers.cell_of(make_layer(cell, 3, 5)) for cell in CELLS] == CELLS


@pytest.mark.parametrize("value", ["0", "-3", "4097", "two", "1.5", ""], ids=repr)
def test_a_wrong_number_of_threads_in_the_environment_is_named_at_import(value):
    process = subprocess.run(
        [sys.executable, "-c", "import numba_pack"],
        env={**os.environ, "NUMBA_PACK_NUM_THREADS": value, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    expected = "the environment variable NUMBA_PACK_NUM_THREADS must be an integer from 1 to 4096"
    assert f"ValueError: {expected}; got {value!r}" in process.stderr
