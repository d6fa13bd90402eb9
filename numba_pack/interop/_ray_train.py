"""Sums over pieces of data by several workers, in the order of the pieces: gradients whose bits no worker can change.

Adding floats in another order gives other bits. So what a worker computes is one piece, however many workers there are,
and the results are added here, one after the other. A worker has no state beside its function: one that dies is started
again by Ray, with that function, and is given its pieces once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import ray

from .._arguments import kind_of
from ..cpu.threads import set_num_threads
from ..packing.checks import as_size

__all__ = ["DataParallel"]


class DataParallel:
    """Computes a function of many pieces of data by several processes, and adds the results.

    The sum is the same, bit for bit, for any number of workers, on any number of machines with processors of one kind,
    and if some of them die meanwhile: a worker that dies is replaced. The workers end with this object.

    Parameters
    ----------
    function : function of two arguments
        What a worker computes: ``function(shared, piece)`` returns a tuple of numbers and arrays, as loss and gradient.
        It is sent to each worker once, with the model and all else that it refers to. The result must follow from the
        arguments alone. An error that it raises is raised by `sum`.
    workers : int
        How many processes compute.
    num_cpus : int
        The CPUs of a worker, which are its threads.

    Attributes
    ----------
    workers : list of ray.actor.ActorHandle
        The processes, for Ray's own functions.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import ray
    >>> import numba_pack as nbp
    >>> from numba_pack.interop.ray import DataParallel
    >>> context = ray.init("local", num_cpus=2, log_to_driver=False)
    >>> gru, rng = nbp.GRU(3, 2, rng=0), np.random.default_rng(0)
    >>> def loss_and_gradient(parameters, piece):
    ...     gru.parameters = parameters
    ...     x, target = piece
    ...     output, _, tape = gru.forward(x)
    ...     loss, d_output = nbp.losses.mse(output, target, reduction="sum")
    ...     return loss, gru.backward(tape, d_output).parameters
    >>> pieces = [(rng.standard_normal((n, 3), np.float32), np.zeros((n, 2), np.float32)) for n in (5, 9, 2, 7)]
    >>> parallel = DataParallel(loss_and_gradient, workers=1)
    >>> adam = nbp.optim.Adam()
    >>> for step in range(3):
    ...     loss, gradient = parallel.sum(gru.parameters, pieces)
    ...     gru.parameters = adam.step(gru.parameters, gradient)
    >>> ray.shutdown()
    """

    def __init__(self, function: Callable[[Any, Any], tuple[Any, ...]], workers: int, num_cpus: int = 1) -> None:
        if not callable(function):
            raise TypeError(f"function must be a function of what is shared and a piece; got {kind_of(function)}")
        workers, num_cpus = as_size(workers, "workers", most=4096), as_size(num_cpus, "num_cpus")
        kind = ray.remote(num_cpus=num_cpus, max_restarts=-1, max_task_retries=-1)(_Worker)
        self._function = ray.put(function)  # kept for workers that are started again
        self.workers = [kind.remote(self._function, num_cpus) for _ in range(workers)]

    def sum(self, shared: Any, pieces: Iterable[Any]) -> tuple[Any, ...]:
        """The sum of the function over the pieces, in their order.

        Parameters
        ----------
        shared : object
            The first argument for all pieces, as the parameters. It is sent to each machine once.
        pieces : iterable
            The second one of each. Those that are used again, as the parts of data that fit in memory, are best
            references that `ray.put` gave: then they are sent once. For the same bits they must be the same pieces in
            the same order, whatever the workers.

        Returns
        -------
        tuple
            Of each entry of what the function returns the sum, in its dtype.

        Raises
        ------
        TypeError, ValueError
            If there are no pieces, or the function does not return tuples whose entries agree in shape and dtype.
        """
        shared = ray.put(shared)
        asked = [self.workers[i % len(self.workers)].run.remote(shared, piece) for i, piece in enumerate(pieces)]
        if not asked:
            raise ValueError("pieces must be at least one; got none")
        total = [value.copy() for value in ray.get(asked[0])]  # what Ray gives is read-only
        for i in range(1, len(asked)):
            part = ray.get(asked[i])
            got, expected = ([(value.shape, str(value.dtype)) for value in values] for values in (part, total))
            if got != expected:
                raise ValueError(
                    f"function must return for all pieces what it does for the first, {expected}; got {got}"
                )
            for value, entry in zip(total, part, strict=True):
                value += entry
        return tuple(value[()] for value in total)


class _Worker:
    """What runs in a process of its own."""

    def __init__(self, function: Any, num_cpus: int) -> None:
        set_num_threads(num_cpus)
        self._function = function

    def run(self, shared: Any, piece: Any) -> list[np.ndarray]:
        found = self._function(shared, piece)
        if not isinstance(found, tuple):
            raise TypeError(f"function must return a tuple of numbers and arrays; got {kind_of(found)}")
        return [np.asarray(value) for value in found]
