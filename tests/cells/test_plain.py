"""The functions of formulas on arrays, in plain Python: each equals its definition."""

import inspect

import numpy as np
import pytest
from plain_formulas import Plain

from numba_pack import cells
from numba_pack.cells import functions

X = np.array([-700.0, -3.5, -1.0, -0.5, 0.0, 1e-9, 0.5, 1.0, 2.5, 700.0])
NAMES = [name for name in functions.__all__ if name not in ("product", "where", "fma", "clip")]


@pytest.mark.parametrize("name", NAMES)
def test_a_function_of_arrays_is_that_of_its_definition(name):
    function, expected = getattr(cells, name), getattr(Plain(), name)
    free = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    arguments = (X, X[::-1])[: len(free)]
    with np.errstate(all="ignore"):
        wanted = expected(*arguments)
        np.testing.assert_allclose(function(*arguments), wanted, rtol=1e-14, atol=1e-300)
        single = [argument.astype(np.float32) for argument in arguments]
        assert function(*single).dtype == np.float32
        assert function(*(float(argument[3]) for argument in arguments)) == pytest.approx(
            wanted[3], rel=1e-14, nan_ok=True
        )


def test_a_formula_can_be_tried_on_arrays():
    assert np.array_equal(cells.clip(X, -1, 1), np.clip(X, -1, 1))
    assert np.array_equal(cells.fma(X, X, 1.0), X * X + 1)
    assert np.array_equal(cells.where(X < 0, 1.0, X), np.where(X < 0, 1.0, X))
    assert cells.where(2 < 1, 3.0, 4.0) == 4.0


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"sigmoid must be of numbers of a formula, or of real numbers and .*; got '1'"):
        cells.sigmoid("1")
    with pytest.raises(TypeError, match=r"larger must be of numbers .*; got 1j"):
        cells.maximum(1.0, 1j)


def test_constants_in_a_formula_may_go_through_functions():
    @cells.cell(sums="a", state="h")
    def Scaled(a, h):
        return cells.sigmoid(2.0) * cells.tanh(a)

    assert "0.880797" in str(Scaled)
