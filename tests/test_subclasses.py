"""Classes that users derive from layers and cells: they keep their class and attributes; options alone are fixed."""

import copy
import pickle

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.cells import LSTM as LSTM_CELL
from numba_pack.interop._both_ways import BothWays


class Encoder(nbp.LSTM):
    """With a state, a name, and other arguments than its base."""

    def __init__(self, words, features):
        self.words = words  # before the layer is made
        super().__init__(features, 4, num_layers=2, dropout=0.5, rng=0)
        self.hidden, self.seen = None, []

    def step(self, x):
        output, self.hidden = self(x, self.hidden)
        self.seen.append(len(x))
        return output


class Slotted(nbp.GRUCell):
    __slots__ = ("note",)


LAYERS = {
    "RNN": lambda: nbp.RNN(3, 4),
    "LSTM": lambda: nbp.LSTM(3, 4),
    "GRU": lambda: nbp.GRU(3, 4),
    "RNNCell": lambda: nbp.RNNCell(3, 4),
    "LSTMCell": lambda: nbp.LSTMCell(3, 4),
    "GRUCell": lambda: nbp.GRUCell(3, 4),
    "Layer": lambda: LSTM_CELL(3, 4, reverse=True),
    "BothWays": lambda: BothWays(nbp.LSTM(3, 4), LSTM_CELL(3, 4, reverse=True)),
    "another cell": lambda: nbp.cells.LeakyRNN(3, 4),
    "subclass": lambda: Encoder(10, 3),
}


def options_of(layer):
    """What a layer has besides methods and what changes with its parameters."""
    return [name for name in vars(layer) if not name.startswith("_") and name not in ("words", "hidden", "seen")]


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_options_can_neither_be_changed_nor_deleted(make):
    layer = make()
    assert {"input_size", "hidden_size", "dtype"} <= set(options_of(layer))
    for name in options_of(layer):
        before = getattr(layer, name)
        with pytest.raises(AttributeError, match=rf"^{name} is fixed when the {type(layer).__name__} is made$"):
            setattr(layer, name, before)
        with pytest.raises(AttributeError, match=rf"^{name} is fixed when the {type(layer).__name__} is made$"):
            delattr(layer, name)
        assert getattr(layer, name) is before


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_other_attributes_are_the_users_own(make):
    layer = make()
    for value in (1, 2):
        layer.count = value
    assert layer.count == 2
    del layer.count
    assert not hasattr(layer, "count")


def test_what_is_an_option_of_other_layers_alone_is_free():
    cell = nbp.LSTMCell(3, 4)
    for value in (0.1, 0.2):
        cell.dropout, cell.nonlinearity = value, value
    assert (cell.dropout, cell.nonlinearity) == (0.2, 0.2)


def test_a_layer_with_a_state_of_its_own_steps():
    encoder, x = Encoder(10, 3), np.ones((4, 3), np.float32)
    stepped = np.concatenate([encoder.step(x[:1]), encoder.step(x[1:])])
    assert encoder.seen == [1, 3]
    np.testing.assert_array_equal(stepped, encoder(x)[0])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_keeps_class_and_attributes(protocol):
    encoder = Encoder(10, 3)
    encoder.step(np.ones((2, 3), np.float32))
    again = pickle.loads(pickle.dumps(encoder, protocol))
    assert (type(again), again.words, again.seen) == (Encoder, 10, [2])
    assert not again.parameters.flags.writeable
    np.testing.assert_array_equal(again.step(np.ones((1, 3), np.float32)), encoder.step(np.ones((1, 3), np.float32)))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
def test_a_copy_keeps_slots_and_has_parameters_of_its_own(copied):
    cell = Slotted(3, 4, rng=0)
    cell.note, cell.tag = "kept", ["too"]
    other = copied(cell)
    assert (type(other), other.note, other.tag) == (Slotted, "kept", ["too"])
    before = cell.parameters
    other.parameters = np.zeros_like(before)
    np.testing.assert_array_equal(cell.parameters, before)
    assert not other.parameters.flags.writeable
    with pytest.raises(AttributeError, match="hidden_size is fixed"):
        other.hidden_size = 5


def test_folding_an_embedding_keeps_class_and_attributes():
    encoder, table = Encoder(10, 3), np.linspace(-1, 1, 30).reshape(10, 3)
    folded = nbp.fold_embedding(encoder, table)
    assert (type(folded), folded.words, folded.input_size, folded.hidden_size) == (Encoder, 10, 10, 4)
    assert (encoder.input_size, encoder.state_dict()["weight_ih_l0"].shape) == (3, (16, 3))
    symbols = np.array([3, 0, 9])
    np.testing.assert_allclose(folded(symbols)[0], encoder(table[symbols].astype("f4"))[0], rtol=1e-5, atol=1e-7)
    assert repr(folded) == "Encoder(10, 4, num_layers=2, dropout=0.5)"


def test_warmup_runs_the_layer_and_not_what_a_subclass_makes_of_it():
    class Words(nbp.GRU):
        def __call__(self, text):
            return super().__call__(np.array([ord(letter) for letter in text]))

        def forward(self):
            raise AssertionError

    words = Words(128, 3, rng=0)
    nbp.warmup(words, training=True)
    assert words("abc")[0].shape == (3, 3)


def test_a_file_which_would_not_keep_the_class_is_refused_by_name(tmp_path):
    with pytest.raises(
        TypeError, match=r"layers must be made by RNN, LSTM, .* or a cell; got test_subclasses\.Encoder"
    ):
        nbp.save(tmp_path / "encoder.safetensors", Encoder(10, 3))
