"""Other libraries' models and ragged data, taken over and given back.

========= ================================================================= =================================
`torch`   layers from and to PyTorch, and drop-in modules that train faster ``pip install torch``
`onnx`    any model with ONNX's recurrent nodes run, beside ONNX Runtime;   ``pip install onnx``
          their layers; layers written as such models
`keras`   models of Keras 3 that run faster; layers from them, from files   ``pip install keras``,
          of Keras, or from weights alone                                   or, for files, ``h5py``
`ray`     inference over datasets, applications with streams, and training  ``pip install 'ray[data,serve]'``
          by several processes and machines
========= ================================================================= =================================

What reads ragged data for `pack_ragged` and `pack_sequence`, and gives it back for `unpack_ragged`:

========= ================================================================= =================================
`awkward` Awkward Array                                                     ``pip install awkward``
`arrow`   Arrow's lists, and what has its C data interface                  ``pip install pyarrow``
`pandas`  columns of arrays                                                 ``pip install pandas``
`polars`  columns of lists or arrays                                        ``pip install polars pyarrow``
`nested`  PyTorch's nested tensors                                          ``pip install torch``
`dlpack`  arrays of any library that exchanges them
========= ================================================================= =================================

Each is imported when it is first used: ``import numba_pack`` imports none of these libraries.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["arrow", "awkward", "dlpack", "keras", "nested", "onnx", "pandas", "polars", "ray", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__
