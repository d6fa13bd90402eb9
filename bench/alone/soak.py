"""Mixed load for a long time: no error, equal bits throughout, and memory that does not grow.

``python -m bench.alone.soak`` has two parts. First 100,000 calls of mixed shapes in one thread; then, for ten minutes,
four threads that run inference, training and packing over mixed shapes while the number of threads and the parameters
of some layers change. Every result is compared, bit for bit, with the one computed at the start. It exits with 1 if one
differed, or if the memory in use grew in the second half of a part. What serves requests and streams has a soak of its
own, `bench.alone.soak_serving`.

Memory in use is what ``malloc`` has given out and not got back, less the buffers that numba_pack keeps for later (up to
64 MiB). Where the system does not tell it, resident memory has to do, which goes up and down by some MiB: the allocator
has room of its own for each thread, and does not give all of it back. That is printed as it goes.

``--calls``, ``--minutes``, ``--threads`` make it shorter or longer; ``--only many`` runs the last part alone.
"""

import argparse
import ctypes
import gc
import hashlib
import itertools
import sys
import threading
import time

from bench.tools.environment import prepare

if __name__ == "__main__":
    prepare(threads=2)  # before NumPy

import numpy as np

import numba_pack as nbp
from numba_pack.cells.dropout import Calls
from numba_pack.cpu.workspace import WORKSPACE


class _Mallinfo2(ctypes.Structure):
    """What glibc tells of its allocator: see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


try:
    _mallinfo2 = ctypes.CDLL(None).mallinfo2
    _mallinfo2.restype = _Mallinfo2
except (AttributeError, OSError, TypeError):  # another C library
    _mallinfo2 = None

#: growth in the second half of a part beyond which memory counts as leaking
MOST_GROWTH = 1 << 20 if _mallinfo2 else 16 << 20


def in_use():
    """Bytes of memory that are allocated and not kept for later."""
    gc.collect()
    if _mallinfo2 is None:
        return resident()
    info = _mallinfo2()
    return info.uordblks + info.hblkhd - sum(buffer.size for buffer in WORKSPACE._kept.copy().values())


def resident():
    """Bytes of memory that this process has now."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        import resource  # the peak: it does not fall, but tells growth as well

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def arrays(value):
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in arrays(part)]
    return [value]


def digest(value):
    """A digest of all arrays of a nest, in order."""
    return hashlib.blake2b(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays(value))).digest()


class Task:
    """A call, and what it gave the first time."""

    def __init__(self, name, call):
        self.name, self.call = name, call
        self.expected = digest(call())

    def run(self):
        """Call it; whether the result is the same as ever."""
        return digest(self.call()) == self.expected


