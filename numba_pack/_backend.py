"""Which backend runs the layers: chosen once, at import."""

from __future__ import annotations

import os

__all__ = ["backend"]


def _choose() -> str:
    asked = os.environ.get("NUMBA_PACK_BACKEND", "auto")
    if asked not in ("auto", "cpu", "cuda"):
        raise ImportError(f"the environment variable NUMBA_PACK_BACKEND must be auto, cpu or cuda; got {asked!r}")
    if asked == "cuda":
        raise ImportError("NUMBA_PACK_BACKEND=cuda: this version of numba_pack has no CUDA backend; use auto or cpu")
    return "cpu"


backend: str = _choose()
