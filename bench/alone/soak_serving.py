"""Requests and streams for a long time: no error, the bits of each alone, and neither memory nor threads that stay.

``python -m bench.alone.soak_serving`` has eight threads, which for ten minutes ask batchers and run streams of all
kinds at once, the same ones all of them: requests join and leave, are cancelled, too late, refused, or fail; batchers
are closed over them; streams are opened, stepped, fed, copied to others by their states, reset, and closed. Each answer
is compared, bit for bit, with that of the layer to the sequence alone, computed at the start.

The first tenth of the time is to warm up. After it and at the end, memory, threads and open files are counted. The last
line is the verdict; it exits with 1 if there was an error or a result that differed, or if something grew: memory in
use by a MiB, threads or files by one. See `bench.alone.soak` for what memory in use is.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from queue import Full

from bench.tools.environment import prepare

if __name__ == "__main__":
    prepare(threads=2)  # before NumPy

import numpy as np

import numba_pack as nbp
from bench.alone.soak import MOST_GROWTH, Task, digest, in_use, resident, soak
from numba_pack.serving import Batcher, Streams

#: seconds between two looks at the memory
STRETCH = 5.0
I = 12  # noqa: E741


def expecting(name, call, expected):
    """A task whose result is known without calling it."""
    task = Task.__new__(Task)
    task.name, task.call, task.expected = name, call, digest(expected)
    return task


def lognormal(rng, layer, most):
    """Up to so many sequences for a layer, of log-normal lengths."""
    lengths = rng.lognormal(2.5, 1.0, int(rng.integers(1, most + 1))).astype(int)
    return [rng.standard_normal((n, I)).astype(layer.dtype) for n in lengths]


def make_requests(rng):
    """Tasks that ask batchers of all kinds, and so expect what the layer gives for each sequence alone."""
    layers = {
        "lstm": nbp.LSTM(I, 40, 2, rng=0),
        "gru": nbp.GRU(I, 24, dtype="f8", rng=0),
        "bilstm": nbp.LSTM(I, 20, bidirectional=True, rng=0),
    }
    tasks = []
    for name, layer in layers.items():
        few = Batcher(layer, capacity=3, rows=64, steps=5, workers=2)
        many = Batcher(layer, capacity=64)

        def function(packed, layer=layer):
            if (packed.data == 1e9).any():
                raise ArithmeticError
            return layer(packed)[0]

        whole = Batcher(function, rows=200)
        for i in range(12):
            x = lognormal(rng, layer, 5)
            alone = [layer(each) for each in x]

            def ask(x=x, few=few):
                return [few.submit(each, wait=True).result() for each in x]

            def at_once(x=x, many=many):
                return [future.result() for future in [many.submit(each, wait=True) for each in x]]

            def cancelled(x=x, alone=alone, few=few):
                futures = [few.submit(each, wait=True) for each in x]
                time.sleep(float(np.random.default_rng().exponential(1e-3)))
                return [right if future.cancel() else future.result()
                        for future, right in zip(futures, alone, strict=True)]  # fmt: skip

            def late(x=x, alone=alone, many=many):
                futures = [many.submit(each, deadline=1e-3 * k, wait=True) for k, each in enumerate(x)]
                return [right if isinstance(future.exception(), TimeoutError) else future.result()
                        for future, right in zip(futures, alone, strict=True)]  # fmt: skip

            def failing(x=x, alone=alone, whole=whole):
                bad = whole.submit(np.full((3, I), 1e9, x[0].dtype), wait=True)
                answers = [whole.submit(each, wait=True).result() for each in x]
                if not isinstance(bad.exception(), ArithmeticError):
                    raise AssertionError("a request that cannot be answered was")
                return [(answer, state) for answer, (_, state) in zip(answers, alone, strict=True)]

            def awaited(x=x, few=few):
                async def all_of_them():
                    return await asyncio.gather(*(few.run(each) for each in x))

                return asyncio.run(all_of_them())

            def own(x=x, layer=layer):
                with Batcher(layer, steps=3) as batcher:
                    futures = [batcher.submit(each) for each in x]
                return [future.result() for future in futures]

            def refused(x=x, layer=layer):
                with Batcher(layer, capacity=1, steps=1) as batcher:
                    futures = []
                    for each in x:
                        try:
                            futures.append(batcher.submit(each))
                        except Full:
                            futures.append(batcher.submit(each, wait=True))
                return [future.result() for future in futures]

            def closed(x=x, alone=alone, layer=layer):
                batcher = Batcher(layer, steps=4)
                futures = [batcher.submit(each) for each in x]
                batcher.close(cancel=True)
                return [right if future.cancelled() else future.result(0)
                        for future, right in zip(futures, alone, strict=True)]  # fmt: skip

            kinds = (ask, at_once, cancelled, late, failing, awaited, own, refused, closed)
            tasks += [expecting(f"{name}-{i} {kind.__name__}", kind, alone) for kind in kinds]
    return tasks


def make_streams(rng):
    """Tasks that run streams, which all threads share, and so expect what the layer gives for each sequence alone."""
    layers = {
        "lstm": nbp.LSTM(I, 40, 2, rng=0),
        "gru": nbp.GRU(I, 24, dtype="f8", rng=0),
        "widths": nbp.GRU(I, [20, 8], rng=0),
    }
    tasks = []
    for name, layer in layers.items():
        streams = Streams(layer, 64)  # eight threads have at most seven each
        for i in range(12):
            x = [each for each in lognormal(rng, layer, 5) if len(each)] or [np.ones((3, I), layer.dtype)]
            alone = [layer(each) for each in x]
            outputs = [output for output, _ in alone]

            def stepped(x=x, streams=streams):
                """All a step at a time; each joins one later than the one before, and leaves at its end."""
                ids, found = {}, [[] for _ in x]
                for t in range(max(map(len, x)) + len(x)):
                    here = [k for k, each in enumerate(x) if k <= t < k + len(each)]
                    ids |= {k: streams.open() for k in here if k not in ids}
                    if here:
                        rows = streams.step([ids[k] for k in here], np.stack([x[k][t - k] for k in here]))
                        for k, row in zip(here, rows, strict=True):
                            found[k].append(row)
                    for k in [k for k in ids if k + len(x[k]) <= t + 1]:
                        streams.close(ids.pop(k))
                return [np.stack(rows) for rows in found]

            def fed(x=x, streams=streams):
                """Chunks of any lengths, beside a stream of NaN; outputs and last states."""
                draw, at = np.random.default_rng(), [0] * len(x)
                ids, other = [streams.open() for _ in x], streams.open()
                parts = [[] for _ in x]
                while any(at[k] < len(each) for k, each in enumerate(x)):
                    counts = draw.integers(0, 9, len(x)).tolist()
                    chunks = {ids[k]: each[at[k] : at[k] + counts[k]] for k, each in enumerate(x)}
                    given = streams.feed(chunks | {other: np.full((2, I), np.nan, x[0].dtype)})
                    for k, id in enumerate(ids):
                        parts[k].append(given[id])
                        at[k] += len(given[id])
                states = [streams.state(id) for id in ids]
                for id in (*ids, other):
                    streams.close(id)
                return [(np.concatenate(part), state) for part, state in zip(parts, states, strict=True)]

            def moved(x=x, streams=streams):
                """Each half in a stream, and half in another that goes on from its state."""
                found = []
                for each in x:
                    half, first, second = len(each) // 2, streams.open(), streams.open()
                    before = streams.feed({first: each[:half], second: each[:1]})[first]
                    streams.set_state(second, streams.state(first))
                    streams.close(first)
                    found.append(np.concatenate([before, streams.feed({second: each[half:]})[second]]))
                    streams.close(second)
                return found

            def again(x=x, streams=streams):
                """Each after a reset, in a stream that had all before it."""
                id, found = streams.open(), []
                for each in x:
                    found.append(streams.feed({id: each})[id])
                    streams.reset(id)
                streams.close(id)
                return found

            def refused(x=x, streams=streams):
                """What cannot be right changes nothing: ids that were closed, or come twice, and rows too many."""
                ids = [streams.open() for _ in x]
                gone = streams.open()
                streams.close(gone)
                row = np.ones((2, I), x[0].dtype)
                for wrong in (lambda: streams.step([ids[0], gone], row), lambda: streams.step([ids[0]] * 2, row),
                              lambda: streams.step([ids[0]], row), lambda: streams.close(gone)):  # fmt: skip
                    try:
                        wrong()
                    except ValueError:
                        continue
                    raise AssertionError("what cannot be right was done")
                found = streams.feed(dict(zip(ids, x, strict=True)))
                for id in ids:
                    streams.close(id)
                return [found[id] for id in ids]

            def own(x=x, layer=layer):
                """As many as there may be, and no more."""
                mine = Streams(layer, len(x))
                found = mine.feed({mine.open(): each for each in x})
                try:
                    mine.open()
                except ValueError:
                    return list(found.values())
                raise AssertionError("a stream too many was opened")

            tasks += [expecting(f"{name}-{i} {kind.__name__}", kind, outputs)
                      for kind in (stepped, moved, again, refused, own)]  # fmt: skip
            tasks.append(expecting(f"{name}-{i} fed", fed, alone))
    return tasks


def still():
    """Memory in use, resident memory, threads and open files, with nothing under way; files 0 if nobody knows."""
    end = time.monotonic() + 10
    while threading.active_count() > 1 and time.monotonic() < end:  # workers end after a second without work
        time.sleep(0.1)
    try:
        counts = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    except OSError:
        counts = threading.active_count(), 0
    return in_use(), resident(), *counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="(default: %(default)s)")
    arguments = parser.parse_args()
    from tqdm import tqdm

    from numba_pack.cpu import engine

    tqdm.monitor_interval = 0  # no thread of its own
    engine.WORTH_A_THREAD = 1e5  # small as the work is, it is divided among threads
    tasks = make_requests(np.random.default_rng(0)) + make_streams(np.random.default_rng(1))
    wrong = [f"{task.name}: other bits" for task in tasks if not task.run()]  # all that is compiled, and each once
    stretches = max(2, round(60 * arguments.minutes / STRETCH))
    seconds, warm, calls, before = 60 * arguments.minutes / stretches, max(1, stretches // 10), len(tasks), None
    progress = tqdm(range(stretches), f"{arguments.threads} threads")
    for number in progress:
        if number == warm:
            before = still()
        made, found = soak(tasks, seconds=seconds, threads=arguments.threads, first_seed=arguments.threads * number)
        calls, wrong = calls + made, wrong + found
        progress.set_postfix_str(f"{calls:,} calls, {in_use() / 2**20:.2f} MiB in use", refresh=False)
        if wrong:
            break
    progress.close()
    after = still()
    before = before or after
    for what, size, then in zip(("memory in use", "resident memory"), after, before, strict=False):
        print(f"{what}: {then / 2**20:.2f} MiB when warm, {(size - then) / 2**20:+.2f} MiB at the end")
    for what, count, then in zip(("threads", "open files"), after[2:], before[2:], strict=True):
        print(f"{what}: {then} when warm, {count} at the end")
    if after[0] - before[0] >= MOST_GROWTH:
        wrong.append("memory in use grew")
    if after[2] > before[2] or after[3] > before[3]:
        wrong.append("threads or open files were left")
    print(*wrong[:10], sep="\n", end="\n" if wrong else "")
    print(f"{'WRONG' if wrong else 'RIGHT'}: {calls:,} calls from {arguments.threads} threads, {len(wrong)} errors, "
          "results that differed, or things that grew")  # fmt: skip
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
