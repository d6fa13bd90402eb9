"""Processes and signals: forks before the first use, executors, an interpreter that ends at work, and Ctrl-C.

What `test_threads.py` shows of a pool that is in use already is not shown again. Each test is a script in a process of
its own, which a crash or a hang takes down alone.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import CELLS, LENGTHS, assert_same_bits, make_case, make_layer, train

import numba_pack as nbp
from numba_pack.cpu import engine

DEADLINE = 300.0  # seconds, after which what hangs is an error

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# What scripts begin with: a layer, a batch, and a digest of all that a forward and a backward pass give.
PRELUDE = """
import concurrent.futures, hashlib, multiprocessing, os, signal, sys, threading, time, warnings
import numpy as np
import numba_pack as nbp
from numba_pack.cpu import engine

engine.WORTH_A_THREAD = 1.0  # any work is divided
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background is deaf to it

def digest(seed=0):
    lstm = nbp.LSTM(5, 19, 2, bidirectional=True, rng=seed)
    rng = np.random.default_rng(seed)
    packed = nbp.pack_sequence([rng.standard_normal((n, 5)).astype("f4") for n in (4, 0, 9, 1, 4, 0, 6)])
    with nbp.threads(2):
        output, state, tape = lstm.forward(packed)
        gradients = lstm.backward(tape, output, state)
        arrays = (output.data, *state, gradients.input.data, *gradients.hx, gradients.parameters, lstm(packed)[0].data)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
"""


@pytest.fixture
def script(tmp_path):
    """Writes a script and runs it; a file, since spawned processes import it."""

    def run(body, start=False):
        path = tmp_path / "script.py"
        path.write_text(PRELUDE + body)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-X", "faulthandler", str(path)]
        if start:
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE)

    return run


@pytest.fixture(scope="module")
def expected():
    scope = {}
    before = engine.WORTH_A_THREAD
    try:
        exec(PRELUDE, scope)
        return scope["digest"]()
    finally:
        engine.WORTH_A_THREAD = before


# -- other processes ---------------------------------------------------------------------------------------------------

FORK_WHILE_COMPILING = """
from numba.core.compiler_lock import global_compiler_lock
from llvmlite.binding import ffi

held = threading.Event()

def compile():
    with global_compiler_lock, ffi.lib._lock:  # as for the seconds that a compilation takes
        held.set()
        time.sleep(1.0)

thread = threading.Thread(target=compile)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    assert thread.is_alive() is False
    compiled = digest()  # all of it loaded, or compiled, by this process
    os._exit(0)
end = time.monotonic() + 120
while time.monotonic() < end:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        print("child ended", status)
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
print("parent goes on", digest() == digest())
"""


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_compiles_leaves_a_child_that_can_compile(script):
    process = script(FORK_WHILE_COMPILING)
    assert process.stdout.splitlines() == ["child ended 0", "parent goes on True"], process.stderr


FORK_AND_CTRL_C = """
from numba.core.compiler_lock import global_compiler_lock

held = threading.Event()

def compile():
    with global_compiler_lock:
        held.set()
        time.sleep(1.0)

thread = threading.Thread(target=compile)
thread.start()
held.wait()
for delay in (0.2, 0.4):
    threading.Timer(delay, signal.raise_signal, [signal.SIGINT]).start()
start = time.monotonic()
try:
    if os.fork() == 0:
        compiled = digest()
        os._exit(0)
    time.sleep(10)  # it comes soon, but not always before this
    print("forked")
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - start > 0.5)
thread.join()
end = time.monotonic() + 120
while time.monotonic() < end:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        print("child ended", status)
        break
    time.sleep(0.1)
with concurrent.futures.ThreadPoolExecutor(1) as executor:  # it can compile, too: the locks are free
    print("parent goes on", executor.submit(digest).result() == digest())
"""


@needs_fork
def test_a_fork_that_waits_takes_no_harm_from_an_import_meanwhile(script):
    """Compiling imports what extends Numba, and that a module which has calls of its own around forks."""
    body = """
from numba.core.compiler_lock import global_compiler_lock

def compile():
    with global_compiler_lock:
        time.sleep(1.0)
        import concurrent.futures.thread

thread = threading.Thread(target=compile)
thread.start()
time.sleep(0.2)
child = os.fork()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
"""
    result = script(body)
    assert (result.returncode, result.stderr) == (0, "")


@needs_fork
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ctrl_c_while_a_fork_waits_is_raised_after_it_and_both_processes_go_on(script):
    process = script(FORK_AND_CTRL_C)
    assert process.stdout.splitlines() == ["interrupted True", "child ended 0", "parent goes on True"], process.stderr
    assert "ignored" not in process.stderr


FORK = """
from divided import run

