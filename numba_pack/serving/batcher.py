"""The batcher: requests of whole sequences, which join and leave a batch between chunks of steps.

Unfinished requests stand in a line. A worker takes from its head what makes a chunk, a few steps of each, runs them
packed, answers those that are finished and puts the others back at the end. So all go on by turns, and none waits for
another one's end.

A worker is a thread that ends when there was nothing to do for a second, and the next request starts another: a batcher
that nobody closes does not stay for ever. Futures are ended with no lock held, since that calls what others have asked
for.
"""

from __future__ import annotations

import atexit
import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Full
from threading import Condition, Event, Lock, Thread
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakSet

from .._arguments import check_number, kind_of
from .._forks import tell_of_forks
from ..cpu.threads import get_num_threads, threads
from ..layers.layer import Layer
from ..packing.checks import as_flag, as_size
from ..packing.sequences import PackedSequence
from .chunks import model_of
from .line import Chunk, Line, Request
from .statistics import Statistics

__all__ = ["Batcher"]

#: seconds that a worker waits for the next request before it ends
LINGER = 1.0
#: so many answers are told at once, since those who get them do not crowd
FEW = 4
#: far more than anybody has, each of which has a place in a list
MOST_REQUESTS = 1 << 24


class Done(NamedTuple):
    """What has to be told of a chunk, with no lock held: that calls what others have asked for."""

    #: futures, each with its answer or error
    ended: list[tuple[Future[Any], Any, BaseException | None]]
    #: for the report
    figures: dict[str, Any] | None = None


