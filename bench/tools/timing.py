"""Timing of several functions side by side, so that a noisy machine hits all of them alike."""

import gc
import math
import random
from time import perf_counter

import numpy as np

ROUNDS = 7  # at least, unless a function alone takes too long
SAMPLE = 2e-3  # seconds: a shorter call is repeated until a sample takes this long
LONG = 10 * SAMPLE  # seconds: what a call of this length finds in the caches hardly matters to it


def once(function, repeats):
    """Seconds of one call, the mean of some in a row."""
    start = perf_counter()
    for _ in range(repeats):
        function()
    return (perf_counter() - start) / repeats


def interleave(functions, seconds, before=None):
    """Time functions round after round, in a new random order each round.

    Calls are warm: before each sample comes a call that is not timed, since another function's turn has put this one's
    code and data out of the caches, unless a call is long.

    Parameters
    ----------
    functions : dict of str to callable
        Called without arguments; all have been called before.
    seconds : float
        How long to go on, in all. A function that has used up a third of it sits out after three rounds.
    before : callable, optional
        Called before each call, and not timed, in place of a warm call. A short call is not repeated in a row then: it
        takes turns, and those of several rounds make a sample.

    Returns
    -------
    dict of str to ndarray
        Seconds a call, one for each sample.
    """
    repeats, warmed = dict.fromkeys(functions, 1), set()
    if before is None:
        alone = {name: max(once(f, 1), 1e-9) for name, f in functions.items()}
        repeats = {name: max(1, math.ceil(SAMPLE / time)) for name, time in alone.items()}
        warmed = {name for name, time in alone.items() if time < LONG}
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
                if before is not None:
                    before()
                elif name in warmed:
                    functions[name]()
                times[name].append(once(functions[name], repeats[name]))
                spent[name] += times[name][-1] * repeats[name]
            rounds += 1
    finally:
        if was_enabled:
            gc.enable()
    return {name: np.array(values if before is None else samples(values)) for name, values in times.items()}


def samples(times):
    """Means of as many times in a row as make `SAMPLE` seconds, or of all if they are fewer."""
    together = min(len(times), math.ceil(SAMPLE / np.mean(times)))
    whole = times[: len(times) // together * together]
    return np.mean(np.reshape(whole, (-1, together)), axis=1)


def sweeper(nbytes):
    """A function that reads so many bytes: what lay in a smaller cache does not any more."""
    array = np.ones(nbytes // 8)
    return array.sum


def spread(values):
    """From the first quartile to the third, as a part of the median."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return (high - low) / median


def summary(times):
    """What is kept of `interleave`: of each function's rounds the median, the least, the `spread`, and the number."""
    return {
        "median": {name: float(np.median(values)) for name, values in times.items()},
        "min": {name: float(values.min()) for name, values in times.items()},
        "spread": {name: float(spread(values)) for name, values in times.items()},
        "rounds": {name: len(values) for name, values in times.items()},
    }
