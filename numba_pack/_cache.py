"""Where compiled code is kept, so that a later process finds it: in files that each hold one compiled function.

Numba's own cache needs a folder that can be written to when a function is decorated: where there is none, or where the
disk is full, it fails at import or at the first call. It judges by one source file whether code is stale, but ours is
made of many; and when two processes add to one of its indices at once, one may find the other's function. So this cache
has no index, and takes every failure for a miss: code is looked for in all `PLACES`, and written to the first that
takes it. If none does, every process compiles anew, and one warning says so. Last it is looked for in `SHIPPED`, which
``python -m numba_pack compile --into`` fills and nothing else writes to: a wheel or an image may come with it.

The name of a file and its folder tell all that its code is made of: function, types, what its closure holds, the
processor, Numba's settings, and the state of the sources, which is a digest of their contents. A package that was
copied, installed again or touched finds its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import secrets
import sys
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

__all__ = [
    "FROZEN",
    "MADE_FOR",
    "PLACES",
    "SHIPPED",
    "SOURCES",
    "UNCOMPILED",
    "Cache",
    "file_of",
    "found",
    "keep",
    "keep_in",
    "made_of",
    "place_to_write",
    "tell",
    "tell_of_wait",
]

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
#: folders in which nothing is compiled: who changes them finds all code that is kept
UNCOMPILED = ("interop", "serving")
_NUMBA = os.path.dirname(numba.__file__)
#: whether this is an application that holds its own Python, as PyInstaller makes them
FROZEN = bool(getattr(sys, "frozen", False))


def _contents(package: str) -> Iterator[tuple[str, Any]]:
    """Name and contents of each source file of a package; in an archive or an application, what stands for them."""
    for folder, folders, files in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__"} - set(UNCOMPILED if folder == package else ()))
        for file in sorted(files):
            if file.endswith((".py", ".pyc")):
                path = os.path.join(folder, file)
                with open(path, "rb") as source:
                    yield os.path.relpath(path, package), source.read()
    there = next(path for path in (Path(package), *Path(package).parents) if path.exists())
    if zipfile.is_zipfile(there):
        inside = Path(package).relative_to(there).as_posix() + "/"
        with zipfile.ZipFile(there) as archive:
            of_package = [member for member in archive.infolist() if member.filename.startswith(inside)]
            yield from sorted((member.filename, member.CRC) for member in of_package)
    elif FROZEN and str(there) != package:
        stat = os.stat(sys.executable)
        yield sys.executable, (stat.st_size, stat.st_mtime_ns)


def state_of(package: str) -> int:
    """A number of 63 bits that is another one for other sources of a package, and for another Numba.

    0 if nothing is known of the sources.
    """
    digest = hashlib.blake2b(repr((numba.__version__, llvmlite.__version__)).encode(), digest_size=8)
    known = False
    for name, content in _contents(package):
        content = content if isinstance(content, bytes) else repr(content).encode()
        digest.update(repr((name, len(content))).encode() + content)
        known = True
    return int.from_bytes(digest.digest(), "little") >> 1 if known else 0


_KNOWN = state_of(_PACKAGE)
#: the state of the sources of this package, and of Numba; if it cannot be known, a number that no other process has
SOURCES: int = _KNOWN or secrets.randbits(63)


def _places() -> list[str]:
    """The folders that may hold compiled code: as Numba has them, the user's choice first."""
    if not _KNOWN:
        return []
    folders = [AppDirs("numba", False).user_cache_dir]
    if not FROZEN:  # a frozen application unpacks itself anew each time
        folders.insert(0, os.path.join(_PACKAGE, "__pycache__"))
    if config.CACHE_DIR:
        folders.insert(0, os.path.abspath(config.CACHE_DIR))
    # the folder of a user who has no home is not absolute
    return [_of_these_sources(folder) for folder in folders if os.path.isabs(folder)]


def _of_these_sources(folder: str) -> str:
    return os.path.join(folder, f"numba_pack-{SOURCES:016x}")


PLACES = _places()
#: the folder of code that came with the package
SHIPPED = _of_these_sources(os.path.join(_PACKAGE, "compiled"))


def keep_in(folder: str) -> None:
    """Have this process look for code in one folder alone, and keep it there."""
    PLACES[:] = [_of_these_sources(os.path.abspath(folder))]


#: settings that change the code that Numba makes of a function; the processor is told by the code generator
_SETTINGS = [
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "DEBUG_NRT",
    "DISABLE_INTEL_SVML",
    "LLVM_REFPRUNE_FLAGS",
    "LLVM_REFPRUNE_PASS",
    "LOOP_VECTORIZE",
    "OPT",
    "SLP_VECTORIZE",
    "USING_SVML",
]

#: what else code is made for that the code generator does not tell, as whoever finds it out enters it
MADE_FOR: list[str] = []


def made_of() -> str:
    """What all code of this process is made of and for: where that differs, code has other names."""
    settings = [str(getattr(config, name, None)) for name in (*_SETTINGS, "CPU_NAME", "CPU_FEATURES")]
    return repr((SOURCES, settings, MADE_FOR))


