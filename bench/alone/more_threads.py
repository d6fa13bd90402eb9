"""More threads than this machine has: what a call would take on 4 to 64, from its parts as one thread does them.

    python -m bench.alone.more_threads [seconds for each shape]

A pass on n threads takes as long as its longest part, once it is divided for n, and the hand-over. What is not divided
takes as long as ever. Not in it: that threads share caches, memory and the clock's boost.
"""

import sys
from time import perf_counter

SHAPES = ("LSTM", 32, 128), ("LSTM", 32, 512), ("LSTM", 256, 256)
COUNTS = 1, 2, 4, 8, 16, 32, 64
#: microseconds: to post a job and to see its end where workers are awake, in all and for each; where they sleep,
#: what it takes to wake one, and how long that one takes to come, who then wakes so many others
POST, POST_EACH, WAKE_EACH, COME, WAKES = 1.0, 0.15, 8.0, 40.0, 8
PASSES = "forward_pass", "backward_pass"


class Parts:
    """Calls passes part by part, and adds up what they take here, and what they would take on threads of their own."""

    def __init__(self, engine, packer):
        self.here, self.apart, self.passes = 0.0, 0.0, 0
        engine.threads.team = lambda threads: (0, 0)
        count = engine.threads.get_num_threads
        packer._team = lambda nbytes: (0, max(1, min(count(), nbytes // packer.WORTH_A_THREAD)) - 1)
        packer._pack = self.packed(packer._pack)
        for name in (*PASSES, "gradients_pass"):
            setattr(engine, name, self.timed(getattr(engine, name), name in PASSES))

    def packed(self, run):
        """Of packing, whose parts are as large as each other."""

        def parts(*arguments):
            *given, (board, workers) = arguments
            start = perf_counter()
            run(*given, (board, 0))
            time = perf_counter() - start
            self.here += time
            self.apart += time / (workers + 1)
            self.passes += workers > 0

        return parts

    def timed(self, run, by_sequences):
        def parts(*arguments):
            *given, division = arguments
            cuts, times = division.cuts, []
            alone = [cuts[i : i + 2] for i in range(len(cuts) - 1)] if by_sequences else [cuts]
            for part in alone:
                start = perf_counter()
                run(*given, division._replace(cuts=part))
                times.append(perf_counter() - start)
            self.here += sum(times)
            # parts of the gradient are of equally many units
            self.apart += max(times) if by_sequences else times[0] / (len(cuts) - 1)
            self.passes += len(cuts) > 2

        return parts


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
    from numba_pack.cpu import engine, packer

    parts = Parts(engine, packer)
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
