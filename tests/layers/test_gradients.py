"""Gradients against central finite differences, in float64: every parameter by name, the inputs, the initial states."""

import copy

import helpers
import numpy as np
import pytest
from helpers import CELLS, make_case, make_layer

import numba_pack as nbp

LENGTHS = (3, 0, 4, 1)
#: Rounding a loss costs eps / STEP, leaving out its third derivative STEP**2: the sum is least where they are alike.
STEP = np.finfo(np.float64).eps ** (1 / 3)


def loss_of(case, output, state):
    """The loss whose gradients with respect to output and last state are those of the case."""
    pairs = list(zip(nbp.unpack_sequence(output), case.d_outputs, strict=True))
    pairs += zip(helpers.as_tuple(state), helpers.as_tuple(case.d_state), strict=True)
    return sum(float((value * weight).sum()) for value, weight in pairs)


def differences(loss, array):
    """Central differences of ``loss(array)`` with respect to each element."""
    found = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[index] += sign * STEP
            ends.append(loss(moved))
        found[index] = (ends[0] - ends[1]) / (2 * STEP)
    return found


def assert_is_gradient(got, expected, terms):
    """Of the loss's terms, each is of size 1 to 10, and errs by 2 STEP**2 times that."""
    assert got.shape == expected.shape
    assert np.abs(expected).max() > 0.01  # a gradient of zero would show nothing
    np.testing.assert_allclose(got, expected, rtol=0, atol=20 * STEP**2 * np.sqrt(terms))


class Problem:
    """A small net, and its loss as a function of each of its arguments."""

    def __init__(self, cell, dropout):
        self.layer = make_layer(cell, 3, 3, num_layers=2, bidirectional=True, dropout=dropout, dtype=np.float64)
        self.case = make_case(self.layer, LENGTHS)
        self.packed = nbp.pack_sequence(self.case.sequences)
        self.hx = helpers.as_tuple(self.case.hx)
        self.before = copy.deepcopy(self.layer)  # of the same seed, and at the same call: it drops the same units
        output, state, tape = self.layer.forward(self.packed, self.case.hx)
        self.gradients = self.layer.backward(tape, nbp.pack_sequence(self.case.d_outputs), self.case.d_state)
        self.terms = output.data.size + sum(part.size for part in helpers.as_tuple(state))

    def loss(self, data=None, hx=None, parameters=None):
        layer = copy.deepcopy(self.before)
        if parameters is not None:
            layer.parameters = parameters
        packed = self.packed if data is None else self.packed._replace(data=data)
        hx = self.hx if hx is None else hx
        output, state, _ = layer.forward(packed, hx if helpers.has_c(helpers.cell_of(layer)) else hx[0])
        return loss_of(self.case, output, state)


@pytest.fixture(params=[0.0, 0.4], ids=["no-dropout", "dropout"])
def dropout(request):
    return request.param


@pytest.fixture(params=CELLS)
def problem(request, dropout):
    return Problem(request.param, dropout)


def test_the_gradient_of_every_parameter_is_that_of_finite_differences(problem):
    layer = problem.layer
    got, parameters = layer.views(problem.gradients.parameters), layer.state_dict()
    assert len(got) == (5 if "proj" in repr(layer) else 4) * 4  # two layers, two directions
    for name in got:

        def loss(value, name=name):
            vector = layer.parameters.copy()
            layer.views(vector)[name][...] = value
            return problem.loss(parameters=vector)

        assert_is_gradient(got[name], differences(loss, parameters[name]), problem.terms)


def test_the_gradient_of_the_input_is_that_of_finite_differences(problem):
    expected = differences(lambda data: problem.loss(data=data), problem.packed.data)
    assert_is_gradient(problem.gradients.input.data, expected, problem.terms)


def test_the_gradients_of_the_initial_states_are_those_of_finite_differences(problem):
    for i, got in enumerate(helpers.as_tuple(problem.gradients.hx)):

        def loss(value, i=i):
            return problem.loss(hx=(*problem.hx[:i], value, *problem.hx[i + 1 :]))

        assert_is_gradient(got, differences(loss, problem.hx[i]), problem.terms)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_a_state_that_was_not_given_is_that_of_zeros(cell):
    layer = make_layer(cell, 3, 3, num_layers=2, bidirectional=True, dtype=np.float64)
    case = make_case(layer, LENGTHS)
    zeros = tuple(np.zeros_like(part) for part in helpers.as_tuple(case.hx))
    without = helpers.train(layer, case._replace(hx=None))
    given = helpers.train(layer, case._replace(hx=zeros if helpers.has_c(cell) else zeros[0]))
    helpers.assert_results_near(layer, LENGTHS, without, given)
