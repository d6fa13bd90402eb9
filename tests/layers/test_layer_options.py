"""Options of layers, of which recurrent_dropout and zoneout above all, and a first state that all sequences share."""

import copy
import itertools

import numpy as np
import pytest
from helpers import assert_same_bits

import numba_pack as nbp
from numba_pack import cells

LENGTHS = (4, 0, 2, 6)
K, H = 3, 5


def sequences(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, K)).astype(dtype) for length in LENGTHS]


def again(layer):
    """The layer as it stands: its copy drops what it will drop next."""
    return copy.copy(layer)


VARIANTS = {
    "LSTM, recurrent dropout": lambda **to: nbp.LSTM(K, H, 2, bidirectional=True, recurrent_dropout=0.4, rng=0, **to),
    "LSTM, zoneout of h and c": lambda **to: nbp.LSTM(K, H, 2, bidirectional=True, zoneout=(0.3, 0.2), rng=0, **to),
    "projected LSTM, recurrent dropout": lambda **to: nbp.LSTM(K, H, proj_size=2, recurrent_dropout=0.4, rng=0, **to),
    "GRU, all three": lambda **to: nbp.GRU(K, H, 2, dropout=0.3, recurrent_dropout=0.2, zoneout=0.3, rng=0, **to),
    "peephole LSTM, recurrent dropout": lambda **to: cells.PeepholeLSTM(K, H, recurrent_dropout=0.4, rng=0, **to),
    "projected peephole LSTM": lambda **to: cells.PeepholeLSTM(K, H, proj_size=2, rng=0, **to),
    "linear, zoneout": lambda **to: cells.MinGRU(K, H, zoneout=0.3, rng=0, **to),
    "with a product of its own, both": lambda **to: cells.GRUResetBefore(
        K, H, recurrent_dropout=0.2, zoneout=0.3, rng=0, **to
    ),
}
QUICK = [
    pytest.param(
        VARIANTS[name], id=name, marks=() if name in ("LSTM, recurrent dropout", "GRU, all three") else pytest.mark.slow
    )
    for name in VARIANTS
]


@pytest.mark.parametrize("make", QUICK)
def test_gradients_are_those_of_the_call_that_dropped(make):
    layer, packed = make(dtype=np.float64), nbp.pack_sequence(sequences())
    before = again(layer)
    output, _, tape = layer.forward(packed)
    d_output = np.random.default_rng(1).standard_normal(output.data.shape)
    gradient = layer.backward(tape, d_output).parameters
    parameters, step = layer.parameters.copy(), 1e-6

    def loss(vector):
        same = again(before)
        same.parameters = vector
        return np.sum(same.forward(packed)[0].data * d_output)

    for i in np.random.default_rng(2).choice(parameters.size, 40, replace=False):
        up, down = parameters.copy(), parameters.copy()
        up[i] += step
        down[i] -= step
        assert abs((loss(up) - loss(down)) / (2 * step) - gradient[i]) < 1e-7 * max(1, abs(gradient[i]))


@pytest.mark.parametrize("make", QUICK)
def test_what_is_dropped_depends_on_neither_order_of_packing_nor_threads(make):
    layer, given = make(dtype=np.float32), sequences(dtype=np.float32)
    packed = nbp.pack_sequence(given)
    expected = nbp.unpack_sequence(again(layer).forward(packed)[0])
    padded, lengths = nbp.pad_packed_sequence(packed)
    with nbp.threads(2):
        found = nbp.unpack_sequence(again(layer).forward(nbp.pack_padded_sequence(padded, lengths, False))[0])
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def test_recurrent_dropout_takes_the_same_units_of_h_at_every_step():
    # an RNN whose product with the state is that of one unit tells which of its units were dropped
    layer = nbp.RNN(1, 16, nonlinearity="relu", bias=False, recurrent_dropout=0.5, rng=0, dtype=np.float64)
    state = layer.state_dict()
    layer.load_state_dict({name: np.ones_like(value) if "ih" in name else np.eye(16) for name, value in state.items()})
    output = layer.forward(np.ones((6, 8, 1)))[0]  # h' = x + mask h / (1 - 0.5), with mask 0 or 1
    kept = output[1] == 3.0
    assert_same_bits(output[1], np.where(kept, 3.0, 1.0))
    assert_same_bits(output[5], np.where(kept, 63.0, 1.0))
    assert 0.3 < kept.mean() < 0.7 and (kept != kept[0]).any()


def test_zoneout_leaves_a_unit_as_it_was_or_takes_its_new_value():
    lstm = nbp.LSTM(K, 16, zoneout=(0.5, 0.25), return_states=True, rng=0, dtype=np.float64)
    plain = nbp.LSTMCell(K, 16, dtype=np.float64)
    plain.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    x = np.random.default_rng(3).standard_normal((30, K))
    (h, c), _, _ = lstm.forward(x)
    stayed = []
    for t in range(1, len(x)):
        for new, state in zip(plain(x[t], (h[t - 1], c[t - 1])), (h, c), strict=True):
            is_old, is_new = state[t] == state[t - 1], np.abs(state[t] - new) < 1e-14
            assert (is_old | is_new).all()
            stayed.append(is_old.mean())
    assert 0.4 < np.mean(stayed[::2]) < 0.6 and 0.15 < np.mean(stayed[1::2]) < 0.35


