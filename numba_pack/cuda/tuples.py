"""Tuples of any length in kernels: the numbers of one unit, as formulas take them and give them back.

Kernels cannot make a tuple in a loop, so what makes one is source code with each of its numbers written out. A matrix
has a number in blocks side by side, as a row of gates has, or in rows one above the other, as the states of a batch
have. There may be none of them: then the tuple is empty.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .._jit import inner

__all__ = [
    "add_first", "add_rows", "add_sums", "read_blocks", "read_rows", "read_states", "write_blocks", "write_rows",
]  # fmt: skip

_BLOCK, _ROW = "matrix[row, column + {} * apart]", "matrix[row + {} * apart, column]"


def _made(arguments: str, *lines: str) -> Any:
    namespace: dict[str, Callable[..., Any]] = {}
    exec("\n    ".join([f"def made({arguments}):", *lines]), namespace)
    return inner(namespace["made"])


def _tuple(numbers: list[str]) -> str:
    return f"return ({''.join(number + ', ' for number in numbers)})"


@functools.cache
def add_sums(count: int, of_state: int) -> Any:
    """``(sums, of_input) -> tuple``: of so many numbers the first ``of_state``, with ``sums[0]`` added to them."""
    added = [f"sums[0, {i}] + of_input[{i}]" for i in range(of_state)]
    return _made("sums, of_input", _tuple(added + [f"of_input[{i}]" for i in range(of_state, count)]))


@functools.cache
def read_blocks(count: int) -> Any:
    """``(matrix, row, column, apart) -> tuple``: numbers of one row, so many columns apart."""
    return _made("matrix, row, column, apart", _tuple([_BLOCK.format(i) for i in range(count)]))


@functools.cache
def read_rows(count: int) -> Any:
    """``(matrix, row, column, apart) -> tuple``: numbers of one column, so many rows apart."""
    return _made("matrix, row, column, apart", _tuple([_ROW.format(i) for i in range(count)]))


@functools.cache
def read_states(others: int) -> Any:
    """``(h, matrix, row, column, apart) -> tuple``: h, and then the other states as `read_rows` gives them."""
    return _made("h, matrix, row, column, apart", _tuple(["h", *[_ROW.format(i) for i in range(others)]]))


@functools.cache
def add_rows(others: int) -> Any:
    """``(states, matrix, row, column, apart) -> tuple``: the states, those besides h with `read_rows` added to them."""
    added = [f"states[{i + 1}] + {_ROW.format(i)}" for i in range(others)]
    return _made("states, matrix, row, column, apart", _tuple(["states[0]", *added]))


@functools.cache
def add_first(count: int) -> Any:
    """``(values, x) -> tuple``: the values, x added to the first of them."""
    return _made("values, x", _tuple(["values[0] + x", *[f"values[{i}]" for i in range(1, count)]]))


@functools.cache
def write_blocks(count: int) -> Any:
    """``(values, matrix, row, column, apart)``: the inverse of `read_blocks`."""
    lines = [f"{_BLOCK.format(i)} = values[{i}]" for i in range(count)]
    return _made("values, matrix, row, column, apart", *lines, "return")


@functools.cache
def write_rows(first: int, count: int) -> Any:
    """``(values, matrix, row, column, apart)``: values from ``first`` on, in a column, so many rows apart."""
    lines = [f"{_ROW.format(i)} = values[{first + i}]" for i in range(count)]
    return _made("values, matrix, row, column, apart", *lines, "return")