def make_tasks(rng):
    """Tasks of all kinds of calls; sizes are mixed, and small enough for many calls a second."""
    tasks = []
    makers = {
        "lstm": lambda i, h: nbp.LSTM(i, h, 1, rng=0),
        "bilstm": lambda i, h: nbp.LSTM(i, h, 2, bidirectional=True, dropout=0.3, rng=0),
        "lstm-proj": lambda i, h: nbp.LSTM(i, h, 1, proj_size=max(1, h // 2), rng=0) if h > 1 else nbp.LSTM(i, h),
        "gru": lambda i, h: nbp.GRU(i, h, 2, rng=0),
        "rnn": lambda i, h: nbp.RNN(i, h, 1, rng=0, dtype=np.float64),
    }
    for (name, make), i in itertools.product(makers.items(), range(8)):
        inputs, units = int(rng.integers(1, 40)), int(rng.integers(1, 70))
        layer = make(inputs, units)
        lengths = rng.integers(0, 40, int(rng.integers(1, 24)))
        packed = nbp.pack_sequence([rng.standard_normal((n, inputs)).astype(layer.dtype) for n in lengths])

        def infer(layer=layer, packed=packed):
            output, state = layer(packed)
            return output.data, state

        def train(layer=layer, packed=packed, lock=threading.Lock()):  # noqa: B008 (one for each task)
            with lock:  # so that the call's number, and with it the dropout, is the same
                layer._training_calls = Calls(layer._training_calls.seed, seeded=True)
                output, state, tape = layer.forward(packed)
            gradients = layer.backward(tape, output, state)
            return output.data, state, gradients.input.data, gradients.hx, gradients.parameters

        def reload(layer=layer, packed=packed):
            layer.parameters = layer.parameters  # the same, but packed anew
            return layer(packed)[0].data

        def pack(packed=packed):
            values, offsets = nbp.unpack_ragged(packed)
            padded, lengths = nbp.pad_packed_sequence(nbp.pack_ragged(values, offsets), batch_first=True)
            return nbp.pack_padded_sequence(padded, lengths, batch_first=True), nbp.unpack_sequence(packed)

        def refused(packed=packed):
            for call in (lambda: nbp.unpack_sequence(packed._replace(batch_sizes=packed.batch_sizes + 1)),
                         lambda: nbp.pack_ragged(packed.data, [0, len(packed.data) + 1])):  # fmt: skip
                try:
                    call()
                except ValueError:
                    continue
                raise AssertionError("a wrong batch was not refused")
            return packed.data

        def fresh(layer=layer, packed=packed):
            twin = type(layer)(layer.input_size, layer.hidden_size, dtype=layer.dtype, rng=1)
            return twin(packed)[1]

        for kind in (infer, train, reload, pack, refused, fresh):
            tasks.append(Task(f"{name}-{i} {kind.__name__}", kind))
    return tasks


def soak(tasks, calls=None, seconds=None, threads=1, report=None, first_seed=0):
    """Run tasks at random until so many calls are made or the time is up; the calls and a list of what went wrong."""
    wrong, count, end = [], itertools.count(), time.monotonic() + (seconds or 1e9)
    stop = threading.Event()

    def work(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set() and time.monotonic() < end:
            number = next(count)
            if calls is not None and number >= calls:
                return
            task = tasks[rng.integers(len(tasks))]
            try:
                with nbp.threads(int(rng.integers(1, 5))):
                    if not task.run():
                        wrong.append(f"{task.name}: other bits")
            except Exception as error:
                wrong.append(f"{task.name}: {type(error).__name__}: {error}")
            if wrong:
                stop.set()
            if report is not None and number % 10_000 == 9_999:
                report(number + 1)

    if threads == 1:
        work(first_seed)
    else:
        workers = [threading.Thread(target=work, args=[first_seed + i]) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    made = next(count)
    return made if calls is None else min(made, calls), wrong


def part(title, tasks, threads=1, **limits):
    """One part of the run, in two halves, each of so many ``calls`` or ``seconds`` by half; whether all was well."""
    before, began = in_use(), time.monotonic()

    def report(number):
        seconds, size = time.monotonic() - began, resident() / 2**20
        print(f"  {number:9,} calls, {seconds:5.0f} s, resident memory {size:.1f} MiB", flush=True)

    print(title)
    halves = {name: limit / 2 if name == "seconds" else limit // 2 for name, limit in limits.items()}
    calls, wrong = soak(tasks, report=report, threads=threads, **halves)
    half = in_use()
    more, wrong_later = soak(tasks, report=report, threads=threads, first_seed=threads, **halves)
    wrong += wrong_later
    grown = in_use() - half
    print(f"{calls + more:,} calls in {time.monotonic() - began:.0f} s; {len(wrong)} errors or results that differed; "
          f"memory in use {before / 2**20:.1f} MiB, {(half - before) / 2**20:+.2f} in the first half, "
          f"{grown / 2**20:+.2f} in the second")  # fmt: skip
    print(*wrong[:10], sep="\n")
    return not wrong and grown < MOST_GROWTH


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000, help="of the first part (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the second (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="of the second part (default: %(default)s)")
    parser.add_argument("--only", choices=("one", "many"), help="one part alone")
    arguments = parser.parse_args()
    from numba_pack.cpu import engine

    engine.WORTH_A_THREAD = 1e5  # small as the work is, it is divided among threads
    only, seconds, right = arguments.only, 60 * arguments.minutes, True
    tasks = make_tasks(np.random.default_rng(0))
    if only in (None, "one"):
        right &= part("one thread", tasks, calls=arguments.calls)
    if only in (None, "many"):
        right &= part(f"{arguments.threads} threads", tasks, seconds=seconds, threads=arguments.threads)
    sys.exit(not right)


if __name__ == "__main__":
    main()
