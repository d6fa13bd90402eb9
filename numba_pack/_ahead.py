"""What will be needed soon is compiled ahead, by other processes, while this one compiles what it needs first.

Numba compiles on one CPU, and most of its work is Python, which threads would not divide. So who knows that a function
will be needed asks for it (`ask`). Where all code is found in the cache, nothing comes of that. When something has to
be compiled (`missed`), a process is started on a CPU that is idle: it compiles what was asked for, into the same cache.
Who then needs a function that is being compiled there (`wait_for`) compiles what else was asked for, waits, and finds
the code in the cache. If it is not there, for whatever reason, it is compiled here.

Such a process imports this package and never the program. It reads and writes nothing but the cache and two pipes, by
which it is given one job after the other. It ends when there is none for a while, and with this process in any case. Of
many programs that begin at once with an empty cache, one has such processes. ``NUMBA_PACK_AHEAD`` is how many it may
have; 0 forbids it.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from numba.core import entrypoints

from ._available import cpus_there, memory_there
from ._cache import FROZEN, PLACES, made_of, place_to_write
from ._forks import tell_of_forks

__all__ = ["ask", "missed", "wait_for"]

_NAME = "NUMBA_PACK_AHEAD"
#: processes, at most: a step of training has three large functions
MOST = 3
#: bytes that have to be free for each: it takes a third of that
ROOM = 1 << 30
#: seconds after which a process ends that nothing is asked of
IDLE = 5.0
#: seconds for which a function is waited for, at most: several times what it takes
LONGEST = 60.0


def _allowed() -> int:
    given = os.environ.get(_NAME, str(MOST))
    if not given.isdecimal():
        raise ImportError(f"the environment variable {_NAME} must be an integer from 0; got {given!r}")
    return int(given)


ALLOWED = _allowed()


def _useful() -> int:
    """How many processes are of use: none where there is no Python to run, or where no code can be kept."""
    if not ALLOWED or FROZEN or not os.path.basename(sys.executable or "").lower().startswith("python"):
        return 0
    return int(min(ALLOWED, cpus_there() - 1, memory_there() / ROOM)) if place_to_write() else 0


class _Job:
    """A call to be made once, here or in another process."""

    def __init__(self, rank: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.rank, self.call = rank, (function, arguments)
        self._free = _thread.allocate_lock()
        #: nobody has to wait for another process, or has to no longer
        self.over = threading.Event()

    def take(self) -> bool:
        """Whether the job is the caller's from now on: it is the first one's."""
        return self._free.acquire(blocking=False)

    def take_here(self) -> bool:
        """The same for this process, where who wants the same function waits for Numba."""
        taken = self.take()
        if taken:
            self.over.set()
        return taken


def _do(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(Exception):  # who needs the function will see
        function(*arguments)


class _Others:
    """The processes that compile for this one, and what was asked for.

    Each is served by a thread, and has a seat: there are as many seats as there may be processes.
    """

    def __init__(self) -> None:
        self.jobs: dict[Hashable, _Job] = {}
        #: something for each job that was not looked for yet
        self.news: SimpleQueue[None] = SimpleQueue()
        self.seats: SimpleQueue[int] | None = None
        #: seats of those without a job
        self.free: set[int] = set()
        self.living: set[subprocess.Popen[bytes]] = set()
        self.mark = _Mark()

    def ask(self, key: Hashable, job: _Job) -> None:
        if self.jobs.setdefault(key, job) is job:
            self.news.put(None)
            if self.seats is not None:  # something had to be compiled
                self.grow()

    def grow(self) -> None:
        """Start a process, if there is something to do that none is free for, or if there was none before."""
        if self.seats is None:
            seats: SimpleQueue[int] = SimpleQueue()
            for seat in range(_useful()):
                seats.put(seat)
            self.seats = seats
        elif self.news.empty():
            return
        with contextlib.suppress(Empty, RuntimeError):  # all have their work; the system has no thread left
            if not self.free:
                seat = self.seats.get_nowait()
                self.free.add(seat)
                _thread.start_new_thread(self.serve, (seat, self.seats))

    def serve(self, seat: int, seats: SimpleQueue[int]) -> None:
        """Have a process do one job after the other, until there is none for a while."""
        job = process = None
        marked = False
        try:
            marked = self.mark.take()
            if not marked:
                return
            with _started() as process:  # which is waited for, and ends with its pipes
                self.living.add(process)
                _send(process, (made_of(), PLACES))
                while process.stdout.readline():  # it is ready, or has done the job
                    if job:
                        job.over.set()
                    self.free.add(seat)
                    job = self.next()
                    self.free.discard(seat)
                    if job is None:
                        return
                    _send(process, job.call)
        except Exception:  # the process could not be started, or has died
            pass
        finally:
            if job:
                job.over.set()
            self.free.discard(seat)
            seats.put(seat)  # and then the process is forgotten: who sees none can start one
            self.living.discard(process)
            if marked:
                self.mark.leave()

    def in_order(self) -> list[_Job]:
        return sorted(list(self.jobs.values()), key=lambda job: job.rank)

    def next(self) -> _Job | None:
        with contextlib.suppress(Empty):
            while True:
                self.news.get(timeout=IDLE)
                for job in self.in_order():
                    if job.take():
                        return job
        return None

    def wait_for(self, key: Hashable) -> None:
        job = self.jobs.get(key)
        if job is None or job.take_here():
            return
        for other in reversed(self.in_order()):
            if job.over.is_set():
                return
            if other.take_here():
                _do(*other.call)
        job.over.wait(LONGEST)

    def end(self) -> None:
        """End the processes, before this one ends."""
        for process in list(self.living):
            process.kill()
            process.wait()
        self.mark.remove()

    def _forked(self) -> None:
        """Know of nothing, in a forked process: the others are not its own."""
        for process in self.living:
            process.returncode = 0
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        self.__init__()  # type: ignore[misc]


class _Mark:
    """A file beside the code that is there while a program has others compile, and names it by its process."""

    #: seconds after which it was forgotten
    OLD = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: str | None = None
        self._holders = 0

    def take(self) -> bool:
        """Whether the file is this program's; it stays until all have left it who took it."""
        with self._lock:
            if not self._path:
                self._path = self._made()
            self._holders += self._path is not None
            return self._path is not None

    def leave(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self.remove()

    def remove(self) -> None:
        path, self._path = self._path, None
        if path:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _made(self) -> str | None:
        place = place_to_write()
        if not place:
            return None
        path = os.path.join(place, "ahead")
        with contextlib.suppress(OSError, ValueError):
            if time.time() - os.path.getmtime(path) > self.OLD or _has_ended(int(Path(path).read_text())):
                os.unlink(path)
        try:
            with open(path, "x") as file:
                file.write(str(os.getpid()))
        except OSError:
            return None
        return path


def _has_ended(process: int) -> bool:
    """Whether a process is no longer there, as far as that can be asked without ending it."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


_others = _Others()
tell_of_forks(_others)
atexit.register(lambda: _others.end())


def ask(rank: int, key: Hashable, function: Callable[..., object], *arguments: Any) -> None:
    """Say that a call will be needed that compiles the function of a key. Those of low rank are made first.

    Other processes find the called function by its name, and get the arguments pickled.
    """
    _others.ask(key, _Job(rank, function, arguments))


def missed() -> None:
    """Say that something has to be compiled, as it was not kept."""
    _others.grow()


def wait_for(key: Hashable) -> None:
    """Wait while another process compiles the function of this key; from now on no other one begins it."""
    _others.wait_for(key)


# -- the other process -------------------------------------------------------------------------------------------------

#: with the same modules, whatever the current folder holds; but Numba imports SciPy only to call its linear algebra
_COMMAND = """
import sys
sys.path[:] = sys.argv[1:]
sys.modules["scipy"] = None
from numba_pack import _ahead
_ahead.work()
"""


def _started() -> Any:
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    return subprocess.Popen(
        [sys.executable, *flags, "-c", _COMMAND, *[path for path in sys.path if isinstance(path, str)]],
        env={**os.environ, _NAME: "0", "NUMBA_PACK_BACKEND": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _send(process: Any, value: object) -> None:
    process.stdin.write(pickle.dumps(value).hex().encode() + b"\n")


def _received(line: bytes) -> Any:
    return pickle.loads(bytes.fromhex(line.decode()))


def work() -> None:
    """Compile what comes by the standard input, and answer with a line for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)  # the program has ended, or needs nothing more

    _thread.start_new_thread(read, ())
    same, PLACES[:] = _received(lines.get())
    if same != made_of():  # the sources were edited, or the program has changed Numba's settings
        os._exit(0)
    gc.disable()  # it lives for a few seconds
    entrypoints._already_initialized = True  # what extends Numba is for the program's own functions
    while True:
        os.write(answers, b"\n")
        _do(*_received(lines.get()))
