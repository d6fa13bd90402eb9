"""Layers, their weights, their tapes and their cells: copied, pickled, and taken to another process."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits

import numba_pack as nbp
from numba_pack import cells

ROWS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
PACKED = nbp.pack_sequence([ROWS[:5], ROWS[5:]])


@cells.cell(sums="a", state="h c", unit_weights="p", constants="rate")
def Own(a, h, c, p=0.5, rate=0.25):
    c = c + rate * (cells.tanh(a + p * h) - c)
    return cells.relu(c), c


class Groups:
    @cells.cell(sums="a", state="h")
    def Inner(a, h):
        return cells.tanh(a)


def local_cell():
    @cells.cell(sums="a", state="h")
    def Local(a, h):
        return cells.tanh(a)

    return Local


CELLS = {"published": cells.LSTM, "own": Own}
WAYS = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "copy": copy.copy, "deepcopy": copy.deepcopy}


def results(layer):
    """Of all that a layer does: bits."""
    output, state, tape = layer.forward(PACKED)
    gradients = layer.backward(tape, output, state)
    return [layer(PACKED)[0].data, output.data, *state, gradients.input.data, *gradients.hx, gradients.parameters]


def compiled(weights):
    output, state = nbp.run(PACKED, weights)
    return [output.data, *state]


def layer_of(cell):
    options = {"rate": 0.125, "zoneout": 0.25} if cell is Own else {}
    return cell(3, 5, num_layers=2, dropout=0.5, rng=0, **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_a_copy_of_a_layer_is_as_it_was(name, way):
    layer = layer_of(CELLS[name])
    layer(PACKED)
    twin = WAYS[way](layer)
    assert type(twin) is type(layer) and repr(twin) == repr(layer) and twin._options() == layer._options()
    assert isinstance(twin, CELLS[name])
    assert_same_bits(results(twin), results(layer))
    with pytest.raises(AttributeError, match="hidden_size is fixed"):
        twin.hidden_size = 6
    before = layer.parameters
    twin.parameters = np.zeros_like(before)
    assert layer.parameters is before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_a_copy_of_weights_computes_the_same(name, way):
    weights = layer_of(CELLS[name]).weights
    twin = WAYS[way](weights)
    assert type(twin) is type(weights)
    assert_same_bits(compiled(twin), compiled(weights))


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "dropout": 0.5, "recurrent_dropout": 0.5}], ids=str)
def test_a_layer_and_its_tape_are_copied_together(way, options):
    layer = Own(3, 5, rng=0, **options)
    output, state, tape = layer.forward(PACKED)
    other, twin = way((layer, tape))
    assert_same_bits(other.backward(twin, output, state).parameters, layer.backward(tape, output, state).parameters)


@pytest.mark.parametrize("options", [{}, {"checkpoint": 2}], ids=str)
def test_a_tape_is_used_up_in_memory_of_its_own(options):
    layer = layer_of(Own)
    output, state, tape = layer.forward(PACKED, **options)
    buffers = []
    pickled = pickle.dumps((layer, tape), protocol=5, buffer_callback=buffers.append)
    memory = [bytes(buffer) for buffer in buffers]  # which nobody may write to, as that of a file or of others
    gradients = []
    for _ in range(2):
        other, twin = pickle.loads(pickled, buffers=memory)
        gradients.append(other.backward(twin, output, state).parameters)
    assert memory == list(map(bytes, buffers))
    assert_same_bits([layer.backward(tape, output, state).parameters] * 2, gradients)


def test_a_shallow_copy_of_a_tape_is_used_up_with_it():
    layer = layer_of(Own)
    output, state, tape = layer.forward(PACKED)
    twin = copy.copy(tape)
    layer.backward(tape, output, state)
    assert "used up" in repr(twin)
    with pytest.raises(ValueError, match="tape must not have been used"):
        layer.backward(twin, output, state)


@pytest.mark.parametrize("cell", [cells.MGU, Own, Groups.__dict__["Inner"]], ids=["published", "own", "in a class"])
def test_a_cell_is_found_again_by_its_name(cell):
    assert all(way(cell) is cell for way in WAYS.values())


def renamed():
    return cells.cell(sums="a", state="h")(lambda a, h: a)


@pytest.mark.parametrize("make", [local_cell, renamed])
def test_a_cell_without_a_place_in_a_module_is_copied_but_not_pickled(make):
    layer = make()(3, 5, rng=0)
    for way in (copy.copy, copy.deepcopy):
        assert way(layer).cell is layer.cell
        assert_same_bits(way(layer).parameters, layer.parameters)
    for what in (layer.cell, layer):
        with pytest.raises(pickle.PicklingError, match=r"must be defined at the top of a module .*there is no"):
            pickle.dumps(what)


def in_another_process(layer, weights):
    return results(layer), compiled(weights)


def test_layers_and_weights_go_to_a_process_that_is_spawned():
    layer = layer_of(Own)
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        found = processes.apply_async(in_another_process, (layer, layer.weights)).get(300)
    assert_same_bits(found, (results(layer), compiled(layer.weights)))


def test_a_layer_is_of_its_cell_and_of_no_other():
    class Mine(nbp.LSTM):
        pass

    layer = cells.PeepholeLSTM(3, 5)
    assert isinstance(layer, cells.PeepholeLSTM)
    assert not isinstance(layer, cells.LSTM)
    assert not isinstance(nbp.GRUCell, cells.GRU)
    assert isinstance(Mine(3, 5), cells.LSTM)
    assert isinstance(cells.LSTM(3, 5), nbp.LSTM)