def threads_at_work():
    seen, end = set(), time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < end:  # the first job finds no worker that has begun yet
        run([lambda: (seen.add(threading.get_ident()), time.sleep(0.1))] * 4, 2)
    return len(seen)

def child():
    pid = os.fork()
    if pid == 0:
        print("child", digest(), flush=True)
        assert threads_at_work() == 2  # the parent's pool has no threads here, and only looks as if it had
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

warnings.simplefilter("ignore", DeprecationWarning)  # that threads and fork do not mix: here they do
"""


@needs_fork
def test_a_child_forked_before_the_first_use_computes_and_so_does_its_parent_afterwards(script, expected):
    process = script(FORK + "child()\nprint('parent', digest())\n")
    assert process.stdout.split() == ["child", expected, "parent", expected], process.stderr


@needs_fork
def test_a_child_forked_after_use_computes_and_so_does_its_own_child(script, expected):
    body = """
print('parent', digest(), flush=True)
if os.fork() == 0:
    digest()
    child()
    os._exit(0)
assert os.wait()[1] == 0
child()
print('parent', digest())
"""
    process = script(FORK + body)
    assert process.stdout.split() == ["parent", expected, *["child", expected] * 2, "parent", expected], process.stderr


@pytest.mark.parametrize(
    ("when", "method"),
    [
        ("before", "fork"),
        ("after", "spawn"),
        ("after", "forkserver"),
        pytest.param("after", "fork", marks=pytest.mark.slow),
        pytest.param("before", "spawn", marks=pytest.mark.slow),
        pytest.param("before", "forkserver", marks=pytest.mark.slow),
    ],
)
def test_a_process_pool_computes_what_this_process_does(script, expected, method, when):
    body = f"""
if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    if {method!r} not in multiprocessing.get_all_start_methods():
        sys.exit("skip")
    if {when!r} == "after":
        digest()
    context = multiprocessing.get_context({method!r})
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        print(*executor.map(digest, [0, 0, 0, 0]))
"""
    process = script(body)
    if process.stderr.strip() == "skip":
        pytest.skip(f"this system has no {method}")
    assert process.stdout.split() == [expected] * 4, process.stderr


# -- threads -----------------------------------------------------------------------------------------------------------


def test_threads_that_set_the_number_of_threads_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = make_layer("gru", 5, 19)
    case = make_case(layer, LENGTHS)
    expected = train(layer, case)
    before = nbp.get_num_threads()
    started = threading.Barrier(6, timeout=DEADLINE)

    def call(i):
        started.wait()
        for n in range(40):
            nbp.set_num_threads(1 + (i + n) % 5)
            assert 1 <= nbp.get_num_threads() <= 5
            with nbp.threads(1 + n % 3):
                assert nbp.get_num_threads() == 1 + n % 3
                assert_same_bits(train(layer, case), expected)
            assert_same_bits(train(layer, case), expected)
        return True

    try:
        with ThreadPoolExecutor(6) as executor:
            assert [future.result(DEADLINE) for future in [executor.submit(call, i) for i in range(6)]] == [True] * 6
    finally:
        nbp.set_num_threads(before)


@pytest.mark.parametrize("cell", CELLS)
def test_eight_threads_see_one_version_of_the_parameters_each_while_another_assigns(cell, monkeypatch):
    """Forward and backward passes and ``weights``, on threads of their own: the old parameters, or the new ones.

    And whoever has assigned parameters sees them, not what another thread has packed of the old ones meanwhile.
    """
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = make_layer(cell, 5, 19, num_layers=2)
    case = make_case(layer, LENGTHS)
    function = getattr(nbp, type(layer).__name__.lower())
    packed = nbp.pack_sequence(case.sequences)
    versions = [layer.parameters * scale for scale in np.linspace(0.5, 1.5, 5, dtype=np.float32)]

    def digest():
        results = train(layer, case)
        return b"".join(
            array.tobytes() for array in (*results.outputs, *results.d_inputs, *results.d_parameters.values())
        )

    def compiled():
        return function(packed, layer.weights)[0].data.tobytes()

    possible, in_order = set(), []
    for version in versions:
        layer.parameters = version
        possible.add(digest())
        in_order.append(compiled())
    possible_compiled = set(in_order)
    assert len(possible) == len(possible_compiled) == len(versions)
    stop = threading.Event()

    def assign():
        count = 0
        while not stop.is_set():
            layer.parameters = versions[count % 5]
            assert compiled() == in_order[count % 5]
            count += 1
            time.sleep(0)  # the callers have their turn, too
        return count

    def call(i):
        with nbp.threads(1 + i % 3):
            return {digest() for _ in range(15)}, {compiled() for _ in range(15)}

    with ThreadPoolExecutor(9) as executor:
        assigning = executor.submit(assign)
        try:
            seen = [future.result(DEADLINE) for future in [executor.submit(call, i) for i in range(8)]]
        finally:
            stop.set()
        assert assigning.result(DEADLINE) > 5
    assert set().union(*(one for one, _ in seen)) <= possible
    assert set().union(*(other for _, other in seen)) <= possible_compiled
    assert len(set().union(*(one for one, _ in seen))) > 1  # it did change meanwhile


# -- the end of the interpreter, and Ctrl-C ----------------------------------------------------------------------------

#: an endless row of calls, each divided among threads
WORK = """
lstm = nbp.LSTM(32, 64, rng=0)
x = np.zeros((200, 16, 32), np.float32)
lstm(x)

