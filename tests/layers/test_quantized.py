"""Layers that are quantized: weights of 8 bits, inference alone."""

import copy
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits
from hypothesis import given as of
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba import njit

import numba_pack as nbp
from numba_pack import cells
from numba_pack.layers.quantized import floats_of, integers_of, quantized
from numba_pack.serving import Streams

I, H = 5, 20  # noqa: E741
LENGTHS = (9, 0, 14, 3, 14)
#: an error of an output of these small nets, whose values are at most 1
BOUND = 0.05

MAKERS = {
    "RNN": lambda **to: nbp.RNN(I, H, rng=0, **to),
    "LSTM": lambda **to: nbp.LSTM(I, H, rng=0, **to),
    "GRU": lambda **to: nbp.GRU(I, H, 2, bidirectional=True, rng=0, **to),
    "projection": lambda **to: nbp.LSTM(I, H, proj_size=6, return_states=True, rng=0, **to),
    "heads": lambda **to: nbp.GRU(I, H, heads=2, layer_norm=True, zoneout=0.1, rng=0, **to),
    "stack": lambda **to: nbp.LSTM(I, [H, 8], rng=0, **to),
    "peephole": lambda **to: cells.PeepholeLSTM(I, H, rng=0, **to),
    "RNNCell": lambda **to: nbp.RNNCell(I, H, rng=0, **to),
    "LSTMCell": lambda **to: nbp.LSTMCell(I, H, rng=0, **to),
    "GRUCell": lambda **to: nbp.GRUCell(I, H, rng=0, **to),
}
LAYERS = [name for name in MAKERS if not name.endswith("Cell")]
QUICK = [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("LSTM", "stack", "LSTMCell"))) for name in MAKERS]
QUICK_LAYERS = [name for name in QUICK if name.values[0] in LAYERS]


def sequences(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, I), np.float32) for length in LENGTHS]


def leaves(value):
    return [value] if isinstance(value, np.ndarray) else [array for part in value for array in leaves(part)]


def near(found, expected):
    for got, right in zip(leaves(found), leaves(expected), strict=True):
        assert got.dtype == np.float32 and got.shape == right.shape
        assert np.abs(got - right).max(initial=0.0) < BOUND


# -- integers and scales -----------------------------------------------------------------------------------------------

MATRICES = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 5)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@of(MATRICES)
def test_integers_times_scales_are_within_half_a_scale_and_come_back_to_the_bit(matrix):
    integers, scales = quantized(matrix)
    assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() <= 127
    assert scales.dtype == np.float32 and not (scales.view(np.uint32) & 0xFF).any()  # 16 bits
    back = integers * scales[:, None]
    np.testing.assert_array_equal(back.astype(float), integers.astype(float) * scales[:, None].astype(float))
    # of the row alone: another row does not matter
    largest = np.abs(matrix).max(axis=1)
    tiny = largest < 127 * 1.2e-38
    assert (np.abs(integers).max(axis=1)[~tiny] == 127).all()
    error = np.abs(back.astype(float) - matrix).max(axis=1)
    assert (error <= np.where(tiny, largest, 0.5000001 * scales)).all()
    assert_same_bits(quantized(back), (integers, scales))


def test_a_row_of_zeros_stays_one():
    assert_same_bits(quantized(np.zeros((1, 3), np.float32)), (np.zeros((1, 3), np.int8), np.zeros(1, np.float32)))


def test_of_a_state_dict_matrices_alone_become_integers():
    state = MAKERS["peephole"]().state_dict()
    found = integers_of(state)
    assert {name for name in found if found[name].dtype == np.int8} == {"weight_ih_l0", "weight_hh_l0"}
    assert found.keys() - state.keys() == {"weight_ih_l0_scale", "weight_hh_l0_scale"}
    assert_same_bits({name: found[name] for name in state if "weight" not in name},
                     {name: state[name] for name in state if "weight" not in name})  # fmt: skip
    assert_same_bits(integers_of(floats_of(found)), found)