class Cache(NullCache):
    """The store that Numba asks for the compiled code of one function, and gives new code to."""

    def __init__(self, function: Any, key: Any = None) -> None:
        closure = key or tuple(cell.cell_contents for cell in function.__closure__ or ())
        self._name = f"{function.__module__}.{function.__name__}"
        self._key = (
            function.__qualname__,
            function.__code__.co_firstlineno,
            hashlib.sha256(dumps(closure)).hexdigest(),
            [str(getattr(config, name, None)) for name in _SETTINGS],
            (sys.implementation.cache_tag, getattr(sys, "abiflags", ""), sys.flags.optimize > 0),
        )

    @property
    def cache_path(self) -> str | None:
        """What ``stats`` of an entry shows."""
        return PLACES[0] if PLACES else None

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The code for a signature, or None.

        It needs Numba's runtime. It does not need what Numba needs to compile, which to import takes ten times as long.
        """
        rtsys.initialize(target_context)
        for content in found(self._file(sig, target_context.codegen())):
            of, reduced = pickle.loads(content)
            if of == sig:  # the name tells that, too, but not of which module a class is
                return CompileResult._rebuild(target_context, *reduced)
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Keep the code for a signature, if it can be kept."""
        if data.library.has_dynamic_globals:  # addresses are valid in this process only
            return
        keep(self._file(sig, data.codegen), dumps((sig, data._reduce())))

    def _file(self, sig: Any, codegen: Any) -> str:
        return file_of(self._name, repr((self._key, sig, codegen.magic_tuple(), MADE_FOR)), "nbc")


def file_of(name: str, key: str, kind: str) -> str:
    """The name of a file: that of the function, and a digest of all that its code is made of."""
    return f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.{kind}"


def found(file: str) -> Iterator[bytes]:
    """What the files of this name hold, in all places where there is one that is whole."""
    for place in (*PLACES, SHIPPED):
        content = _read(os.path.join(place, file))
        if content is not None:
            yield content


def keep(file: str, content: bytes) -> None:
    """Write a file to the first place that takes it; if none does, there is something to `tell`."""
    failures = []
    for place in PLACES:
        try:
            _write(place, file, content)
        except OSError as error:
            failures.append(f"{place}: {error.strerror or error}")
        else:
            return
    _untold.append("; ".join(failures) or "the state of the sources cannot be known")


def _read(path: str) -> bytes | None:
    """The contents of a file, if it is there and whole."""
    try:
        with open(path, "rb") as file:
            check, content = file.read(4), file.read()
    except OSError:
        return None
    # a file of zeros, as a system that crashed may leave, would be whole: the sum of no content is zero
    return content if content and zlib.crc32(content).to_bytes(4, "little") == check else None


def _write(place: str, name: str, content: bytes) -> None:
    """Make a file so that others see it whole or not at all."""
    os.makedirs(place, exist_ok=True)
    path = os.path.join(place, name)
    unfinished = f"{path}.{uuid.uuid4().hex[:16]}"
    try:
        with open(unfinished, "wb") as file:
            file.write(zlib.crc32(content).to_bytes(4, "little") + content)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def place_to_write() -> str | None:
    """The first of the places that takes a file, if any."""
    for place in PLACES:
        try:
            _write(place, "place_to_write", b"")
            os.unlink(os.path.join(place, "place_to_write"))
        except OSError:
            continue
        return place
    return None


_told = False
#: why code was not kept: to be told where it was asked for, and not where it was compiled
_untold: list[str] = []


def tell() -> None:
    """Warn, once, that code could not be kept."""
    global _told
    if _untold and not _told:
        _told = True
        tried = _untold[0]
        warnings.warn(
            "numba_pack cannot keep what it compiles, so that every process compiles it anew: set NUMBA_CACHE_DIR to a "
            f"folder that can be written to, or that was filled by another process ({tried})",
            RuntimeWarning,
            stacklevel=_level_of_caller(),
        )


def _level_of_caller() -> int:
    """How far up the first function outside this package and Numba is: the one whose line `tell` names."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith((_PACKAGE, _NUMBA)):
        level, frame = level + 1, frame.f_back
    return level


_waits = False


def tell_of_wait() -> None:
    """Say, once, what a call waits for: to the log, or if nobody has set one up, to who sits before the screen."""
    global _waits
    if _waits:
        return
    _waits = True
    kept = f"kept in {place}" if (place := place_to_write()) else "kept nowhere: set NUMBA_CACHE_DIR"
    text = f"numba_pack compiles what runs for the first time: five to ten seconds for each kind of layer, then {kept}"
    log = logging.getLogger("numba_pack")
    if log.hasHandlers():
        log.info(text)
        return
    with contextlib.suppress(Exception):  # whatever stands for stderr
        if sys.stderr.isatty() or hasattr(sys, "ps1"):  # a terminal, or a notebook
            print(text, file=sys.stderr, flush=True)