class Batcher:
    """Answers requests of single sequences by calls over many of them, packed: continuous batching.

    Requests to a layer join and leave between chunks of a few steps, with their states carried from chunk to chunk: a
    sequence of 20,000 steps does not hold up one of 20. The answer is, bit for bit, what the layer gives for the
    sequence alone, with the parameters that it has when the request comes. Layers that begin with the last step, as
    bidirectional ones do, and functions are given whole sequences.

    A request fails alone: one that cannot be right is refused at once, and where a call raises an error, each of its
    requests is tried by itself. Any thread may call any method.

    Parameters
    ----------
    model : layer, or function of a PackedSequence
        A layer's answer to a sequence is ``layer(sequence)``, outputs and last state. A function is given requests with
        rows of one shape and dtype, packed, and returns a PackedSequence of the same lengths, an array or a list with
        an entry for each, or a tuple of these: then answers are tuples. It may be called twice for a request.
    capacity : int
        How many requests may be unfinished at once. Memory for their states is taken at once, for outputs as they come.
    rows : int
        The most rows of a chunk, which bounds the work between joining and leaving. Of whole sequences, one may be
        longer.
    steps : int
        The most steps of a chunk while few requests are there: few let others join sooner, many cost fewer calls. A
        chunk may have eight steps for each further request that waits, as far as its rows allow; and requests that a
        quarter more rows finish are finished.
    workers : int
        The most threads that run chunks at the same time. One is enough for a layer, whose calls take more threads by
        themselves; several share those.
    report : function of a dict, optional
        Is called after each chunk with what `statistics` sums up: ``requests``, ``rows``, ``occupancy`` and ``seconds``
        of the chunk, ``waits`` of the requests that began in it, and ``answers``, the seconds that those took that were
        answered. What it raises goes to `threading.excepthook`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_pack as nbp
    >>> gru = nbp.GRU(3, 2, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((50, 3), np.float32)
    >>> with nbp.serving.Batcher(gru) as batcher:
    ...     futures = [batcher.submit(x[:n]) for n in (50, 3, 20)]
    ...     answers = [future.result() for future in futures]
    >>> output, h_n = answers[2]
    >>> bool((output == gru(x[:20])[0]).all()), bool((h_n == gru(x[:20])[1]).all())
    (True, True)

    A function of the whole, here the last output of each sequence:

    >>> with nbp.serving.Batcher(lambda packed: gru(packed)[1][0]) as batcher:
    ...     bool((batcher.submit(x[:20]).result() == h_n[0]).all())
    True
    """

    def __init__(
        self,
        model: Layer[Any] | Callable[[PackedSequence], Any],
        capacity: int = 1024,
        rows: int = 4096,
        steps: int = 20,
        workers: int = 1,
        report: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self._capacity = as_size(capacity, "capacity", most=MOST_REQUESTS)
        self._rows = as_size(rows, "rows")
        self._most_workers = as_size(workers, "workers", most=4096)
        if report is not None and not callable(report):
            raise TypeError(f"report must be a function of a dict, or None; got {kind_of(report)}")
        self._given, self._report = model, report
        self._model = model_of(model, self._capacity, as_size(steps, "steps"))
        self._statistics = Statistics(self._rows)
        self._closed = False
        self._begin()
        _all.add(self)
        tell_of_forks(self)

    def _begin(self) -> None:
        """Have no request and no worker."""
        self._line = Line(self._capacity, self._rows, self._model.steps)
        #: futures that nobody has ended, for a child that is forked
        self._unended: set[Future[Any]] = set()
        self._workers: set[Thread] = set()
        #: how many of them wait for something to do
        self._idle = 0
        self._lock = Lock()
        #: there is something to do, or the batcher is closed; a worker has ended
        self._wake, self._gone = Condition(self._lock), Condition(self._lock)

    def __repr__(self) -> str:
        state = "closed, " if self._closed else ""
        return f"Batcher({self._given!r}, capacity={self._capacity}): {state}{len(self)} unfinished"

    def __len__(self) -> int:
        return len(self._line)

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- requests ------------------------------------------------------------------------------------------------------

    def submit(self, sequence: Any, deadline: float | None = None, wait: bool = False) -> Future[Any]:
        """Ask for the answer to one sequence.

        Parameters
        ----------
        sequence : ndarray, shape (T, I), or (T,) of symbols
            In the dtype of the layer, or integers that it takes for symbols; for a function rows (T, *) of any shape
            and dtype. It is copied.
        deadline : float, optional
            Seconds from now. If it is not finished by then, the future has a `TimeoutError` soon after, between two
            chunks, and no more of it is computed.
        wait : bool
            Whether to wait for a place if there is none, instead of raising an error.

        Returns
        -------
        concurrent.futures.Future
            Of the answer. It can be cancelled until the answer is there; its place is free after the present chunk.

        Raises
        ------
        TypeError, ValueError
            If the sequence has the wrong kind, dtype or shape, or the deadline is no number of at least 0.
        queue.Full
            If as many requests are unfinished as may be.
        RuntimeError
            If the batcher is closed, or the system has no thread left.
        """
        request = self._request(sequence, deadline)
        self._enter(request, as_flag(wait, "wait"))
        if request.admitted is not None:
            try:
                request.admitted.wait()
            except BaseException:  # Ctrl-C: nobody will have the future
                request.future.cancel()
                raise
        return request.future

    async def run(self, sequence: Any, deadline: float | None = None, wait: bool = True) -> Any:
        """The answer to one sequence, for ``await``: the event loop goes on, also while there is no place.

        Parameters
        ----------
        sequence, deadline, wait
            As for `submit`. A task that is cancelled cancels its request.

        Returns
        -------
        Any
            The answer.

        Raises
        ------
        TypeError, ValueError, queue.Full, RuntimeError
            As by `submit`.
        TimeoutError
            If the deadline passes.

        Examples
        --------
        >>> import asyncio
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> async def main():
        ...     with nbp.serving.Batcher(nbp.LSTM(3, 2, rng=0)) as batcher:
        ...         return await asyncio.gather(*(batcher.run(np.ones((n, 3), np.float32)) for n in (7, 1)))
        >>> [output.shape for output, state in asyncio.run(main())]
        [(7, 2), (1, 2)]
        """
        from asyncio import wrap_future  # which takes long to import, and is there if anything awaits

        request = self._request(sequence, deadline)
        self._enter(request, as_flag(wait, "wait"))
        return await wrap_future(request.future)

    def _request(self, sequence: Any, deadline: float | None) -> Request:
        now = monotonic()
        if deadline is not None:
            check_number("deadline", deadline)
        rows, kind = self._model.accept(sequence)
        return Request(rows, kind, now, math.inf if deadline is None else now + float(deadline))

    def _enter(self, request: Request, wait: bool) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the batcher is closed: it takes no more requests")
            if self._line.full:
                if not wait:
                    self._statistics.counts["refused"] += 1
                    raise Full(
                        f"capacity must be more than the requests that are unfinished; got {self._capacity}, all used"
                    )
                request.admitted = Event()
            if not self._idle and len(self._workers) < self._most_workers:
                self._start()
            self._line.enter(request)
            self._unended.add(request.future)
            self._statistics.counts["submitted"] += 1
            self._wake.notify()

    def _start(self) -> None:
        worker = Thread(target=self._serve, name="numba_pack batcher", daemon=True)
        try:
            self._workers.add(worker)
            worker.start()
        except BaseException as error:
            if not worker.is_alive():
                self._workers.discard(worker)
            if not self._workers or not isinstance(error, RuntimeError):  # else others do the work
                raise

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self, cancel: bool = False) -> None:
        """Take no more requests, and wait until those that are there are answered: what leaving a ``with`` does.

        A callback of a future may call it, too; there it does not wait.

        Parameters
        ----------
        cancel : bool
            Whether those that are not finished with the present chunk are cancelled instead.
        """
        as_flag(cancel, "cancel")
        with self._lock:
            self._closed = True
            unended = list(self._unended) if cancel else []
            self._wake.notify_all()
        for future in unended:
            future.cancel()
        with self._lock:
            while self._workers and threading.current_thread() not in self._workers:  # which cannot wait for itself
                self._gone.wait()

    def statistics(self) -> dict[str, Any]:
        """What was done until now.

        Returns
        -------
        dict
            Requests ``submitted``, and of them those ``answered``, ``failed`` by an error, ``cancelled`` and
            ``expired``, and ``unfinished``; those ``refused``, for which there was no place; ``chunks`` and their
            ``rows``; ``requests_per_chunk``; ``occupancy``, the rows of chunks over the most that they may have;
            ``wait``, the seconds from `submit` to the first chunk, and ``answer``, those to the answer: the percentiles
            ``p50``, ``p90`` and ``p99`` of the last 4096 requests, or None.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_pack as nbp
        >>> with nbp.serving.Batcher(nbp.GRU(3, 2, rng=0), steps=16) as batcher:
        ...     answer = batcher.submit(np.ones((40, 3), np.float32)).result()
        >>> found = batcher.statistics()
        >>> found["answered"], found["chunks"], found["rows"], sorted(found["wait"])
        (1, 3, 40, ['p50', 'p90', 'p99'])
        """
        with self._lock:
            return {**self._statistics.all(), "unfinished": len(self._line)}

    # -- what workers do -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """A worker, from its start to its end."""
        done: Done | None = Done([])
        while done is not None:
            done = self._turn(done)

    def _turn(self, done: Done) -> Done | None:
        """Tell what is done, and run a chunk as soon as there is one; what is done then, or None to end the worker.

        Whoever is told wants the GIL, and a worker that lets go of it would get it back when all they have asked for
        more. So where many are told, all that a chunk needs is made before, and nothing is left but its call.
        """
        if len(done.ended) <= FEW:
            self._tell(done)
            done = Done([])
        with self._lock:
            while True:
                chunk, over = self._line.next(monotonic())
                if chunk.requests or over or done.ended:
                    break
                if not self._closed:
                    self._idle += 1
                    woken = self._wake.wait(LINGER)
                    self._idle -= 1
                    if woken or self._line.waiting:
                        continue
                self._workers.remove(threading.current_thread())
                self._gone.notify_all()
                return None
            late = [request for request in over if self._ends(request, "expired")]
        for request in late:
            at, steps = request.at, len(request.rows)
            text = f"deadline must leave time for all steps; it passed when {at} of {steps} were done"
            done.ended.append((request.future, None, TimeoutError(text)))
        made = None
        if chunk.requests:
            with suppress(BaseException):  # which comes again as the chunk is run
                made = self._model.make(*chunk)
        self._tell(done)
        if not chunk.requests:
            return Done([])
        with threads(max(1, get_num_threads() // self._most_workers)):
            return self._run(chunk, made)

    def _run(self, chunk: Chunk, made: Any = None) -> Done:
        """Take the steps of a chunk, of what was made of it; what is done then."""
        requests, began = chunk.requests, monotonic()
        waits = [began - request.submitted for request in requests if request.at == 0]
        answers: list[Any] = [None]
        error: BaseException | None = None
        try:
            answers = self._model.run(*chunk, self._model.make(*chunk) if made is None else made)
        except BaseException as raised:  # whatever a function raises is for who waits for its answer
            error = raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next)
        if error is not None and len(requests) > 1:  # and for nobody else
            error = None
            for request, count in zip(*chunk, strict=True):
                self._tell(self._run(Chunk([request], [count])))
            return Done([])
        now, ended, times = monotonic(), [], []
        with self._lock:
            for request, answer in zip(requests, answers, strict=True):
                if error is None and request.at < len(request.rows):
                    self._line.back(request)
                    continue
                self._line.leave(request)
                if self._ends(request, "answered" if error is None else "failed"):
                    ended.append((request.future, answer, error))
                    times.append(now - request.submitted)
            figures = self._statistics.chunk(len(requests), sum(chunk.counts), now - began, waits, times)
            if self._idle and self._line.waiting:
                self._wake.notify()
        return Done(ended, figures)

    def _ends(self, request: Request, how: str) -> bool:
        """Count a request that has left the line; whether its future is to be ended, and was not cancelled."""
        pending = request.future.set_running_or_notify_cancel()
        self._statistics.counts[how if pending else "cancelled"] += 1
        if not pending:
            self._unended.discard(request.future)
        return pending

    def _tell(self, done: Done) -> None:
        for future, answer, error in done.ended:
            if error is None:
                _surely(future.set_result, answer)
            else:
                _surely(future.set_exception, error)
            self._unended.discard(future)
        done.ended.clear()  # no worker keeps answers
        if self._report is not None and done.figures is not None:
            _surely(self._report, done.figures)

    def _forked(self) -> None:
        """In a forked process, whose requests are the parent's: it has no workers, and locks that nobody will free."""
        unended = list(self._unended)
        self._begin()
        for future in unended:
            future.__init__()  # type: ignore[misc]
            future.cancel()


#: all that there are
_all: WeakSet[Batcher] = WeakSet()


@atexit.register
def _end_all() -> None:
    """End the workers after their present chunks: they must not come back to an interpreter that is ending."""
    for batcher in list(_all):
        batcher.close(cancel=True)


def _surely(call: Callable[[Any], object], value: Any) -> None:
    """Call what is others' code, or calls it: a worker outlives whatever that raises."""
    try:
        call(value)
    except BaseException:
        kind, error, traceback = sys.exc_info()
        threading.excepthook(threading.ExceptHookArgs((kind, error, traceback, threading.current_thread())))
