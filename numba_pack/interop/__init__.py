"""Other libraries' models and ragged data, taken over and given back.

========= ================================================================= ==========================
`torch`   layers from and to PyTorch, and drop-in modules that train faster ``pip install numba_pack[torch]``
`onnx`    any model with ONNX's recurrent nodes run, beside ONNX Runtime;   ``pip install numba_pack[onnx]``
          their layers; layers written as such models
`keras`   layers from Keras 3, or from weights alone                        ``pip install numba_pack[keras]``
========= ================================================================= ==========================

What reads ragged data for `pack_ragged` and `pack_sequence`, and gives it back for `unpack_ragged`:

========= ================================================================= ==========================
`awkward` Awkward Array                                                     ``pip install numba_pack[awkward]``
`arrow`   Arrow's lists, and what has its C data interface                  ``pip install numba_pack[arrow]``
`pandas`  columns of arrays                                                 ``pip install numba_pack[pandas]``
`polars`  columns of lists or arrays                                        ``pip install numba_pack[polars]``
`nested`  PyTorch's nested tensors                                          ``pip install numba_pack[torch]``
`dlpack`  arrays of any library that exchanges them
========= ================================================================= ==========================

Each is imported when it is first used: ``import numba_pack`` imports none of these libraries.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["arrow", "awkward", "dlpack", "keras", "nested", "onnx", "pandas", "polars", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
