"""PyTorch: layers from its modules and back, and modules of its own that run on this library.

`from_torch` and `to_torch` copy parameters between a module and a layer. `RNN`, `LSTM` and `GRU` are PyTorch's modules
with another `forward`: everything else, such as names, options, checks and pickling, they inherit. `accelerate` gives
that `forward` to modules that exist already.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("numba_pack.interop.torch needs PyTorch: pip install numba_pack[torch]") from error
from ._torch_accelerate import Accelerated, accelerate
from ._torch_copy import from_torch, to_torch
from ._torch_modules import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Accelerated", "accelerate", "from_torch", "to_torch"]

for _public in (GRU, LSTM, RNN, Accelerated, accelerate, from_torch, to_torch):
    _public.__module__ = __name__  # the name that people know them by, and that pickles hold
