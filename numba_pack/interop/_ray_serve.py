"""A layer as an application of Ray Serve, and what asks it.

Each replica has the layer, a `Batcher` for whole sequences, and `Streams`. What happens when a replica dies rests on
this: an answer follows from the question alone, whoever gives it. A sequence is asked for again. A chunk of a stream is
asked for with its number, and with the number of the chunk after which it comes, which is the last whose answer was
taken:

- The answer to a chunk is taken once, by who asks, together with the state after it. Only then is the chunk done.
- A replica that had the chunk already gives the answer that it gave.
- One that has the stream where the chunk begins goes on from there; it keeps the state before its last chunk, too,
  whose answer may have been given up.
- Any other says that it does not have the stream, and is given the state, if who asks keeps states.

So replicas hold nothing that is not held elsewhere, and may also forget the streams that were not used for longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import random
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from .._arguments import kind_of
from ..cpu.threads import set_num_threads
from ..layers.layer import Layer
from ..layers.storage import load
from ..layers.warm import warmup
from ..packing.checks import as_flag, as_size
from ..serving.batcher import Batcher
from ..serving.streams import Streams

__all__ = ["Service", "Stream", "StreamLost", "application"]

#: what an answer ends with if its replica died, or its machine
GONE = (RayActorError, WorkerCrashedError, ObjectLostError)
#: replicas that may die while they work at the same question: it may be what they die of
TRIES = 4


def application(
    layer: Layer[Any] | str | os.PathLike[str],
    num_replicas: int = 1,
    *,
    num_cpus: int = 1,
    capacity: int = 256,
    streams: int = 4096,
    max_queued_requests: int = 1024,
    **options: Any,
) -> serve.Application:
    """A Ray Serve application that answers whole sequences and streams: see `Service`.

    Parameters
    ----------
    layer : layer, or path of a file
        As `save` writes it. It is read here, and sent to each replica. One of a cell of your own is to be read by
        `load` before, which takes the cell.
    num_replicas : int
        How many processes answer. A replica that dies is replaced.
    num_cpus : int
        The CPUs of a replica, which are its threads.
    capacity : int
        How many questions a replica works on at once.
    streams : int
        How many streams a replica keeps, at least `capacity`: of each two states and the last answer. More may be open:
        those that were not used for longest go on from the states that are kept where they are asked for.
    max_queued_requests : int
        How many questions may wait for a place, in each process that asks. One more is refused at once, with
        `ray.serve.exceptions.BackPressureError`.
    **options
        More of `ray.serve.deployment`, such as ``autoscaling_config``.

    Returns
    -------
    ray.serve.Application
        For `ray.serve.run`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or is out of range.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import asyncio
    >>> import numpy as np
    >>> from ray import serve
    >>> import numba_pack as nbp
    >>> from numba_pack.interop.ray import Service, application
    >>> gru, x = nbp.GRU(3, 2, rng=0), np.ones((7, 3), np.float32)
    >>> service = Service(serve.run(application(gru)))  # doctest: +SKIP
    >>> async def ask():
    ...     whole, state = await service.run(x)
    ...     async with service.stream() as stream:
    ...         return whole, [await stream.feed(x[:4]), await stream.feed(x[4:])]
    >>> whole, parts = asyncio.run(ask())  # doctest: +SKIP
    >>> bool((whole == gru(x)[0]).all()), bool((whole == np.concatenate(parts)).all())  # doctest: +SKIP
    (True, True)
    >>> serve.shutdown()  # doctest: +SKIP
    """
    if isinstance(layer, (str, os.PathLike)):
        layer = load(layer)
    if not isinstance(layer, Layer):
        raise TypeError(
            f"layer must be a layer, as LSTM or what a cell makes, or its file; got {kind_of(layer, Layer)}"
        )
    num_cpus, capacity = as_size(num_cpus, "num_cpus"), as_size(capacity, "capacity")
    deployment = serve.deployment(
        name="numba_pack",
        num_replicas=as_size(num_replicas, "num_replicas"),
        max_ongoing_requests=capacity,
        max_queued_requests=as_size(max_queued_requests, "max_queued_requests"),
        ray_actor_options={"num_cpus": num_cpus},
        request_router_config=RequestRouterConfig(request_router_class=_Router),
        **{"logging_config": {"enable_access_log": False}, **options},
    )
    return deployment(_Replica).bind(layer, num_cpus, capacity, as_size(streams, "streams", least=capacity))


# -- who asks ----------------------------------------------------------------------------------------------------------


class StreamLost(RuntimeError):
    """The replica that had a stream is gone or has forgotten it, and its state was not kept elsewhere."""


class Service:
    """Asks a running application.

    Parameters
    ----------
    handle : ray.serve.handle.DeploymentHandle
        What `ray.serve.run` returns for an `application`, or `ray.serve.get_app_handle`; or what a deployment is given
        to which the application is bound, as one that takes HTTP requests.

    Raises
    ------
    TypeError
        If it is no such handle.

    Examples
    --------
    See `application`.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        if not isinstance(handle, DeploymentHandle):
            raise TypeError(f"handle must be a DeploymentHandle, as ray.serve.run returns; got {kind_of(handle)}")
        self._handle = handle

    async def run(self, sequence: Any) -> Any:
        """The answer to one sequence, as of `numba_pack.serving.Batcher`.

        Parameters
        ----------
        sequence : ndarray, shape (T, I), or (T,) of symbols
            In the dtype of the layer, or integers that it takes for symbols.

        Returns
        -------
        tuple
            Outputs and last state: what the layer gives for the sequence alone, bit for bit. Arrays are read-only.

        Raises
        ------
        TypeError, ValueError
            If the sequence has the wrong kind, dtype or shape.
        ray.serve.exceptions.BackPressureError
            If too many questions wait.
        ray.exceptions.RayActorError
            If one replica after the other died while it worked at this sequence.
        """
        return await _answered(lambda: self._handle.run.remote(sequence))

    def stream(self, resume: bool = True) -> Stream:
        """Begin a stream, from a state of zeros.

        Parameters
        ----------
        resume : bool
            Whether its state comes with every answer, so that the stream goes on with another replica when its own dies
            or has no place for it any more. If not, it ends then, with `StreamLost`.

        Returns
        -------
        Stream

        Raises
        ------
        TypeError
            If ``resume`` is not a bool.
        """
        return Stream(self._handle, as_flag(resume, "resume"))


