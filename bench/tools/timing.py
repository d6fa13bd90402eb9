"""Timing of several functions side by side, so that a noisy machine hits all of them alike."""

import gc
import math
import random
from time import perf_counter

import numpy as np

ROUNDS = 7  # at least, unless a function alone takes too long
SAMPLE = 2e-3  # seconds: a shorter call is repeated until a sample takes this long


def once(function, repeats):
    """Seconds of one call, the mean of some in a row."""
    start = perf_counter()
    for _ in range(repeats):
        function()
    return (perf_counter() - start) / repeats


def interleave(functions, seconds):
    """Time functions round after round, in a new random order each round.

    Parameters
    ----------
    functions : dict of str to callable
        Called without arguments; all have been called before.
    seconds : float
        How long to go on, in all. A function that has used up a third of it sits out after three rounds.

    Returns
    -------
    dict of str to ndarray
        Seconds a call, one for each round.
    """
    repeats = {name: max(1, math.ceil(SAMPLE / max(once(f, 1), 1e-9))) for name, f in functions.items()}
    times = {name: [] for name in functions}
    spent = dict.fromkeys(functions, 0.0)
    order, shuffle = list(functions), random.Random(0).shuffle
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start, rounds = perf_counter(), 0
        while rounds < ROUNDS or perf_counter() - start < seconds:
            shuffle(order)
            for name in order:
                if len(times[name]) >= 3 and spent[name] > seconds / 3:
                    continue
                times[name].append(once(functions[name], repeats[name]))
                spent[name] += times[name][-1] * repeats[name]
            rounds += 1
    finally:
        if was_enabled:
            gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def summary(times):
    """What is kept of `interleave`: the median and the least of each function's rounds, and how many there were."""
    return {
        "median": {name: float(np.median(values)) for name, values in times.items()},
        "min": {name: float(values.min()) for name, values in times.items()},
        "rounds": {name: len(values) for name, values in times.items()},
    }
