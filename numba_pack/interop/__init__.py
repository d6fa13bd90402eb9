"""Other libraries' models, taken over and given back.

========= ================================================================= ==========================
`torch`   layers from and to PyTorch, and drop-in modules that train faster ``pip install numba_pack[torch]``
========= ================================================================= ==========================

Each is imported when it is first used: ``import numba_pack`` imports none of these libraries.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