def test_scales_that_do_not_fit_are_told():
    found = integers_of(MAKERS["RNN"]().state_dict())
    with pytest.raises(ValueError, match=r"weight_ih_l0 must have scales weight_ih_l0_scale of shape \(20,\); their"):
        floats_of({**found, "weight_ih_l0_scale": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"weight_hh_l0 must have scales weight_hh_l0_scale .*; there are none"):
        floats_of({name: value for name, value in found.items() if name != "weight_hh_l0_scale"})


# -- a layer for inference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_shown_and_is_of_its_class(name):
    layer = MAKERS[name](matmul_precision="medium")
    small = layer.quantize("int8")
    assert type(small) is type(layer) and small.cell is layer.cell
    assert repr(small) == repr(MAKERS[name](matmul_precision="highest")) + ".quantize('int8')"
    assert repr(layer) == repr(MAKERS[name](matmul_precision="medium"))


@pytest.mark.parametrize("name", MAKERS)
def test_its_weights_are_a_quarter_and_stay_what_they_are(name):
    layer = MAKERS[name]()
    small = layer.quantize("int8")
    before = copy.deepcopy(small.state_dict())
    layer.parameters = np.zeros_like(layer.parameters)
    assert_same_bits(small.state_dict(), before)
    for key, value in small.state_dict().items():
        assert not value.flags.writeable
        if value.dtype == np.int8:
            assert 4 * value.nbytes == layer.state_dict()[key].nbytes


@pytest.mark.parametrize("name", QUICK_LAYERS)
def test_it_is_called_as_the_layer_is(name):
    layer = MAKERS[name]()
    small, given = layer.quantize("int8"), sequences()
    packed, rows = (
        nbp.pack_sequence(given),
        lambda output: [part.data for part in output] if name == "projection" else output.data,
    )
    (output, state), (expected, its_state) = small(packed), layer(packed)
    near([rows(output), state], [rows(expected), its_state])
    near(small(given[0], layer(given[2])[1]), layer(given[0], layer(given[2])[1]))
    padded = np.stack([given[2], given[4]], axis=1)
    near(small(padded), layer(padded))
    text = np.random.default_rng(0).integers(0, I, (7, 2))
    near(small(nbp.symbols(text)), layer(nbp.symbols(text)))
    nbp.warmup(small)


@pytest.mark.parametrize("name", QUICK_LAYERS)
def test_a_sequence_alone_gives_the_bits_that_it_gives_in_a_batch(name):
    small, given = MAKERS[name]().quantize("int8"), sequences()
    output = small(nbp.pack_sequence(given))[0]
    together = [nbp.unpack_sequence(part) for part in (output if name == "projection" else (output,))]
    for b, x in enumerate(given):
        alone = small(x)[0]
        assert_same_bits(alone if name == "projection" else (alone,), tuple(part[b] for part in together))


@pytest.mark.parametrize("name", [name for name in QUICK if name.values[0] not in LAYERS])
def test_a_step_is_one_too(name):
    step, x = MAKERS[name](), sequences()[0]
    small = step.quantize("int8")
    near(small(x, step(x)), step(x, step(x)))


def test_streams_run_on_it():
    small, x = MAKERS["LSTM"]().quantize("int8"), sequences()[0]
    streams = Streams(small, 2)
    id = streams.open()
    assert_same_bits(np.concatenate([streams.feed({id: x[:4]})[id], streams.feed({id: x[4:]})[id]]), small(x)[0])


def test_an_embedding_is_folded_before():
    layer, text = MAKERS["LSTM"](), np.arange(7)
    folded = nbp.fold_embedding(layer, np.random.default_rng(0).standard_normal((7, I)))
    near(folded.quantize("int8")(text), folded(text))
    with pytest.raises(TypeError, match="fold_embedding must be called of a layer in float"):
        nbp.fold_embedding(layer.quantize("int8"), np.ones((7, I)))


@njit
def run(packed, weights):
    return nbp.run(packed, weights)[0].data, nbp.lstm(packed, weights)[0].data


@njit
def train(packed, weights):
    return nbp.run_forward(packed, weights)[0].data


def test_compiled_code_runs_it_and_does_not_train_it():
    from numba.core.errors import TypingError

    small, packed = MAKERS["LSTM"]().quantize("int8"), nbp.pack_sequence(sequences())
    expected = small(packed)[0].data
    assert_same_bits(run(packed, small.weights), (expected, expected))
    assert small.weights.parameters.size == 0
    message = "weights must be those of a layer in float, which can be trained: quantize is for inference"
    with pytest.raises(TypingError, match=message):
        train(packed, small.weights)
    for call in (nbp.run_forward, nbp.lstm_forward):
        with pytest.raises(TypeError, match=message):
            call(packed, small.weights)
    for way in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="weights must be those of a layer in float to be copied or pickled"):
            way(small.weights)


# -- what it is not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_not_trained(name):
    layer, packed = MAKERS[name](), nbp.pack_sequence(sequences())
    x = packed if name in LAYERS else sequences()[0]
    small = layer.quantize("int8")
    with pytest.raises(TypeError, match=r"forward must be called of a layer in float.* inference; got .*'int8'\)"):
        small.forward(x)
    with pytest.raises(TypeError, match="backward must be called of a layer in float"):
        small.backward(None, None)


