"""A pytest plugin that gives every state of the package's sources a Numba cache of its own.

Numba looks at one file to judge whether a cached kernel is stale: the one that defines it. A kernel of this package
is inlined from several files, so after an edit in one of the others the old machine code would be run and tested.
The folder is therefore named by a digest of all that the machine code comes from. It lies in pytest's own cache,
so ``pytest --cache-clear`` empties it. Nothing is compiled ahead by other processes, of which tests have many.

``setup.cfg`` loads this module with ``-p``, which is early enough for the doctests in ``numba_pack`` too.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHES = ROOT / ".pytest_cache" / "d" / "numba"  # "d" is what --cache-clear removes
UNCOMPILED = ("interop", "serving")  # folders in which nothing is compiled
KEPT = 8  # states of the sources whose caches are kept, so that a switch to and fro costs nothing


def digest(package: Path, environ: Mapping[str, str]) -> str:
    """Digest of a package's sources, the compiler's versions and the settings that change what is compiled."""
    key = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        name = source.relative_to(package)
        if name.parts[0] not in UNCOMPILED:
            key.update(name.as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    settings = {
        name: value
        for name, value in environ.items()
        if name.startswith("NUMBA_") and not name.startswith(("NUMBA_PACK_", "NUMBA_CACHE_DIR", "NUMBA_ENABLE_CUDASIM"))
    }
    key.update(repr((version("numba"), version("llvmlite"), sorted(settings.items()))).encode())
    return key.hexdigest()[:16]


def use_cache(cache: Path) -> None:
    """Point this process and its children at a cache folder, and drop the folders that were not used for longest."""
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    os.environ["NUMBA_CACHE_DIR"] = str(cache)
    by_age = sorted(cache.parent.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for old in by_age[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


if "numba" in sys.modules:
    raise RuntimeError("numba was imported before tests/numba_cache.py could choose its cache folder")
os.environ["NUMBA_PACK_AHEAD"] = "0"
use_cache(CACHES / digest(ROOT / "numba_pack", os.environ))