def work():
    with nbp.threads(2):
        while True:
            output, state, tape = lstm.forward(x)
            lstm.backward(tape, output)
"""


def test_an_interpreter_ends_in_good_order_with_daemon_threads_at_work(script):
    start = "for _ in range(3):\n    threading.Thread(target=work, daemon=True).start()\n"
    process = script(WORK + start + "time.sleep(0.3)\nprint('end', flush=True)\n")
    assert process.stdout.split() == ["end"]
    assert process.returncode == 0, process.stderr
    assert "Fatal" not in process.stderr


#: a worker that has done its part goes on looking for a job, awake, for longer than a test may take
LOOKING = """
from numba_pack.cpu import threads

threads.LOOKS = 2000.0
before = digest()
warnings.simplefilter("ignore", DeprecationWarning)
while not threads._pool.board[1, 0]:  # it has not begun yet
    time.sleep(0.001)
assert digest() == before
"""


def test_an_interpreter_ends_in_good_order_while_a_worker_looks_for_a_job(script):
    process = script(LOOKING + "print('end', flush=True)\n")
    assert process.stdout.split() == ["end"], process.stderr
    assert process.returncode == 0, process.stderr


@needs_fork
def test_a_fork_while_a_worker_looks_for_a_job_leaves_two_processes_that_compute(script):
    body = """
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        threads.LOOKS = 1e-4
        os._exit(0 if digest() == digest() == before else 1)
    assert digest() == before
    assert os.waitpid(pid, 0)[1] == 0
print("both")
"""
    process = script(LOOKING + body)
    assert process.stdout.split() == ["both"], process.stderr


def test_ctrl_c_while_a_worker_looks_for_a_job_is_raised_and_the_next_call_works(script):
    body = """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
assert digest() == before
"""
    process = script(LOOKING + body)
    assert process.stdout.split() == ["interrupted"], process.stderr


def test_calls_leave_numpys_unique_alone(monkeypatch):
    """It frees the GIL in C++ that cannot be left: where the interpreter ends meanwhile, the whole process aborts."""

    def refuse(*_, **__):
        raise AssertionError("np.unique in a call")

    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = make_layer("lstm", 5, 19)
    monkeypatch.setattr(np, "unique", refuse)
    with nbp.threads(2):
        train(layer, make_case(layer, LENGTHS))
        layer(nbp.pack_sequence(make_case(layer, LENGTHS).sequences))


@pytest.mark.parametrize("kind", ["threads", "executor"])
def test_threads_that_outlive_the_main_one_finish_their_work(script, kind):
    """When the main thread has ended, Python gives no more threads to executors, such as the pool."""
    start = {
        "threads": "for _ in range(3):\n    threading.Thread(target=until_done).start()\n",
        "executor": "executor = concurrent.futures.ThreadPoolExecutor(3)\n"
        "for _ in range(3):\n    executor.submit(until_done)\n",
    }[kind]
    body = """
before = digest()
done = time.monotonic() + 1.0

def until_done():
    while time.monotonic() < done:
        assert digest() == before
    os.write(1, b"finished\\n")

"""
    process = script(body + start + "os.write(1, b'end\\n')\n")
    assert process.stdout.split() == ["end", *["finished"] * 3], process.stderr
    assert process.returncode == 0, process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_during_calls_raises_and_leaves_everything_usable(script, threads):
    body = (
        WORK
        + f"""