class Stream:
    """A sequence that comes in chunks, made by `Service.stream`; in an ``async with`` it ends with the block.

    It stays with one replica, as long as that lives. All outputs are those of the layer for the whole sequence, bit for
    bit and each once, whatever happens in between.
    """

    def __init__(self, handle: DeploymentHandle, resume: bool) -> None:
        self._handle, self._resume = handle, resume
        #: the session
        self.id = uuid4().hex
        #: of the last chunk that was sent, and of the last whose answer was taken, with the state after it
        self._number = self._done = 0
        self._state: Any = None
        self._replica = ""
        self._closed = False
        self._lock = asyncio.Lock()

    @property
    def replica(self) -> str:
        """The id of the replica that gave the last answer."""
        return self._replica

    async def feed(self, chunk: Any) -> Any:
        """Take the next steps.

        A call that raises an error, or is cancelled, has not taken them: the stream goes on from where it was. Calls
        wait for each other.

        Parameters
        ----------
        chunk : ndarray, shape (T, I), or (T,) of symbols
            In the dtype of the layer, or integers that it takes for symbols.

        Returns
        -------
        ndarray, shape (T, P)
            With ``return_states`` a tuple of all states. Arrays are read-only.

        Raises
        ------
        TypeError, ValueError
            If the chunk has the wrong kind, dtype or shape; if the layer is of both directions, which begins with the
            last step of a sequence.
        StreamLost
            If the stream has ended, since its replica is gone and it was not to resume.
        RuntimeError
            If it is closed.
        ray.serve.exceptions.BackPressureError
            If too many questions wait.
        ray.exceptions.RayActorError
            If one replica after the other died while it worked at this chunk.
        """
        async with self._lock:
            if self._closed:
                raise RuntimeError("the stream is closed: it takes no more steps")
            self._number += 1
            asked = _Feed(self.id, self._number, self._done, chunk, None, self._resume)
            answer = await self._ask(asked)
            if answer is None and self._resume:
                answer = await self._ask(asked._replace(state=self._state))
            if answer is None:
                raise StreamLost(
                    f"stream {self.id} is lost: its replica is gone or has forgotten it after {self._done} chunks; "
                    "resume=True keeps its state"
                )
            output, self._state = answer
            self._done = self._number
            return output

    async def _ask(self, feed: _Feed) -> Any:
        self._replica, answer = await _answered(lambda: self._handle.feed.remote(feed, replica=self._replica))
        return answer

    async def close(self) -> None:
        """End the stream: its replica forgets it."""
        async with self._lock:
            self._closed = True
            with contextlib.suppress(*GONE):
                await _answered(lambda: self._handle.forget.remote(self.id, replica=self._replica))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


async def _answered(ask: Callable[[], Any]) -> Any:
    """The answer to a question, which is asked again if its replica dies.

    In a context of its own: questions that an application asks for one of its requests would have the id of that, by
    which a router tells questions apart.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(*GONE):
            return await Context().run(ask)
    return await Context().run(ask)


class _Router(RequestRouter):
    """Sends what names a replica to that one, as long as it lives; all else to the freer one of two."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # before it chooses again
            wanted = pending_request.kwargs.get("replica")
            found = [replica for replica in candidate_replicas if replica.replica_id.unique_id == wanted]
            if found:
                return [found]
        return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]


# -- who answers -------------------------------------------------------------------------------------------------------


class _Feed(NamedTuple):
    """A chunk of a stream, and what a replica has to know of it."""

    session: str
    #: of this chunk: each has a higher one than all before, also than those that were given up
    number: int
    #: of the chunk before it; 0 if it is the first
    after: int
    rows: Any
    #: after that chunk, if the replica does not have it
    state: Any
    #: whether the answer is to have the state after this chunk
    with_state: bool