@pytest.mark.parametrize("name", MAKERS)
def test_it_has_no_parameters(name):
    layer = MAKERS[name]()
    small, none = layer.quantize("int8"), "parameters must be those of a layer in float: quantize leaves none"
    with pytest.raises(AttributeError, match=none):
        _ = small.parameters
    with pytest.raises(AttributeError, match=none):
        small.parameters = layer.parameters
    with pytest.raises(AttributeError, match=none):
        small.views(layer.parameters)
    with pytest.raises(TypeError, match="load_state_dict must be called of a layer in float"):
        small.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_quantized_is_told(name, monkeypatch):
    layer = MAKERS[name]()
    for value, error in (("int4", ValueError), (8, TypeError), (None, TypeError), (np.int8, TypeError)):
        with pytest.raises(error, match="to must be 'int8'; got"):
            layer.quantize(value)
    with pytest.raises(ValueError, match=r"quantize must be called of a layer in float32; got .*float64"):
        MAKERS[name](dtype=np.float64).quantize("int8")
    with pytest.raises(ValueError, match=r"quantize must be called of a layer in float; got .*quantize\('int8'\)"):
        layer.quantize("int8").quantize("int8")
    with pytest.raises(ValueError, match=r"with_precision must be called of a layer in float; got .*'int8'\)"):
        layer.quantize("int8").with_precision("medium")
    monkeypatch.setattr("numba_pack.layers.module.backend", "cuda")
    with pytest.raises(ValueError, match="quantize is for the CPU; the backend is cuda"):
        layer.quantize("int8")


def test_it_is_not_exported_to_onnx(tmp_path):
    pytest.importorskip("onnx", reason="it writes the files")
    with pytest.raises(TypeError, match="export must be called of a layer in float"):
        nbp.interop.onnx.export(MAKERS["GRU"]().quantize("int8"), tmp_path / "model")


def test_more_than_65536_products_are_not_summed():
    assert nbp.RNN(65536, 1).quantize("int8").input_size == 65536
    with pytest.raises(ValueError, match="at most 65536 terms; weight_ih_l0 has 65537 columns"):
        nbp.RNN(65537, 1).quantize("int8")


# -- copies, pickles and files -----------------------------------------------------------------------------------------


def bits(layer):
    x = sequences()[0]
    return leaves(layer(x)), layer.state_dict()


@pytest.mark.parametrize("name", QUICK)
def test_copies_and_pickles_compute_the_same_bits(name):
    small = MAKERS[name]().quantize("int8")
    for twin in (copy.copy(small), copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert repr(twin) == repr(small)
        assert_same_bits(bits(twin), bits(small))


@pytest.mark.parametrize("name", QUICK)
def test_a_file_gives_the_same_bits(name, tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="files are in its format")
    small, path = MAKERS[name]().quantize("int8"), tmp_path / "layer"
    nbp.save(path, {"small": small, "plain": MAKERS["RNN"]()})
    back = nbp.load(path)
    assert repr(back["small"]) == repr(small) and repr(back["plain"]) == "RNN(5, 20)"
    assert_same_bits(bits(back["small"]), bits(small))
    with safetensors.safe_open(path, framework="np") as file:
        held = {key: file.get_slice(key).get_dtype() for key in file.keys() if key.startswith("small.")}  # noqa: SIM118
    expected = {f"small.{key}": {"int8": "I8", "float32": "F32"}[str(v.dtype)] for key, v in small.state_dict().items()}
    assert held == expected


def test_a_damaged_file_is_told(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy", reason="files are in its format")
    small, path = MAKERS["RNN"]().quantize("int8"), tmp_path / "layer"
    state, told = small.state_dict(), '{"": {"kind": "RNN", "nonlinearity": "tanh", "quantize": "int8"}}'
    less = {name: value for name, value in state.items() if name != "weight_hh_l0_scale"}
    for tensors, metadata, message in (
        (less, told, "weight_hh_l0 must have scales weight_hh_l0_scale"),
        ({**state, "weight_hh_l0_scale": np.full(H, np.nan, np.float32)}, told, "must be finite"),
        ({**state, "bias_ih_l0_scale": np.ones(H, np.float32)}, told, r"too many: \['bias_ih_l0_scale'\]"),
        (state, told.replace('"int8"', '"int4"'), "it must be quantized to 'int8', or not; its metadata tell 'int4'"),
        (state, told.replace(', "quantize": "int8"', ""), "must be F16, BF16, F32 or F64; it is I8"),
    ):
        numpy.save_file(tensors, path, {"numba_pack": metadata})
        with pytest.raises(ValueError, match=message):
            nbp.load(path)