before = digest()
with nbp.threads({threads}):
    try:
        print("ready", flush=True)
        while True:
            output, state, tape = lstm.forward(x)
            lstm.backward(tape, output)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    # nothing is left of the call: no lock is held, no thread goes on writing
    output, state, tape = lstm.forward(x)
    first = lstm.backward(tape, output).parameters.tobytes()
    output, state, tape = lstm.forward(x)
    assert lstm.backward(tape, output).parameters.tobytes() == first
assert digest() == before
print("usable")
"""
    )
    process = script(body, start=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert output.split() == ["interrupted", "usable"], errors
    assert process.returncode == 0


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_during_one_long_call_raises_out_of_it(script, threads):
    """It is noticed when the kernel returns that the main thread is in."""
    body = f"""
before = digest()
long = np.zeros((30_000, 16, 32), np.float32)

def interrupt():
    raised.append(True)
    signal.raise_signal(signal.SIGINT)

with nbp.threads({threads}):
    start = time.monotonic()
    lstm(long)
    duration = time.monotonic() - start
    late = True
    while late:  # where other work delays it beyond the end of the call, once more
        raised, late = [], False
        try:
            timer = threading.Timer(duration / 4, interrupt)
            timer.start()
            lstm(long)
            late = not raised
            timer.join()
            print("returned")
        except KeyboardInterrupt:
            print("" if late else "interrupted")
    assert digest() == before
"""
    process = script(WORK + body)
    assert process.stdout.split() == ["interrupted"], process.stderr
    assert process.returncode == 0, process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_again_and_again_leaves_the_pool_and_the_workspace_good(script):
    """Interrupts at a hundred places of a call, also while it waits for its threads."""
    body = (
        WORK
        + """
before, interrupted = digest(), 0
x = x[:20]
print("ready", flush=True)
with nbp.threads(2):
    while interrupted < 100:
        try:
            threading.Timer(0.003 * (interrupted % 7), signal.raise_signal, [signal.SIGINT]).start()
            while True:
                output, state, tape = lstm.forward(x)
                lstm.backward(tape, output)
        except KeyboardInterrupt:
            interrupted += 1
assert digest() == before
print("usable")
"""
    )
    process = script(body)
    assert process.stdout.split() == ["ready", "usable"], process.stderr
    assert process.returncode == 0, process.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that signal")
def test_ctrl_c_again_and_again_while_kernels_are_loaded_leaves_them_and_numba_good(script, expected):
    """What it is raised in waits for another thread, in which Numba is: it is not made to be interrupted."""
    body = """
from numba.core.compiler_lock import global_compiler_lock
from llvmlite.binding.ffi import lib

signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted, delay, computed = 0, 0.001, None
while computed is None:
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        computed = digest()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted, delay = interrupted + 1, 1.1 * delay
print(computed, interrupted > 10)
print(global_compiler_lock.is_locked(), lib._lock._lock._is_owned())
with concurrent.futures.ThreadPoolExecutor(1) as executor:
    nbp.warmup(nbp.RNN(2, 3))
    print(executor.submit(lambda: nbp.warmup(nbp.RNN(2, 3), training=True)).result(100))
"""
    process = script(body)
    assert process.stdout.split() == [expected, "True", "False", "False", "None"], process.stderr
    assert process.returncode == 0


def test_a_first_call_imports_nothing_in_the_thread_that_may_be_interrupted(script):
    """Ctrl-C within an import may leave Python's lock of imports locked, for which all other threads would wait."""
    body = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            print(name)

sys.meta_path.insert(0, Finder())
digest()
print("done")
"""
    process = script(body)
    assert process.stdout.split() == ["done"], process.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that signal")
def test_a_signal_handler_may_call_layers_while_layers_are_called(script):
    body = """
before, handled = digest(), 0

def handler(*_):
    global handled
    assert digest() == before
    handled += 1
    signal.setitimer(signal.ITIMER_REAL, 0.0007)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0007)
while handled < 300:
    assert digest() == before
signal.setitimer(signal.ITIMER_REAL, 0)
print("usable")
"""
    process = script(body)
    assert process.stdout.split() == ["usable"], process.stderr


def test_a_thread_of_a_small_stack_computes_and_can_be_the_first_to(script, expected):
    """LLVM takes more: what it makes, or loads, is made elsewhere."""
    body = """
from numba_pack import _cache
from numba_pack._jit import jit

places = _cache.PLACES[:]
_cache.PLACES.clear()
warnings.simplefilter("ignore")

@jit
def twice(x):
    return x + x

def call():
    assert twice(1.5) == 3.0  # compiled
    _cache.PLACES[:] = places
    print(digest(), threading.stack_size())

threading.stack_size(1 << 16)
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""
    process = script(body)
    assert process.stdout.split() == [expected, str(1 << 16)], process.stderr
