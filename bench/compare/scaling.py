"""Threads: two against one, and each contender with one, two, four ... up to the number of cores.

    python -m bench.compare.scaling

Each measurement is a process of its own, so that no other pool of threads is there. BLAS and OpenMP have one thread
where numba_pack is compared with itself. `held` needs processes for the same reason: what a library computes with, it
chooses once.
"""

import json
import sys

#: what all contenders are given, forward: many sequences, and one
SHAPES = ("LSTM-B32-H256-lognormal", "LSTM-B1-H256-T100")


def measure(seconds, contenders=True, shapes=None):
    """Seconds a call: "two" of one and two threads by shape; "all" by shape, contender and number of threads."""
    from bench.compare.contenders import LAYERS
    from bench.tools.environment import child, machine

    cores = machine()["cores"]
    found = {"two": child("bench.compare.scaling", "two", seconds, *(shapes or ())) if cores > 1 else {}, "all": {}}
    if contenders:
        counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]
        for shape in SHAPES:
            found["all"][shape] = {}
            for contender in LAYERS:
                of = "bench.compare.scaling", "alone", seconds, contender.__name__, shape
                runs = {str(n): child(*of, n) for n in counts}
                found["all"][shape][contender.name] = {n: time for n, time in runs.items() if time is not None}
    return found


def held(isa, seconds):
    """How many times as long each contender takes when it is held to some instructions; 1 if it cannot be held."""
    from bench.compare.contenders import LAYERS
    from bench.tools.environment import child
    from bench.tools.isa import variables

    free, found = dict.fromkeys(variables(isa)), {}
    for contender in LAYERS:
        arguments = "bench.compare.scaling", "alone", seconds, contender.__name__, SHAPES[0], 1
        times = [child(*arguments, **chosen) for chosen in ({}, free)]
        if None not in times:
            found[contender.name] = times[0] / times[1]
    return found


# -- what the processes do ---------------------------------------------------------------------------------------------


def two_against_one(seconds, *shapes):
    import numba_pack as nbp
    from bench.compare.contenders import NumbaPack
    from bench.compare.suite import settled
    from bench.tools import workloads

    def with_threads(n, run):
        def call():
            with nbp.threads(n):
                run()

        return call

    found = {}
    for workload in workloads.THREADS:
        for training in (False, True):
            name = f"{workload}{', forward and backward' * training}"
            if not shapes or str(workload) in shapes:
                run = NumbaPack(workloads.Problem(workload), training).run
                functions = {str(n): with_threads(n, run) for n in (1, 2)}
                for function in functions.values():
                    function()
                found[name] = settled(functions, float(seconds), *functions)
    return found


def alone(seconds, contender, shape, threads):
    from bench.compare import contenders
    from bench.tools import workloads
    from bench.tools.environment import Unavailable
    from bench.tools.timing import interleave, summary

    (workload,) = (w for w in workloads.FORWARD if str(w) == shape)
    try:
        run = getattr(contenders, contender)(workloads.Problem(workload), False).run
    except Unavailable:
        return None
    run()
    return summary(interleave({"time": run}, float(seconds)))["median"]["time"]


def main():
    from bench.tools import environment

    kind, *arguments = sys.argv[1:] or ["main"]
    environment.prepare(int(arguments[-1]) if kind == "alone" else 1)
    if kind == "main":
        print(json.dumps(measure(3.0), indent=2))
    elif kind == "two":
        print(json.dumps(two_against_one(*arguments)))
    else:
        print(json.dumps(alone(*arguments)))


if __name__ == "__main__":
    main()
