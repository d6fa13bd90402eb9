"""Layers whose products are normalised before they are summed, against plain loops, differences and PyTorch."""

import copy
import pickle

import naive_cells
import numba
import numpy as np
import pytest
from helpers import assert_same_bits
from test_cell_layers import DIFFERENCES, Problem, published

import numba_pack as nbp
from numba_pack import cells

SLOW = pytest.mark.slow
#: sums of both products, of either alone, a product of the cell's own, no product with the state, unit weights
NAMES = [
    "LSTM", "GRU", *(pytest.param(name, marks=SLOW) for name in ("GRUResetBefore", "MinGRU", "PeepholeLSTM", "SLSTM")),
]  # fmt: skip


def normed(name, dtype=np.float64, H=3, **options):
    return published(name, dtype, H, layer_norm=True, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_and_all_its_gradients_are_those_of_plain_loops(name):
    problem = Problem(normed(name))
    given = problem.parameters, problem.sequences, problem.states, problem.constants
    problem.assert_forward(*naive_cells.run(name, *given))
    problem.assert_backward(*naive_cells.gradients(problem.loss, name, *given), least=10 * DIFFERENCES)


@pytest.mark.parametrize("H", [1, 19, 40])
@pytest.mark.parametrize("name", NAMES)
def test_layers_of_any_size_are_plain_loops(name, H):
    problem = Problem(normed(name, H=H), lengths=(2, 5, 0, 3, 3, 1, 7))
    problem.assert_forward(*naive_cells.run(name, problem.parameters, problem.sequences, problem.states,
                                            problem.constants))  # fmt: skip


@SLOW
@pytest.mark.parametrize(
    "options", [{"proj_size": 2}, {"recurrent_dropout": 0.0, "bias": False}], ids=["projection", "no bias"]
)
def test_with_other_options_it_is_plain_loops(options):
    layer = normed("LSTM", H=5, **options)
    layer.parameters = layer.parameters + 0.3
    sequences = [np.random.default_rng(0).standard_normal((n, 2)) for n in (3, 6)]
    outputs, _ = naive_cells.run("LSTM", layer.state_dict(), sequences)
    for one, other in zip(nbp.unpack_sequence(layer(nbp.pack_sequence(sequences))[0]), outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@SLOW
def test_units_that_see_a_part_of_h_are_normalised_with_all_others():
    layer = normed("SLSTM", H=4, heads=2)
    sequences = [np.random.default_rng(0).standard_normal((n, 2)) for n in (3, 6)]
    outputs, _ = naive_cells.run("SLSTM", layer.state_dict(), sequences)
    for one, other in zip(nbp.unpack_sequence(layer(nbp.pack_sequence(sequences))[0]), outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_a_lstm_is_that_of_pytorch_with_its_layer_norm():
    torch = pytest.importorskip("torch", reason="its layer_norm is the reference")
    lstm = nbp.LSTM(3, 40, layer_norm=True, rng=0)
    lstm.parameters = lstm.parameters + np.random.default_rng(1).normal(0, 0.2, lstm.parameters.shape).astype("f4")
    of = {name: torch.tensor(value) for name, value in lstm.state_dict().items()}
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    h = c = torch.zeros(40)
    norm = torch.nn.functional.layer_norm
    for row, output in zip(torch.tensor(x), lstm(x)[0], strict=True):
        of_input = norm(of["weight_ih_l0"] @ row, (160,), of["gain_ih_l0"], of["bias_ih_l0"])
        of_state = norm(of["weight_hh_l0"] @ h, (160,), of["gain_hh_l0"], of["bias_hh_l0"])
        i, f, g, o = (of_input + of_state).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        np.testing.assert_allclose(output, h.numpy(), rtol=0, atol=2e-6)


# -- what holds for all layers -----------------------------------------------------------------------------------------

LENGTHS = (4, 0, 2, 6, 6, 1)


def sequences(dtype=np.float32, K=2):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, K)).astype(dtype) for length in LENGTHS]


def trained(layer, given):
    """Outputs, and gradients of the input, of each sequence; and of the parameters."""
    output, _, tape = layer.forward(nbp.pack_sequence(given))
    gradients = layer.backward(tape, output)
    rows = zip(nbp.unpack_sequence(output), nbp.unpack_sequence(gradients.input), strict=True)
    return list(rows), gradients.parameters


