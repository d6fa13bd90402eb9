"""Import, first calls and the overhead of a call, each in fresh processes.

    python -m bench.alone.startup
    python -m bench.alone.startup --cold

With ``--cold``, first calls and first steps of training alone: in seconds, and in seconds of processor time, which
other work on the machine changes less; of each cell, and of a stack of two layers and both directions.
``NUMBA_PACK_AHEAD=0`` shows what other processes save that compile ahead.

Cold: nothing compiled yet, the cache folder empty; a first call or step of training is timed from before the import to
its end, and the layer is made before its input is packed. Cached: a new process that finds what an earlier one
compiled, each call by itself. Python's bytecode is kept, as it is wherever a package has been installed.
"""

import json
import os
import statistics
import sys
import tempfile
from time import perf_counter

CELLS = ("LSTM", "GRU", "RNN")
STACK = "stack"
KINDS = (*CELLS, STACK)
FIRSTS = ("first call", "first training step")
COLD = "cold, with the import"


def measure(processes=5, cells=CELLS):
    """Seconds by name: medians over so many processes (one for each cell where all is cold)."""
    from bench.tools.environment import AS_USERS, child

    def median_of(kind, *arguments, **variables):
        runs = [child("bench.alone.startup", kind, *arguments, **AS_USERS, **variables) for _ in range(processes)]
        return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

    child("bench.alone.startup", "import", **AS_USERS)  # so that bytecode is there
    found = {"import": median_of("import"), COLD: {}, "cached": {}}
    for cell in cells:
        found[COLD][cell] = {until: cold(cell, until)["seconds"] for until in FIRSTS}
        with tempfile.TemporaryDirectory() as folder:
            child("bench.alone.startup", "calls", cell, **AS_USERS, NUMBA_CACHE_DIR=folder)
            found["cached"][cell] = median_of("calls", cell, NUMBA_CACHE_DIR=folder)
    found["overhead"] = median_of("overhead")
    return found


def cold(kind, until):
    """Seconds from before the import, nothing compiled yet, and of processor time, of a kind of layer."""
    from bench.tools.environment import AS_USERS, child

    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        seconds = child("bench.alone.startup", "first", kind, until, **AS_USERS, NUMBA_CACHE_DIR=folder)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "of processor time": processor}


# -- what the fresh processes do ---------------------------------------------------------------------------------------


def time_import():
    start = perf_counter()
    import numba
    import numpy

    between = perf_counter()
    import numba_pack

    end = perf_counter()
    assert numba and numpy and numba_pack
    return {"NumPy and Numba": between - start, "numba_pack, over these": end - between}


def layer_of(kind):
    import numba_pack as nbp

    if kind == STACK:
        return nbp.LSTM(12, 100, num_layers=2, bidirectional=True, rng=0)
    return getattr(nbp, kind)(12, 100, rng=0)


def time_first(kind, until):
    """Seconds from here to the end of a first call, or of a first step of training."""
    start = perf_counter()
    import numpy as np

    import numba_pack as nbp

    layer = layer_of(kind)
    packed = nbp.pack_sequence([np.ones((n, 12), np.float32) for n in (7, 26, 15)])
    if until == "first call":
        layer(packed)
    else:
        output, _, tape = layer.forward(packed)
        layer.backward(tape, output)
    return perf_counter() - start


def time_calls(cell):
    """The first calls of what one needs in turn, on a small batch."""
    import numpy as np

    import numba_pack as nbp

    sequences = [np.ones((n, 12), np.float32) for n in (7, 26, 15)]
    found = {}

    def timed(name, function, *arguments):
        start = perf_counter()
        result = function(*arguments)
        found[name] = perf_counter() - start
        return result

    packed = timed("pack_sequence", nbp.pack_sequence, sequences)
    layer = layer_of(cell)
    output, _ = timed("first call", layer, packed)
    _, _, tape = timed("first forward for training", layer.forward, packed)
    timed("first backward", layer.backward, tape, output)
    return found


def time_overhead():
    """Calls whose work is nothing: one sequence, one step, one unit."""
    import numpy as np

    import numba_pack as nbp

    x = np.ones((1, 1), np.float32)
    packed = nbp.pack_sequence([x])
    functions = {
        "LSTM, packed": (nbp.LSTM(1, 1), packed),
        "LSTM, one sequence": (nbp.LSTM(1, 1), x),
        "LSTMCell": (nbp.LSTMCell(1, 1), x),
        "LSTM, a stepper": (nbp.LSTM(1, 1).stepper(), x),
        "pack_sequence": (nbp.pack_sequence, [x]),
    }
    found = {}
    for name, (function, argument) in functions.items():
        times = []
        for _ in range(20_000):
            start = perf_counter()
            function(argument)
            times.append(perf_counter() - start)
        found[name] = statistics.median(times)
    return found


def main():
    from bench.tools.environment import prepare

    prepare()
    all_cold = sys.argv[1:] == ["--cold"]
    found = {kind: {until: cold(kind, until) for until in FIRSTS} for kind in KINDS} if all_cold else measure()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    CHILDREN = {
        "import": time_import,
        "calls": time_calls,
        "first": time_first,
        "overhead": time_overhead,
    }
    if sys.argv[1:] in ([], ["--cold"]):
        main()
    else:
        print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
