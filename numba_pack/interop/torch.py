"""PyTorch: layers from its modules and back, and modules of its own that run on this library.

`from_torch` and `to_torch` copy parameters between a module and a layer; `packed_from_torch` and `packed_to_torch` give
PackedSequences of one as those of the other. `RNN`, `LSTM` and `GRU` are PyTorch's modules with another `forward`:
everything else, such as names, options, checks and pickling, they inherit. `accelerate` gives that `forward` to modules
that exist already.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("numba_pack.interop.torch needs PyTorch: pip install torch") from error
from ._torch_accelerate import Accelerated, accelerate
from ._torch_copy import from_torch, to_torch
from ._torch_modules import GRU, LSTM, RNN
from ._torch_packed import packed_from_torch, packed_to_torch

__all__ = [
    "GRU", "LSTM", "RNN", "Accelerated", "accelerate", "from_torch", "packed_from_torch", "packed_to_torch", "to_torch",
]  # fmt: skip


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


# the name that people know them by, and that pickles hold
for _public in (GRU, LSTM, RNN, Accelerated, accelerate, from_torch, packed_from_torch, packed_to_torch, to_torch):
    _public.__module__ = __name__
