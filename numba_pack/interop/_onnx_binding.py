"""Inputs and outputs that are bound to memory beforehand: what ``onnxruntime.IOBinding`` is, on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper
from onnxruntime import OrtValue

if TYPE_CHECKING:
    from ._onnx_session import Session

__all__ = ["Binding"]


class Binding:
    """What a session reads and writes, run after run: `Session.io_binding` makes one.

    It is called as ``onnxruntime.IOBinding``. Memory is read and written when the session runs, so its contents may
    change in between, and it must be there then. All memory is the CPU's.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._inputs: dict[str, Any] = {}
        #: by name: memory, as an array or an OrtValue, or None for a new array each time
        self._outputs: dict[str, Any] = {}
        self._found: list[Any] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray) -> None:
        """Take an input from an array."""
        self._inputs[name] = arr_on_cpu

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Take an input from memory: ``buffer_ptr`` is its address."""
        _check_cpu(name, device_type)
        self._inputs[name] = _memory(element_type, shape, buffer_ptr)

    def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
        """Take an input from an ``onnxruntime.OrtValue``."""
        _check_cpu(name, ortvalue.device_name())
        self._inputs[name] = ortvalue

    def bind_output(
        self, name: str, device_type: str = "cpu", device_id: int = 0, element_type: Any = None,
        shape: Sequence[int] | None = None, buffer_ptr: int | None = None,
    ) -> None:  # fmt: skip
        """Want an output: in this memory or, if there is no address, in a new array each time."""
        _check_cpu(name, device_type)
        if buffer_ptr is not None and (element_type is None or shape is None):
            raise ValueError(f"element_type and shape of {name} must be given with buffer_ptr; got None")
        self._outputs[name] = None if buffer_ptr is None else _memory(element_type, shape, buffer_ptr)

    def bind_ortvalue_output(self, name: str, ortvalue: Any) -> None:
        """Want an output in an ``onnxruntime.OrtValue``."""
        _check_cpu(name, ortvalue.device_name())
        self._outputs[name] = ortvalue

    def run(self, run_options: Any) -> None:
        """Run the session: what ``run_with_iobinding`` does."""
        if not self._outputs:
            raise ValueError("iobinding must have outputs that are bound, by bind_output; got none")
        names = list(self._outputs)
        self._found = self.session.run(names, self._inputs, run_options)
        for name, found in zip(names, self._found, strict=True):
            memory = self._outputs[name]
            if memory is None:
                continue
            shape = memory.shape if isinstance(memory, np.ndarray) else tuple(memory.shape())
            if shape != found.shape:
                raise ValueError(f"output {name} must be bound to memory of shape {found.shape}; got {shape}")
            if isinstance(memory, np.ndarray):
                np.copyto(memory, found, casting="no")
            else:
                memory.update_inplace(found)

    def get_outputs(self) -> list[Any]:
        """The outputs of the last run, each an ``onnxruntime.OrtValue``."""
        bound = self._outputs.values()
        return [
            memory if isinstance(memory, OrtValue) else OrtValue.ortvalue_from_numpy(found)
            for memory, found in zip(bound, self._found, strict=True)
        ]

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The outputs of the last run, in the order in which they were bound."""
        return [one.copy() if isinstance(one, np.ndarray) else one for one in self._found]

    def clear_binding_inputs(self) -> None:
        """Bind no input any more."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Bind no output any more."""
        self._outputs.clear()
        self._found = []

    def synchronize_inputs(self) -> None:
        """Do nothing: on the CPU nothing is under way."""

    def synchronize_outputs(self) -> None:
        """Do nothing: on the CPU nothing is under way."""


def _check_cpu(name: str, device_type: str) -> None:
    if device_type.lower() != "cpu":
        raise ValueError(f"device_type of {name} must be 'cpu', where the recurrent nodes run; got {device_type!r}")


def _memory(element_type: Any, shape: Any, address: int) -> np.ndarray:
    """An array on memory at an address; the type is NumPy's, or ONNX's number."""
    dtype = helper.tensor_dtype_to_np_dtype(element_type) if isinstance(element_type, int) else np.dtype(element_type)
    shape = tuple(shape)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, (ctypes.c_char * size).from_address(address))