@dataclass(eq=False)
class _Kept:
    """A stream of a replica: its id in `Streams`, where it is, and where it was before."""

    id: int
    number: int
    #: to the chunk of this number; None if it was not computed here
    answer: Any = None
    before: int = -1
    state_before: Any = None


class _Sessions:
    """The streams of a replica, by their sessions. Calls wait for each other."""

    def __init__(self, layer: Layer[Any], capacity: int) -> None:
        self._streams = Streams(layer, capacity)
        #: those that were used last are last
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = Lock()

    def answer(self, feeds: list[_Feed]) -> list[Any]:
        """To each chunk (output, state); None, if the stream is not here where the chunk begins; or an error."""
        with self._lock:
            answers: list[Any] = [None] * len(feeds)
            left = list(range(len(feeds)))
            while left:  # chunks of one stream are taken one after the other
                first = {feeds[i].session: i for i in reversed(left)}
                self._take({i: feeds[i] for i in first.values()}, answers)
                left = [i for i in left if first[feeds[i].session] != i]
            return answers

    def forget(self, session: str) -> None:
        """End a stream, if it is here."""
        with self._lock:
            kept = self._kept.pop(session, None)
            if kept is not None:
                self._streams.close(kept.id)

    def _take(self, feeds: dict[int, _Feed], answers: list[Any]) -> None:
        """Answer one chunk of each of some streams, in one call of the layer."""
        ready: dict[int, tuple[_Kept, Any]] = {}
        for i, feed in feeds.items():
            kept = self._kept.get(feed.session)
            if kept is not None and feed.number <= kept.number:  # asked again; or late, and nobody waits for it
                answers[i] = kept.answer if feed.number == kept.number else None
            elif (kept := self._placed(feed, kept)) is not None:
                ready[i] = kept, self._streams.state(kept.id)
        outputs = self._outputs({kept.id: feeds[i].rows for i, (kept, _) in ready.items()})
        for i, (kept, before) in ready.items():
            output, feed = outputs[kept.id], feeds[i]
            if not isinstance(output, Exception):
                state = self._streams.state(kept.id) if feed.with_state else None
                output = copy.deepcopy(output), state  # a view would keep the outputs of all others, too
                kept.number, kept.answer = feed.number, output
                kept.before, kept.state_before = feed.after, before
            answers[i] = output

    def _placed(self, feed: _Feed, kept: _Kept | None) -> _Kept | None:
        """The stream with the state after which the chunk comes; None if that is not known here."""
        if kept is not None and feed.after not in (kept.number, kept.before) and feed.state is None:
            return None
        if kept is None:
            if feed.after and feed.state is None:
                return None
            if len(self._streams) == self._streams.capacity:
                self._streams.close(self._kept.popitem(last=False)[1].id)
            kept = self._kept[feed.session] = _Kept(self._streams.open(), 0)
        self._kept.move_to_end(feed.session)
        if feed.after != kept.number:
            state = kept.state_before if feed.after == kept.before else feed.state
            self._streams.set_state(kept.id, state)
            kept.number, kept.answer = feed.after, None
        return kept

    def _outputs(self, chunks: dict[int, Any]) -> dict[int, Any]:
        """Of each chunk, by the stream, the outputs or the error: one that cannot be right fails alone."""
        try:
            return self._streams.feed(chunks)
        except Exception as error:
            if len(chunks) == 1:
                return dict.fromkeys(chunks, error)
            return {id: self._outputs({id: rows})[id] for id, rows in chunks.items()}


class _Replica:
    """What runs in each process of the application."""

    def __init__(self, layer: Layer[Any], num_cpus: int, capacity: int, streams: int) -> None:
        set_num_threads(num_cpus)
        warmup(layer)
        self._layer, self._batcher = layer, Batcher(layer, capacity)
        self._sessions = None if layer.bidirectional or layer.reverse else _Sessions(layer, streams)
        self._id = serve.get_replica_context().replica_id.unique_id
        self._tick.set_max_batch_size(capacity)

    async def run(self, sequence: Any) -> Any:
        return await self._batcher.run(sequence)

    async def feed(self, feed: _Feed, replica: str) -> tuple[str, Any]:
        """The answer to a chunk, and by whom; the router has read which replica was meant."""
        answer = await self._tick(feed)
        if isinstance(answer, Exception):
            raise answer
        return self._id, answer

    @serve.batch(batch_wait_timeout_s=0)
    async def _tick(self, feeds: list[_Feed]) -> list[Any]:
        """All chunks that came while the last ones were computed. It goes on if who waits for one is gone."""
        sessions = self._sessions or _Sessions(self._layer, 1)  # which tells why such a layer has none
        return await asyncio.to_thread(sessions.answer, feeds)

    async def forget(self, session: str, replica: str) -> None:
        if self._sessions is not None:
            await asyncio.to_thread(self._sessions.forget, session)
