"""More threads than this machine has: what a call would take on 4 to 64, from its parts as one thread does them.

    python -m bench.alone.more_threads [seconds for each shape]

A pass on n threads takes as long as its longest part, once it is divided for n, and the hand-over. What is not divided
takes as long as ever. Not in it: that threads share caches, memory and the clock's boost.
"""

import ctypes
import sys
from itertools import pairwise
from time import perf_counter

SHAPES = ("LSTM", 32, 128), ("LSTM", 32, 512), ("LSTM", 256, 256)
COUNTS = 1, 2, 4, 8, 16, 32, 64
#: microseconds: to post a job and to see its end where workers are awake, in all and for each; where they sleep,
#: what it takes to wake one, and how long that one takes to come, who then wakes so many others
POST, POST_EACH, WAKE_EACH, COME, WAKES = 1.0, 0.15, 8.0, 40.0, 8


class Parts:
    """Calls passes part by part, and adds up what they take here, and what they would take on threads of their own."""

    def __init__(self, engine, packer, team):
        self.here, self.apart, self.passes = 0.0, 0.0, 0
        self.call_each, self.Block = engine.call_each, team.Block
        engine.threads.team = packer.team = lambda threads: (0, threads - 1)
        engine.call_each = packer.call_each = self.each

    def each(self, calls, team):
        """What `call_each` does, part by part."""
        for i, call in enumerate(calls):
            before = [self.part_of(calls[i - 1], 0, 0)] if self.block_of(call).shared else []  # which has nothing to do
            workers = min(team[1], call.parts - 1)
            parts = [call]
            if call.parts > 1:
                cuts = [0, call.parts] if call.cuts is None else call.cuts
                parts = [self.part_of(call, *map(int, run)) for run in pairwise(cuts)]
            times = []
            for part in parts:
                start = perf_counter()
                self.call_each([*before, part], (0, 0))
                times.append(perf_counter() - start)
            self.here += sum(times)
            # without cuts, parts are as large as each other
            self.apart += times[0] / (workers + 1) if call.cuts is None else max(times)
            self.passes += workers > 0

    def block_of(self, call):
        """The `Block` of a call."""
        return self.Block(*(ctypes.c_int64 * len(self.Block._fields)).from_address(call.block))

    def part_of(self, call, first, last):
        """A part of a call by itself."""
        block, fields = self.block_of(call), list(call.fields)
        place = block.first - block.shared
        fields[place : place + 2] = first, last
        return call._replace(parts=1, cuts=None, fields=tuple(fields))


def waking(workers):
    """Microseconds until the last of so many sleepers has come."""
    time, waker = 0.0, 1
    while workers > 0:
        time += WAKE_EACH * min(WAKES, -(-workers // waker)) + COME
        waker, workers = waker * WAKES, workers - waker * WAKES
    return time


def main(seconds=3.0):
    from bench.tools import environment

    environment.prepare(1)
    import numba_pack as nbp
    from bench.compare.contenders import NumbaPack
    from bench.tools import workloads
    from numba_pack.cpu import engine, packer, team

    parts = Parts(engine, packer, team)
    for shape in SHAPES:
        problem = workloads.Problem(workloads.Workload(*shape))
        for training in (False, True):
            run, best = NumbaPack(problem, training).run, {}
            run()
            end = perf_counter() + float(seconds) / 2
            while not best or perf_counter() < end:
                for n in COUNTS:
                    parts.here, parts.apart, parts.passes = 0.0, 0.0, 0
                    start = perf_counter()
                    with nbp.threads(n):
                        run()
                    undivided = perf_counter() - start - parts.here
                    found = undivided + parts.apart, undivided, parts.here, parts.passes
                    best[n] = min(best.get(n, found), found)
            print(f"{problem.workload}{', forward and backward' * training}")
            for n, (time, undivided, here, passes) in best.items():
                awake = time * 1e6 + passes * (POST + POST_EACH * n)
                asleep = time * 1e6 + passes * waking(n - 1)
                speed = [best[1][0] * 1e6 / time for time in (awake, asleep)]
                print(
                    f"{n:4} threads: {awake / 1e3:8.2f} ms, {speed[0]:5.1f} times one ({speed[1]:.1f} if all sleep);"
                    f" undivided {undivided * 1e3:.2f} ms, all parts {here * 1e3:.2f} ms"
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