@pytest.mark.parametrize("H", [3, pytest.param(70, marks=SLOW)])
def test_bits_depend_on_neither_batch_nor_order_nor_threads(H):
    layer, given = normed("LSTM", np.float32, H), sequences()
    batch, gradient = trained(layer, given)
    for i, sequence in enumerate(given):
        (alone,), _ = trained(layer, [sequence])
        assert_same_bits(alone, batch[i], f"sequence {i}")
    turned, _ = trained(layer, given[::-1])
    for one, other in zip(turned[::-1], batch, strict=True):
        assert_same_bits(one, other)
    longer = [np.tile(sequence, (200, 1)) for sequence in given]  # work enough for two threads
    expected = trained(layer, longer)
    with nbp.threads(2):
        found = trained(layer, longer)
    assert_same_bits(found[1], expected[1])
    for one, other in zip(found[0], expected[0], strict=True):
        assert_same_bits(one, other)
    assert_same_bits(trained(layer, given)[1], gradient)


def test_a_nan_stays_in_its_sequence():
    layer, given = normed("LSTM", np.float32), sequences()
    expected, _ = trained(layer, given)
    given[3] = np.full_like(given[3], np.nan)
    for i, (one, other) in enumerate(zip(trained(layer, given)[0], expected, strict=True)):
        if i == 3:
            assert all(np.isnan(part).all() for part in one)
        else:
            assert_same_bits(one, other, f"sequence {i}")


def test_symbols_are_one_hot_rows():
    layer = nbp.LSTM(5, 7, layer_norm=True, rng=0)
    symbols = np.array([[3, 1], [0, 4], [2, 2]])
    (output, _, tape), one_hot = layer.forward(nbp.symbols(symbols)), np.eye(5, dtype=np.float32)[symbols]
    expected, _, its_tape = layer.forward(one_hot)
    assert_same_bits(output, expected)
    gradients = layer.backward(tape, output), layer.backward(its_tape, expected)
    assert_same_bits(gradients[0].parameters, gradients[1].parameters)


def test_it_is_an_option_like_others(tmp_path):
    layer = nbp.GRU(3, [5, 4], layer_norm=True, rng=0)
    assert repr(layer) == "GRU(3, [5, 4], layer_norm=True)"
    layer = nbp.LSTM(3, 5, layer_norm=True, zoneout=0.1, rng=0)
    assert (
        layer.layer_norm
        and isinstance(layer, nbp.LSTM)
        and repr(layer) == ("LSTM(3, 5, zoneout=(0.1, 0.1), layer_norm=True)")
    )
    shapes = {name: value.shape for name, value in layer.state_dict().items()}
    assert shapes == {
        "weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5), "bias_ih_l0": (20,), "bias_hh_l0": (20,),
        "gain_ih_l0": (20,), "gain_hh_l0": (20,),
    }  # fmt: skip
    assert (layer.state_dict()["gain_hh_l0"] == 1).all()
    assert isinstance(cells.MinGRU(3, 5, layer_norm=True), cells.MinGRU)
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    nbp.save(tmp_path / "a.safetensors", layer)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), nbp.load(tmp_path / "a.safetensors")):
        assert other.cell is layer.cell and repr(other) == repr(layer)
        assert_same_bits(other(x)[0], layer(x)[0])


def test_a_file_without_metadata_tells_it_by_its_gains(tmp_path):
    from safetensors.numpy import save_file

    layer = nbp.GRU(3, 5, bidirectional=True, layer_norm=True, rng=0)
    save_file({name: np.array(value) for name, value in layer.state_dict().items()}, tmp_path / "a.safetensors")
    assert repr(nbp.load(tmp_path / "a.safetensors")) == repr(layer)


def test_without_it_nothing_changes():
    plain = nbp.LSTM(3, 5, rng=0)
    assert nbp.LSTM(3, 5, layer_norm=False).cell is plain.cell
    with pytest.raises(TypeError, match="layer_norm must be a bool; got 1"):
        nbp.LSTM(3, 5, layer_norm=1)


@numba.njit
def train_in_njit(packed, weights):
    output, _, tape = nbp.run_forward(packed, weights)
    return output.data, nbp.run_backward(tape, output, None)


def test_it_runs_in_njit():
    layer, packed = nbp.LSTM(3, 5, layer_norm=True, bidirectional=True, rng=0), nbp.pack_sequence(sequences(K=3))
    output, gradients = train_in_njit(packed, layer.weights)
    expected, _, tape = layer.forward(packed)
    assert_same_bits(output, expected.data)
    assert_same_bits(gradients.parameters, layer.backward(tape, expected).parameters)