def test_in_inference_zoneout_takes_the_mean_and_recurrent_dropout_nothing():
    gru = nbp.GRU(K, H, zoneout=0.25, recurrent_dropout=0.5, rng=0, dtype=np.float64)
    step = nbp.GRUCell(K, H, dtype=np.float64)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.state_dict().items()})
    x, h = np.random.default_rng(4).standard_normal((5, K)), np.zeros(H)
    for t, output in enumerate(gru(x)[0]):
        h = 0.75 * step(x[t], h) + 0.25 * h
        np.testing.assert_allclose(output, h, rtol=1e-14, atol=1e-15, err_msg=str(t))


def test_without_them_nothing_changes():
    packed = nbp.pack_sequence(sequences(dtype=np.float32))
    plain, with_zero = nbp.LSTM(K, H, rng=0), nbp.LSTM(K, H, recurrent_dropout=0.0, zoneout=(0, 0), rng=0)
    assert with_zero.cell is plain.cell
    assert_same_bits(plain(packed)[0].data, with_zero(packed)[0].data)


def test_a_layer_that_is_zoned_out_is_still_of_its_cell():
    layer = cells.MinGRU(K, H, zoneout=0.1)
    assert isinstance(layer, cells.MinGRU) and not isinstance(layer, cells.MinLSTM)
    assert repr(layer) == "MinGRU(3, 5, zoneout=(0.1,))"
    assert repr(nbp.LSTM(K, H, recurrent_dropout=0.1)) == "LSTM(3, 5, recurrent_dropout=0.1)"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"recurrent_dropout": 1.5}, ValueError, "recurrent_dropout must be at most 1; got 1.5"),
        ({"recurrent_dropout": "1"}, TypeError, "recurrent_dropout must be a number"),
        ({"zoneout": (0.1,)}, ValueError, "zoneout must be a number, or one for each of h, c"),
        ({"zoneout": (0.1, 2)}, ValueError, r"zoneout\[1\] must be at most 1; got 2"),
        ({"zoneout": 0.1, "proj_size": 2}, ValueError, "zoneout must be 0 with a projection"),
        ({"heads": 2}, ValueError, "heads must divide hidden_size"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        nbp.LSTM(K, H, **options)


@pytest.mark.parametrize("options", [{"recurrent_dropout": 0.1}, {"zoneout": 0.1}, {"heads": 5}, {"layer_norm": True}])
def test_what_the_gpu_has_not_is_refused_there(options, monkeypatch):
    monkeypatch.setattr("numba_pack.layers.layer.backend", "cuda")
    with pytest.raises(ValueError, match="heads 1 and layer_norm False where the backend is cuda"):
        nbp.LSTM(K, H, **options)


# -- one first state for all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("kind", [nbp.LSTM, nbp.GRU])
def test_a_first_state_may_be_that_of_all_sequences(kind, batch_first):
    layer, rng = kind(K, H, 2, batch_first=batch_first, dtype=np.float64, rng=0), np.random.default_rng(5)
    packed, padded = nbp.pack_sequence(sequences()), rng.standard_normal((4, 4, K))
    shared = [rng.standard_normal((2, 1, H)) for _ in range(layer.cell.states)]
    repeated = [np.repeat(state, 4, axis=1) for state in shared]
    one, many = (tuple(shared), tuple(repeated)) if kind is nbp.LSTM else (shared[0], repeated[0])
    for given in (packed, padded):
        (output, state, tape), (expected, its_state, its_tape) = layer.forward(given, one), layer.forward(given, many)
        rows, its_rows = (getattr(value, "data", value) for value in (output, expected))
        assert_same_bits(np.asarray(rows), np.asarray(its_rows))
        gradients, its = layer.backward(tape, output, state), layer.backward(its_tape, expected, its_state)
        assert_same_bits(gradients.parameters, its.parameters)
        found, full = (x.hx if kind is nbp.LSTM else (x.hx,) for x in (gradients, its))
        for d, d_each in itertools.zip_longest(found, full):
            assert d.shape == (2, 1, H)
            np.testing.assert_allclose(d, d_each.sum(1, keepdims=True), rtol=1e-13)


def test_a_first_state_of_another_shape_is_told_as_it_came():
    with pytest.raises(ValueError, match=r"hx must have shape .* = \(1, 4, 5\); got \(1, 1, 6\)"):
        nbp.GRU(K, H, dtype=np.float64)(nbp.pack_sequence(sequences()), np.zeros((1, 1, 6)))
