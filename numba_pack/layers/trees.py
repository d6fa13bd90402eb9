"""Nested parameters, and those of Flax's and Equinox's cells, under PyTorch's names.

The equations of these cells are PyTorch's, with its gates in its order: i, f, g, o and r, z, n. Flax's kernels are
transposed, one for each gate or one for all. Of the two biases that gates have there is one; the other is zero here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._arguments import kind_of

__all__ = ["under_pytorchs_names"]

#: of Flax's cells, what the input goes through, and what the state goes through
_FLAX = (
    (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
    (("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")),
    (("ir", "iz", "in"), ("hr", "hz", "hn")),
    (("i",), ("h",)),
    (("dense_i",), ("dense_h",)),
)
#: where Flax's Bidirectional has its cells, and how PyTorch's names of either direction end
_DIRECTIONS = {"forward_rnn.cell.": "", "backward_rnn.cell.": "_reverse"}
#: what an Equinox cell has besides its two matrices
_EQUINOX = ("bias", "bias_n", "input_size", "hidden_size", "use_bias")


def under_pytorchs_names(state_dict: Mapping[Any, Any]) -> dict[Any, Any]:
    """A state dict in which mappings within are names with dots, and cells of Flax and Equinox are PyTorch's layers."""
    found = dict(_flat(state_dict))
    cells = {**dict(_of_flax(found)), **dict(_of_equinox(found))}
    for prefix, parameters in cells.items():
        place, end = prefix, ""
        for direction, its_end in _DIRECTIONS.items():
            both = prefix.removesuffix(direction)
            if prefix != both and all(both + other in cells for other in _DIRECTIONS):
                place, end = both, its_end
        found |= {f"{place}{name}_l0{end}": value for name, value in parameters.items()}
    return found


def _flat(values: Mapping[Any, Any], before: str = "") -> Iterator[tuple[Any, Any]]:
    for key, value in values.items():
        if isinstance(value, (list, tuple)) and any(isinstance(one, Mapping) for one in value):
            value = dict(enumerate(value))
        name = ".".join(map(str, key)) if isinstance(key, tuple) else key
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}" if before else name, value


def _of_flax(found: dict[Any, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each cell its prefix and its parameters by PyTorch's names; its own are taken out."""
    for name in [name for name in found if isinstance(name, str)]:
        for of_input, of_state in _FLAX:
            prefix = name.removesuffix(f"{of_state[0]}.kernel")
            kernels = [f"{prefix}{gate}.kernel" for gate in (*of_input, *of_state)]
            if prefix == name or prefix[-1:] not in ("", ".") or not all(kernel in found for kernel in kernels):
                continue
            parts = {kernel: _array(found.pop(kernel), kernel, 2) for kernel in kernels}
            biases = [f"{prefix}{gate}.bias" for gate in (*of_input, *of_state)]
            there = {bias: value for bias in biases if (value := found.pop(bias, None)) is not None}
            parameters = {}
            for which, gates in (("ih", of_input), ("hh", of_state)):
                matrices = [parts[f"{prefix}{gate}.kernel"] for gate in gates]
                if len({matrix.shape for matrix in matrices}) > 1:
                    told = ", ".join(f"{prefix}{gate}.kernel" for gate in gates)
                    raise ValueError(f"state_dict must have {told} of one shape; got {[m.shape for m in matrices]}")
                parameters[f"weight_{which}"] = np.concatenate(matrices, axis=1).T
                if there:
                    parameters[f"bias_{which}"] = np.concatenate(
                        [
                            _array(there[bias], bias, 1) if bias in there else np.zeros(matrix.shape[1], matrix.dtype)
                            for matrix, bias in zip(matrices, (f"{prefix}{gate}.bias" for gate in gates), strict=True)
                        ]
                    )
            yield prefix, parameters


def _of_equinox(found: dict[Any, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same. Without the name of its bias, a cell has PyTorch's names already."""
    for name in [name for name in found if isinstance(name, str)]:
        prefix = name.removesuffix("bias")
        matrices = [f"{prefix}weight_{which}" for which in ("ih", "hh")]
        if prefix == name or prefix[-1:] not in ("", ".") or not all(matrix in found for matrix in matrices):
            continue
        parameters = {matrix.removeprefix(prefix): found.pop(matrix) for matrix in matrices}
        bias, bias_n, *_ = (found.pop(prefix + other, None) for other in _EQUINOX)
        if bias is not None:
            parameters["bias_ih"] = _array(bias, f"{prefix}bias", 1)
            of_state = np.zeros_like(parameters["bias_ih"])
            if bias_n is not None:
                n = _array(bias_n, f"{prefix}bias_n", 1)
                of_state[len(of_state) - len(n) :] = n
            parameters["bias_hh"] = of_state
        yield prefix, parameters


def _array(value: Any, name: str, ndim: int) -> np.ndarray:
    """An array of any library's floats, in NumPy's."""
    array: np.ndarray = np.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        if array.dtype.kind not in "fV" or array.dtype.names:  # V is what JAX's bfloat16 is to NumPy
            raise TypeError(f"state_dict[{name!r}] must be of floats; got {kind_of(value)} of {array.dtype}")
        array = array.astype(np.float32)
    if array.ndim != ndim:
        raise ValueError(f"state_dict[{name!r}] must have {ndim} dimensions; its shape is {array.shape}")
    return array
